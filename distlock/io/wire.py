"""The answers of one connection of an event loop, as they come.

redis-py connects and says hello. From then on the transport tells us, for redis-py reads in a task,
and that costs the event loop one more round for each answer: with it a hit of the cache came to
0.83 to 0.89 of the calls a second of redis-py's own GET, without it to 1.14.

An event loop does not hold on to its tasks. What stands for the connection is held here, until the
loop ends or whoever made the connection is no longer there: then it is closed (see `tie`).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar

import hiredis
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError, InvalidResponse, TimeoutError

from .base import DENIED, Argument

PACK: Callable[..., bytes] = hiredis.pack_command
CLOSED = ConnectionError("the connection was closed")
SLICES = 5
"""Parts of a time of waiting, of which each needs a turn of the event loop: when the loop is busy
with something else, it is not the server that is silent."""
NONE_YET = object()
T = TypeVar("T")
_standing: set[asyncio.Task[None]] = set()


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


class Wire(asyncio.Protocol):
    """A connection from which redis-py reads no more; to be made in a block of `opening`.

    Args:
        connection: of redis.asyncio, connected, with no answer due.
        hear: told each answer, also one that is an error.
        lose: told once, when it is closed, why.

    Attributes:
        broken: whether it is closed.
    """

    def __init__(
        self, connection: Any, hear: Callable[[Any], None], lose: Callable[[Exception], None]
    ) -> None:
        self._connection = connection
        self._hear = hear
        self._lose = lose
        self._parser = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=DefaultParser.parse_error,
            notEnoughData=NONE_YET,
        )
        self.broken = False
        self._transport = connection._writer.transport  # no public name: redis-py < 9
        self._transport.set_protocol(self)
        self._stands = asyncio.create_task(self._stand())
        _standing.add(self._stands)
        self._stands.add_done_callback(_standing.discard)

    async def _stand(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.close(ConnectionError("the event loop ended"))
            await self._connection.disconnect(nowait=True)

    def send(self, words: Sequence[Argument]) -> None:
        """Send one command."""
        self._transport.write(PACK(words))

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._parser.feed(data)
        try:
            while not self.broken and (answer := self._parser.gets()) is not NONE_YET:
                if not isinstance(answer, hiredis.PushNotification):
                    self._hear(answer)
        except InvalidResponse as error:
            self.close(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop."""
        self.close(ConnectionError(f"Connection closed by server: {error or 'it ended'}"))

    def close(self, error: Exception = CLOSED) -> None:
        """Close it."""
        if not self.broken:
            self.broken = True
            self._stands.cancel()
            self._lose(error)


@asynccontextmanager
async def opening(connection: Any) -> AsyncIterator[None]:
    """A block that connects, and makes the wire; a connection that is given up in it is closed.

    The wire closes the connection from then on, but a task that is cancelled before its first
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
    """Run something that waits for a server, in slices; else redis-py's TimeoutError."""
    task = asyncio.create_task(work)
    try:
        for _ in range(SLICES):
            await asyncio.wait({task}, timeout=seconds / SLICES)
            if task.done():
                return task.result()
        raise TimeoutError(f"no connection within {seconds:.3f} s")
    finally:
        task.cancel()
