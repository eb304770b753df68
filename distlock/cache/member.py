"""One node, or one shard of a Cluster, as this process knows it.

Rules:

- An error that says that it cannot serve leaves it out at once, in this process. (A connection that
  breaks is opened again first, see TRIES.) A keeper tries every 0.25 s to write to it, for a
  replica or a server without memory would answer a question; as soon as that is done it is used
  again.
- What was deleted or set on a substitute meanwhile is deleted here before this process uses it. On
  a Cluster a replica may have taken over: there it is owed by all shards, and paid by whichever has
  the key when it is next asked for.
- On a Cluster, where everybody is now is asked again while one is left out, and one that has
  nothing any more is forgotten. A slot that is on its way is waited for, for a moment.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol
from weakref import WeakMethod

from redis.exceptions import (
    AskError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from ..io import IO, Argument, Kept, Mutex, is_away
from ..keys import CacheKeys
from ..scripts import Script, script

PUT = script("cache_put")
TRIES = 4
"""Times that a request is sent while its connection breaks at once: a node that refuses all of them
is away, one that has lost an answer or two is not."""
PAUSE = 0.25
"""Seconds between two questions to a node that is left out."""
MOVING = 0.01
"""Seconds after which to look again for a slot that is moving or has moved."""
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


Owed = dict[str, tuple[list[str], str]]


class Shard(NamedTuple):
    """What a shard has in common with the others of its Cluster.

    Attributes:
        owed: what all of them owe.
        needed: whether this one has slots, as far as is known.
    """

    owed: Owed
    needed: Callable[[], bool]


def _cannot_serve(error: Exception) -> bool:
    """Whether an error is the node's, and not that of what was asked."""
    if is_away(error) or isinstance(error, OutOfMemoryError | ReadOnlyError | AskError | OSError):
        return True
    return str(error).startswith(("MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN"))


class Member:
    """A server, or a shard of a Cluster, as this process knows it; see io.Kept for `keep`.

    Args:
        name: of the node.
        hub: what this process shares there.
        timeout: seconds for an answer.
        on_death: called when it is left out; when the cache is gone, nobody asks any more.
        place: a key on it.
        shard: what it shares with the other shards of a Cluster, None if it is no shard.

    Attributes:
        cluster: it is a shard of a Cluster.
        down: it is left out.
        owed: by a value's key: all keys of the value, which is to be deleted before it is used
            again, and an id.
    """

    def __init__(
        self,
        name: str,
        hub: Hubs,
        timeout: float,
        on_death: WeakMethod[Callable[[], None]],
        place: str,
        shard: Shard | None = None,
    ) -> None:
        self.name = name
        self.hub = hub
        self.down = False
        self.cluster = shard is not None
        self.owed: Owed = shard.owed if shard else {}
        self._timeout = timeout
        self._on_death = on_death
        self._silent = math.inf
        self._probe = CacheKeys.probe(place)
        self._shard = shard
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
        return await self._send(io, deadline, lambda most: io.ask(words, self._timeout, most))

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
        return await self._send(
            io, deadline, lambda most: io.attempt(script, keys, args, patience, most)
        )

    async def _send(self, io: IO, deadline: float, send: Callable[[float], Any]) -> Any:
        """Send; a connection that breaks at once is opened again, see TRIES."""
        began = time.monotonic()
        most = max(deadline - began, 0.001)
        try:
            answer = await self._while_broken(began, lambda: send(most))
            self._silent = math.inf
            return answer
        except (RedisError, OSError) as error:
            if not _cannot_serve(error):
                raise
            if isinstance(error, AskError | TryAgainError):  # MovedError is one
                await io.moved()
                await io.sleep(MOVING)
            elif not isinstance(error, TimeoutError) or self._is_silent(began, deadline):
                self.leave_out(error)
            raise MemberDown(f"{self.name}: {error}") from error

    async def _while_broken(self, began: float, send: Callable[[], Any]) -> Any:
        for _ in range(TRIES - 1):
            try:
                return await send()
            except (ConnectionError, OSError) as error:
                if not is_away(error) or time.monotonic() - began > self._timeout / 2:
                    raise
        return await send()

    async def listen(self, io: IO, channel: str, topic: str, seconds: float) -> bool:
        """Subscribe, as IO.listen does; a connection that breaks at once is opened again."""
        began = time.monotonic()
        for _ in range(TRIES):
            if await io.listen(channel, topic, seconds):
                return True
            if time.monotonic() - began > self._timeout / 2:
                break
        return False

    def _is_silent(self, began: float, deadline: float) -> bool:
        """Whether it has been silent for the timeout: in this call, or in several short ones."""
        self._silent = min(self._silent, began)
        now = time.monotonic()
        return now < deadline or now - self._silent >= self._timeout

    def leave_out(self, error: Exception) -> None:
        """Use it no more until it answers again."""
        with self._mutex:
            if self.down:
                return
            self.down = True
        log.warning("cache node %s is left out: %s", self.name, " ".join(str(error).split()))
        if (died := self._on_death()) is not None:
            died()
        self.due = time.monotonic() + PAUSE
        self.hub.keep(self)

    @property
    def kept(self) -> bool:
        """Whether it is to be asked whether it is back."""
        return self.down and self._on_death() is not None

    async def keep(self, io: IO, until: float) -> None:
        """Try it; pay what is owed; use it again."""
        self.due = time.monotonic() + PAUSE
        try:
            with suppress(AskError):  # it serves, but the key's slot is another's by now
                await io.ask(("SET", self._probe, "", "PX", 1000), self._timeout)
            due = list(self.owed)
            while due:
                for place in due:
                    with suppress(AskError):
                        await self._pay(place, io)
                due = [] if self.cluster else list(self.owed)
        except (RedisError, OSError) as error:
            log.debug("cache node %s is not back: %s", self.name, error)
            await self._look_for_another(io)
            return
        self._come_back()

    async def _look_for_another(self, io: IO) -> None:
        """Ask the Cluster who is there now, and whether this one still is."""
        if self._shard:
            await io.moved()
            if not self._shard.needed():
                log.warning("cache node %s is given up: its keys are elsewhere now", self.name)
                self.down = False

    async def _pay(self, place: str, io: IO) -> None:
        keys, id = self.owed[place]
        await io.attempt(PUT, keys, (id, "", 0, 0), self._timeout)
        with self._mutex:
            if self.owed.get(place) == (keys, id):  # and not another one since
                del self.owed[place]

    def _come_back(self) -> None:
        with self._mutex:
            self.down = bool(self.owed) and not self.cluster
        if not self.down:
            log.warning("cache node %s is used again", self.name)

    async def settle(self, place: str) -> None:
        """Pay what another shard was left owing for a value; raises MemberDown."""
        owed = self.owed.get(place)
        if owed is None:
            return
        keys, id = owed
        io = self.hub.take()
        try:
            await self.run(io, PUT, keys, (id, "", 0, 0))
        finally:
            self.hub.give(io)
        if self.owed.get(place) == owed:
            self.owed.pop(place, None)

    def owe(self, keys: list[str], id: str) -> bool:
        """Delete a value before it is used again; False when it is used already."""
        with self._mutex:
            if self.down or self.cluster:
                self.owed[keys[0]] = (keys, id)
                return True
            return False
