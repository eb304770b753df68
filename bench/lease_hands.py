"""Rows about handing it on: between two processes, among eight, and among the tasks of one.

An acquire is noted as three times of CLOCK_MONOTONIC, which all processes share: `began`, just
before the call; `got`, when it returned; `freed`, just before the call of release.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from statistics import median, quantiles
from typing import Any, NamedTuple

import redis.asyncio

from distlock import AsyncLease

from .crew import Crew
from .lease_alone import Runs
from .lease_sides import NAME, TTL, BarePair, Side, make, versus
from .peers import present
from .servers import Monitor, Server
from .table import Row, judged

PEER = "redis-lock"

# --- hand-off: from just before the release in one process to the acquire's return in another ---


class Grip(NamedTuple):
    """One acquire."""

    began: float
    got: float
    freed: float


def hand_off(server: Server, rounds: int, number: int) -> Iterator[Row]:
    """Milliseconds of a hand-off between two processes, p50 and p99 of each round."""
    p50: Runs = defaultdict(list)
    p99: Runs = defaultdict(list)
    for at in range(rounds):
        for kind in present("ours", "redis-lock", "bare", "redis-py", "pottery"):
            polls = kind in ("redis-py", "pottery")
            if polls and at:
                continue
            took = quantiles(_handed(server, kind, number // 3 if polls else number), n=100)
            p50[kind].append(took[49] * 1000)
            p99[kind].append(took[98] * 1000)
    what = "hand-off between two processes: ms, p50, beside python-redis-lock"
    yield from versus(what, p50, "redis-lock", "<=", 0.75, ".2f")
    yield from versus(
        "the same, p99, beside python-redis-lock", p99, "redis-lock", "<=", 1.0, ".2f"
    )


def _handed(server: Server, kind: str, number: int) -> list[float]:
    """The seconds that each hand-off took, between two that hold it in turns."""
    server.empty()
    ends = multiprocessing.get_context("spawn").Pipe()
    members = [
        (_holding_in_turns, (server.url, kind, number, name, end))
        for name, end in zip("ab", ends, strict=True)
    ]
    values = Crew(*members).start().join().values
    grips = sorted((grip for value in values for grip in value), key=lambda grip: grip.got)
    return [
        later.got - earlier.freed
        for earlier, later in pairwise(grips)
        if later.began < earlier.freed  # else it did not wait yet
    ]


def _holding_in_turns(
    url: str, kind: str, number: int, name: str, pipe: Connection
) -> Callable[[], list[Grip]]:
    """A member that holds it for 2 to 4 ms, and wants it again once the other one has it."""
    other = "b" if name == "a" else "a"
    side: Side = BarePair(url, name, other) if kind == "bare" else make(kind, url)

    def hold(first: bool = False) -> Grip:
        began = time.monotonic()
        if not (first and kind == "bare"):
            side.acquire()
        got = time.monotonic()
        pipe.send("mine")
        time.sleep(random.uniform(0.002, 0.004))
        freed = time.monotonic()
        side.release()
        return Grip(began, got, freed)

    def act() -> list[Grip]:
        grips = [hold(first=True)] if name == "a" else []
        for _ in range(number // 2):
            pipe.recv()
            grips.append(hold())
        return grips

    return act


# --- eight processes that want it again and again -----------------------------------------------


WARM = 0.3
"""Seconds at the start that do not count, for connections are made in them."""


class Crowd(NamedTuple):
    """What eight did in a while: hand-offs a second, Jain's index of their shares, overtakes."""

    rate: float
    jain: float
    overtakes: float


def crowd(server: Server, rounds: int, seconds: float) -> Iterator[Row]:
    """Eight processes, hold 1 ms, think 2 ms; then think 0; then the commands of both."""
    for think in (0.002, 0.0):
        runs: dict[str, list[Crowd]] = defaultdict(list)
        for at in range(rounds):
            for kind in present("ours", "redis-lock", "redis-py"):
                if kind != "redis-py" or not at:
                    grips = _crowded(server, kind, think, seconds)
                    runs[kind].append(_count(grips, seconds))
        yield from _crowd_rows(runs, think)
    shown = ""
    for kind in present("redis-lock", "ours"):
        monitor = Monitor(server.client)
        grips = _crowded(server, kind, 0.002, seconds, empty=False)
        its = len(monitor.stop().sent) / sum(map(len, grips))
        if kind == "redis-lock":
            shown = f"{its:.2f}"
    yield judged("  commands sent for a hand-off", its, "<=", 4.0, ".2f", shown)


def _crowd_rows(runs: dict[str, list[Crowd]], think: float) -> Iterator[Row]:
    rates = {kind: [crowd.rate for crowd in some] for kind, some in runs.items()}
    what = f"8 processes, hold 1 ms, think {think * 1000:.0f} ms: hand-offs/s"
    what += ", beside python-redis-lock"
    yield from versus(what, rates, "redis-lock", ">=", 1.0 if think else 0, ",.0f")
    jain = {kind: min(crowd.jain for crowd in some) for kind, some in runs.items()}
    over = {kind: median(crowd.overtakes * 100 for crowd in some) for kind, some in runs.items()}
    bar, shown = 0.999 if think else 0.99, f"{jain[PEER]:.4f}" if PEER in jain else ""
    yield judged("  Jain's index, the worst round", jain["ours"], ">=", bar, ".4f", shown)
    its = f"{over[PEER]:.1f}" if PEER in over else ""
    row = judged("  overtakes, %", over["ours"], "<=", 1.0, ".2f", its)
    yield row if think else row._replace(bar="", ok=None)


def _count(grips: list[list[Grip]], seconds: float) -> Crowd:
    """Count what began after the first WARM seconds, and was there before the end."""
    start = min(grip.began for some in grips for grip in some) + WARM
    counted = [[grip for grip in some if grip.began >= start] for some in grips]
    shares = [sum(grip.got < start + seconds for grip in some) for some in counted]
    jain = sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))
    rest = [grip for some in counted for grip in some]
    return Crowd(sum(shares) / seconds, jain, overtakes(rest) / len(rest))


def overtakes(grips: Sequence[Grip]) -> int:
    """How many got it before somebody who had begun to wait before them."""
    number, earliest = 0, math.inf
    for grip in sorted(grips, key=lambda grip: grip.got, reverse=True):
        number += earliest < grip.began
        earliest = min(earliest, grip.began)
    return number


def _crowded(
    server: Server, kind: str, think: float, seconds: float, empty: bool = True
) -> list[list[Grip]]:
    if empty:
        server.empty()
    members = [(_contending, (server.url, kind, think, seconds)) for _ in range(8)]
    values: list[list[Grip]] = Crew(*members).start().join().values
    return values


def _contending(url: str, kind: str, think: float, seconds: float) -> Callable[[], list[Grip]]:
    side = make(kind, url)

    def act() -> list[Grip]:
        grips, end = [], time.monotonic() + WARM + seconds
        while (began := time.monotonic()) < end:
            side.acquire()
            got = time.monotonic()
            time.sleep(0.001)
            grips.append(Grip(began, got, time.monotonic()))
            side.release()
            if think:
                time.sleep(think)
        return grips

    return act


# --- a hundred tasks of one process --------------------------------------------------------------


def tasks(server: Server, rounds: int, seconds: float, number: int = 100) -> Iterator[Row]:
    """A hundred tasks of one event loop that want it again and again, and hold it 1 ms or not."""
    for hold in (0.001, 0.0):
        rates: Runs = defaultdict(list)
        served: dict[str, int] = defaultdict(lambda: number)
        for _ in range(rounds):
            for kind in ("ours", "redis-py"):
                server.empty()
                counts = asyncio.run(_tasks(kind, server.url, seconds, hold, number))
                rates[kind].append(sum(counts) / seconds)
                served[kind] = min(served[kind], sum(count > 0 for count in counts))
        what = (
            f"{number} tasks, hold {hold * 1000:.0f} ms: hand-offs/s, beside redis.asyncio's Lock"
        )
        its, mine = (median(rates[kind]) for kind in ("redis-py", "ours"))
        yield judged(what, mine, ">=", 500, ",.0f", f"{its:,.0f}")
        shown = str(served["redis-py"])
        what = f"  tasks that had it at all in {seconds:g} s"
        yield judged(what, served["ours"], ">=", number, ".0f", shown)


async def _tasks(kind: str, url: str, seconds: float, hold: float, number: int) -> list[int]:
    end = time.monotonic() + seconds
    async with redis.asyncio.Redis.from_url(url) as client:
        sides: list[Any] = [
            AsyncLease(client, NAME) if kind == "ours" else client.lock(NAME, timeout=TTL)
            for _ in range(number)
        ]
        return await asyncio.gather(*(_contend(kind, side, hold, end) for side in sides))


async def _contend(kind: str, side: Any, hold: float, end: float) -> int:
    count, name = 0, "timeout" if kind == "ours" else "blocking_timeout"
    while (left := end - time.monotonic()) > 0:
        if await side.acquire(**{name: left}):
            await asyncio.sleep(hold)
            count += 1
            await side.release()
    return count
