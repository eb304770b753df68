"""What a cache has counted in this process, and what all processes have, on a node.

Each process adds its differences to a hash on a node, once a second at most, and only when there
are any. An addition has a number, so that one that is sent twice counts once; one that no node
takes is tried again with the next.
"""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import asdict, dataclass

from redis.exceptions import NoPermissionError, RedisError

from ..errors import ServerUnreachable
from ..io import IO
from ..keys import CacheKeys
from ..scripts import script

COUNT = script("cache_count")
PAUSE = 1.0
"""Seconds between two additions at least."""


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


class Counters(Stats):
    """The counts of one process, which a keeper adds to those on a node; see io.Kept."""

    def __init__(self, keys: CacheKeys) -> None:
        super().__init__()
        self._sent = Stats()
        self._process = secrets.token_hex(8)
        self._keys = [keys.counters, keys.counted(self._process)]
        self._under_way: tuple[int, Stats] = (0, Stats())
        self.due = 0.0
        self.deadline = math.inf
        self.scheduled = math.inf

    def now(self) -> Stats:
        """What was counted in this process."""
        return Stats(**{name: getattr(self, name) for name in asdict(Stats())})

    @property
    def kept(self) -> bool:
        """Whether there is something to add."""
        return self.now() != self._sent

    async def keep(self, io: IO, until: float) -> None:
        """Add the differences."""
        self.due = time.monotonic() + PAUSE
        number, reached = self._under_way
        if reached == self._sent:
            number, reached = number + 1, self.now()
            self._under_way = (number, reached)
        sent = asdict(self._sent)
        changes = {name: n - sent[name] for name, n in asdict(reached).items() if n != sent[name]}
        words = [str(word) for change in changes.items() for word in change]
        try:
            await io.call(COUNT, self._keys, (number, *words), 0.25)
        except (RedisError, ServerUnreachable):
            return
        self._sent = reached


async def read_counters(io: IO, keys: CacheKeys) -> dict[str, int]:
    """What all processes have counted of a cache, on one node.

    Returns:
        The counts by their names in Stats; nothing when there are none, or none for this user.
    """
    names = [*asdict(Stats())]
    try:
        found = await io.command("HMGET", keys.counters, *names)
    except NoPermissionError:
        return {}
    counted = any(count is not None for count in found)
    return dict(zip(names, (int(count or 0) for count in found), strict=True)) if counted else {}
