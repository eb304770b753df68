"""Undoing an acquire that nobody knows the end of, when the server is back.

The server was away until the caller gave up, but the request may have been on its way: a server
that was frozen carries it out when it wakes, for an owner who has gone. So whoever keeps what is
held goes on saying that this one has left, until it is heard, for an hour at most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from redis.exceptions import RedisError

from ..errors import ServerUnreachable
from ..io import IO
from ..scripts import script

LEAVE = script("lease_leave")
PAUSE = 0.25
"""Seconds between two tries."""
LONGEST = 3600.0
"""Seconds after which a server that is still away is left alone."""


class Leaving:
    """Something to keep (see io.Kept) until it is done.

    Args:
        keys: of the lease, its token and its line.
        entry: what the acquire stood in line with.
    """

    def __init__(self, keys: Sequence[str], entry: str) -> None:
        self._keys = keys
        self._entry = entry
        self._end = time.monotonic() + LONGEST
        self.due = time.monotonic() + PAUSE
        self.deadline = math.inf
        self.scheduled = math.inf
        self.kept = True

    async def keep(self, io: IO, until: float) -> None:
        """Say it once more."""
        seconds = max(min(PAUSE, until - time.monotonic()), 0.02)
        try:
            await io.attempt(LEAVE, self._keys, (self._entry,), seconds)
            self.kept = False
        except (RedisError, OSError, ServerUnreachable):
            await io.moved()
            self.due = time.monotonic() + PAUSE
            self.kept = self.due < self._end
