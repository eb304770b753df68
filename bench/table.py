"""Rows of the table: what was measured, the bare limit, ours, and whether the bar is met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

HEAD = ("what", "bare", "ours", "ratio", "bar", "")


class Row(NamedTuple):
    """One line; `ok` is None where there is no bar."""

    what: str
    bare: str = ""
    ours: str = ""
    ratio: str = ""
    bar: str = ""
    ok: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """What is printed."""
        verdict = {None: "", True: "ok", False: "MISSED"}[self.ok]
        return (*self[:5], verdict)


def judged(what: str, value: float, sign: str, bar: float, form: str, bare: str = "") -> Row:
    """A row whose bar is a number of its own.

    Args:
        sign: `<=` or `>=`.
        form: how value and bar are written, as for `format`.
    """
    ok = value <= bar if sign == "<=" else value >= bar
    return Row(what, bare, format(value, form), "", f"{sign} {format(bar, form)}", ok)


def compared(
    what: str, bare: Sequence[float], ours: Sequence[float], sign: str, bar: float, form: str
) -> Row:
    """A row whose bar is a ratio: ours to bare, each round by itself, the median of the rounds."""
    row, ratio = beside(what, bare, ours, form)
    ok = ratio <= bar if sign == "<=" else ratio >= bar
    return row._replace(bar=f"{sign} {bar:g} x", ok=ok)


def beside(what: str, bare: Sequence[float], ours: Sequence[float], form: str) -> tuple[Row, float]:
    """The same without a bar, and its ratio."""
    ratio = median(mine / its for mine, its in zip(ours, bare, strict=True))
    shown = (format(median(bare), form), format(median(ours), form))
    return Row(what, *shown, f"{ratio:.2f}"), ratio


def lines(rows: Iterable[Row]) -> list[str]:
    """The table as lines of text."""
    table = [HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [_line(cells, widths) for cells in table]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    numbers = (cell.rjust(width) for cell, width in zip(cells[1:5], widths[1:5], strict=True))
    return "  ".join([first, *numbers, cells[5]]).rstrip()
