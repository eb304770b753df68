"""Running a command under a lease, like flock(1), but for many machines.

Rules:

- The command runs only while the lease is held; its token is in DISTLOCK_TOKEN, the lease's name in
  DISTLOCK_LEASE. When the lease is lost the command gets SIGTERM, and SIGKILL after a grace time.
- Without a terminal the command leads a process group, and what stops it stops what it started,
  too. On a terminal it stays in ours, so Ctrl-C and Ctrl-Z do what they always do.
- SIGTERM, SIGINT and SIGHUP are passed on to it. If this process is killed, so is the command: it
  would run on without a lease. (Linux only; what it has started itself runs on.)
- The lease is released when the command has ended, and its exit code is ours.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from .errors import CommandNotFound, LeaseLost
from .lease import Lease

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG = 1


class Command:
    """A command that runs under a lease.

    Args:
        words: the command and its arguments.
        say: told in one line why the command is stopped.

    Attributes:
        code: its exit code, as far as it has ended.

    Raises:
        CommandNotFound: there is no such program.
    """

    def __init__(self, words: Sequence[str], say: Callable[[str], None]) -> None:
        if shutil.which(words[0]) is None:
            raise CommandNotFound(f"{words[0]!r} is no program that can be run: look at PATH")
        self._words = words
        self._say = say
        self._own_group = not sys.stdin.isatty()
        self._child: subprocess.Popen[bytes] | None = None
        self._lost = False
        self.code = 0

    def lost(self, lease: Lease) -> None:
        """Stop the command: the lease is lost. For `on_lost`."""
        self._lost = True
        self._say(f"lease {lease.name!r} was lost ({lease.why}): stopping the command")
        self._signal(signal.SIGTERM)
        if child := self._child:
            try:
                child.wait(GRACE)
            except subprocess.TimeoutExpired:
                self._say(f"the command still runs after {GRACE:g} s: killing it")
                self._signal(signal.SIGKILL)

    def run(self, lease: Lease) -> int:
        """Run it; the lease is held when this is called.

        Returns:
            The exit code of the command, 128 + n when signal n ended it; never 0 when it was
            stopped because the lease was lost.
        """
        environment = {"DISTLOCK_TOKEN": str(lease.token), "DISTLOCK_LEASE": lease.name}
        with self._passing_on():
            with suppress(LeaseLost):
                lease.check()
                self._child = subprocess.Popen(
                    self._words,
                    env=os.environ | environment,
                    process_group=0 if self._own_group else None,
                    preexec_fn=_die_with(os.getpid()),
                )
            if self._child is None:
                return 1
            if self._lost:  # before there was anything to stop
                self._signal(signal.SIGTERM)
            code = self._child.wait()
            if self._lost:  # what it has started was told, too
                self._signal(signal.SIGKILL)
        self.code = (128 - code if code < 0 else code) or int(self._lost)
        return self.code

    def _signal(self, number: int) -> None:
        child = self._child
        if child is None:
            return
        with suppress(ProcessLookupError):
            if self._own_group:
                os.killpg(child.pid, number)
            elif child.returncode is None:
                child.send_signal(number)

    @contextmanager
    def _passing_on(self) -> Iterator[None]:
        def pass_on(number: int, frame: FrameType | None) -> None:
            if self._own_group or number != signal.SIGINT:  # a terminal tells its whole group
                self._signal(number)

        heard = [number for number in PASSED_ON if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, pass_on) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _die_with(parent: int) -> Callable[[], None]:
    """What the new process does first: ask to be killed when its parent dies."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def ask() -> None:
        if libc:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return ask
