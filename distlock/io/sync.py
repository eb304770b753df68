"""The synchronous IO: blocking calls over one connection, waits, and a thread in the background.

- redis-py's own retries are off on these connections: they hide for how long the server has been
  away. `sending` sends again.
- `interrupt`, called by a signal handler, ends a wait at once and never a call under way: a
  message in hand is finished, an answer that is due is read.
- With `replicas`, what a script wrote counts only when so many replicas have it. WAIT asks them on
  the same connection; when they do not confirm, the server is as good as away: the script is sent
  again, which changes nothing, and they are asked again.
- An answer that an exception kept from being read (Ctrl-C) is read before the next request: what
  is sent to undo the one before comes after it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from redis.exceptions import ConnectionError, RedisError, ResponseError

from ..errors import DistlockError, ServerUnreachable
from ..keys import wake_channel
from ..scripts import Script
from .base import SILENCE, Argument, Interrupted, Unconfirmed
from .listening import Listening
from .packing import Request, packed
from .pulse import running
from .route import ANSWER, Route, SyncClient, tie
from .sending import Sending
from .turns import Turns

CONFIRM = 1.0
"""Seconds for which replicas may take to confirm, before they are asked again."""
SCRIPTS = ("EVALSHA", "EVAL")


class SyncIO(Listening, Sending):
    """The IO of one thread at a time: blocking calls over one client.

    Args:
        client: how to reach the server; its own retries are not used.
        patience: seconds for which a silent server is waited for.
        on_outage: told of every failed attempt (the error, seconds since the first) before the
            next one; it may bring the server back.
        on_return: told when the server answers again (seconds it was away).
        turns: the turns of this process.
        replicas: how many must have what a script wrote.

    Attributes:
        server: host and port of the one that was connected to last, "" if it has none.
    """

    def __init__(
        self,
        client: SyncClient | Route,
        patience: float = 60.0,
        on_outage: Callable[[Exception, float], None] = lambda error, seconds: None,
        on_return: Callable[[float], None] = lambda seconds: None,
        turns: Turns | None = None,
        replicas: int = 0,
    ) -> None:
        Listening.__init__(self, client if isinstance(client, Route) else Route(client))
        Sending.__init__(self, patience)
        self.client: Any = client
        self._turns = turns or Turns()
        self._replicas = replicas
        self._connection: Any = None
        self.server = ""
        self._used = 0.0
        self._owed = 0
        self._begun: tuple[Argument, ...] = ()
        self._connecting = ANSWER
        self._lives = 0
        self._known = (0, "")
        self._pid = os.getpid()
        self._on_outage = on_outage
        self._on_return = on_return

    def _execute(self, *words: Argument, seconds: float | None = None) -> Any:
        """Send one command on this IO's own connection, and read the answer.

        Taking it from the pool anew for each command would cost 30 of 75 µs. After a silence it is
        looked at first, for the server may have closed it.
        """
        begun, self._begun = self._begun, ()
        if begun != words or os.getpid() != self._pid:
            self._write(packed(words), seconds)
        return self._read(
            self._connection, self._answer if seconds is None else max(seconds, 0.001)
        )

    def _write(self, pieces: Sequence[bytes], seconds: float | None = None) -> None:
        self._open(seconds).send_packed_command(pieces)
        self._owed += 1

    def begin(self, request: Request) -> None:
        """Send a request, and go on: a `call` of the same, if it is the next, reads its answer.

        Whatever else is sent first, or an error here, has that call send it again.
        """
        with suppress(RedisError, OSError):
            self._write(request.pieces)
            self._begun = request.words

    def _read(self, connection: Any, seconds: float) -> Any:
        """Read one answer; a connection that fails is closed, one that was interrupted is not."""
        try:
            answer = connection.read_response(disconnect_on_error=False, timeout=seconds)
        except ResponseError as error:
            self._owed -= 1
            if self._route.follows and "READONLY" in str(error):  # a primary that was demoted
                connection.disconnect()
                raise ConnectionError("the server is a replica now") from error
            raise
        except RedisError:
            connection.disconnect()
            raise
        self._owed -= 1
        return answer

    def _open(self, seconds: float | None = None) -> Any:
        """The connection, with nothing unread on it; all of that within some seconds, if given."""
        connection, now, self._begun = self._connection, time.monotonic(), ()
        if self.abandoned:
            raise Interrupted
        if os.getpid() != self._pid:
            raise DistlockError("a process that a handler forked cannot go on as this copy")
        if connection is None:
            connection = self._connection = self._route.connection()
            self._close = tie(connection, self)
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
            self._note_server(connection)
        while self._owed:
            with suppress(ResponseError):
                self._read(connection, self._answer if seconds is None else max(seconds, 0.001))
        self._used = now
        return connection

    def _note_server(self, connection: Any) -> None:
        """Listen no more at a server that is not the one any more."""
        server = f"{connection.host}:{connection.port}" if hasattr(connection, "port") else ""
        if server != self.server and self.server:
            self.deafen()
        self.server = server

    async def _send(
        self, words: Sequence[Argument], seconds: float | None, most: float | None = None
    ) -> Any:
        if seconds is not None and most is not None:
            seconds = min(seconds, most)
        answer = self._execute(*words, seconds=seconds)
        if self._replicas and words[0] in SCRIPTS:
            most = CONFIRM if seconds is None else min(seconds, CONFIRM)
            if (reached := self._reached(self._replicas, most)) < self._replicas:
                raise Unconfirmed(f"{reached} of {self._replicas} replicas confirmed a write")
        return answer

    def _reached(self, replicas: int, seconds: float) -> int:
        """How many replicas have what was written over this connection, after some seconds."""
        lives, most = self._lives, max(round(seconds * 1000), 1)
        try:
            reached: int = self._execute("WAIT", replicas, most, seconds=seconds + self._answer)
        except ResponseError:  # a replica itself, now
            return 0
        return reached if lives == self._lives else 0

    async def _before_again(self, error: Exception, away: float, pause: float) -> None:
        self._on_outage(error, away)
        await self.sleep(pause)
        await self.moved()

    async def moved(self) -> None:
        """Ask a Cluster anew where its nodes are; see IO."""
        with suppress(RedisError):  # then the next try says what is wrong
            if self._route.moved() and self._connection:
                self._close()
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
        return answer, self._reached(replicas, seconds)

    async def connections(self, seconds: float) -> str:
        """The ids of two connections that live as long as this IO does: its own and an ear."""
        ear = self._ears.get(wake_channel(self.address))
        if ear and not ear.alive():
            self.deafen()
        channel = wake_channel(self.address)
        if not await self.listen(channel, "", seconds) or not self._ears[channel].id:
            return ""
        own = await self._send(("CLIENT", "ID"), seconds)
        ear = self._ears.get(channel)  # gone, when another server has taken over just now
        return f"{own} {ear.id}" if ear else ""

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


def _stale(connection: Any) -> bool:
    """Whether an idle connection has something to say: that it is closed."""
    try:
        return bool(connection.can_read())
    except (RedisError, OSError):
        return True
