"""What a whole process shares on one server: connections at rest, turns, and a keeper.

Rules:

- A synchronous IO is borrowed by one thread at a time; how many there are is how many threads were
  ever at work at once. An event loop has one IO for all its tasks.
- One thread (or task) keeps all that is held: it wakes when the next thing is due, has connections
  of its own, and ends when there has been nothing to keep for a while.
- A process that was forked begins with nothing: its parent's connections are not its own.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar, Protocol
from weakref import WeakKeyDictionary, WeakSet

import redis
import redis.asyncio

from .asynchronous import AsyncIO
from .base import IO, run
from .route import AsyncClient, AsyncRoute, Route, SyncClient
from .sync import SyncIO
from .turns import Turns

PATIENCE = 10.0
"""Seconds for which a server that is away is waited for."""
RESTING = 16
"""Synchronous IOs that are kept for the next borrower."""
IDLE = 10.0
"""Seconds after which a keeper that has nothing to keep ends."""
LOOK = 1.0
"""Seconds for which a keeper sleeps at most while things come and go."""
log = logging.getLogger("distlock")


class Kept(Protocol):
    """Something that has to be looked after from time to time.

    Attributes:
        due: monotonic time at which to call `keep`.
        deadline: monotonic time at which it is too late.
        scheduled: the time under which the schedule has it; inf: it has not.
    """

    due: float
    deadline: float
    scheduled: float

    @property
    def kept(self) -> bool:
        """Whether there is anything to keep."""

    async def keep(self, io: IO, until: float) -> None:
        """Do what is due, in no more time than until `until` (monotonic); raise nothing."""


class _Schedule:
    """What is kept, by the time at which it is due.

    What is kept again and again for a moment only, as by a lease that is taken and released, must
    not wake the keeper each time. What is not kept when it is looked at is dropped, but the keeper
    sleeps no longer than to its time: what comes in its place is due later, and calls nobody.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Kept]] = []
        self._number = itertools.count()
        self._dropped = 0.0

    def push(self, kept: Kept) -> None:
        """Add it by its time."""
        kept.scheduled = kept.due
        heapq.heappush(self._heap, (kept.due, next(self._number), kept))

    def next(self) -> float:
        """The monotonic time at which to look again; +inf when there is nothing to keep."""
        while self._heap:
            due, _, kept = self._heap[0]
            if due == kept.scheduled and kept.kept and kept.due <= due:
                return due
            heapq.heappop(self._heap)
            if due == kept.scheduled:
                kept.scheduled = math.inf
                if kept.kept:
                    self.push(kept)
                else:
                    self._dropped = min(due, time.monotonic() + LOOK)
        return self._dropped if self._dropped > time.monotonic() else math.inf

    def pop(self) -> tuple[Kept, float]:
        """Take what is due first, and the first deadline of all."""
        kept = heapq.heappop(self._heap)[2]
        kept.scheduled = math.inf
        others = (other.deadline for _, _, other in self._heap if other.kept)
        return kept, min(others, default=math.inf)


async def _look_after(kept: Kept, io: IO, until: float) -> None:
    """Call `keep`; whatever happens in it, the others are kept on."""
    try:
        await kept.keep(io, until)
    except Exception:
        log.exception("looking after %r failed", kept)
        kept.due = time.monotonic() + LOOK


class Hub:
    """What the threads of a process share on one server.

    Args:
        route: where connections come from; or one IO that is the only one. With that, nothing is
            kept here: whoever gave it does so.
    """

    _all: ClassVar[WeakSet[Hub]] = WeakSet()
    _of: ClassVar[WeakKeyDictionary[SyncClient, dict[str, Hub]]] = WeakKeyDictionary()

    def __init__(self, route: Route | SyncIO) -> None:
        self._route = route
        self.reset()
        self._all.add(self)

    @classmethod
    def of(cls, client: SyncClient, key: str) -> Hub:
        """The hub for a client; on a cluster, for the node of a key."""
        key = key if isinstance(client, redis.RedisCluster) else ""
        hubs = cls._of.setdefault(client, {})
        if key not in hubs:
            hubs[key] = cls(Route(client, key))
        return hubs[key]

    def reset(self) -> None:
        """Begin anew, as a process that was forked does."""
        self.seen: dict[str, int] = {}
        self._resting: list[SyncIO] = []
        self._turns = Turns()
        self._schedule = _Schedule()
        self._wake = threading.Condition()
        self._wakes = 0.0
        self._ended = True

    @contextmanager
    def borrow(self) -> Iterator[SyncIO]:
        """An IO for this thread alone, until the block ends."""
        if isinstance(self._route, SyncIO):
            yield self._route
            return
        try:
            io = self._resting.pop()
        except IndexError:
            io = SyncIO(self._route, PATIENCE, turns=self._turns)
        try:
            yield io
        finally:
            if len(self._resting) < RESTING:
                self._resting.append(io)
            else:
                io.close()

    def keep(self, kept: Kept) -> None:
        """Look after something from now on, until there is nothing to keep."""
        if isinstance(self._route, SyncIO):
            return
        with self._wake:
            if kept.scheduled <= kept.due:
                return
            self._schedule.push(kept)
            if self._ended:
                self._ended = False
                threading.Thread(target=self._keep, name="distlock-keeper", daemon=True).start()
            elif kept.due < self._wakes:
                self._wake.notify()

    def _keep(self) -> None:
        assert isinstance(self._route, Route)
        io, idle, schedule = SyncIO(self._route, 0), math.inf, self._schedule
        while True:
            with self._wake:
                now, due = time.monotonic(), schedule.next()
                idle = min(idle, now + IDLE) if due == math.inf else math.inf
                if due > now:
                    self._ended = now >= idle
                    if self._ended:
                        break
                    self._wakes = min(due, idle)
                    self._wake.wait(self._wakes - now)
                    self._wakes = 0.0  # at work: what comes now is seen before the next wait
                    continue
                kept, until = schedule.pop()
            run(_look_after(kept, io, until))
            with self._wake:
                if kept.kept and kept.due < kept.scheduled:
                    schedule.push(kept)
        io.close()


class AsyncHub:
    """What the tasks of an event loop share on one server.

    Args:
        client: how to reach the server.
        key: on a cluster, the key whose node is meant.
    """

    _of: ClassVar[
        WeakKeyDictionary[
            asyncio.AbstractEventLoop, WeakKeyDictionary[AsyncClient, dict[str, AsyncHub]]
        ]
    ] = WeakKeyDictionary()

    def __init__(self, client: AsyncClient, key: str) -> None:
        self._route = AsyncRoute(client, key)
        self.seen: dict[str, int] = {}
        self.io = AsyncIO(self._route, PATIENCE)
        self._schedule = _Schedule()
        self._wake = asyncio.Event()
        self._wakes = 0.0
        self._keeper: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, client: AsyncClient, key: str) -> AsyncHub:
        """The hub of the running event loop for a client; see Hub."""
        key = key if isinstance(client, redis.asyncio.RedisCluster) else ""
        loop = asyncio.get_running_loop()
        try:
            return cls._of[loop][client][key]
        except KeyError:
            hubs = cls._of.setdefault(loop, WeakKeyDictionary()).setdefault(client, {})
            hubs[key] = cls(client, key)
            return hubs[key]

    def keep(self, kept: Kept) -> None:
        """Look after something from now on, until there is nothing to keep."""
        if kept.scheduled <= kept.due:
            return
        self._schedule.push(kept)
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name="distlock-keeper")
        elif kept.due < self._wakes:
            self._wake.set()

    async def _keep(self) -> None:
        io, idle, schedule = AsyncIO(self._route, 0), math.inf, self._schedule
        try:
            while True:
                now, due = time.monotonic(), schedule.next()
                idle = min(idle, now + IDLE) if due == math.inf else math.inf
                if due <= now:
                    kept, until = schedule.pop()
                    await _look_after(kept, io, until)
                    if kept.kept and kept.due < kept.scheduled:
                        schedule.push(kept)
                    continue
                if now >= idle:
                    break
                self._wakes = min(due, idle)
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._wakes - now):
                        await self._wake.wait()
                self._wakes = 0.0  # at work: what comes now is seen before the next wait
        finally:
            io.close()


def _after_fork() -> None:
    for hub in list(Hub._all):
        hub.reset()


os.register_at_fork(after_in_child=_after_fork)
