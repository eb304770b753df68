"""README, CONTRIBUTING and all of docs/ are true: every block runs, and prints what they show.

Each section (`##`) runs by itself, in a folder that looks like a clone and on an embedded server:

- a `sh` block runs as written; one that begins with `# in each terminal` runs three times at once;
- of a line that sets up a venv, the program part runs, with the Python that runs the tests;
- a `python` block is saved under the name in its first line, for the `sh` blocks after it;
- an `acl` block is a command that the server takes;
- a `text` block is in the output of the `sh` block before it, up to its numbers;
- any other block fails: nothing would test it;
- redis://localhost in a Python file is the embedded server.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

import distlock
from distlock import scripts
from distlock.errors import DistlockError
from distlock.server import Embedded
from docs import protocol
from tests.tools import ROOT, activated

README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [
        *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "examples" / "README.md",
    ]
}
SETUP_AND_DEMO = (
    "python3 -m venv .venv && .venv/bin/pip install -qr requirements.txt "
    "&& .venv/bin/python app_start.py demo"
)
SETUP_AND_TESTS = (
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' "
    "&& .venv/bin/python -m pytest -q"
)
EACH_TERMINAL = "# in each terminal\n"
SECONDS = 300
"""After this a block counts as endless."""
SHORTER = {
    "python app_start.py demo": "python app_start.py demo --messages 2000",
    "python app_start.py cache demo": "python app_start.py cache demo --first 1000 --count 3 "
    "--workers 4 --work 0.5 --expire 2",
    "python -m pytest -q": f"cd {shlex.quote(str(ROOT))} && python -m pytest -q --collect-only",
    "python -m bench.pipeline": "python -m bench.pipeline --quick --only reclaim",
    "python docs/reference.py": "python -c 'from docs.reference import load; load()'",
    "ruff": "true",
    "mypy": "true",
}
"""What would run for long, run this test in itself, needs another extra, or is CI's own."""


class Block(NamedTuple):
    """One fenced block.

    Attributes:
        section: its page and the heading above it.
        language: what stands behind the fence.
        text: its lines.
    """

    section: str
    language: str
    text: str


def parse(page: str) -> Iterator[Block]:
    section, language, lines = page, None, list[str]()
    for line in PAGES[page].splitlines(keepends=True):
        if line.startswith("```"):
            if language is not None:
                yield Block(section, language, "".join(lines))
            language, lines = line[3:].strip() if language is None else None, []
        elif language is not None:
            lines.append(line)
        elif line.startswith("## "):
            section = f"{page}: {line[3:].strip()}"
    assert language is None, f"a block of section {section!r} has no end"


BLOCKS = [block for page in PAGES for block in parse(page)]
SECTIONS = list(dict.fromkeys(block.section for block in BLOCKS))


def command(line: str) -> str:
    """The line as it is run here."""
    line = re.sub(r"^python3 -m venv .* && \.venv/bin/(?=python )", "", line)
    line = re.sub(r"^(\.venv/bin/)?pip install [^&]*$", "true", line)
    for start, instead in SHORTER.items():
        if line.startswith(start):
            return instead + line.removeprefix(start)
    return line


def shape(text: str) -> str:
    """The text without its numbers and the width of its gaps."""
    return re.sub(r"[ \t]+", " ", re.sub(r"\d[\d,.]*", "#", text))


class Clone:
    """A folder that looks like a clone with its venv, on an embedded server of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dl-", dir="/tmp"))
        self.embedded = Embedded(self.folder / "server")
        self.environment = activated(self.folder / "bin")
        self.environment["DISTLOCK_HOME"] = str(self.embedded.folder)
        for name in ("app_start.py", "bench"):
            (self.folder / name).symlink_to(ROOT / name)
        shutil.copytree(ROOT / "docs", self.folder / "docs")

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start a block: it ends at its first line that fails."""
        return subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, block: str) -> str:
        """Run a `sh` block, in one terminal or in three; returns what it printed."""
        script = "\n".join(command(line) for line in block.splitlines())
        terminals = [self.start(script) for _ in range(3 if block.startswith(EACH_TERMINAL) else 1)]
        try:
            printed = [terminal.communicate(timeout=SECONDS)[0] for terminal in terminals]
        finally:
            for terminal in terminals:
                with suppress(ProcessLookupError):
                    os.killpg(terminal.pid, signal.SIGKILL)
        for terminal, text in zip(terminals, printed, strict=True):
            assert terminal.returncode == 0, f"{script}\nexits {terminal.returncode}:\n{text}"
        return "".join(printed)

    def close(self) -> None:
        """Stop the server and delete everything."""
        self.embedded.stop()
        shutil.rmtree(self.folder)


@pytest.fixture
def clone() -> Iterator[Clone]:
    """A clone whose embedded server runs, so that no other server is found."""
    clone = Clone()
    clone.embedded.start()
    yield clone
    clone.close()


@pytest.mark.parametrize("section", SECTIONS)
def test_every_block_of_a_section_runs_and_prints_what_the_readme_shows(
    section: str, clone: Clone
) -> None:
    printed = ""
    for _, language, text in (block for block in BLOCKS if block.section == section):
        if language == "sh":
            printed = clone.run(text)
        elif language == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name, f"a python block names no file in its first line:\n{text}"
            text = text.replace("redis://localhost", clone.embedded.url)
            (clone.folder / name[1]).write_text(text)
        elif language == "text":
            for line in text.splitlines():
                assert shape(line) in shape(printed), f"{line!r} is not in:\n{printed}"
        elif language == "acl":
            with redis.Redis.from_url(clone.embedded.url) as client:
                assert client.execute_command(*text.split()) == b"OK"
        else:
            pytest.fail(f"nothing runs a block of kind {language!r}:\n{text}")


def test_every_python_block_is_run_by_a_command_of_its_section() -> None:
    for block in BLOCKS:
        if block.language == "python":
            module = block.text.split()[1].removesuffix(".py")
            later = BLOCKS[BLOCKS.index(block) + 1 :]
            commands = [other.text for other in later if other.section == block.section]
            assert any(re.search(rf"\b{module}(\.py|:)", text) for text in commands)


@pytest.mark.parametrize("line", [SETUP_AND_DEMO, SETUP_AND_TESTS])
def test_one_line_does_all_the_set_up(line: str) -> None:
    assert [block.language for block in BLOCKS if line + "\n" == block.text] == ["sh"]


def test_what_the_set_up_installs_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (ROOT / "requirements.txt").read_text().split() == ["-e", ".[server]"]
    assert {"server", "test"} <= project["optional-dependencies"].keys()
    assert project["scripts"] == {"distlock": "distlock.cli:main"}


def test_the_exit_codes_of_the_readme_are_those_of_the_errors() -> None:
    types: list[type[DistlockError]] = [DistlockError, *DistlockError.__subclasses__()]
    documented = {int(code) for code in re.findall(r"^\| (\d+) \| [^|]*\|$", README, re.MULTILINE)}
    assert documented == {0, 130} | {type.exit_code for type in types}


PROMISES = re.findall(r"^\| (\d+) \| .* \| ([^|]*) \|$", README, re.MULTILINE)


def test_the_readme_has_every_promise() -> None:
    assert {int(number) for number, _ in PROMISES} == set(range(1, 12))


@pytest.mark.parametrize(("number", "files"), PROMISES)
def test_every_promise_has_tests_of_its_number_in_each_file_it_names(
    number: str, files: str
) -> None:
    named = re.findall(r"`(\S+)`", files)
    assert named
    for file in named:
        its = rf"^def test_(\d+_and_)?{number}_|^\"\"\"Promise {number}:"
        assert re.search(its, (ROOT / file).read_text(), re.MULTILINE)


LINKS = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^):]+)\)", PAGES[page])]


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_every_link_to_a_file_or_a_section_has_one(page: str, target: str) -> None:
    name, _, anchor = target.partition("#")
    file = (ROOT / page).parent / name if name else ROOT / page
    assert file.is_file()
    if anchor:
        heads = re.findall(r"^#+ (.*)", file.read_text(), re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]


def test_every_page_is_short_and_the_first_ones_name_all_of_them() -> None:
    start = PAGES["README.md"] + PAGES["docs/getting-started.md"] + PAGES["CONTRIBUTING.md"]
    for page, text in PAGES.items():
        assert Path(page).name in start
        if page.startswith("docs/"):
            assert len(text.partition("<!-- What follows is made")[0].splitlines()) <= 250


def test_the_protocol_page_is_made_of_the_keys_and_scripts_that_run() -> None:
    text = PAGES["docs/protocol.md"]
    assert protocol.page(text) == text, "run: python docs/protocol.py"
    for name in [*scripts.names(), *scripts.parts()]:
        assert re.search(rf"^### {name}$|^\| `{name}` \|", text, re.MULTILINE)


def test_every_failure_mode_names_a_test_that_there_is() -> None:
    said = [line for line in PAGES["docs/failure-modes.md"].splitlines() if line.startswith("| ")]
    named = {name for line in said for name in re.findall(r"`(test_\w+)`", line)}
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    there = {
        name for text in sources for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)
    }
    assert len(named) > 30
    assert named <= there


@pytest.mark.parametrize("name", [name for name in distlock.__all__ if name != "__version__"])
def test_every_public_name_and_all_of_its_verbs_have_a_docstring(name: str) -> None:
    public = getattr(distlock, name)
    assert inspect.getdoc(public)
    for verb, member in vars(public).items():
        if callable(member) and not verb.startswith("_"):
            assert member.__doc__, f"{name}.{verb}"
