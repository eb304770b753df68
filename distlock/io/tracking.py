"""Hearing from a server which keys change: one connection with CLIENT TRACKING in broadcast mode.

It redirects to itself: it is subscribed, speaks RESP2, and hears of every key with the prefix,
whoever wrote it. (redis-py's own client-side cache refuses Valkey and Redis before 7.4, and has no
asyncio.) A connection that is silent for long is asked whether it lives.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

from redis.exceptions import RedisError, ResponseError, TimeoutError

from .route import AsyncRoute, Route
from .wire import opening

SILENCE = 5.0
"""Seconds after which a silent connection is asked, and in which it has to answer."""
PAUSE = 0.25
"""Seconds between two tries to connect."""
Hear = Callable[[list[bytes] | None], None]
Stand = Callable[[bool], None]
log = logging.getLogger("distlock")


def _begin(id: int, prefix: str) -> list[tuple[str, ...]]:
    tracking = ("CLIENT", "TRACKING", "ON", "REDIRECT", str(id), "BCAST", "PREFIX", prefix)
    return [tracking, ("SUBSCRIBE", "__redis__:invalidate")]


class Tracker:
    """Tells of keys that change, in a daemon thread, until its owner is gone.

    Args:
        route: where connections come from.
        prefix: of the keys.
        hear: a bound method, called with the keys, or None for all of them.
        stand: a bound method, called with whether the connection stands.
    """

    def __init__(self, route: Route, prefix: str, hear: Hear, stand: Stand) -> None:
        self._route = route
        self._begin_as(prefix, hear, stand)
        threading.Thread(target=self._follow, name="distlock-tracker", daemon=True).start()

    def _begin_as(self, prefix: str, hear: Hear, stand: Stand) -> None:
        self._prefix = prefix
        self._hear: WeakMethod[Any] = WeakMethod(hear)
        self._stand: WeakMethod[Any] = WeakMethod(stand)
        self._refused = ""

    def _follow(self) -> None:
        while self._tell(self._stand, False):
            try:
                self._listen(self._route.connection(protocol=2, socket_timeout=SILENCE))
            except (RedisError, OSError) as error:
                self._note(error)
            time.sleep(PAUSE)

    def _note(self, error: Exception) -> None:
        """Say it once when the server does not want to tell: nothing is kept near then."""
        if isinstance(error, ResponseError) and str(error) != self._refused:
            self._refused = str(error)
            log.warning("no near cache, tracking is refused: %s", error)

    def _listen(self, connection: Any) -> None:
        try:
            self._hear_from(connection)
        finally:
            connection.disconnect()

    def _hear_from(self, connection: Any) -> None:
        connection.connect()
        connection.send_command("CLIENT", "ID")
        for words in _begin(connection.read_response(), self._prefix):
            connection.send_command(*words)
            connection.read_response()
        alive, asked = self._tell(self._stand, True), False
        while alive:
            try:
                said = connection.read_response(timeout=SILENCE, disconnect_on_error=False)
            except TimeoutError:
                if asked:
                    return
                connection.send_command("PING")
                asked, alive = True, self._hear() is not None
                continue
            asked = False
            if said[0] == b"message":
                alive = self._tell(self._hear, said[2])

    def _tell(self, method: WeakMethod[Any], what: object) -> bool:
        """Call a method of the owner, if it is still there."""
        call = method()
        if call is not None:
            call(what)
        return call is not None


class AsyncTracker(Tracker):
    """The same in a task of the running event loop."""

    _running: set[asyncio.Task[None]] = set()  # noqa: RUF012 - a loop does not hold its tasks

    def __init__(self, route: AsyncRoute, prefix: str, hear: Hear, stand: Stand) -> None:
        self._async_route = route
        self._begin_as(prefix, hear, stand)
        task = asyncio.create_task(self._follow_on())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _follow_on(self) -> None:
        while self._tell(self._stand, False):
            try:
                await self._listen_on(
                    await self._async_route.connection(protocol=2, socket_timeout=SILENCE)
                )
            except (RedisError, OSError) as error:
                self._note(error)
            await asyncio.sleep(PAUSE)

    async def _listen_on(self, connection: Any) -> None:
        try:
            async with opening(connection):
                await connection.connect()
            await self._hear_from_it(connection)
        finally:
            await connection.disconnect(nowait=True)

    async def _hear_from_it(self, connection: Any) -> None:
        await connection.send_command("CLIENT", "ID")
        for words in _begin(await connection.read_response(), self._prefix):
            await connection.send_command(*words)
            await connection.read_response()
        alive, asked = self._tell(self._stand, True), False
        while alive:
            try:
                async with asyncio.timeout(SILENCE):
                    said = await connection.read_response(timeout=None, disconnect_on_error=False)
            except (builtins.TimeoutError, TimeoutError):
                if asked:
                    return
                await connection.send_command("PING")
                asked, alive = True, self._hear() is not None
                continue
            asked = False
            if said[0] == b"message":
                alive = self._tell(self._hear, said[2])
