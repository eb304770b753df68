"""A copy as a process: its connections, its signals, and what it does when the server is away.

Rules:

- The first SIGTERM or Ctrl-C lets the message in hand finish: it says so, sets a flag and ends a
  wait. The second Ctrl-C ends the copy now: nothing more is sent.
- A process that a handler forks is no copy: it sends nothing, and a signal ends it as usual. The
  system does so: a handler of Python's would wait for the end of a sleep that was just beginning.
- Whoever loses the embedded server starts it again; the server's lock lets only one do so.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from ..connect import connect, patience_for
from ..errors import DistlockError
from ..io import Caller, Route, SyncIO, Unconfirmed, refuses_now
from ..keys import Keys
from ..place import Place
from ..source import Source
from .context import Context, Say, Settings
from .copy import HANDLER_TTL, Copy

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def copy_name() -> str:
    """A name for this process that no other copy has: host, process id, a random part."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:40] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(2)}"


class Process:
    """One copy as a process.

    Args:
        name: the copy's name, see `copy_name`.
        place: the server.
        keys: the pipeline's keys.
        settings: the copy's options.
        patience: seconds for which a server that is away is waited for.
        say: told of each event.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        keys: Keys,
        settings: Settings,
        patience: float,
        say: Say,
    ) -> None:
        self._place = place
        self._say = say
        self._patience = patience
        self._away = False
        self._server = ""
        self._signal = 0
        self._pid = os.getpid()
        # one answer must not take more than all patience; and that must be there to be used up
        client = connect(place.url, patience_for(place.url, min(max(patience, 1.0), 5.0)))
        io = SyncIO(
            Route(client, keys.job),
            max(patience, 0.01),
            on_outage=self._outage,
            on_return=self._back,
            replicas=settings.wait_replicas,
        )
        self.context = Context(name, io, keys, settings, say)
        least = min(settings.ttl, settings.handler_ttl or HANDLER_TTL)
        # a beat whose answer does not come must leave time for another one
        side = Route(connect(place.url, timeout=max(least / 6, 0.05)), keys.job)
        self._side = SyncIO(side, patience=0, replicas=settings.wait_replicas)

    def run(self, source: Callable[[int], Source], work: Callable[[int], Caller]) -> int:
        """Work until the job is done or a signal ends it.

        Args:
            source: makes the source of messages, given the job's seed.
            work: makes the function for one message, given the job's seed.

        Returns:
            0, or 130 after Ctrl-C.

        Raises:
            DistlockError, RedisError: why it cannot go on.
            KeyboardInterrupt: the second Ctrl-C.
        """
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in before:
            signal.signal(number, self._on_signal)
        try:
            Copy(self.context, self._side, source, work).run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.context.io.close()
            self._side.close()
        return 130 if self._signal == signal.SIGINT else 0

    def _on_signal(self, number: int, frame: FrameType | None) -> Any:
        if os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if self._signal and number == signal.SIGINT:
            self.context.io.abandon()
            raise KeyboardInterrupt
        self._signal = self._signal or number
        self.context.state.role = "stopping"
        text = "finishing the message in hand"
        text += "; Ctrl-C again ends it now" if number == signal.SIGINT else ""
        try:
            # the main thread is in the middle of a line, or nobody reads what is said
            with suppress(RuntimeError, OSError):
                self._say("stopping", text)
        finally:  # a message's time may be over just here
            self.context.io.interrupt()

    def _outage(self, error: Exception, seconds: float) -> None:
        if not self._away:
            self._away, self._server = True, self.context.io.server
            how = "takes no writes" if refuses_now(error) else "is away"
            what = f"{error}" if isinstance(error, Unconfirmed) else f"the server {how} ({error})"
            text = f"{what}: waiting for it up to {self._patience:g} s"
            self._say("away", text, error=str(error))
        embedded = self._place.embedded
        try:
            if embedded and not embedded.alive() and embedded.start():
                self._say("restarted", "started the embedded server again")
        except DistlockError as failure:
            self._say("not-restarted", str(failure))

    def _back(self, seconds: float) -> None:
        self._away = False
        server = self.context.io.server
        text = f"the server is back after {seconds:.1f} s"
        text += f", it is {server} now" if server != self._server else ""
        self._say("back", text, seconds=round(seconds, 3), server=server)


def _after_fork() -> None:
    """In a process that was forked from a copy: let its signals end it."""
    for number in SIGNALS:
        if getattr(signal.getsignal(number), "__func__", None) is Process._on_signal:
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_after_fork)
