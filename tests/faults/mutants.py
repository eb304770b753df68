"""Mutants: our scripts and cores are broken in one place at a time, and the tests must notice.

    python -m tests.faults.mutants [--only WORD] [--sample N] [--jobs N] [--list] [--out FILE]

Every script is broken by rule (see `RULES`): a write is left out, a check never refuses, a write
comes too early. The cores in Python are broken by hand (`CORES`). Each mutant is a copy of the
whole tree in which that one place differs; there the tests that belong to the script run, the
quickest first, on Valkey alone. A mutant is killed when a test fails or hangs. That the headers of
a script do not fit any more (tests/test_scripts.py) is no proof. First the same tests run in a copy
that is whole: they must pass.

What survives although the tests are whole has no effect that a user could see; `REASONS` says why.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LUA = ROOT / "distlock" / "lua"
HANGS = 300
"""Seconds after which a test file hangs."""
LEFT_OUT = (".git", ".venv", "__pycache__", ".*_cache", "*.egg-info", "bench")
LAST = ("faults/test_all_or_nothing", "faults/test_orders")
PIPELINE = ("test_promises", "faults/test_pipeline_model", "test_cli", "test_copies", *LAST)
LEASE = ("test_lease_model", "test_lease", "test_lease_interleavings", "test_lease_faults", *LAST)
CACHE = ("test_cache_model", "test_cache", "test_cache_near", "test_cache_faults", *LAST)
TESTS = {
    "_guard": LEASE,
    "_term": LEASE,
    "_grant": LEASE,
    "_flight": CACHE,
    "_keep": CACHE,
    "_wake": CACHE,
    "lease": LEASE,
    "cache": CACHE,
}
"""The test files of a script by its name, or by the first word of that; else PIPELINE."""
UNSEEN = ("server_check", "status_read", "verify_ask", "verify_page")
"""Scripts that write nothing and promise nothing."""


class Mutant(NamedTuple):
    """One broken place.

    Attributes:
        name: of it.
        path: the file, from the root.
        old: the text, which is there once from `at` on.
        new: what stands there instead.
        tests: the files that ought to notice.
        at: where in the file.
    """

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]
    at: int = 0


class Fate(NamedTuple):
    """What became of a mutant.

    Attributes:
        mutant: which.
        killer: the test that failed, "" when none did.
        seconds: that it took.
    """

    mutant: Mutant
    killer: str
    seconds: float


# --- by rule --------------------------------------------------------------------------------------

WRITE = re.compile(r"^ *(if .* then )?redis\.call\('(?!HLEN|ZCARD|LLEN|GET)[A-Z]+'.*\)( end)?$")
CHECK = re.compile(r"^( *(?:else)?if )(.+)( then return .*)$")


def _without_a_write(lines: list[str], at: int) -> list[str] | None:
    """A write is left out."""
    return [] if WRITE.match(lines[at]) else None


def _without_a_check(lines: list[str], at: int) -> list[str] | None:
    """A check never refuses."""
    found = CHECK.match(lines[at])
    return [f"{found[1]}false{found[3]}"] if found else None


def _without_a_half(lines: list[str], at: int) -> list[str] | None:
    """Only the first half of a check is left."""
    found = re.match(r"^( *(?:else)?if .+?) (?:or|and) .+?( then(?: .*)?)$", lines[at])
    return (
        [f"{found[1]}{found[2]}"] if found and found[1].count("(") == found[1].count(")") else None
    )


def _swapped(lines: list[str], at: int) -> list[str] | None:
    """A write comes before what stands before it."""
    if at == 0 or not WRITE.match(lines[at]) or WRITE.match(lines[at - 1]):
        return None
    before = lines[at - 1].strip()
    if not before.startswith("local ") or before.endswith(("{", "(", "and", "or")):
        return None
    return [lines[at], lines[at - 1]]


Rule = Callable[[list[str], int], list[str] | None]
RULES: dict[str, Rule] = {
    "no write": _without_a_write,
    "no check": _without_a_check,
    "half a check": _without_a_half,
    "swapped": _swapped,
}


def _of_scripts() -> Iterator[Mutant]:
    for path in sorted(LUA.glob("*.lua")):
        if path.stem in UNSEEN:
            continue
        tests = TESTS.get(path.stem) or TESTS.get(path.stem.split("_")[0]) or PIPELINE
        yield from _of_script(path, tests)


def _of_script(path: Path, tests: tuple[str, ...]) -> Iterator[Mutant]:
    text = path.read_text()
    lines = text.splitlines()
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    for at, line in enumerate(lines):
        bare = re.sub(r" -- .*$", "", line)
        for title, rule in RULES.items():
            new = rule([*lines[:at], bare], at)
            if new is None or line.startswith("--"):
                continue
            first = at - (title == "swapped")
            old = "\n".join(lines[first : at + 1]) + "\n"
            name = f"{path.stem}:{at + 1} {title}: {bare.strip()}"
            made = "".join(f"{one}\n" for one in new)
            yield Mutant(name, str(path.relative_to(ROOT)), old, made, tests, starts[first])


# --- by hand --------------------------------------------------------------------------------------

TERM, HELD, CORE = "lease/term.py", "lease/core.py", "cache/core.py"
GENERATOR, HANDLER = "pipeline/generator.py", "pipeline/handler.py"
CLAIMING, FLYING = "cache/claiming.py", "cache/flight.py"
CORES: list[tuple[str, str, str, str, tuple[str, ...]]] = [
    (
        "wrong token",
        GENERATOR,
        "lease.owner, lease.token, first",
        "lease.owner, 1, first",
        PIPELINE,
    ),
    ("next id", GENERATOR, "enumerate(bodies, first)", "enumerate(bodies, first + 1)", PIPELINE),
    ("deposed goes on", GENERATOR, "if state == -1:", "if state == -9:", PIPELINE),
    ("gap unseen", GENERATOR, "Published(state == -2,", "Published(False,", PIPELINE),
    ("same number", HANDLER, "        self._number += 1\n        began", "        began", PIPELINE),
    ("stays joined", HANDLER, "bool(self._hand) and want > 0", "True", PIPELINE),
    ("no beat", HANDLER, "self.job.handler_ttl / 2:", "self.job.handler_ttl * 2:", PIPELINE),
    (
        "a lost job",
        HANDLER,
        "        if state == -2:\n            raise job_gone",
        "        if state == -9:\n            raise job_gone",
        PIPELINE,
    ),
    (
        "late deadline",
        TERM,
        "max(self.deadline, began + self.ttl)",
        "max(self.deadline, time.monotonic() + 1.5 * self.ttl)",
        LEASE,
    ),
    ("held for ever", TERM, " and time.monotonic() < self.deadline", "", LEASE),
    (
        "write unchecked",
        TERM,
        "        self.check()\n        token = self.token",
        "        token = self.token",
        LEASE,
    ),
    ("told twice", TERM, "            self._untold.pop()", "            self._untold[0]", LEASE),
    ("never told", TERM, "        if self._options.on_lost:\n", "        if False:\n", LEASE),
    ("renewed late", TERM, "began + self.ttl / 3", "began + self.ttl * 2", LEASE),
    (
        "stays in line",
        HELD,
        "                await self._leave(io)\n                return False",
        "                return False",
        LEASE,
    ),
    (
        "not undone",
        HELD,
        "                await io.undo(self._leave(io))\n",
        "                pass\n",
        LEASE,
    ),
    ("same owner", HELD, "{secrets.token_hex(8)}", "owner", LEASE),
    ("unconfirmed", HELD, "if kept and reached >= wanted:", "if kept:", LEASE),
    (
        "later start",
        HELD,
        "start = min(look.sent + (began - look.now) / 1e6, heard)",
        "start = heard + self.ttl",
        LEASE,
    ),
    ("listens later", CLAIMING, "if look.flying and not force:", "if False:", CACHE),
    (
        "not undone",
        CLAIMING,
        '            await io.undo(io.call(LAND, call.keys[:4], (flight.right, "", 0, 0), 1.0))\n',
        "",
        CACHE,
    ),
    (
        "any flight",
        FLYING,
        'return self.seen == words or words.partition(" ")[0] == self.right',
        "return True",
        CACHE,
    ),
    ("not renewed", FLYING, "began + self._ttl / 3", "began + self._ttl * 9", CACHE),
    (
        "no ceiling",
        FLYING,
        "self._ttl > 0 and time.monotonic() < self._ceiling",
        "self._ttl > 0",
        CACHE,
    ),
    ("given up", FLYING, "        else:\n            self.give_up()\n", "", CACHE),
    ("stale as fresh", CORE, "if found and (look.fresh or not found.stale):", "if found:", CACHE),
]
"""Title, file, what is there once, what stands there instead, the tests."""


def _of_cores() -> Iterator[Mutant]:
    for title, name, old, new, tests in CORES:
        path = f"distlock/{name}"
        text = (ROOT / path).read_text()
        if text.count(old) != 1:
            raise SystemExit(f"{title}: {path} has {text.count(old)} times {old!r}")
        yield Mutant(f"{name} {title}", path, old, new, tests)


REASONS: dict[str, str] = {
    "cache_claim:15 swapped: redis.call('SADD', KEYS[4], ARGV[6] .. ' ' .. right)": (
        "what stands before it only reads another key"
    ),
    "lease_acquire:13 half a check: if not owner and redis.call('LLEN', KEYS[3]) > 0 then": (
        "an empty line grants nothing; the question saves two commands"
    ),
}
"""Why a mutant may live, by its name."""


# --- running them ---------------------------------------------------------------------------------


def fate_of(mutant: Mutant) -> Fate:
    """Break a copy of the tree, and have its tests look at it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dl-") as folder:
        tree = Path(folder) / "t"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
        path = tree / mutant.path
        text = path.read_text()
        head, tail = text[: mutant.at], text[mutant.at :]
        assert mutant.old in tail
        path.write_text(head + tail.replace(mutant.old, mutant.new, 1))
        for test in mutant.tests:
            if killer := _failure(tree, test):
                return Fate(mutant, killer, time.monotonic() - began)
    return Fate(mutant, "", time.monotonic() - began)


def _failure(tree: Path, test: str) -> str:
    """The first test of a file that fails, "" if none does."""
    command = [sys.executable, "-m", "pytest", "-xq", "-n", "0", "-p", "no:cacheprovider"]
    command += ["-k", "not redis", f"tests/{test}.py"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tree)}
    process = subprocess.Popen(
        command,
        cwd=tree,
        env=environment,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        said = process.communicate(timeout=HANGS)[0]
    except subprocess.TimeoutExpired:
        return f"{test} hangs"
    finally:
        _end(process)
    if process.returncode == 0:
        return ""
    found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", said, re.MULTILINE)
    return found[1] if found else f"{test} ends with {process.returncode}"


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _whole(mutants: Sequence[Mutant]) -> list[Mutant]:
    """A copy that is whole for each test file that the mutants are shown to."""
    tests = dict.fromkeys(test for one in mutants for test in one.tests)
    return [Mutant(f"whole: {test}", "app_start.py", "", "", (test,)) for test in tests]


def main() -> None:
    """Run them, and print what became of each."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutants")
    parser.add_argument("--only", default="", metavar="WORD", help="mutants with WORD in the name")
    parser.add_argument("--sample", type=int, metavar="N", help="N of them, always the same ones")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="at the same time")
    parser.add_argument("--list", action="store_true", help="name them, and run nothing")
    parser.add_argument("--out", metavar="FILE", help="write the result there, too")
    told = parser.parse_args()
    mutants = [one for one in (*_of_scripts(), *_of_cores()) if told.only in one.name]
    if told.sample:
        mutants = random.Random(1).sample(mutants, min(told.sample, len(mutants)))
    if told.list:
        print(*[one.name for one in mutants], f"{len(mutants)} mutants", sep="\n")
        return
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    say(f"$ python -m tests.faults.mutants {shlex.join(sys.argv[1:])}")
    lived: list[Fate] = []
    with ThreadPoolExecutor(told.jobs) as pool:
        for whole in pool.map(fate_of, _whole(mutants)):
            say(f"{whole.mutant.name}: {whole.killer or 'passes'} ({whole.seconds:.0f} s)")
            if whole.killer:
                raise SystemExit("the tests fail where nothing is broken")
        for fate in pool.map(fate_of, mutants):
            end = f"killed by {fate.killer}" if fate.killer else "LIVES"
            say(f"{fate.mutant.name}: {end} ({fate.seconds:.0f} s)")
            if not fate.killer:
                lived.append(fate)
    killed = len(mutants) - len(lived)
    say(f"{killed} of {len(mutants)} mutants killed, {killed / max(len(mutants), 1):.1%}")
    for fate in lived:
        say(f"lives: {fate.mutant.name}: {REASONS.get(fate.mutant.name, 'NO REASON KNOWN')}")
    if told.out:
        Path(told.out).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
