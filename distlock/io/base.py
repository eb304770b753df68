"""What a capability may ask of the outside, and how a core runs over the synchronous IO."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    TimeoutError,
    TryAgainError,
)

from ..scripts import Script

T = TypeVar("T")
Argument = str | bytes | int

ELSEWHERE = (AskError, TryAgainError, ClusterDownError)
"""What a node of a Cluster says when it has done nothing: another one is to be asked, or again.

(MovedError is an AskError.)"""
AWAY = (ConnectionError, TimeoutError, BusyLoadingError, *ELSEWHERE)
"""Errors that say nothing of our request: the server is away, not back yet, or another one now."""
DENIED = (AuthenticationError, AuthorizationError)
"""Errors that redis-py counts as connection errors although waiting does not mend them."""
SILENCE = 0.5
"""Seconds after which a connection is looked at before it is used again."""


class Unconfirmed(ConnectionError):
    """Too few replicas have what was written; it may be sent again, until enough have it."""


class Interrupted(BaseException):
    """A signal ended a wait: the process is to stop."""


class IO(Protocol):
    """What the capabilities need from the outside.

    Attributes:
        patience: seconds for which a server that is away is waited for.
        resent: how many requests had to be sent again.
        address: where this IO can be called, until it is deafened.
    """

    patience: float
    resent: int
    address: str

    async def call(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        patience: float | None = None,
    ) -> Any:
        """Run a script and return its answer; send it again while the server is away.

        Until `patience` seconds are over, which then bounds each attempt, too; None: the IO's.
        """

    async def command(self, *words: Argument) -> Any:
        """Send one command that only reads, in the same way."""

    async def ask(
        self, words: Sequence[Argument], seconds: float, most: float | None = None
    ) -> Any:
        """Send one command once; an answer counts as lost when nothing is heard for some seconds.

        It is waited for no longer than `most` seconds (None: the same).
        """

    async def attempt(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        seconds: float,
        most: float | None = None,
    ) -> Any:
        """Run a script in the same way."""

    async def replicated(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        replicas: int,
        seconds: float,
    ) -> tuple[Any, int]:
        """Run a script once and wait for replicas; its answer, and how many have it by then."""

    async def listen(self, channel: str, topic: str = "", seconds: float = 5.0) -> bool:
        """Subscribe, so that no wake-up after this call is missed by `wait`; whether it worked.

        The first word of a topic is that of the messages that are meant; what follows tells apart
        those of this process who wait for the same.
        """

    async def wait(self, channel: str, seconds: float, topic: str = "") -> bytes | None:
        """Wait until something is published on the channel.

        Returns what follows that word, b"" when a connection broke, or None: the time is over.
        """

    def listens(self, channel: str) -> bool:
        """Whether it is subscribed, as far as is known."""

    def mute(self, channel: str, topic: str) -> None:
        """Take nothing more of this topic."""

    def deafen(self, address: str = "") -> None:
        """Close the connections that wait, if the address is still this IO's (or none is named).

        Whoever calls the old address reaches nobody.
        """

    async def connections(self, seconds: float) -> str:
        """The ids of two connections that live as long as this IO does, or ""."""

    async def presence(self, seconds: float) -> str:
        """The same and the server's id, without asking again while both are seen to stand."""

    async def standing(self) -> int:
        """A number that is another one once the connection broke."""

    async def moved(self) -> None:
        """Ask a Cluster anew where its nodes are; nothing happens where there is none."""

    async def sleep(self, seconds: float) -> None:
        """Do nothing for some seconds."""

    async def undo(self, core: Coroutine[Any, Any, Any]) -> None:
        """Run a core to its end although the caller was cancelled; what fails in it is left."""

    def turn(self, key: str, deadline: float) -> AbstractAsyncContextManager[bool]:
        """Wait, in order, until nobody else of this process has the key; False: too late."""

    def spawn(self, function: Callable[[], Any]) -> None:
        """Run a user's function in the background."""


def is_away(error: Exception) -> bool:
    """Whether an error says nothing of our request, so that it may be sent again."""
    if isinstance(error, DENIED):
        return False
    return isinstance(error, AWAY) or str(error).startswith("BUSY")


def refuses_now(error: Exception) -> bool:
    """Whether the server takes no writes for now: no memory, no disk, no replicas, or it is one.

    A script that is refused so has written nothing: it is refused at its first write.
    """
    refusals = r"(^|: -)(OOM|READONLY|NOREPLICAS|MISCONF|MASTERDOWN) "  # of a script; Redis 6.2's
    kinds = OutOfMemoryError | ReadOnlyError
    return isinstance(error, kinds) or bool(re.search(refusals, str(error)))


def run(core: Coroutine[Any, Any, T]) -> T:
    """Run a core over the synchronous IO to its end, in one step."""
    try:
        core.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    core.close()
    raise RuntimeError("a core suspended over the synchronous IO")
