"""Sending a request again while the server is away: one body for both IOs.

An answer that was lost is asked for again, for as long as the caller is patient. Every script is
safe to send twice; that is what makes this legal. Whoever is in the middle of its work also waits
while the server takes no writes: no memory, no disk, too few replicas, a primary that was demoted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError, RedisError, TimeoutError

from ..errors import ServerUnreachable
from ..scripts import Script
from .base import Argument, is_away, refuses_now
from .route import ANSWER

LAST = 0.5
"""Seconds for which a server is asked that has used up all patience, until it answers again."""


class Sending:
    """What an IO is beside its connections.

    Args:
        patience: seconds for which a silent server is waited for.

    Attributes:
        patience: the same. Once it was used up, what is said on the way out is tried for a moment.
        resent: how many requests had to be sent again.
        through_refusals: whether a server that takes no writes for now is waited for, too.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.resent = 0
        self.through_refusals = False
        self._answer = ANSWER
        self._spent = False

    async def _send(
        self, words: Sequence[Argument], seconds: float | None, most: float | None = None
    ) -> Any:
        """Send one command once and return its answer, within some seconds, if given; see ask."""
        raise NotImplementedError

    async def _before_again(self, error: Exception, away: float, pause: float) -> None:
        """Wait, after the server has been away for some seconds, and prepare for another try."""
        raise NotImplementedError

    async def moved(self) -> None:
        """Ask a Cluster anew where its nodes are; see IO."""
        raise NotImplementedError

    def _after_again(self, away: float) -> None:
        """The server answers again."""

    async def call(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        patience: float | None = None,
    ) -> Any:
        """Run a script and return its answer; send it again while the server is away.

        Raises:
            ServerUnreachable: it was away for longer than `patience`.
            RedisError: the server refused.
            Interrupted: the process is to stop and the server is away.
        """
        began = time.monotonic()
        bound = None if patience is None else min(patience, ANSWER)
        words = (script.sha, len(keys), *keys, *args)
        whole = ("EVAL", script.text, *words[1:])
        if self._spent:
            return await self._persist(whole, began, patience)
        try:
            return await self._send(("EVALSHA", *words), bound)
        except NoScriptError:
            return await self._persist(whole, began, patience)
        except RedisError as error:
            return await self._persist(whole, began, patience, error)

    async def command(self, *words: Argument) -> Any:
        """Send one command that only reads, again while the server is away; raises like `call`."""
        return await self._persist(words, time.monotonic(), None)

    async def _persist(
        self,
        words: Sequence[Argument],
        began: float,
        patience: float | None,
        error: RedisError | None = None,
    ) -> Any:
        pause, away = 0.02, 0.0
        if self._spent:
            patience = LAST if patience is None else min(LAST, patience)
        most = self.patience if patience is None else patience
        try:
            while True:
                if error:
                    away = time.monotonic() - began
                    refused = self.through_refusals and refuses_now(error)
                    if not (refused or is_away(error)):
                        raise error
                    if away >= most:
                        if patience is None and self.patience:
                            self._spent = True
                        await self.moved()  # for whoever sends the next
                        if refused:
                            raise error
                        raise ServerUnreachable(
                            f"the server has been away for {away:.0f} s ({error}): bring it back "
                            "and start again; nothing is lost"
                        ) from error
                    await self._before_again(error, away, min(pause, most - away))
                    pause = min(pause * 1.5, 0.25)
                    self.resent += 1
                bound = None
                if error or patience is not None:
                    bound = min(
                        max(most - away, 0.05), self._answer if patience is None else ANSWER
                    )
                try:
                    answer = await self._send(words, bound)
                except RedisError as failure:
                    # the last tries are short: their silence says less than what was heard before
                    error = error if error and isinstance(failure, TimeoutError) else failure
                    continue
                self._spent = False
                if error:
                    self._after_again(time.monotonic() - began)
                return answer
        finally:
            error = None  # else it would stay, with the connection: its traceback knows this frame

    async def ask(
        self, words: Sequence[Argument], seconds: float, most: float | None = None
    ) -> Any:
        """Send one command once; an answer counts as lost when nothing is heard for some seconds.

        Args:
            words: of the command.
            seconds: of silence.
            most: seconds for which this answer is waited for at most; None: the same.
        """
        return await self._send(words, seconds, most)

    async def attempt(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        seconds: float,
        most: float | None = None,
    ) -> Any:
        """Run a script in the same way."""
        words = (script.sha, len(keys), *keys, *args)
        try:
            return await self._send(("EVALSHA", *words), seconds, most)
        except NoScriptError:
            return await self._send(("EVAL", script.text, *words[1:]), seconds, most)
