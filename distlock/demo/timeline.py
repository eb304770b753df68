"""The picture of a demo: how many messages were stored each second, and what was killed meanwhile.

Rules:

- It is made of what the demo saw: the number of stored messages at each look, and its marks. Where
  the server was away there was no look; what was stored since the last one is spread over the gap.
- As characters it is at most 72 wide and needs nothing; as a file it needs matplotlib (the extra
  `plot`), and whether that can be done is said before the demo begins.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import DistlockError, UsageError
from ..glyphs import column

WIDTH, ROWS = 60, 5
"""Columns and rows of the drawing in characters, at most."""
SHORTEST = 0.25
"""Seconds that a column stands for, at least."""
MARKS = {
    "generator killed": "G", "next generator": "g",
    "handler killed": "H", "reclaimed": "h",
    "server killed": "S", "server back": "s",
}  # fmt: skip
"""What is marked: in capitals a death, in small letters the life after it."""
TEXTS = {
    "next generator": "next generator", "reclaimed": "its messages with another",
    "server back": "server back",
}  # fmt: skip
SUFFIXES = (".png", ".svg")


@dataclass(frozen=True)
class Timeline:
    """What there is to draw.

    Attributes:
        looks: seconds since the start and messages stored by then, in order.
        marks: seconds since the start for each thing that happened.
    """

    looks: Sequence[tuple[float, int]]
    marks: Mapping[str, float]

    @property
    def step(self) -> float:
        """Seconds that a column stands for."""
        return max(self.looks[-1][0] / WIDTH, SHORTEST) if self.looks else SHORTEST

    def rates(self) -> list[float]:
        """Messages stored a second, for each column."""
        if not self.looks:
            return []
        count = int(self.looks[-1][0] / self.step) + 1
        stored = [self._stored(number * self.step) for number in range(count + 1)]
        return [(b - a) / self.step for a, b in pairwise(stored)]

    def _stored(self, at: float) -> float:
        """Messages stored at some time, between two looks in proportion."""
        before, count = 0.0, 0
        for when, stored in self.looks:
            if when >= at:
                share = (at - before) / (when - before) if when > before else 1.0
                return count + (stored - count) * share
            before, count = when, stored
        return count

    def happened(self) -> list[tuple[float, str]]:
        """What is marked, in order."""
        return sorted((self.marks[what], what) for what in MARKS if what in self.marks)


def timeline_lines(timeline: Timeline, fancy: bool) -> Iterator[str]:
    """The picture as characters.

    Args:
        timeline: what there is to draw.
        fancy: whether block elements can be shown.
    """
    rates, step = timeline.rates(), timeline.step
    if not rates:
        return
    yield "messages stored a second:"
    most = f"{max(rates):,.0f}"
    for number, row in enumerate(column(rates, ROWS, fancy)):
        scale = most if number == 0 else ""
        yield f"{scale:>9} {row.rstrip()}"
    marks = [" "] * len(rates)
    for at, what in timeline.happened():
        place = min(int(at / step), len(rates) - 1)
        while place < len(rates) - 1 and marks[place] != " ":
            place += 1  # two at once stand side by side
        marks[place] = MARKS[what]
    if any(mark != " " for mark in marks):
        yield f"{'':9} {''.join(marks).rstrip()}"
    seconds = timeline.looks[-1][0]
    yield f"{'0':>9} {'s':<{max(len(rates) - 6, 2)}}{seconds:.0f} s".rstrip()
    if timeline.happened():
        yield f"{'':9} G, H, S: generator, handler, server killed; g, h, s: its work goes on"


class Plot:
    """A file that the picture will be written to.

    Args:
        path: of the file; its end says what kind it is.

    Raises:
        UsageError: it is none of SUFFIXES, cannot be written there, or matplotlib is not installed.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if self._path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"--plot {path}: its end says what kind it is: .png or .svg")
        folder = self._path.parent
        if not folder.is_dir() or self._path.is_dir() or not os.access(folder, os.W_OK):
            raise UsageError(f"--plot {path}: cannot be written there: name a file in a folder")
        try:
            importlib.import_module("matplotlib.figure")
        except ImportError as error:
            raise UsageError(
                f"--plot needs matplotlib ({error}): pip install 'distlock[plot]', or leave it out"
            ) from error

    def write(self, timeline: Timeline) -> None:
        """Draw the picture.

        Raises:
            DistlockError: the file cannot be written.
        """
        figure = draw(timeline)
        try:
            figure.savefig(self._path, metadata={"Date": None} if self._is_svg else None)
        except OSError as error:
            raise DistlockError(f"--plot {self._path}: {error.strerror}: mend that") from error

    @property
    def _is_svg(self) -> bool:
        return self._path.suffix.lower() == ".svg"


COLOURS = {"generator": "tab:red", "handler": "tab:orange", "server": "tab:purple"}


def draw(timeline: Timeline) -> Any:
    """The picture as a figure of matplotlib's."""
    figures: Any = importlib.import_module("matplotlib.figure")
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    figure = figures.Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    rates, step = timeline.rates(), timeline.step
    edges = [number * step for number in range(len(rates) + 1)]
    axes.stairs(rates, edges, fill=True, color="tab:blue", alpha=0.8)
    top = max(rates, default=0.0) or 1.0
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(0, top * 1.35)
    for number, (at, what) in enumerate(timeline.happened()):
        killed = what.endswith("killed")
        owner = {"next generator": "generator", "reclaimed": "handler"}.get(what, what.split()[0])
        axes.axvline(at, color=COLOURS[owner], linestyle="-" if killed else ":")
        height = top * (1.29 - 0.09 * (number % 3))
        paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        text = f" {TEXTS.get(what, what)}"
        axes.text(at, height, text, color=COLOURS[owner], fontsize=8, bbox=paper)
    axes.set_xlabel("seconds")
    axes.set_ylabel("messages stored a second")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure
