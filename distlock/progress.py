"""How far a command is that takes longer than a second: one line on stderr, on a terminal only.

The line is written four times a second at most and removed at the end. It needs nothing but a
carriage return, so that it works on any terminal.
"""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

FIRST = 1.0
"""Seconds after which it is worth a line."""
PAUSE = 0.25


class Progress:
    """Called with what is done and how much there is; use it as a context manager.

    Args:
        what: what is going on, such as `verifying`.
        shown: False: say nothing, such as when the results scroll by on the same terminal.
    """

    def __init__(self, what: str, shown: bool = True) -> None:
        self._what = what
        self._shown = shown and sys.stderr.isatty()
        self._due = time.monotonic() + FIRST
        self._width = 0

    def __call__(self, done: int, total: int) -> None:
        """Note that so much of it is done."""
        if self._shown and time.monotonic() >= self._due:
            share = f" ({done / total:.0%})" if total else ""
            self._write(f"{self._what}: {done:,} of {total:,}{share}")
            self._due = time.monotonic() + PAUSE

    def _write(self, line: str) -> None:
        line = line[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write(f"\r{line.ljust(self._width)}")
        sys.stderr.flush()
        self._width = len(line)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._width:
            self._write("")
            sys.stderr.write("\r")
            sys.stderr.flush()
