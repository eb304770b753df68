"""What the benchmarks' commands have in common: their options, what they print, and when."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from .servers import KINDS, Server
from .table import Row, lines

Sections = Callable[[Server, str, Namespace], Iterator[tuple[str, Iterable[Row]]]]


def command(name: str, sections: Sections, peers: Sequence[str] = ()) -> int:
    """Run a benchmark's command.

    Args:
        name: of its module.
        sections: what is measured on a server of a kind, in order; a section runs when its rows
            are asked for.
        peers: distributions that are measured beside us.

    Returns:
        1 when a bar is missed.
    """
    parser = ArgumentParser(prog=f"python -m bench.{name}")
    add_options(parser)
    parser.add_argument("--only", default="", metavar="WORD", help="sections with WORD in the name")
    parser.add_argument("--out", metavar="FILE", help="write the table there, too")
    options = parser.parse_args()
    kinds = KINDS if options.server == "both" else (options.server,)
    texts = [_head(name, peers)]
    print(texts[0], flush=True)
    missed = False
    for kind in kinds:
        title, rows = _measure(kind, sections, options)
        missed = missed or any(row.ok is False for row in rows)
        head, *body = lines(rows)
        head = head.replace("bare", "peer") if peers else head
        texts.append("\n".join(["", title, "", head, *body]))
        print(texts[-1], flush=True)
    if options.out:
        with open(options.out, "w") as file:
            file.write("\n".join(texts) + "\n")
    return int(missed)


def add_options(parser: ArgumentParser) -> None:
    """Those that all benchmarks have."""
    parser.add_argument("--server", choices=[*KINDS, "both"], default="valkey")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: a smoke test")
    parser.add_argument("--unix", action="store_true", help="a unix socket instead of loopback")
    parser.add_argument("--patient", action="store_true", help="begin each section in a lull")


def _head(name: str, peers: Sequence[str]) -> str:
    versions = ", ".join(map(_version, ("redis", "hiredis", *peers)))
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"$ python -m bench.{name} {' '.join(sys.argv[1:])}\n"
        f"{time.strftime('%Y-%m-%d %H:%M')}, distlock at {_commit()}, "
        f"Python {platform.python_version()}, {versions}, "
        f"{os.cpu_count()} cores ({platform.machine()}), load before: {load}"
    )


def _version(distribution: str) -> str:
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return f"without {distribution}"


def _commit() -> str:
    """The commit that is measured, as far as git can say."""
    commit = _git("describe", "--always")
    changed = _git("status", "--porcelain", "--", "distlock", "app_start.py", "bench/*.py")
    return (commit or "an unknown commit") + (", changed since" if changed else "")


def _git(*words: str) -> str:
    done = subprocess.run(("git", *words), capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _measure(kind: str, sections: Sections, options: Namespace) -> tuple[str, list[Row]]:
    rows: list[Row] = []
    with Server(kind, options.unix) as server:
        for name, section in sections(server, kind, options):
            if options.only not in name:
                continue
            if options.patient:
                _wait_for_quiet()
            began = time.monotonic()
            rows += section
            print(f"  {kind}: {name}, {time.monotonic() - began:.0f} s", file=sys.stderr)
        return f"{server.version}, {server.url.split(':')[0]}", rows


def _wait_for_quiet(longest: float = 300.0) -> None:
    """Wait until others leave the cores alone: nine tenths idle for two seconds."""
    deadline = time.monotonic() + longest
    while time.monotonic() < deadline:
        before = _ticks()
        time.sleep(2)
        idle, total = (now - then for now, then in zip(_ticks(), before, strict=True))
        if idle >= 0.9 * total:
            return


def _ticks() -> tuple[int, int]:
    """The cores' ticks since the start of the machine: idle ones, and all."""
    with open("/proc/stat") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
