"""One connection of an event loop, shared by all its tasks.

Requests are written whole, in the order in which they are made; answers come back in that order,
and each goes to whoever waits for it. A task that is cancelled only stops waiting: its answer is
dropped when it comes, and what it sends next comes after what it sent before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from redis.exceptions import TimeoutError

from .base import Argument
from .wire import CLOSED, SLICES, Wire, opening


class Link:
    """A connection that carries many requests at once.

    Args:
        connection: a connection of redis.asyncio, connected, without a socket timeout. See `open`.
    """

    def __init__(self, connection: Any) -> None:
        self._due: deque[asyncio.Future[Any]] = deque()
        self._heard = 0
        self._loop = asyncio.get_running_loop()
        self._wire = Wire(connection, self._hear, self._lose)

    @classmethod
    async def open(cls, connection: Any) -> Link:
        """A link over a connection that is to be opened first."""
        async with opening(connection):
            await connection.connect()
            return cls(connection)

    @property
    def broken(self) -> bool:
        """Whether it is closed."""
        return self._wire.broken

    async def ask(
        self, words: tuple[Argument, ...], seconds: float, most: float | None = None
    ) -> Any:
        """Send one command and return its answer.

        When nothing at all was heard for some seconds, the connection is closed, and its answers
        count as lost. This one is not waited for any longer than `most` seconds (None: the same).
        """
        if self._wire.broken:
            raise CLOSED
        self._wire.send(words)  # first: what cannot be packed raises, and no answer is due
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._due.append(answer)
        watch = _Watch(self, answer, seconds, most)
        try:
            return await answer
        finally:
            watch.end()

    def close(self, error: Exception = CLOSED) -> None:
        """Close it; every request that has no answer yet fails with the error."""
        self._wire.close(error)

    def _hear(self, answer: Any) -> None:
        self._heard += 1
        future = self._due.popleft()
        if future.done():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _lose(self, error: Exception) -> None:
        while self._due:
            answer = self._due.popleft()
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # a caller that was cancelled does not ask for it


class _Watch:
    """The watch over one request; it counts time in slices."""

    __slots__ = ("_answer", "_heard", "_link", "_quiet", "_slice", "_strict", "_timer", "_until")

    def __init__(
        self, link: Link, answer: asyncio.Future[Any], seconds: float, most: float | None
    ) -> None:
        self._link = link
        self._answer = answer
        self._heard = link._heard
        self._quiet = 0
        self._slice = seconds / SLICES
        self._strict = most is not None
        now = link._loop.time()
        self._until = now + (seconds if most is None else most)
        self._set(now)

    def _set(self, now: float) -> None:
        left = self._until - now
        wait = min(self._slice, left) if left > 0 else self._slice
        self._timer = self._link._loop.call_at(now + wait, self._look)

    def _look(self) -> None:
        heard = self._link._heard != self._heard
        self._quiet = 0 if heard else self._quiet + 1
        self._heard = self._link._heard
        self._strict = self._strict or heard
        if self._quiet >= SLICES:
            silence = self._slice * SLICES
            self._link.close(TimeoutError(f"nothing was heard for {silence:.3f} s"))
        elif self._strict and self._link._loop.time() >= self._until:
            if not self._answer.done():
                self._answer.set_exception(TimeoutError("no answer in time"))
        else:
            self._set(self._link._loop.time())

    def end(self) -> None:
        """Watch no longer."""
        self._timer.cancel()
