"""Seeing a holder's death before its term ends: the server knows whose connections are gone.

Rules:

- The holder registers two connections with its renewals; what their absence says, `io/pulse.py`
  tells.
- Only the first in line asks, every 50 ms. Where CLIENT LIST is forbidden it waits like the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..io import IO, Pulse
from ..scripts import script

BURY = script("lease_bury")
PAUSE = 0.05
"""Seconds between two looks."""
UNKNOWN = 10
"""Looks for a holder that has not registered its connections (yet)."""


class Watch:
    """The eyes of one waiter.

    Args:
        io: the waiter's.
        keys: of the lease, its token and its line.
    """

    def __init__(self, io: IO, keys: Sequence[str]) -> None:
        self._io = io
        self._keys = keys
        self._pulse = Pulse(io)
        self._unknown = 0

    async def until(
        self, channel: str, topic: str, end: float, token: int, connections: str
    ) -> bytes | None:
        """Wait like `io.wait` until `end` (monotonic), or until it is worth looking again.

        Args:
            channel, topic: what to wait for.
            end: monotonic time.
            token: of the term that is watched.
            connections: of its holder, "" if it has registered none.
        """
        self._unknown = 0 if connections else self._unknown + 1
        while not self._pulse.forbidden and self._unknown <= UNKNOWN:
            pause = min(PAUSE, end - time.monotonic())
            said = await self._io.wait(channel, pause, topic)
            if said is not None or not connections or time.monotonic() >= end:
                return said
            if await self._pulse.gone(connections):
                await self._io.call(BURY, self._keys, (token, connections))
                return None
        return await self._io.wait(channel, end - time.monotonic(), topic)
