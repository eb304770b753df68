"""Bars and sparklines as characters; where the terminal knows only ASCII, with those."""

from __future__ import annotations

from collections.abc import Sequence

STEPS = {True: " ▁▂▃▄▅▆▇█", False: " .:-=+*#@"}
"""From nothing to full, for a terminal that knows Unicode and for one that does not."""


def shows_blocks(encoding: str | None) -> bool:
    """Whether a stream of this encoding can show block elements."""
    return (encoding or "").lower().startswith("utf")


def sparkline(numbers: Sequence[float], width: int, fancy: bool) -> str:
    """The last numbers as a line of characters; the largest of them is full.

    Args:
        numbers: none below zero.
        width: characters.
        fancy: whether block elements can be shown.
    """
    shown = numbers[-width:] if width > 0 else []
    return "".join(column(shown, 1, fancy)[0]).rjust(max(width, 0))


def column(numbers: Sequence[float], rows: int, fancy: bool) -> list[str]:
    """The numbers as columns of some rows, the top row first; the largest number is full."""
    steps = STEPS[fancy]
    full = len(steps) - 1
    most = max(numbers, default=0)
    heights = [_height(number, most, rows * full) for number in numbers]
    return [
        "".join(steps[min(max(height - row * full, 0), full)] for height in heights)
        for row in reversed(range(rows))
    ]


def _height(number: float, most: float, full: int) -> int:
    """In steps; whatever is there can be seen."""
    return max(round(number / most * full), 1) if number > 0 else 0


def bar(share: float, width: int, fancy: bool) -> str:
    """A bar of which a share, 0 to 1, is full."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return ("█" * full + "░" * (width - full)) if fancy else "#" * full + "." * (width - full)
