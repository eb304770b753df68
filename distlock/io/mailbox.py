"""One subscribed connection of an event loop: what is published is kept until it is asked for."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

from redis.exceptions import NoPermissionError

from .wire import Wire, opening


class Box:
    """What was said on one topic, until somebody takes it."""

    def __init__(self) -> None:
        self.said: deque[bytes] = deque()
        self._waiting: list[asyncio.Future[bool]] = []

    def put(self, said: bytes) -> None:
        """Add it, and wake whoever waits."""
        self.said.append(said)
        for waiter in self._waiting:
            _settle(waiter, True)

    async def take(self, seconds: float) -> bytes | None:
        """The next one, or None: the time is over."""
        if self.said:
            return self.said.popleft()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not self.said:
            waiter = loop.create_future()
            timer = loop.call_at(deadline, _settle, waiter, False)
            self._waiting.append(waiter)
            try:
                if not await waiter and not self.said:
                    return None
            finally:
                timer.cancel()
                self._waiting.remove(waiter)
        return self.said.popleft()


def _settle(waiter: asyncio.Future[bool], called: bool) -> None:
    if not waiter.done():
        waiter.set_result(called)


class Mailbox:
    """Hears one channel.

    Args:
        connection: of redis.asyncio, speaking RESP2, without a socket timeout.

    Attributes:
        id: the server's number for this connection, 0 if it must not be asked.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._boxes: dict[str, dict[str, Box]] = {}
        self._wire: Wire | None = None
        self._confirmed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.id = 0

    async def open(self, channel: str) -> None:
        """Connect, subscribe, and wait for the confirmation.

        Raises:
            RedisError: the server refuses, or has closed the connection.
        """
        connection = self._connection
        async with opening(connection):
            await connection.connect()
            await connection.send_command("CLIENT", "ID")
            with suppress(NoPermissionError):
                self.id = int(await connection.read_response())
            self._wire = Wire(connection, self._hear, self._lose)
            self._wire.send(("SUBSCRIBE", channel))
            answer = await self._confirmed
            if isinstance(answer, Exception):
                raise answer

    @property
    def broken(self) -> bool:
        """Whether it is closed."""
        return self._wire is not None and self._wire.broken

    def _hear(self, answer: Any) -> None:
        """Put a message into its box; what comes first says whether we are subscribed."""
        if not self._confirmed.done():
            self._confirmed.set_result(answer)
            return
        word, _, rest = answer[2].partition(b" ")
        for box in self._boxes.get(word.decode(), {}).values():
            box.put(rest)

    def _lose(self, error: Exception) -> None:
        """Whoever waits hears b""."""
        if not self._confirmed.done():
            self._confirmed.set_result(error)
        for boxes in self._boxes.values():
            for box in boxes.values():
                box.put(b"")

    def expect(self, topic: str) -> None:
        """Keep what is published on this topic, as its first word says, from now on."""
        self._boxes.setdefault(topic.partition(" ")[0], {}).setdefault(topic, Box())

    def mute(self, topic: str) -> None:
        """Keep it no longer."""
        word = topic.partition(" ")[0]
        boxes = self._boxes.get(word, {})
        boxes.pop(topic, None)
        if not boxes:
            self._boxes.pop(word, None)

    async def hear(self, topic: str, seconds: float) -> bytes | None:
        """What follows the word in the next message; b"" when it broke, None: time is over."""
        box = self._boxes.get(topic.partition(" ")[0], {}).get(topic)
        if box is None or (self.broken and not box.said):
            return b""
        return await box.take(seconds)

    def close(self) -> None:
        """Close it."""
        if self._wire:
            self._wire.close()
