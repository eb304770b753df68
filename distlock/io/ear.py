"""One subscribed connection of a thread.

It speaks RESP2, where a message is an ordinary answer, and has no socket timeout: a wait ends at
the caller's deadline. It never connects again by itself, for what was published meanwhile is lost.
"""

from __future__ import annotations

from contextlib import suppress

from redis.exceptions import NoPermissionError, RedisError, TimeoutError

from .route import Route, tie


class Ear:
    """A subscription to one channel; confirmed when the constructor returns.

    Args:
        route: where the connection comes from.
        channel: what to subscribe to.
        seconds: how long connecting and the confirmation may take, each.

    Attributes:
        id: the server's number for this connection, 0 if it must not be asked.

    Raises:
        RedisError: the server is away or refuses.
    """

    def __init__(self, route: Route, channel: str, seconds: float) -> None:
        self._connection = route.connection(
            protocol=2, socket_timeout=seconds, socket_connect_timeout=seconds
        )
        tie(self._connection, self)
        self._connection.connect()
        self.id = 0
        try:
            with suppress(NoPermissionError):
                self._connection.send_command("CLIENT", "ID")
                self.id = int(self._connection.read_response())
            self._connection.send_command("SUBSCRIBE", channel)
            self._connection.read_response()
        except BaseException:
            self.close()
            raise

    def hear(self, seconds: float) -> bytes | None:
        """The next message, or None after some seconds; raises when the connection broke."""
        try:
            message = self._connection.read_response(
                timeout=max(seconds, 0.001), disconnect_on_error=False
            )
        except TimeoutError:
            return None
        said: bytes = message[2]
        return said

    def alive(self) -> bool:
        """Whether the connection stands, as far as can be seen without asking."""
        try:
            self._connection.can_read(0)
        except (RedisError, OSError):
            return False
        return True

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()
