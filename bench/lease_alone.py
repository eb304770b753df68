"""Rows about one holder whom nobody disturbs: the cost of an acquire and a release."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

import redis

from distlock import Lease

from .lease_sides import NAME, TTL, Side, make, make_async, versus
from .peers import present
from .servers import Monitor, Server, Spent
from .table import Row, beside, judged

SIDES = present("ours", "redis-py", "redis-lock", "pottery", "bare")
ASYNC_SIDES = ("ours", "redis-py", "bare")
Runs = dict[str, list[float]]


class Costs:
    """Microseconds for an acquire and a release, round by round.

    Attributes:
        clock: by the clock.
        cpu: of CPU, this process and the server together.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.clock: Runs = defaultdict(list)
        self.cpu: Runs = defaultdict(list)

    def add(self, kind: str, pairs: int, run: Callable[[], object]) -> None:
        """Measure a run of so many pairs."""
        spent, began = Spent(self._server.client), time.perf_counter()
        run()
        self.clock[kind].append((time.perf_counter() - began) / pairs * 1e6)
        self.cpu[kind].append(spent.stop().cpu / pairs * 1e6)

    def rows(self, what: str, bar: float) -> Iterator[Row]:
        """Ours beside redis-py's, and beside all others; `bar` 0: there is none."""
        first, *others = versus(what, self.clock, "redis-py", "<=", bar, ".0f")
        yield first
        cpu = beside("  us of CPU of both ends", self.cpu["redis-py"], self.cpu["ours"], ".0f")
        yield cpu[0]
        yield from others


def alone(server: Server, rounds: int, pairs: int) -> Iterator[Row]:
    """One thread acquires and releases, by one object; then in `with`, by a new one each time."""
    server.empty()
    costs, sides = Costs(server), {kind: make(kind, server.url) for kind in SIDES}
    for side in sides.values():
        _repeat(side, 20)
    for at in range(rounds):
        for kind, side in sides.items():
            if kind != "pottery" or at % 10 == 0:
                costs.add(kind, pairs, partial(_repeat, side, pairs))
    yield from costs.rows("acquire + release: us, beside redis-py's Lock", 1.05)
    yield _commands(server, sides["ours"])
    yield from _fresh(server, rounds, pairs)


def _repeat(side: Side, pairs: int) -> None:
    acquire, release = side.acquire, side.release
    for _ in range(pairs):
        acquire()
        release()


def _commands(server: Server, side: Side) -> Row:
    monitor = Monitor(server.client)
    _repeat(side, 100)
    sent = len(monitor.stop().sent) / 100
    return judged("  commands sent", sent, "<=", 2.0, ".2f")


def _fresh(server: Server, rounds: int, pairs: int) -> Iterator[Row]:
    costs, client = Costs(server), redis.Redis.from_url(server.url)
    makers: dict[str, Callable[[], object]] = {
        "ours": lambda: Lease(client, NAME),
        "redis-py": lambda: client.lock(NAME, timeout=TTL),
    }
    for _ in range(rounds):
        for kind, maker in makers.items():
            costs.add(kind, pairs, partial(_repeat_with, maker, pairs))
    yield from costs.rows("the same in `with`, a new object each time: us", 0)


def _repeat_with(maker: Callable[[], object], pairs: int) -> None:
    for _ in range(pairs):
        with maker():  # type: ignore[attr-defined]
            pass


def alone_async(server: Server, rounds: int, pairs: int) -> Iterator[Row]:
    """The same by one task of an event loop, by one object."""
    server.empty()
    costs = Costs(server)
    with asyncio.Runner() as runner:
        sides = {kind: make_async(kind, server.url) for kind in ASYNC_SIDES}
        for side in sides.values():
            _run_async(runner, side, 20)
        for _ in range(rounds):
            for kind, side in sides.items():
                costs.add(kind, pairs, partial(_run_async, runner, side, pairs))
        monitor = Monitor(server.client)
        _run_async(runner, sides["ours"], 100)
        sent = len(monitor.stop().sent) / 100
    yield from costs.rows("asyncio: acquire + release: us, beside redis.asyncio's Lock", 1.05)
    yield judged("  commands sent", sent, "<=", 2.0, ".2f")


def _run_async(runner: asyncio.Runner, side: Side, pairs: int) -> None:
    runner.run(_repeat_async(side, pairs))


async def _repeat_async(side: Side, pairs: int) -> None:
    acquire, release = side.acquire, side.release
    for _ in range(pairs):
        await acquire()
        await release()
