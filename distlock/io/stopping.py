"""Waits of a thread that a signal can end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from .base import Interrupted


class Stopping:
    """What a signal handler tells a thread, and how the thread sleeps.

    Attributes:
        stopping: a signal has told the process to stop.
        abandoned: the process ends now, nothing more is to be sent.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.abandoned = False
        self._waiting = False

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
        try:
            self.begin_waiting()
            yield
        finally:
            self._waiting = False

    def begin_waiting(self) -> None:
        """Let a signal end, by Interrupted, what follows; whoever calls this ends it."""
        self._waiting = True
        if self.stopping:
            raise Interrupted

    def abandon(self) -> None:
        """Have the process end now: nothing more is sent."""
        self.abandoned = True

    def interrupt(self) -> None:
        """Have the process stop: called by a signal handler, in the thread of this IO."""
        self.stopping = True
        if self._waiting:
            raise Interrupted
