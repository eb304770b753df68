"""The schedules of the pipeline's and the cache's operations, more of them than CI has time for.

python -m tests.faults.schedules [--part pairs] [--kind valkey] [--world cache] [--every 7]

For both kinds of server: every pair of operations of two clients (`pairs`), every pair while one
thing befalls the first client (`befallen`), every set of three operations (`triples`), and every
pair while something befalls both (`both_befallen`); without --part the first two; with --every N
only each N-th set of programs. It prints how many schedules were tried and how many sets of
programs have a violation; the exit code is 1 if any has. `tests/test_lease_interleavings.py` has
those of the lease alone.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from tests.conftest import BINARIES, Server
from tests.faults import cache_world, pipeline_world
from tests.faults.stepping import Wire, schedules
from tests.tools import Clock

Programs = tuple[tuple[str, ...], ...]
WORLDS: dict[str, Any] = {"pipeline": pipeline_world, "cache": cache_world}


def pairs(world: Any) -> list[Programs]:
    """Every pair of operations; which one is the first client's matters."""
    every = itertools.product(world.OPERATIONS, repeat=2)
    return [*(((a,), (b,)) for a, b in every), *world.MORE]


def befallen(world: Any) -> list[Programs]:
    """Every pair of operations while one thing befalls the first client."""
    every = itertools.product(world.OPERATIONS, world.WITHIN, world.OPERATIONS)
    return [((a, befalls), (b,)) for a, befalls, b in every]


def both_befallen(world: Any) -> list[Programs]:
    """Every pair of operations while one thing befalls each client."""
    programs = list(itertools.product(world.OPERATIONS, world.WITHIN))
    return list(itertools.product(programs, programs))


def triples(world: Any) -> list[Programs]:
    """Every set of three operations of three clients."""
    every = itertools.product(
        world.OPERATIONS, itertools.combinations_with_replacement(world.OPERATIONS, 2)
    )
    return [((a,), (b,), (c,)) for a, (b, c) in every]


PARTS = {part.__name__: part for part in (pairs, befallen, triples, both_befallen)}


def tried(begin: Callable[[Programs], Any], every: Iterable[Programs]) -> int:
    """Run all schedules of these programs; returns how many, or raises at a violation."""
    return sum(1 for programs in every for _ in schedules(partial(begin, programs)))


def pipeline(wire: Wire, clock: Clock, programs: Programs) -> pipeline_world.World:
    """One schedule of the pipeline."""
    return pipeline_world.World(wire, clock, programs)


def cache(wire: Wire, clock: Clock, programs: Programs) -> cache_world.World:
    """One schedule of the cache."""
    return cache_world.World(wire, programs)


def measure(server: Server, what: str, sets: Sequence[Programs]) -> tuple[int, int]:
    """Schedules tried, and sets of programs among whose schedules there is a violation."""
    begin, count, wrong = {"pipeline": pipeline, "cache": cache}[what], 0, 0
    with pytest.MonkeyPatch.context() as patch, closing(Wire(server.url)) as wire:
        clock = Clock(patch)
        for programs in sets:
            try:
                count += tried(partial(begin, wire, clock), [programs])
            except AssertionError as error:
                wrong += 1
                print(f"violation: {programs}: {error}; {' '.join(error.__notes__)}", flush=True)
    return count, wrong


def main() -> None:
    """Run all, and print a line for each part."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.schedules")
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--kind", choices=sorted(BINARIES), action="append", help="of server")
    parser.add_argument("--every", type=int, default=1, help="only each so-many-th set")
    parser.add_argument("--world", choices=WORLDS, action="append")
    given = parser.parse_args()
    parts = [PARTS[name] for name in given.part or ("pairs", "befallen")]
    wrong = 0
    for kind in given.kind or sorted(BINARIES):
        server = Server(kind)
        try:
            for what, part in itertools.product(given.world or WORLDS, parts):
                began, sets = time.monotonic(), part(WORLDS[what])[:: given.every]
                count, violations = measure(server, what, sets)
                wrong += violations
                print(
                    f"{kind:6}  {what:8}  {part.__name__:13}  {len(sets):6,} sets of programs  "
                    f"{count:9,} schedules  {violations} violations  "
                    f"{time.monotonic() - began:6.0f} s",
                    flush=True,
                )
        finally:
            server.close()
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
