"""`distlock top` at work: looks once a second, and shows what it saw until it is told to end.

Rules:

- On a terminal the view has the whole of it, is drawn anew 4 times a second and at each key, and
  leaves the terminal as it was. It has the size that the terminal has at that moment.
- Elsewhere (a pipe, a terminal that cannot move its cursor) there is a line a second, and one for
  each event; with `as_json` an object a second.
- A server that is away is asked again once a second; the view says so and goes on.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Any

from redis.exceptions import RedisError
from rich.console import Console, Group
from rich.live import Live

from ..errors import DistlockError
from ..glyphs import shows_blocks
from ..io import Keyboard
from ..live import PER_SECOND
from ..look import Looker
from ..text import harmless
from ..view import status_object
from .frame import Pose, event_line, frame
from .history import History, waiting

LOOK = 1.0
"""Seconds between two looks."""
FIRST = 0.3
"""Seconds between the first two, for the first rates."""
PAGE = 10
"""Lines that a page up or down scrolls."""
STEPS = {"up": -1, "down": 1, "page up": -PAGE, "page down": PAGE}


class Top:
    """One run of the view.

    Args:
        looker: reads the pipeline.
        where: which pipeline on which server, for the title.
        as_json: an object a line, for machines.
    """

    def __init__(self, looker: Looker, where: str, as_json: bool) -> None:
        self._looker = looker
        self._where = where
        self._as_json = as_json
        self._history = History()
        self._due = 0.0
        self._console = Console(highlight=False)
        self._pose = Pose(where=where, fancy=shows_blocks(self._console.encoding))
        self._paused: list[Any] = []

    def once(self) -> None:
        """Print the view as it is now; raises what the server or the network says."""
        self._history.saw(self._looker.look())
        with Keyboard() as keyboard:
            keyboard.key(FIRST)
        self._history.saw(self._looker.look())
        if self._as_json:
            self._print_object()
            return
        self._pose.width = self._console.width
        self._pose.now = time.monotonic()
        for line in frame(self._history, self._pose):
            line.rstrip()
            self._console.print(line, soft_wrap=True)

    def run(self) -> None:
        """Show it until a key or a signal ends it."""
        with ended_by_signals():
            self._look(FIRST)
            if self._as_json or not self._is_screen() or self._console.is_dumb_terminal:
                self._lines()
            else:
                self._screen()

    def _is_screen(self) -> bool:
        """Whether stdout is a terminal: rich takes a pipe for one when it is to have colours."""
        return self._console.is_terminal and sys.stdout.isatty()

    # --- looking --------------------------------------------------------------------------------

    def _look(self, pause: float = LOOK) -> None:
        """Look, and note when to do so again."""
        self._due = time.monotonic() + pause
        try:
            self._history.saw(self._looker.look())
        except (RedisError, DistlockError, OSError) as error:
            why = " ".join(str(error.__cause__ or error).split())
            self._history.missed(why[:200], time.monotonic())

    # --- where there is no screen ---------------------------------------------------------------

    def _lines(self) -> None:
        with Keyboard() as keyboard:
            while True:
                while (left := self._due - time.monotonic()) > 0:
                    if keyboard.key(left) == "q":
                        return
                self._look()
                if self._as_json:
                    self._print_object()
                else:
                    self._print_line()

    def _print_object(self) -> None:
        print(json.dumps(top_object(self._history)), flush=True)

    def _print_line(self) -> None:
        for event in self._history.news():
            print(event_line(event).plain, flush=True)
        look = self._history.now
        if self._history.away or look is None:
            return
        status = look.status
        owner = harmless(status.owner.split("/")[0])
        lease = f"{owner} {status.lease_left:.1f} s" if status.owner else "free"
        when = time.strftime("%H:%M:%S", time.localtime(status.now))
        print(
            f"{when} stored {status.stored:,} ({self._history.rate('stored') or 0:,.0f}/s)  "
            f"queue {waiting(look):,}  temp {max(status.temp, 0):,}  errors {status.errors:,}  "
            f"handlers {sum(left >= 0 for left in status.handlers.values())}  lease {lease}",
            flush=True,
        )

    # --- on a terminal --------------------------------------------------------------------------

    def _screen(self) -> None:
        live = Live(console=self._console, screen=True, auto_refresh=False, transient=True)
        with Keyboard() as keyboard, live:
            self._pose.keys = True
            while self._is_screen():  # no longer, when its window was closed
                live.update(Group(*self._draw()), refresh=True)
                try:
                    key = keyboard.key(1 / PER_SECOND)
                except EOFError:
                    return
                if key == "q":
                    return
                self._press(key)
                if time.monotonic() >= self._due:
                    self._look()
                    if self._pose.errors is not None and not self._pose.paused:
                        self._read_errors()

    def _draw(self) -> list[Any]:
        """The lines to show: those of before, while it is paused and as large."""
        pose, size = self._pose, self._console.size
        if not pose.paused:
            pose.now = time.monotonic()
        drawn = (pose.paused, pose.first, pose.errors, size)
        if pose.paused and self._paused and self._paused[0] == drawn:
            return list(self._paused[1])
        pose.width, pose.height = size
        lines = frame(self._history, pose)
        self._paused = [drawn, lines]
        return lines

    def _press(self, key: str) -> None:
        """Do what a key says."""
        pose = self._pose
        if key == "p":
            pose.paused = not pose.paused
        elif key == "e":
            pose.first = 0
            if pose.errors is None:
                self._read_errors()
            else:
                pose.errors = None
        elif key in STEPS:
            many = len(self._history.copies() if pose.errors is None else pose.errors)
            pose.first = max(min(pose.first + STEPS[key], many - 1), 0)

    def _read_errors(self) -> None:
        try:
            self._pose.errors = self._looker.errors()
        except (RedisError, DistlockError, OSError):
            self._pose.errors = self._pose.errors or []  # the next look says what is wrong


def top_object(history: History) -> dict[str, Any]:
    """What was seen, for a machine; the events are those since the last time."""
    look = history.now
    numbers: dict[str, Any] = {"away": history.away or None}
    if look:
        numbers["time"] = round(look.status.now, 3)
        if not history.away:
            rate = history.rate("stored") or 0.0
            numbers |= status_object(look.status, rate, look.caches, ())
            del numbers["warnings"]  # they were not looked for
            numbers["errors_per_second"] = round(history.rate("errors") or 0.0, 1)
            numbers["generated_per_second"] = round(history.rate("generated") or 0.0, 1)
            numbers["copies"] = [asdict(copy) for copy in history.copies()]
    return numbers | {"events": [asdict(event) for event in history.news()]}


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that the terminal is left as it was."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
