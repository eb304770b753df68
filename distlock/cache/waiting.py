"""Waiting for a flight of another process: listening, and watching over whoever computes.

The script that ends a flight publishes its value to each process that waits, at an address that is
subscribed to once for all flights: one connection for any number of keys, of any slot of a Cluster,
and no further request when one more is waited for. (A blocking read of a stream for each flight, as
it was first planned, has to be broken off and sent anew for that, and ends at a slot.) Nothing is
kept for who does not listen: whose connection breaks looks again.

The watcher looks for the computer's two connections ten times a second at most; when both are gone
in two looks it is taken for dead. One lost connection of a living one says nothing.
"""

from __future__ import annotations

import time
from typing import Final, Literal

from redis.exceptions import ConnectionError, RedisError

from ..io import IO, Pulse
from ..keys import wake_channel
from .member import Member, MemberDown

LOOK = 0.1
"""Seconds between two looks at the connections of whoever computes."""
DEAD: Final = "dead"


class Waiting:
    """The ear and the eyes of one who waits.

    Args:
        member: where.
        timeout: seconds for an answer.
    """

    def __init__(self, member: Member, timeout: float) -> None:
        self._member = member
        self._timeout = timeout
        self._topic = self._channel = ""
        self._pulse: Pulse | None = None

    async def listen(self, io: IO, right: str, name: str, left: float) -> None:
        """Hear from now on what is said to those who wait for the flight of this right.

        Args:
            io: the one that listens.
            right: of the flight.
            name: of who waits: no other one of this process waits by it.
            left: seconds.

        Raises:
            MemberDown: it is not possible in that time.
        """
        self.end(io)
        self._topic, self._channel = f"{right} {name}", wake_channel(io.address)
        seconds = min(self._timeout, left)
        if not await self._member.listen(io, self._channel, self._topic, seconds):
            error = ConnectionError("nobody can subscribe")
            if left > self._timeout:
                self._member.leave_out(error)
            raise MemberDown(f"{self._member.name}: {error}")

    def end(self, io: IO) -> None:
        """Hear it no longer."""
        if self._topic:
            io.mute(self._channel, self._topic)
            self._topic = ""

    async def hear(
        self, io: IO, flight: str, end: float, watch: bool
    ) -> bytes | Literal["dead"] | None:
        """Wait until `end` (monotonic) for what is said.

        Args:
            io: the one that listens.
            flight: its words.
            end: monotonic time.
            watch: look whether the computer lives.

        Returns:
            The value's bytes; b"": look again; None: the time is over; or DEAD.
        """
        ids = flight.split()[2:]
        connections, server = " ".join(ids[:2]), "".join(ids[2:3])
        if not watch or not connections:
            return await io.wait(self._channel, end - time.monotonic(), self._topic)
        self._pulse = self._pulse or Pulse(io, self._timeout)
        gone = 0
        while True:
            try:
                gone = gone + 1 if await self._pulse.gone(connections, server) else 0
            except (RedisError, OSError):
                return b""
            if gone == 2:
                return DEAD
            left = end - time.monotonic()
            pause = left if self._pulse.forbidden else min(LOOK, left)
            said = await io.wait(self._channel, pause, self._topic)
            if said is not None or time.monotonic() >= end:
                return said
