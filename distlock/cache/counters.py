"""What a cache has counted in this process, and what all processes have, on a node.

Each process adds its differences to a hash on a node, once a second at most, and only when there
are any. An addition has a number, so that one that is sent twice counts once.
"""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import dataclass, fields
from weakref import ref

from redis.exceptions import NoPermissionError, RedisError

from ..errors import ServerUnreachable
from ..io import IO, Mutex
from ..keys import CacheKeys
from ..scripts import script

COUNT = script("cache_count")
MOST = 60
"""Times that an addition is tried."""
PAUSE = 1.0
"""Seconds between two additions at least."""
LINGER = 60.0
"""Seconds for which a keeper looks whether there is something to add, after the cache was asked."""


@dataclass
class Stats:
    """Counts. (`+=` on an attribute is one step for the threads of CPython with its lock.)

    Attributes:
        hits: values that came from a node.
        near_hits: values that came from this process.
        misses: calls that found no value.
        computed: calls of a getter.
        waited: values that another caller's getter gave.
        stale: old values that were served.
        refused: values that came too late and were not kept.
        failures: flights that ended without a value.
        node_deaths: nodes that were left out.
        outages: computations that no node knew of.
    """

    hits: int = 0
    near_hits: int = 0
    misses: int = 0
    computed: int = 0
    waited: int = 0
    stale: int = 0
    refused: int = 0
    failures: int = 0
    node_deaths: int = 0
    outages: int = 0


NAMES = [field.name for field in fields(Stats)]


class Counters(Stats):
    """The counts of one process.

    Attributes:
        adding: what adds them to those on a node; None when that has failed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.adding: Adding | None = None
        self._taken = Stats()
        self._mutex = Mutex()

    def now(self) -> Stats:
        """What was counted in this process."""
        return Stats(**{name: getattr(self, name) for name in NAMES})

    def take(self) -> dict[str, int]:
        """What was counted since this was last called."""
        with self._mutex:
            now, before = self.now(), self._taken
            self._taken = now
        changes = {name: getattr(now, name) - getattr(before, name) for name in NAMES}
        return {name: change for name, change in changes.items() if change}


class Adding:
    """Adds counts to the hash on one node; kept by a keeper there, see io.Kept.

    What was sent and not confirmed stays with this node, and is dropped after a minute, or when the
    cache is gone; what is counted from then on goes to the node that a later call finds.
    """

    def __init__(self, cache: object, counters: Counters, keys: CacheKeys) -> None:
        self._cache = ref(cache)
        self._counters = counters
        self._keys = [keys.counters, keys.counted(secrets.token_hex(8))]
        self._number = 0
        self._changes: dict[str, int] = {}
        self._failed = 0
        self._until = 0.0
        self.due = 0.0
        self.deadline = math.inf
        self.scheduled = math.inf

    def begin(self) -> None:
        """Add from now on, until nothing has been asked of the cache for some time."""
        self.due = time.monotonic() + PAUSE
        self._until = time.monotonic() + LINGER

    @property
    def kept(self) -> bool:
        """Whether there is, or soon may be, something to add."""
        mine = self._counters.adding is self and time.monotonic() < self._until
        return mine or bool(self._changes)

    async def keep(self, io: IO, until: float) -> None:
        """Add what was counted since the last time."""
        self.due = time.monotonic() + PAUSE
        if not self._changes:
            self._changes = self._counters.take()
            self._number += 1
        if not self._changes:
            return
        words = [str(word) for change in self._changes.items() for word in change]
        try:
            await io.call(COUNT, self._keys, (self._number, *words), 0.25)
        except (RedisError, ServerUnreachable):
            self._failed += 1
            if self._failed == MOST or self._cache() is None:
                self._changes = {}
            if self._counters.adding is self:
                self._counters.adding = None
            return
        self._changes, self._failed = {}, 0


async def read_counters(io: IO, keys: CacheKeys) -> dict[str, int]:
    """What all processes have counted of a cache, on one node.

    Returns:
        The counts by their names in Stats; nothing when there are none, or none for this user.
    """
    try:
        found = await io.command("HMGET", keys.counters, *NAMES)
    except NoPermissionError:
        return {}
    counted = any(count is not None for count in found)
    return dict(zip(NAMES, (int(count or 0) for count in found), strict=True)) if counted else {}
