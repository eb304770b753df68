"""One subscribed connection of an event loop: what is published is kept until it is asked for.

redis-py makes the connection; then its transport speaks to the mailbox itself. What is published
wakes many processes at the same moment, and a stream, a reading task and a queue between the socket
and whoever waits would cost each of them half as much again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

import hiredis
from redis.exceptions import ConnectionError, NoPermissionError, ResponseError

from .link import PACK, held


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


def _refusal(text: str) -> Exception:
    return NoPermissionError(text) if text.startswith("NOPERM") else ResponseError(text)


class Mailbox(asyncio.Protocol):
    """Hears one channel.

    Args:
        connection: of redis.asyncio, connected, speaking RESP2, without a socket timeout.

    Attributes:
        id: the server's number for this connection, 0 if it must not be asked.
        broken: whether it is closed.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._boxes: dict[str, Box] = {}
        self._reader = hiredis.Reader(replyError=_refusal)
        self._confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._end: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._refused: Exception = ConnectionError("the connection was closed")
        self.id = 0
        self.broken = False

    async def open(self, channel: str) -> None:
        """Subscribe, and wait for the confirmation.

        Raises:
            RedisError: the server refuses, or has closed the connection.
        """
        connection = self._connection
        await connection.send_command("CLIENT", "ID")
        with suppress(NoPermissionError):
            self.id = int(await connection.read_response())
        transport = connection._writer.transport  # nothing is under way on it now
        transport.set_protocol(self)
        held(self._stay())
        transport.write(PACK(("SUBSCRIBE", channel)))
        try:
            confirmed = await self._confirmed
        except asyncio.CancelledError:
            self.close()
            raise
        if not confirmed:
            raise self._refused

    async def _stay(self) -> None:
        """Close the connection at the end: of this mailbox, or of the event loop's tasks."""
        try:
            await self._end
        finally:
            self.close()
            await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Put each message into its box."""
        self._reader.feed(data)
        while (message := self._reader.gets()) is not False:
            if isinstance(message, Exception):
                self._refused = message
                self.close()
            elif message[0] == b"message":
                word, space, rest = message[2].partition(b" ")
                if box := self._boxes.get((word + space).decode()):
                    box.put(rest)
            else:
                _settle(self._confirmed, True)

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits hears b""."""
        self.close()

    def expect(self, topic: str) -> None:
        """Keep what is published on this topic (one word and a space) from now on."""
        self._boxes.setdefault(topic, Box())

    def mute(self, topic: str) -> None:
        """Keep it no longer."""
        self._boxes.pop(topic, None)

    async def hear(self, topic: str, seconds: float) -> bytes | None:
        """What follows the topic in the next message; b"" when it broke, None: time is over."""
        box = self._boxes.get(topic)
        if box is None or (self.broken and not box.said):
            return b""
        return await box.take(seconds)

    def close(self) -> None:
        """Close it; whoever waits hears b""."""
        if not self.broken:
            self.broken = True
            _settle(self._confirmed, False)
            _settle(self._end, True)
            for box in self._boxes.values():
                box.put(b"")
