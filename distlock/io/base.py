"""What a capability may ask of the outside, and how a core runs over the synchronous IO."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from ..scripts import Script

T = TypeVar("T")
Argument = str | bytes | int


class Interrupted(BaseException):
    """A signal ended a wait: the process is to stop."""


class IO(Protocol):
    """What the capabilities need from the outside."""

    stopping: bool

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a script and return its answer; send it again while the server is away."""

    async def command(self, *words: Argument) -> Any:
        """Send one command that only reads, in the same way."""

    async def wait(self, channel: str, seconds: float) -> bool:
        """Wait until something is published on the channel: True, or the time is over: False."""

    async def listen(self, channel: str) -> None:
        """Subscribe, so that no wake-up after this call is missed by `wait`."""

    async def sleep(self, seconds: float) -> None:
        """Do nothing for some seconds."""


def run(core: Coroutine[Any, Any, T]) -> T:
    """Run a core over the synchronous IO to its end, in one step."""
    try:
        core.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    core.close()
    raise RuntimeError("a core suspended over the synchronous IO")
