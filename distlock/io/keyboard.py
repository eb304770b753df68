"""Keys of a terminal, one at a time, while a view is shown.

Rules:

- Within the `with` block the terminal gives each key at once and shows none; Ctrl-C and Ctrl-Z work
  as always. Afterwards the terminal is as it was, whatever ended the block.
- Where stdin is no terminal, or somebody else's (a job in the background), there are no keys: a
  wait lasts as long as it was to.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import time
import tty
from contextlib import suppress
from typing import Any

KEYS = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down",
    b"\x1b[5~": "page up", b"\x1b[6~": "page down",
}  # fmt: skip
"""What a terminal sends for keys that are no characters."""
KEY = re.compile(rb"\x1b(?:\[[\x30-\x3f]*[\x40-\x7e]|O[A-Z])|.", re.DOTALL)


class Keyboard:
    """The keys that are typed while the `with` block runs."""

    def __init__(self) -> None:
        self._fd = -1
        self._before: list[Any] | None = None
        self._typed = b""

    def __enter__(self) -> Keyboard:
        """Have the terminal give each key at once."""
        with suppress(OSError, ValueError, AttributeError, termios.error):
            fd = sys.stdin.fileno()
            if os.isatty(fd) and not _in_background(fd):
                self._before = termios.tcgetattr(fd)
                self._fd = fd
                self._listen()
                signal.signal(signal.SIGCONT, self._listen)
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the terminal as it was."""
        if self._before is not None:
            signal.signal(signal.SIGCONT, signal.SIG_DFL)
            with suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def _listen(self, *signal: object) -> None:
        """Once more after Ctrl-Z: the shell has set the terminal to its own ways meanwhile."""
        with suppress(termios.error):
            if not _in_background(self._fd):
                tty.setcbreak(self._fd, termios.TCSADRAIN)

    def key(self, seconds: float) -> str:
        """The next key: a character, "up", "down", "page up", "page down"; "" when there is none.

        Args:
            seconds: for how long it is waited for.

        Raises:
            EOFError: the terminal is gone.
        """
        if not self._typed:
            self._read(seconds)
        if not (found := KEY.match(self._typed)):
            return ""
        self._typed = self._typed[found.end() :]
        return KEYS.get(found[0], found[0].decode(errors="replace") if len(found[0]) == 1 else "")

    def _read(self, seconds: float) -> None:
        if self._fd < 0:
            time.sleep(max(seconds, 0))
            return
        if select.select([self._fd], [], [], max(seconds, 0))[0]:
            try:
                self._typed = os.read(self._fd, 1024)
            except OSError as error:
                raise EOFError("the terminal is gone") from error
            if not self._typed:
                raise EOFError("the terminal is gone")


def _in_background(fd: int) -> bool:
    """Whether a terminal is at work for another job: reading from it would stop this one."""
    try:
        return os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:  # it is not the terminal that controls this process
        return False
