"""The flowchart says what the code does: roles, keys, scripts, their states, exit codes.

docs/flowchart.dot opens with the conventions that are checked here. Whoever adds a role, a state
that a script returns, a place for messages or a script that changes something has to draw it.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import redis

from distlock import errors, scripts
from distlock.pipeline import verify

ROOT = Path(__file__).parents[1]
SOURCE = (ROOT / "docs" / "flowchart.dot").read_bytes()
PICTURE = (ROOT / "flowchart.png").read_bytes()

DOT = "\n".join(line for line in SOURCE.decode().splitlines() if not line.startswith("//"))
NODES = set(re.findall(r"^ +(\w+) \[", DOT, re.MULTILINE)) - {"graph", "node", "edge"}


class Edge(NamedTuple):
    """One edge of the chart: its ends, and the words of its comment."""

    start: str
    end: str
    comment: list[str]


def edges() -> Iterator[Edge]:
    """Every edge; `a -> b -> c` is two."""
    for chain, options in re.findall(r"^ +(\S+(?: -> \S+)+)(.*)$", DOT, re.MULTILINE):
        ends = [end.partition(":")[0] for end in chain.split(" -> ")]
        said = re.search(r'comment="([^"]*)"', options)
        if "style=invis" not in options:
            for start, end in pairwise(ends):
                yield Edge(start, end, said[1].split(", ") if said else [])


EDGES = list(edges())


def load_render() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render", ROOT / "docs" / "render.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


render = load_render()


def header(name: str, field: str) -> str:
    """One field of a script's header, over all its lines."""
    found = re.search(rf"^-- {field}: (.*(?:\n--  .*)*)", scripts.source(name), re.MULTILINE)
    assert found, f"{name}.lua has no {field}"
    return re.sub(r"\s*\n--\s*", " ", found[1])


def declared_keys(name: str) -> set[str]:
    return set(re.findall(r"\w+", header(name, "KEYS")))


def declared_states(name: str) -> set[str]:
    """`{1 applied | -1 deposed, queue}` has the states 1 and -1; other answers have none."""
    states = re.match(r"\{(-?\d+ [^|,}]*(?:\|[^|,}]*)+)", header(name, "RETURNS"))
    return set(re.findall(r"(?:^|\| )(-?\d+) ", states[1])) if states else set()


def used_scripts() -> set[str]:
    """The scripts of the lease and of the pipeline: what a copy of the application sends."""
    files = [
        ROOT / "distlock" / "lease" / f"{name}.py" for name in ("core", "term", "watch", "leaving")
    ]
    files += (ROOT / "distlock" / "pipeline").glob("*.py")
    return {name for file in files for name in re.findall(r'script\("(\w+)"\)', file.read_text())}


def drawn_scripts() -> set[str]:
    commented = {words.split()[0] for edge in EDGES for words in edge.comment}
    return set(re.findall(r"(\w+)\.lua", DOT)) | commented


def drawn_states(name: str) -> set[str]:
    said = [words.split() for edge in EDGES for words in edge.comment]
    return {words[1] for words in said if words[0] == name and len(words) > 1}


def roles() -> Iterator[str]:
    """Every text that something in distlock/worker gives to an attribute named `role`."""
    for file in (ROOT / "distlock" / "worker").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = {getattr(target, "attr", getattr(target, "id", "")) for target in targets}
                if "role" in names and isinstance(node.value, ast.Constant):
                    yield str(node.value.value)


def exit_codes() -> set[str]:
    """0 and 130 are no errors; every other code belongs to a type of error."""
    types: list[type[errors.DistlockError]] = [errors.DistlockError]
    types += errors.DistlockError.__subclasses__()
    return {"0", "130"} | {str(type.exit_code) for type in types}


def test_every_end_of_an_edge_is_a_node_that_is_described() -> None:
    assert {end for edge in EDGES for end in edge[:2]} == NODES


def test_the_roles_in_the_chart_are_those_that_a_copy_takes() -> None:
    assert set(re.findall(r"cluster_role_(\w+)", DOT)) == set(roles())


def test_the_places_in_the_chart_are_those_that_verify_looks_for_messages_in() -> None:
    drawn = {node.removeprefix("key_") for node in NODES if node.startswith("key_")}
    assert drawn == {*verify.PLACES, "sequence"}


def test_every_move_of_a_message_names_a_script_that_has_both_places() -> None:
    moves = [edge for edge in EDGES if edge.start.startswith("key_")]
    assert {end for move in moves for end in move[:2]} == {
        node for node in NODES if node.startswith("key_")
    }
    for start, end, [name] in moves:
        assert {start, end} <= {f"key_{key}" for key in declared_keys(name)}


def test_every_script_of_a_copy_that_writes_is_in_the_chart_and_no_other(
    client: redis.Redis,
) -> None:
    ask: Callable[..., dict[str, dict[str, list[str]]]] = client.execute_command
    known = ask("COMMAND")

    def writes(name: str) -> bool:
        sent = re.findall(r"redis\.call\('([A-Z]+)'", scripts.script(name).text)
        return any("write" in known[command.lower()]["flags"] for command in sent)

    assert drawn_scripts() == {name for name in used_scripts() if writes(name)}


@pytest.mark.parametrize("name", sorted(used_scripts()))
def test_every_state_that_a_script_returns_is_an_edge_of_the_chart(name: str) -> None:
    assert drawn_states(name) == declared_states(name)


def test_the_scripts_that_decide_where_a_copy_goes_do_return_states() -> None:
    deciding = {name for name in used_scripts() if declared_states(name)}
    assert {"handler_join", "handler_rest", "job_lead", "pipeline_publish"} <= deciding


def test_the_exit_codes_in_the_chart_are_those_of_the_errors() -> None:
    assert set(re.findall(r"exit (\d+)", DOT)) == exit_codes()


def test_the_picture_was_made_of_this_source() -> None:
    kinds = dict(render.chunks(PICTURE))
    assert kinds[b"tEXt"] == render.fingerprint(SOURCE), "run: python docs/render.py"
    assert b"IEND" in kinds


def test_the_picture_is_not_larger_than_a_page_may_carry() -> None:
    assert len(PICTURE) <= 200_000


def test_a_picture_that_was_damaged_is_told_from_a_sound_one() -> None:
    at = len(PICTURE) // 2
    damaged = PICTURE[:at] + bytes([PICTURE[at] ^ 1]) + PICTURE[at + 1 :]
    with pytest.raises(ValueError, match="wrong checksum"):
        list(render.chunks(damaged))
    with pytest.raises(ValueError, match="no PNG"):
        list(render.chunks(b"GIF89a"))


@pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz is not installed")
def test_rendering_carries_the_fingerprint_of_its_source() -> None:
    source = b"digraph { a -> b }"
    kinds = dict(render.chunks(render.render(source)))
    assert kinds[b"tEXt"] == render.fingerprint(source)
    assert b"\xff\xff\xff" in kinds[b"PLTE"]
