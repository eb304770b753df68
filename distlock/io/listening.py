"""What a thread of a synchronous IO is woken by: an ear for each channel.

- A wait ends at a deadline of this process's monotonic clock, whatever the server does.
- A wake-up is a hint. Whoever is woken, or whose connection broke, reads the state anew.
- When another server has taken over, those that listen do so there, too.
"""

from __future__ import annotations

import secrets
import time

from .base import AWAY
from .ear import Ear
from .route import Route
from .stopping import Stopping


class Listening(Stopping):
    """The waits of one thread at a time.

    Args:
        route: where connections come from.

    Attributes:
        address: where this IO can be called, until it is deafened.
    """

    _answer: float

    def __init__(self, route: Route) -> None:
        super().__init__()
        self.address = secrets.token_hex(8)
        self._route = route
        self._ears: dict[str, Ear] = {}

    async def listen(self, channel: str, topic: str = "", seconds: float = 5.0) -> bool:
        """Subscribe to a channel on a connection of its own, and wait for the confirmation.

        When the server is away it is left to the next wait: a wake-up is only a hint.
        """
        if channel in self._ears:
            return True
        try:
            self._ears[channel] = Ear(self._route, channel, min(seconds, self._answer))
        except AWAY:
            return False
        return True

    async def wait(self, channel: str, seconds: float, topic: str = "") -> bytes | None:
        """Wait for a wake-up; a connection that breaks meanwhile counts as one.

        Args:
            channel: what to listen to.
            seconds: for how long at most.
            topic: its first word is that of the messages that are meant; "" for all.
        """
        deadline = time.monotonic() + seconds
        await self.listen(channel)
        ear = self._ears.get(channel)
        if ear is None:
            await self.sleep(seconds)
            return None
        try:
            word, space, _ = topic.partition(" ")
            return self._hear(ear, deadline, (word + space).encode())
        except AWAY:
            self.deafen()
            return b""

    def _hear(self, ear: Ear, deadline: float, word: bytes) -> bytes | None:
        """What follows the word; written out, for many are woken at once, each by cold code."""
        try:
            self.begin_waiting()
            while (left := deadline - time.monotonic()) > 0:
                said = ear.hear(left)
                if said is not None and said.startswith(word):
                    return said[len(word) :]
        finally:
            self._waiting = False
        return None

    def listens(self, channel: str) -> bool:
        """Whether it is subscribed, as far as is known."""
        return channel in self._ears

    def mute(self, channel: str, topic: str) -> None:
        """Nothing to do here: what is not waited for is passed over."""

    def deafen(self, address: str = "") -> None:
        """Close the connections that wait, if the address is still the one; see IO."""
        if address in ("", self.address):
            self.address = secrets.token_hex(8)
            while self._ears:
                self._ears.popitem()[1].close()
