"""One flight as one process knows it: who leads it, what it ended with, and renewing its right.

Rules:

- The right is a random id; a node keeps it for a short ttl, and nobody's clock decides whose it is.
- The process that computes renews it every third of the ttl, while its getter runs and up to a
  ceiling: a getter that hangs for ever does not keep the others waiting for ever.
- The flight ends once. What it ended with is the bytes that all who waited decode; no bytes mean
  "look again".
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from ..io import IO, AsyncLatch, Latch
from ..scripts import script

RENEW = script("cache_renew")
CEILING = 5.0
"""Times the execution limit for which a getter keeps its right."""


class Outcome(NamedTuple):
    """What a flight ended with.

    Attributes:
        data: the encoded value or failure, b"" when there is none: look again.
        value: what the getter returned, for the caller who computed it.
        error: what the getter raised, for that caller.
        expire: seconds for which to keep it, 0: not at all.
    """

    data: bytes
    value: Any = None
    error: BaseException | None = None
    expire: float = 0.0


class Abandoned(BaseException):
    """The caller who computes has left before the computation began."""


class Flight:
    """A flight; looked after by a keeper while this process computes (see io.Kept).

    Args:
        latch: what those of this process wait for.
        keys: of the value on the node.
        seen: the flight's words on the node, as its leader last saw them.

    Attributes:
        right: the right of this process, to be taken.
        end: ends the computation, if it is `endable`.
        abandoned: the caller who computes has left.
    """

    def __init__(self, latch: Latch | AsyncLatch, keys: list[str], seen: str) -> None:
        self.latch = latch
        self.keys = keys
        self.seen: str | None = seen
        self.right = secrets.token_hex(8)
        self.end: Callable[[], object] = lambda: None
        self.endable = False
        self.abandoned = False
        self._ttl = self._ceiling = 0.0
        self.due = self.deadline = 0.0
        self.scheduled = math.inf

    def is_that_of(self, words: str) -> bool:
        """Whether whoever sees these words on the node may wait for this flight.

        Words that are the same as the leader saw before it asked for the right: then the getter
        starts after whatever made them, such as a delete.
        """
        return self.seen == words or words.partition(" ")[0] == self.right

    def took_off(self, began: float, ttl: float, limit: float) -> None:
        """Note that the right was taken by a request that was sent at `began` (monotonic)."""
        self.seen = None
        self._ttl = ttl
        self._ceiling = began + CEILING * limit
        self._renewed(began)

    def _renewed(self, began: float) -> None:
        self.due, self.deadline = began + self._ttl / 3, began + self._ttl

    @property
    def landed(self) -> bool:
        """Whether it has ended."""
        return self.latch.value is not None

    @property
    def kept(self) -> bool:
        """Whether the right is to be renewed."""
        return self._ttl > 0 and time.monotonic() < self._ceiling

    def abandon(self) -> None:
        """The caller who computes has left: end the computation, if it can be ended."""
        self.abandoned = True
        if self.endable:
            self.end()

    def give_up(self) -> None:
        """Renew the right no more."""
        self._ttl = 0.0

    async def keep(self, io: IO, until: float) -> None:
        """Renew the right."""
        began, ttl = time.monotonic(), self._ttl
        patience = max(min(ttl / 3, until - began), 0.01)
        try:
            kept = await io.attempt(RENEW, self.keys[:2], (self.right, round(ttl * 1000)), patience)
        except (RedisError, OSError):
            self.due = time.monotonic() + ttl / 10
            return
        if kept:
            self._renewed(began)
        else:
            self.give_up()
