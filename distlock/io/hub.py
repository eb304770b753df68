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
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar
from weakref import WeakKeyDictionary, WeakSet

import redis
import redis.asyncio

from .asynchronous import AsyncIO
from .loops import PerLoop
from .route import AsyncClient, AsyncRoute, Route, SyncClient
from .schedule import Kept, Schedule, look_after
from .sync import SyncIO
from .together import TogetherIO
from .tracking import AsyncTracker, Hear, Stand, Tracker
from .turns import Turns

PATIENCE = 10.0
"""Seconds for which a server that is away is waited for."""
RESTING = 16
"""Synchronous IOs that are kept for the next borrower."""
IDLE = 10.0
"""Seconds after which a keeper that has nothing to keep ends."""


class Hub:
    """What the threads of a process share on one server.

    Args:
        route: where connections come from; or one IO that is the only one. With that, nothing is
            kept here: whoever gave it does so.
    """

    _all: ClassVar[WeakSet[Hub]] = WeakSet()
    _of: ClassVar[WeakKeyDictionary[SyncClient, dict[str, Hub]]] = WeakKeyDictionary()
    _making: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, route: Route | SyncIO) -> None:
        self._route = route
        self.reset()
        self._all.add(self)

    @classmethod
    def of(cls, client: SyncClient, key: str, node: str = "") -> Hub:
        """The hub for a client; on a cluster, for the node of a key, or for one of its nodes."""
        if not isinstance(client, redis.RedisCluster):
            key = node = ""
        with cls._making:
            hubs = cls._of.setdefault(client, {})
            if (node or key) not in hubs:
                hubs[node or key] = cls(Route(client, key, node))
            return hubs[node or key]

    def reset(self) -> None:
        """Begin anew, as a process that was forked does."""
        self.seen: dict[str, int] = {}
        self._resting: list[SyncIO] = []
        self._turns = Turns()
        self._schedule = Schedule()
        self._wake = threading.Condition()
        self._wakes = 0.0
        self._ended = True
        self._presence: SyncIO | None = None
        self._present = threading.Lock()

    def take(self) -> SyncIO:
        """An IO for this thread alone, until it is given back."""
        if isinstance(self._route, SyncIO):
            return self._route
        try:
            return self._resting.pop()
        except IndexError:
            return SyncIO(self._route, PATIENCE, turns=self._turns)

    def give(self, io: SyncIO) -> None:
        """Give one back."""
        if io is self._route:
            return
        if len(self._resting) < RESTING:
            self._resting.append(io)
        else:
            io.close()

    @contextmanager
    def borrow(self) -> Iterator[SyncIO]:
        """An IO for this thread alone, until the block ends."""
        io = self.take()
        try:
            yield io
        finally:
            self.give(io)

    async def presence(self, seconds: float) -> str:
        """The ids of two connections that live as long as this process does, and the server's."""
        if not self._present.acquire(timeout=max(seconds, 0)):
            return ""  # another thread asks, and has no answer yet
        try:
            if self._presence is None:
                assert isinstance(self._route, Route)
                self._presence = SyncIO(self._route, 0)
            return await self._presence.presence(seconds)
        finally:
            self._present.release()

    def track(self, prefix: str, hear: Hear, stand: Stand) -> None:
        """Tell of keys that change, until the owner of the methods is gone; see Tracker."""
        assert isinstance(self._route, Route)
        Tracker(self._route, prefix, hear, stand)

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
        io, idle, schedule = TogetherIO(self._route, 0), math.inf, self._schedule
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
                due_now, until = schedule.pop(now)
            io.run_all([look_after(kept, io, until) for kept in due_now])
            with self._wake:
                schedule.push_again(due_now)
        io.close()


class AsyncHub:
    """What the tasks of an event loop share on one server.

    Args:
        client: how to reach the server.
        key: on a cluster, the key whose node is meant.
        node: on a cluster, the name of a node, instead of a key.
    """

    _of: ClassVar[PerLoop[WeakKeyDictionary[AsyncClient, dict[str, AsyncHub]]]] = PerLoop(
        WeakKeyDictionary
    )

    def __init__(self, client: AsyncClient, key: str, node: str = "") -> None:
        self._route = AsyncRoute(client, key, node)
        self.seen: dict[str, int] = {}
        self.io = AsyncIO(self._route, PATIENCE)
        self._schedule = Schedule()
        self._wake = asyncio.Event()
        self._wakes = 0.0
        self._keeper: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, client: AsyncClient, key: str, node: str = "") -> AsyncHub:
        """The hub of the running event loop for a client; see Hub."""
        if not isinstance(client, redis.asyncio.RedisCluster):
            key = node = ""
        hubs = cls._of.mine().setdefault(client, {})
        if (node or key) not in hubs:
            hubs[node or key] = cls(client, key, node)
        return hubs[node or key]

    def take(self) -> AsyncIO:
        """The IO of all tasks."""
        return self.io

    def give(self, io: AsyncIO) -> None:
        """Nothing to do: it is shared."""

    async def presence(self, seconds: float) -> str:
        """The ids of two connections that live as long as this event loop does; see Hub."""
        return await self.io.presence(seconds)

    def track(self, prefix: str, hear: Hear, stand: Stand) -> None:
        """Tell of keys that change; see Hub."""
        AsyncTracker(self._route, prefix, hear, stand)

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
                if due <= now:  # all at once: a turn of a busy loop may take long
                    due_now, until = schedule.pop(now)
                    await asyncio.gather(*[look_after(kept, io, until) for kept in due_now])
                    schedule.push_again(due_now)
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
    Hub._making = threading.Lock()  # a thread that is not here any more may have held it
    for hub in list(Hub._all):
        hub.reset()


os.register_at_fork(after_in_child=_after_fork)
