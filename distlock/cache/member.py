"""One node, or one shard of a Cluster, as this process knows it.

Rules:

- An error that says that it cannot serve leaves it out at once, in this process. (A connection that
  was found closed is opened again first.) A keeper asks it every 0.25 s, and it is used as soon as
  it answers.
- What was deleted or set on a substitute meanwhile is deleted here before this process uses it.
- On a Cluster, where everybody is now is asked again while one is left out.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.exceptions import (
    ConnectionError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)

from ..io import IO, Argument, Kept, Mutex, is_away
from ..scripts import Script, script

PUT = script("cache_put")
PAUSE = 0.25
"""Seconds between two questions to a node that is left out."""
log = logging.getLogger("distlock")


class MemberDown(Exception):
    """A member did not serve: look again who does."""


class Hubs(Protocol):
    """What a process, or an event loop, shares on one server; see io.hub."""

    def take(self) -> Any:
        """An IO."""

    def give(self, io: Any) -> None:
        """Give it back."""

    async def presence(self, seconds: float) -> str:
        """The ids of two connections that live as long as whoever shares this."""

    def track(
        self, prefix: str, hear: Callable[[list[bytes] | None], None], stand: Callable[[bool], None]
    ) -> None:
        """Tell of keys that change."""

    def keep(self, kept: Kept) -> None:
        """Look after something."""


def _cannot_serve(error: Exception) -> bool:
    """Whether an error is the node's, and not that of what was asked."""
    if is_away(error) or isinstance(error, OutOfMemoryError | ReadOnlyError | OSError):
        return True
    return str(error).startswith(("MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN"))


class Member:
    """A server, or a shard of a Cluster, as this process knows it; see io.Kept for `keep`.

    Args:
        name: of the node.
        hub: what this process shares there.
        timeout: seconds for an answer.
        on_death: called when it is left out.
        cluster: it is a shard of a Cluster.

    Attributes:
        cluster: the same.
        down: it is left out.
        owed: keys whose value on it is to be deleted before it is used again, with an id each.
    """

    def __init__(
        self,
        name: str,
        hub: Hubs,
        timeout: float,
        on_death: Callable[[], None],
        cluster: bool,
    ) -> None:
        self.name = name
        self.hub = hub
        self.down = False
        self.owed: dict[tuple[str, ...], str] = {}
        self._timeout = timeout
        self._on_death = on_death
        self.cluster = cluster
        self._mutex = Mutex()
        self.due = 0.0
        self.deadline = math.inf
        self.scheduled = math.inf

    async def ask(self, io: IO, words: Sequence[Argument], deadline: float) -> Any:
        """Send a command until `deadline` (monotonic) at most.

        Raises:
            MemberDown: the node cannot serve; it is left out from now on.
            RedisError: what was asked is refused.
        """
        return await self._twice(io, deadline, lambda most: io.ask(words, self._timeout, most))

    async def run(
        self,
        io: IO,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        deadline: float = math.inf,
        size: int = 0,
    ) -> Any:
        """Run a script in the same way; `size` bytes to send give it more time."""
        patience = self._timeout + size / 1e7
        return await self._twice(
            io, deadline, lambda most: io.attempt(script, keys, args, patience, most)
        )

    async def _twice(self, io: IO, deadline: float, send: Callable[[float], Any]) -> Any:
        """Send; a connection that breaks at once was broken before, and is opened again."""
        began = time.monotonic()
        most = max(deadline - began, 0.001)
        try:
            try:
                return await send(most)
            except (ConnectionError, OSError) as error:
                if not is_away(error) or time.monotonic() - began > self._timeout / 2:
                    raise
                return await send(most)
        except (RedisError, OSError) as error:
            if not _cannot_serve(error):
                raise
            if isinstance(error, MovedError):
                await io.moved()
            elif not isinstance(error, TimeoutError) or time.monotonic() < deadline:
                self.leave_out(error)
            raise MemberDown(f"{self.name}: {error}") from error

    def leave_out(self, error: Exception) -> None:
        """Use it no more until it answers again."""
        if self.down:
            return
        self.down = True
        log.warning("cache node %s is left out: %s", self.name, " ".join(str(error).split()))
        self._on_death()
        self.due = time.monotonic() + PAUSE
        self.hub.keep(self)

    @property
    def kept(self) -> bool:
        """Whether it is to be asked whether it is back."""
        return self.down

    async def keep(self, io: IO, until: float) -> None:
        """Ask it; pay what is owed; use it again."""
        self.due = time.monotonic() + PAUSE
        try:
            if self.cluster:
                await io.moved()
            await io.ask(("PING",), self._timeout)
            while self.owed:
                keys, id = next(iter(self.owed.items()))
                await io.attempt(PUT, keys, (id, "", 0, 0), self._timeout)
                if self.owed.get(keys) == id:
                    del self.owed[keys]
        except (RedisError, OSError) as error:
            log.debug("cache node %s is not back: %s", self.name, error)
            return
        self._come_back()

    def _come_back(self) -> None:
        with self._mutex:
            self.down = bool(self.owed)
        if not self.down:
            log.warning("cache node %s is used again", self.name)

    def owe(self, keys: Sequence[str], id: str) -> bool:
        """Delete a value before it is used again; False when it is used already."""
        with self._mutex:
            if self.down:
                self.owed[tuple(keys)] = id
            return self.down
