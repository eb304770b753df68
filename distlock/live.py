"""A live view that keeps to its rate, whatever is printed meanwhile.

Rules:

- rich draws anew for each line that is printed above the view: a chatty handler function had it
  drawn 90 times a second. Here lines wait for the next drawing, a quarter of a second at most.
- A line longer than the terminal is wrapped by the terminal, so that it can be copied whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console, ConsoleRenderable, RenderableType
from rich.control import Control
from rich.live import Live
from rich.text import Text

PER_SECOND = 4


class Steady(Live):
    """Draws 4 times a second, and what was printed meanwhile above it.

    Args:
        console: the terminal.
        draw: gives the drawing as it is now.
        stdout: whether stdout is the terminal, too.
    """

    def __init__(self, console: Console, draw: Callable[[], RenderableType], stdout: bool) -> None:
        super().__init__(
            get_renderable=draw,
            console=console,
            refresh_per_second=PER_SECOND,
            transient=True,
            redirect_stdout=stdout,
        )
        self._printed: list[ConsoleRenderable] = []
        self._drawing = False

    def above(self, line: str) -> None:
        """Print a line."""
        with self._lock:
            self._printed.append(Text(line, no_wrap=True, overflow="ignore"))

    def refresh(self) -> None:
        """Draw, in a thread of rich's and once at the end."""
        with self._lock:
            self._live_render.set_renderable(self.renderable)
            self._drawing = True
            try:
                self.console.print(Control(), crop=False)
            finally:
                self._drawing = False

    def process_renderables(self, renderables: list[Any]) -> list[Any]:
        """Keep what is printed until it is drawn; called by rich for each print."""
        with self._lock:
            if not self._drawing:
                self._printed += renderables
                return []
            printed, self._printed = self._printed, []
            return super().process_renderables([*printed, *renderables])
