"""The synchronous IO: blocking calls over one connection, waits, and a thread in the background.

- `call` runs a script and sends it again when the answer was lost, for as long as the caller is
  patient. Every script is safe to send twice; that is what makes this legal. redis-py's own
  retries are off on these connections: they hide for how long the server has been away.
- A wait ends at a deadline of this process's monotonic clock, whatever the server does.
- A wake-up is a hint. Whoever is woken, or whose connection broke, reads the state anew.
- `interrupt`, called by a signal handler, ends a wait at once and never a call under way: a
  message in hand is finished, an answer that is due is read.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis
import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ConnectionError,
    NoScriptError,
    RedisError,
    TimeoutError,
)

from ..errors import DistlockError, ServerUnreachable
from ..scripts import Script
from .base import Argument, Interrupted

AWAY = (ConnectionError, TimeoutError, BusyLoadingError)
"""Errors that say nothing of our request: the server is away, or not back yet."""
DENIED = (AuthenticationError, AuthorizationError)
"""Errors that redis-py counts as connection errors although waiting does not mend them."""


PACK: Callable[..., bytes] = hiredis.pack_command
SILENCE = 0.5
"""Seconds after which a connection is looked at before it is used again."""


class SyncIO:
    """The IO of one thread: blocking calls over one client.

    Args:
        client: a client whose own retries are off.
        patience: seconds for which a silent server is waited for.
        on_outage: told of every failed attempt (the error, seconds since the first) before the
            next one; it may bring the server back.
        on_return: told when the server answers again (seconds it was away).
    """

    def __init__(
        self,
        client: redis.Redis,
        patience: float = 60.0,
        on_outage: Callable[[Exception, float], None] = lambda error, seconds: None,
        on_return: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.client = client
        self._connection: Any = None
        self._used = 0.0
        self._pid = os.getpid()
        self.abandoned = False
        self._pubsub: Callable[..., Any] = client.pubsub
        self.patience = patience
        self.stopping = False
        self._on_outage = on_outage
        self._on_return = on_return
        self._waiting = False
        self._ears: dict[str, Any] = {}

    def _execute(self, *words: Argument) -> Any:
        """Send one command on this IO's own connection, and read the answer.

        Taking it from the pool anew for each command would cost 30 of 75 µs. It connects again by
        itself; after a silence it is looked at first, for the server may have closed it.
        """
        connection, now = self._connection, time.monotonic()
        if self.abandoned:
            raise Interrupted
        if connection is None:
            connection = self._connection = self.client.connection_pool.get_connection()
        elif now - self._used > SILENCE and _stale(connection):
            connection.disconnect()
        if os.getpid() != self._pid:
            raise DistlockError("a process that a handler forked cannot go on as this copy")
        self._used = now
        connection.send_packed_command((PACK(words),))
        return connection.read_response()

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a script and return its answer; send it again while the server is away.

        Raises:
            ServerUnreachable: it was away for longer than `patience`.
            RedisError: the server refused.
            Interrupted: the process is to stop and the server is away.
        """
        try:
            return self._execute("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await self.command("EVAL", script.text, len(keys), *keys, *args)
        except RedisError as error:
            return await self._persist(error, ("EVAL", script.text, len(keys), *keys, *args))

    async def command(self, *words: Argument) -> Any:
        """Send one command, again while the server is away; raises like `call`."""
        try:
            return self._execute(*words)
        except RedisError as error:
            return await self._persist(error, words)

    async def _persist(self, error: Exception, words: Sequence[Argument]) -> Any:
        began, pause = time.monotonic(), 0.02
        while True:
            away = time.monotonic() - began
            if not _is_away(error):
                raise error
            if away >= self.patience:
                self.patience = 0  # whatever is said on the way out is tried once
                raise ServerUnreachable(
                    f"the server has been away for {away:.0f} s ({error}): bring it back and "
                    "start this copy again; nothing is lost"
                ) from error
            self._on_outage(error, away)
            await self.sleep(pause)
            pause = min(pause * 1.5, 0.25)
            try:
                answer = self._execute(*words)
            except RedisError as later:
                error = later
                continue
            self._on_return(time.monotonic() - began)
            return answer

    async def listen(self, channel: str) -> None:
        """Subscribe to a channel on a connection of its own, and wait for the confirmation.

        When the server is away it is left to the next wait: a wake-up is only a hint.
        """
        if channel in self._ears:
            return
        ear = self._pubsub()
        try:
            ear.subscribe(channel)
            ear.get_message(timeout=5)
        except AWAY:
            ear.close()
        else:
            self._ears[channel] = ear

    async def wait(self, channel: str, seconds: float) -> bool:
        """Wait for a wake-up; a connection that breaks meanwhile counts as one.

        Args:
            channel: what to listen to.
            seconds: for how long at most.
        """
        deadline = time.monotonic() + seconds
        await self.listen(channel)
        ear = self._ears.get(channel)
        if ear is None:
            await self.sleep(seconds)
            return False
        try:
            while (left := deadline - time.monotonic()) > 0:
                with self.interruptible():
                    if ear.get_message(timeout=left):
                        return True
        except AWAY:
            self.deafen()
            return True
        return False

    def deafen(self) -> None:
        """Close the connections that wait."""
        while self._ears:
            self._ears.popitem()[1].close()

    async def sleep(self, seconds: float) -> None:
        """Do nothing for some seconds; a signal ends it at once."""
        self.sleep_now(seconds)

    def sleep_now(self, seconds: float) -> None:
        """The same, for code that is no core."""
        with self.interruptible():
            time.sleep(max(seconds, 0))

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that a signal ends at once, by Interrupted."""
        self._waiting = True
        try:
            if self.stopping:
                raise Interrupted
            yield
        finally:
            self._waiting = False

    def abandon(self) -> None:
        """Have the process end now: nothing more is sent."""
        self.abandoned = True

    def interrupt(self) -> None:
        """Have the process stop: called by a signal handler, in the thread of this IO."""
        self.stopping = True
        if self._waiting:
            raise Interrupted


def _is_away(error: Exception) -> bool:
    """Whether an error says nothing of our request, so that it may be sent again."""
    if isinstance(error, DENIED):
        return False
    return isinstance(error, AWAY) or str(error).startswith("BUSY")


def _stale(connection: Any) -> bool:
    """Whether an idle connection has something to say: that it is closed."""
    try:
        return bool(connection.can_read())
    except (RedisError, OSError):
        return True


class Background:
    """A thread that runs one step again and again, until the `with` block around it ends.

    The thread is a daemon and never holds up the exit of the interpreter.

    Args:
        step: what to do; an error of the server in it is left to the next step.
        seconds: pause between two steps.
    """

    def __init__(self, step: Callable[[], None], seconds: float) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, args=(step, seconds), daemon=True)
        self._thread.start()

    def _loop(self, step: Callable[[], None], seconds: float) -> None:
        while not self._end.wait(seconds):
            try:
                step()
            except (RedisError, ServerUnreachable):
                continue  # the thread in front meets the same server and reports it

    def __enter__(self) -> None:
        """It runs already."""

    def __exit__(self, *error: object) -> None:
        """End it; returns when the step under way is over, at most 2 s later."""
        self._end.set()
        self._thread.join(2)
