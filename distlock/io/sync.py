"""The synchronous IO: blocking calls over one connection, waits, and a thread in the background.

- redis-py's own retries are off on these connections: they hide for how long the server has been
  away. `sending` sends again.
- A wait ends at a deadline of this process's monotonic clock, whatever the server does.
- A wake-up is a hint. Whoever is woken, or whose connection broke, reads the state anew.
- `interrupt`, called by a signal handler, ends a wait at once and never a call under way: a
  message in hand is finished, an answer that is due is read.
- An answer that an exception kept from being read (Ctrl-C) is read before the next request: what
  is sent to undo the one before comes after it.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import hiredis
from redis.exceptions import RedisError, ResponseError

from ..errors import DistlockError, ServerUnreachable
from ..keys import wake_channel
from ..scripts import Script
from .base import AWAY, SILENCE, Argument, Interrupted
from .ear import Ear
from .pulse import running
from .route import ANSWER, Route, SyncClient
from .sending import Sending
from .stopping import Stopping
from .turns import Turns

PACK: Callable[..., bytes] = hiredis.pack_command
LONG, FEW = 1 << 18, 64
"""Bytes of a long word; words of a command in which it is looked for, as a hand ends at 1 MB."""


class SyncIO(Stopping, Sending):
    """The IO of one thread at a time: blocking calls over one client.

    Args:
        client: how to reach the server; its own retries are not used.
        patience: seconds for which a silent server is waited for.
        on_outage: told of every failed attempt (the error, seconds since the first) before the
            next one; it may bring the server back.
        on_return: told when the server answers again (seconds it was away).
        turns: the turns of this process.
    """

    def __init__(
        self,
        client: SyncClient | Route,
        patience: float = 60.0,
        on_outage: Callable[[Exception, float], None] = lambda error, seconds: None,
        on_return: Callable[[float], None] = lambda seconds: None,
        turns: Turns | None = None,
    ) -> None:
        Stopping.__init__(self)
        Sending.__init__(self, patience)
        self.client: Any = client
        self.address = secrets.token_hex(8)
        self._route = client if isinstance(client, Route) else Route(client)
        self._turns = turns or Turns()
        self._connection: Any = None
        self._used = 0.0
        self._owed = 0
        self._connecting = ANSWER
        self._lives = 0
        self._known = (0, "")
        self._pid = os.getpid()
        self._on_outage = on_outage
        self._on_return = on_return
        self._ears: dict[str, Ear] = {}

    def _execute(self, *words: Argument, seconds: float | None = None) -> Any:
        """Send one command on this IO's own connection, and read the answer.

        Taking it from the pool anew for each command would cost 30 of 75 µs. After a silence it is
        looked at first, for the server may have closed it.
        """
        connection = self._open(seconds)
        connection.send_packed_command(_packed(words))
        self._owed += 1
        return self._read(connection, self._answer if seconds is None else max(seconds, 0.001))

    def _read(self, connection: Any, seconds: float) -> Any:
        """Read one answer; a connection that fails is closed, one that was interrupted is not."""
        try:
            answer = connection.read_response(disconnect_on_error=False, timeout=seconds)
        except ResponseError:
            self._owed -= 1
            raise
        except RedisError:
            connection.disconnect()
            raise
        self._owed -= 1
        return answer

    def _open(self, seconds: float | None = None) -> Any:
        """The connection, with nothing unread on it; all of that within some seconds, if given."""
        connection, now = self._connection, time.monotonic()
        if self.abandoned:
            raise Interrupted
        if os.getpid() != self._pid:
            raise DistlockError("a process that a handler forked cannot go on as this copy")
        if connection is None:
            connection = self._connection = self._route.connection()
            self._answer = connection.socket_timeout
            self._connecting = connection.socket_connect_timeout
        elif connection.is_connected and now - self._used > SILENCE and _stale(connection):
            connection.disconnect()
        if not connection.is_connected:
            # only for the handshake: what is read later has its own bound
            most = self._answer if seconds is None else max(seconds, 0.01)
            connection.socket_timeout = most
            connection.socket_connect_timeout = min(self._connecting, most)
            connection.connect()
            self._owed = 0
            self._lives += 1
        while self._owed:
            with suppress(ResponseError):
                self._read(connection, self._answer if seconds is None else max(seconds, 0.001))
        self._used = now
        return connection

    async def _send(
        self, words: Sequence[Argument], seconds: float | None, most: float | None = None
    ) -> Any:
        if seconds is not None and most is not None:
            seconds = min(seconds, most)
        return self._execute(*words, seconds=seconds)

    async def _before_again(self, error: Exception, away: float, pause: float) -> None:
        self._on_outage(error, away)
        await self.sleep(pause)
        await self.moved()

    async def moved(self) -> None:
        """Ask a Cluster anew where its nodes are; see IO."""
        with suppress(RedisError):  # then the next try says what is wrong
            if self._route.moved():
                self._connection = None

    def _after_again(self, away: float) -> None:
        self._on_return(away)

    async def replicated(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        replicas: int,
        seconds: float,
    ) -> tuple[Any, int]:
        """Run a script once and wait for replicas, over one connection; see IO."""
        answer = self._execute("EVAL", script.text, len(keys), *keys, *args)
        lives = self._lives
        reached = self._execute("WAIT", replicas, max(round(seconds * 1000), 1))
        return answer, reached if lives == self._lives else 0

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
            topic: the first word of the messages that are meant; "" for all.
        """
        deadline = time.monotonic() + seconds
        await self.listen(channel)
        ear = self._ears.get(channel)
        if ear is None:
            await self.sleep(seconds)
            return None
        try:
            return self._hear(ear, deadline, topic.encode())
        except AWAY:
            self.deafen()
            return b""

    def _hear(self, ear: Ear, deadline: float, topic: bytes) -> bytes | None:
        """What follows the topic; written out, for many are woken at once, each by cold code."""
        try:
            self.begin_waiting()
            while (left := deadline - time.monotonic()) > 0:
                said = ear.hear(left)
                if said is not None and said.startswith(topic):
                    return said[len(topic) :]
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

    async def connections(self, seconds: float) -> str:
        """The ids of two connections that live as long as this IO does: its own and an ear."""
        ear = self._ears.get(wake_channel(self.address))
        if ear and not ear.alive():
            self.deafen()
        channel = wake_channel(self.address)
        if not await self.listen(channel, "", seconds) or not self._ears[channel].id:
            return ""
        return f"{self._execute('CLIENT', 'ID', seconds=seconds)} {self._ears[channel].id}"

    async def presence(self, seconds: float) -> str:
        """The same and the server's id, without asking again while both are seen to stand."""
        channel, connection = wake_channel(self.address), self._connection
        ear = self._ears.get(channel)
        standing = ear and ear.alive() and connection and connection.is_connected
        if not standing or _stale(connection) or self._known[0] != self._lives:
            ids = await self.connections(seconds)
            self._known = (self._lives, ids and f"{ids} {await running(self, seconds)}")
        return self._known[1]

    async def standing(self) -> int:
        """A number that is another one once the connection broke."""
        self._open()
        return self._lives

    async def undo(self, core: Coroutine[Any, Any, Any]) -> None:
        """Run a core to its end, with little patience; what fails in it is left."""
        with suppress(RedisError, ServerUnreachable):
            await core

    def turn(self, key: str, deadline: float) -> AbstractAsyncContextManager[bool]:
        """Wait, in order, until nobody else of this process has the key."""
        return self._turns.turn(key, deadline)

    def spawn(self, function: Callable[[], Any]) -> None:
        """Run a user's function in a thread of its own."""
        threading.Thread(target=function, daemon=True).start()

    def close(self) -> None:
        """Close all connections."""
        self.deafen()
        if self._connection:
            self._connection.disconnect()


def _packed(words: Sequence[Argument]) -> Sequence[bytes]:
    """A command as it is sent; hiredis would copy a long word twice, so that goes as it is."""
    if len(words) > FEW or not any(isinstance(word, bytes) and len(word) > LONG for word in words):
        return (PACK(words),)
    pieces: list[bytes] = []
    short = b"*%d\r\n" % len(words)
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        short += b"$%d\r\n" % len(data)
        if len(data) > LONG:
            pieces += (short, data)
            short = b"\r\n"
        else:
            short += data + b"\r\n"
    return [*pieces, short]


def _stale(connection: Any) -> bool:
    """Whether an idle connection has something to say: that it is closed."""
    try:
        return bool(connection.can_read())
    except (RedisError, OSError):
        return True
