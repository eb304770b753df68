"""The pipeline's speed and memory beside its bare limit: `python -m bench.pipeline`.

Each number of ours stands beside the same moves by bare scripts (bare.py) on the same server in
the same run, the two sides taking turns; a ratio is the median over the rounds. Trust ratios,
never the absolute numbers of a shared machine. All messages have bodies of 90 bytes.

- drain: messages a second of one handler (a copy's own processing with names, fencing, heartbeat
  thread, counters and errors) that empties a full queue with hands of a fixed size.
- commands a message: INFO commandstats over a drain, so commands inside scripts count;
  server us a message: the time of EVALSHA there. commands sent for each hand: by MONITOR.
- two handlers: two processes against one, started together when both are ready; the column `bare`
  holds the one.
- generate: publishes of 500, each fenced and renewing, bodies ready; bare is RPUSH of 500.
- the whole job: three copies as `app_start.py` runs them (roles elected, hands growing, bounded
  queue), from the signal to the end of the last; bare is one RPUSH of 500 after another and two
  movers of 500.
- wake-up: start of a publish to the call of a resting handler's function, in another process;
  bare is RPUSH to a BLPOP.
- idle: what one resting handler sends while a generator elsewhere waits, by MONITOR.
- memory: used_memory of the server, VmHWM of a copy.
- reclaim: a dead handler's hand of 1,000 moved by one script.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

from . import moving, waiting, whole
from .servers import KINDS, Server
from .table import Row, lines

Say = Callable[[str], None]


def main() -> int:
    """Run it; 1 when a bar is missed."""
    options = _options()
    kinds = KINDS if options.server == "both" else (options.server,)
    texts = [_head()]
    print(texts[0], flush=True)
    missed = False
    for kind in kinds:
        title, rows = _measure(kind, options)
        missed = missed or any(row.ok is False for row in rows)
        texts.append("\n".join(["", title, "", *lines(rows)]))
        print(texts[-1], flush=True)
    if options.out:
        with open(options.out, "w") as file:
            file.write("\n".join(texts) + "\n")
    return int(missed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline")
    parser.add_argument("--server", choices=[*KINDS, "both"], default="valkey")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: a smoke test")
    parser.add_argument("--unix", action="store_true", help="a unix socket instead of loopback")
    parser.add_argument("--patient", action="store_true", help="begin each section in a lull")
    parser.add_argument("--only", default="", metavar="WORD", help="sections with WORD in the name")
    parser.add_argument("--out", metavar="FILE", help="write the table there, too")
    return parser.parse_args()


def _head() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("redis", "hiredis"))
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"$ python -m bench.pipeline {' '.join(sys.argv[1:])}\n"
        f"{time.strftime('%Y-%m-%d %H:%M')}, distlock at {_commit()}, "
        f"Python {platform.python_version()}, {versions}, "
        f"{os.cpu_count()} cores ({platform.machine()}), load before: {load}"
    )


def _commit() -> str:
    """The commit that is measured, as far as git can say."""
    words = ("git", "describe", "--always", "--dirty=, changed since")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "an unknown commit"


def _measure(kind: str, options: argparse.Namespace) -> tuple[str, list[Row]]:
    rows: list[Row] = []
    with Server(kind, options.unix) as server:
        for name, section in _sections(server, kind, options):
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


def _sections(
    server: Server, kind: str, options: argparse.Namespace
) -> Iterator[tuple[str, Iterable[Row]]]:
    """What is measured, in order; each runs when its rows are asked for."""
    quick = bool(options.quick)
    sizes = moving.QUICK if quick else moving.FULL
    yield "drain", moving.draining(server, sizes)
    yield "sent", moving.sent(server)
    yield "pair", moving.pair(server, sizes)
    yield "generate", moving.generating(server, sizes)
    yield "job", whole.job(kind, options.unix, sizes.rounds, 100_000 if quick else 1_000_000)
    yield "queued", whole.queued(kind, options.unix, 20_000 if quick else 200_000)
    yield "wide", whole.wide(server, 20 if quick else 100)
    yield "wake", waiting.wake_up(server, 100 if quick else 1000)
    yield "idle", waiting.idle(server, 5 if quick else 15)
    yield "reclaim", waiting.reclaim(server, sizes.rounds)


if __name__ == "__main__":
    sys.exit(main())
