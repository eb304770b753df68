"""The Lua scripts and their headers, which are the protocol's documentation."""

from __future__ import annotations

import re

import pytest
import redis

from distlock import scripts
from distlock.keys import TYPES, Keys
from distlock.scripts import source
from docs.protocol import header
from tests.tools import Pipe

FORBIDDEN = ("cmsgpack", "struct.", "bit.", "cjson", "KEYS *", "FLUSH", "loadstring")
ALL = scripts.names()


def body(name: str) -> str:
    """A script and its parts without comments."""
    return re.sub(r"--.*", "", scripts.script(name).text)


@pytest.mark.parametrize("name", ALL)
def test_a_header_says_in_a_sentence_what_it_does_and_names_keys_arguments_and_answer(
    name: str,
) -> None:
    said = header(name)
    assert re.match(r" [A-Z].*\.", said[""])
    assert {"KEYS", "ARGV", "RETURNS"} <= set(said)


@pytest.mark.parametrize("name", ALL)
def test_the_header_declares_as_many_keys_and_arguments_as_the_script_uses(name: str) -> None:
    said, code = header(name), body(name)
    for word in ("KEYS", "ARGV"):
        used = max((int(number) for number in re.findall(rf"\b{word}\[(\d+)\]", code)), default=0)
        declared = re.sub(r"\([^)]*\)|\[.*|\.\.\..*|,.*", "", said[word]).split()
        fixed = 0 if declared == ["none"] else len(declared)
        loops = re.search(rf"#{word}|ipairs\({word}\)|unpack\({word}", code)
        assert used <= fixed or loops, (word, used, fixed)
        if not loops:
            assert used == fixed, (word, used, fixed)


@pytest.mark.parametrize("name", ALL)
def test_a_script_is_short_and_leaves_out_what_not_every_server_has(name: str) -> None:
    assert len(source(name).splitlines()) <= 50
    for word in FORBIDDEN:
        assert word not in body(name)


@pytest.mark.parametrize("name", ALL)
def test_every_key_that_a_script_touches_is_declared(name: str) -> None:
    for call in re.findall(r"redis\.call\('(?!PUBLISH)[A-Z]+', ([^,)]+)", body(name)):
        declared = r"KEYS\[|late\[1\]|(key|bell|errors|stats|temp)$|unpack"
        assert re.match(declared, call.strip()), call


def test_every_part_is_used_by_some_script() -> None:
    used = {part for name in ALL for part in header(name).get("USES", "").split()}
    assert used == set(scripts.parts())


def test_the_rights_that_are_checked_are_all_that_the_scripts_send() -> None:
    sent = set()
    for name in ALL:
        if name.startswith("cache_"):
            continue
        sent |= set(re.findall(r"'([A-Z]{3,})'", body(name)))
    words = {"WITHSCORES", "LIMIT"}  # options of commands
    assert sent - words == set(scripts.commands())


def test_the_types_of_keys_are_those_that_a_run_leaves_behind(client: redis.Redis) -> None:
    from distlock.io import SyncIO
    from distlock.pipeline import Outcome

    pipe = Pipe(SyncIO(client), max_queue=3)
    pipe.generator.publish(1, [b"x"] * 9)
    handler = pipe.handler("a")
    handler.exchange(Outcome(), 3)
    handler.rest()
    keys = Keys("test")
    for name, kind in TYPES.items():
        found = client.type(keys.prefix + name).decode()
        assert found in (kind, "none"), name
    assert client.type(keys.temp("a")) == b"hash"
