"""The IO of a keeper: what all cores that run over it ask at one time goes to the server at once.

A thread that waits for an answer gives the interpreter away, and where hundreds of threads are at
work it comes back after all of them. Asked one by one, hundreds of renewals would come too late.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from typing import Any

from redis.exceptions import ResponseError

from .base import Argument
from .packing import packed
from .route import ANSWER
from .sync import SyncIO

Core = Coroutine[Any, Any, None]


class _Request:
    """A command that a core waits to be answered."""

    def __init__(self, words: Sequence[Argument], seconds: float) -> None:
        self.words = words
        self.seconds = seconds

    def __await__(self) -> Generator[_Request, Any, Any]:
        return (yield self)


class TogetherIO(SyncIO):
    """A synchronous IO over which many cores run at the same time; see `run_all`."""

    async def _send(
        self, words: Sequence[Argument], seconds: float | None, most: float | None = None
    ) -> Any:
        bounds = [bound for bound in (seconds, most) if bound is not None]
        return await _Request(words, min(bounds, default=ANSWER))

    def run_all(self, cores: Sequence[Core]) -> None:
        """Run cores that raise nothing to their ends, each time all of them to their next request.

        The shortest time in which one of them wants its answer is that of all.
        """
        told: list[tuple[Core, Any]] = [(core, None) for core in cores]
        while asked := [(core, said) for core, heard in told if (said := _step(core, heard))]:
            heard_all = self._ask_all([request for _, request in asked])
            told = [(core, heard) for (core, _), heard in zip(asked, heard_all, strict=True)]

    def _ask_all(self, requests: list[_Request]) -> list[Any]:
        """The answers, or the errors in their places."""
        seconds = min(request.seconds for request in requests)
        answers: list[Any] = []
        try:
            connection = self._open(seconds)
            pieces = [piece for request in requests for piece in packed(request.words)]
            connection.send_packed_command(pieces)
            self._owed += len(requests)
            while len(answers) < len(requests):
                try:
                    answers.append(self._read(connection, max(seconds, 0.001)))
                except ResponseError as error:
                    answers.append(error)
        except Exception as error:
            answers += [error] * (len(requests) - len(answers))
        return answers


def _step(core: Core, heard: Any) -> _Request | None:
    """Run a core to its next request; None at its end."""
    try:
        request: _Request = core.throw(heard) if isinstance(heard, Exception) else core.send(heard)
    except StopIteration:
        return None
    return request
