"""Cold stampedes: processes that all want the same key at once, again and again.

The members meet at a barrier, to which the parent comes, too, before each stampede and after it. A
member has one caller, or several threads (or tasks, on asyncio) at once.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from .cache_sides import ASYNC, Get, Plan, ended, make, make_async
from .crew import Crew
from .servers import Server

PATIENCE = 120.0
"""Seconds after which a member that does not come to the barrier has failed."""


class Seen(NamedTuple):
    """What one caller saw: when the getters that it ran ended, when it had it, what went wrong."""

    ended: list[float]
    got: float
    error: str


class Stampede(NamedTuple):
    """One stampede.

    Attributes:
        calls: of the getter.
        errors: how many callers got an exception.
        delays: seconds from the end of the first getter to the value in each waiter's hand.
    """

    calls: int
    errors: int
    delays: list[float]


class Storm:
    """Members that are ready for stampedes.

    Args:
        server: where.
        kind: the side.
        processes: how many members.
        callers: threads or tasks of each.
        plan: of the getter.
        number: how many stampedes there will be.
    """

    def __init__(
        self, server: Server, kind: str, processes: int, callers: int, plan: Plan, number: int
    ) -> None:
        server.empty()
        self.number = number
        self._barrier: Any = multiprocessing.get_context("spawn").Barrier(processes + 1)
        member = _storming_async if kind in ASYNC else _storming
        args = (server.url, kind, callers, plan, number, self._barrier)
        self._crew = Crew(*[(member, (index, *args)) for index in range(processes)]).start()

    @contextmanager
    def once(self) -> Iterator[None]:
        """One stampede, between two states in which nothing goes on."""
        self._barrier.wait(PATIENCE)
        yield
        self._barrier.wait(PATIENCE)

    def end(self) -> list[Stampede]:
        """What was seen, when all of them are over."""
        members: list[list[list[Seen]]] = self._crew.join().values
        return [
            _sum([seen for member in members for seen in member[at]]) for at in range(self.number)
        ]


def storm(
    server: Server, kind: str, processes: int, callers: int, plan: Plan, number: int
) -> list[Stampede]:
    """So many stampedes."""
    made = Storm(server, kind, processes, callers, plan, number)
    for _ in range(number):
        with made.once():
            pass
    return made.end()


def _sum(seen: list[Seen]) -> Stampede:
    ends = [end for one in seen for end in one.ended]
    delays = [one.got - min(ends) for one in seen if not one.ended and not one.error and ends]
    return Stampede(len(ends), sum(bool(one.error) for one in seen), delays)


def _storming(
    index: int, url: str, kind: str, callers: int, plan: Plan, number: int, barrier: Any
) -> Callable[[], list[list[Seen]]]:
    get = make(kind, url, plan, index)

    def act() -> list[list[Seen]]:
        return [storm_once(f"key:{at}") for at in range(number)]

    def storm_once(key: str) -> list[Seen]:
        found: list[Seen] = []
        others = [
            threading.Thread(target=lambda: found.append(call(get, plan, key)))
            for _ in range(callers - 1)
        ]
        barrier.wait(PATIENCE)
        for other in others:
            other.start()
        found.append(call(get, plan, key))
        for other in others:
            other.join()
        barrier.wait(PATIENCE)
        return found

    return act


def call(get: Get, plan: Plan, key: str) -> Seen:
    """Call it once."""
    mine: list[float] = []
    ended.set(mine)
    error = ""
    try:
        wrong = get(key) != plan.value
    except Exception as raised:
        error = type(raised).__name__
    got = time.monotonic()
    return Seen(mine, got, error or "wrong" * wrong)


def _storming_async(
    index: int, url: str, kind: str, callers: int, plan: Plan, number: int, barrier: Any
) -> Callable[[], list[list[Seen]]]:
    loop = asyncio.new_event_loop()
    get = loop.run_until_complete(make_async(kind, url, plan, index))

    async def act() -> list[list[Seen]]:
        return [await storm_once(f"key:{at}") for at in range(number)]

    async def storm_once(key: str) -> list[Seen]:
        await asyncio.to_thread(barrier.wait, PATIENCE)
        found = await asyncio.gather(*[call_async(get, plan, key) for _ in range(callers)])
        await asyncio.to_thread(barrier.wait, PATIENCE)
        return list(found)

    return lambda: loop.run_until_complete(act())


async def call_async(get: Get, plan: Plan, key: str) -> Seen:
    """Call it once."""
    mine: list[float] = []
    ended.set(mine)
    error = ""
    try:
        wrong = await get(key) != plan.value
    except Exception as raised:
        error = type(raised).__name__
    got = time.monotonic()
    return Seen(mine, got, error or "wrong" * wrong)
