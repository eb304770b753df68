"""One connection of an event loop, shared by all its tasks.

Requests are written whole, in the order in which they are made; answers come back in that order and
a reader hands each to whoever waits for it. A task that is cancelled only stops waiting: its answer
is read and dropped, and what it sends next comes after what it sent before.

An event loop does not hold on to its tasks. The readers are held here, until whoever made the
connection is no longer there: then it is closed (see `tie`).
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar

import hiredis
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError

from .base import DENIED, Argument

PACK: Callable[..., bytes] = hiredis.pack_command
CLOSED = ConnectionError("the connection was closed")
SLICES = 5
T = TypeVar("T")
_readers: set[asyncio.Task[None]] = set()


def held(reader: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that is held until it ends."""
    task = asyncio.create_task(reader)
    _readers.add(task)
    task.add_done_callback(_readers.discard)
    return task


class Closable(Protocol):
    """A connection of an event loop."""

    def close(self) -> None:
        """Close it."""


def tie(connection: Closable, owner: object) -> None:
    """Close a connection of the running event loop when its owner is gone."""
    weakref.finalize(owner, _close, connection, asyncio.get_running_loop()).atexit = False


def _close(connection: Closable, loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(connection.close)


class Link:
    """A connection that carries many requests at once.

    Args:
        connection: a connection of redis.asyncio, connected, without a socket timeout. See `open`.

    Attributes:
        broken: whether it is closed.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._due: deque[asyncio.Future[Any]] = deque()
        self._heard = 0
        self._loop = asyncio.get_running_loop()
        self.broken = False
        self._reader = held(self._read())

    @classmethod
    async def open(cls, connection: Any) -> Link:
        """A link over a connection that is to be opened first."""
        async with opening(connection):
            await connection.connect()
            return cls(connection)

    async def ask(
        self, words: tuple[Argument, ...], seconds: float, most: float | None = None
    ) -> Any:
        """Send one command and return its answer.

        When nothing at all was heard for some seconds, the connection is closed, and its answers
        count as lost. This one is not waited for any longer than `most` seconds (None: the same).
        """
        if not self._connection.is_connected:  # to send would connect anew, unknown to the reader
            self.close()
        if self.broken:
            raise CLOSED
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._due.append(answer)
        watch = _Watch(self, answer, seconds, most)
        try:
            packed = (PACK(words),)
            await self._connection.send_packed_command(packed, check_health=False)
            return await answer
        finally:
            watch.end()

    def close(self, error: Exception = CLOSED) -> None:
        """Close it; every request that has no answer yet fails with the error."""
        if self.broken:
            return
        self.broken = True
        self._reader.cancel()
        while self._due:
            answer = self._due.popleft()
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # a caller that was cancelled does not ask for it

    async def _read(self) -> None:
        error: Exception = ConnectionError("the event loop ended")
        try:
            while True:
                answer = await self._answer()
                self._heard += 1
                future = self._due.popleft()
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except (RedisError, OSError) as broke:
            error = broke
        finally:
            self.close(error)
            await self._connection.disconnect(nowait=True)

    async def _answer(self) -> Any:
        try:
            return await self._connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            return error


class _Watch:
    """The watch over one request.

    Time is counted in slices, of which each needs a turn of the event loop: when the loop is busy
    with something else, it is not the server that is silent.
    """

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


@asynccontextmanager
async def opening(connection: Any) -> AsyncIterator[None]:
    """A block that connects, and begins what reads; a connection that is given up in it is closed.

    Whoever reads closes the connection from then on, but a task that is cancelled before its first
    step does nothing: it has begun when the block is left. A cancellation while redis-py connects
    may be swallowed by it, and is heeded here.
    """
    try:
        yield
        await asyncio.sleep(0)
        task = asyncio.current_task()
        if task and task.cancelling():
            raise asyncio.CancelledError
    except BaseException as error:
        await connection.disconnect(nowait=True)
        cause = error.__cause__
        if isinstance(cause, DENIED):  # redis.asyncio calls a wrong password a lost connection
            raise cause from None
        raise


async def patiently(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Run something that waits for a server, in slices as above; else redis-py's TimeoutError."""
    task = asyncio.create_task(work)
    try:
        for _ in range(SLICES):
            await asyncio.wait({task}, timeout=seconds / SLICES)
            if task.done():
                return task.result()
        raise TimeoutError(f"no connection within {seconds:.3f} s")
    finally:
        task.cancel()
