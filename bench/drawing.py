"""The raw text of the benchmarks as a table in Markdown, and as bars relative to the bare limit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

from .table import Row

PLOTTED = {
    "pipeline": {
        "drain, hands of 1: messages/s": "handling, hands of 1",
        "drain, hands of 100: messages/s": "handling, hands of 100",
        "drain, hands of 100, 5 % fail": "hands of 100, 5 % fail",
        "drain, hands of 1000: messages/s": "handling, hands of 1,000",
        "generate, 500 a script": "generating, 500 in a script",
        "1,000,000 messages, 3 processes": "a job of a million, 3 processes",
        "the same with append-only file": "the job with append-only file",
    },
    "lease": {
        "acquire + release: us": "acquire + release",
        "asyncio: acquire + release: us": "acquire + release, asyncio",
        "hand-off between two processes: ms, p50": "hand-off to who waits, p50",
        "the same, p99": "hand-off to who waits, p99",
    },
    "cache": {
        "16 x 1, 210 B: ms to the waiters, p50": "a value to who waits, p50",
        "16 x 1, 210 B: ms to the waiters, p99": "a value to who waits, p99",
        "hit, 210 B: calls/s, Cache": "a hit of 210 B",
        "hit, 210 B: calls/s, AsyncCache": "a hit of 210 B, asyncio",
        "hit, 10 kB: calls/s, Cache": "a hit of 10 kB",
        "hit, 10 kB: calls/s, AsyncCache": "a hit of 10 kB, asyncio",
    },
}
"""Of each benchmark, how the rows begin that have a bare limit, and what the plot calls them."""
OURS = ("distlock", "Cache", "AsyncCache")


class Run(NamedTuple):
    """What a benchmark found on one server.

    Attributes:
        command: the command, and when, where and with what it ran.
        server: its name and version.
        head: the names of the columns.
        rows: in order.
    """

    command: str
    server: str
    head: list[str]
    rows: list[Row]


class Bar(NamedTuple):
    """How fast a side was, as a share of the bare limit."""

    side: str
    share: float


def read(text: str) -> list[Run]:
    """The runs of a raw text, as `command` writes it."""
    command, *parts = text.rstrip("\n").split("\n\n")
    runs = []
    for server, table in zip(parts[::2], parts[1::2], strict=True):
        head, *lines = table.splitlines()
        ends = [word.end() for word in re.finditer(r"\S+", head)][1:]
        runs.append(Run(command, server, head.split(), [_row(line, ends) for line in lines]))
    return runs


def _row(line: str, ends: list[int]) -> Row:
    """A line whose columns but the first and the last end at these places."""
    line = line.ljust(ends[-1])
    first = line[: ends[0]]
    bare = "" if first.endswith(" ") else first.split()[-1]
    ours, ratio, bar = (line[a:b].strip() for a, b in pairwise(ends))
    verdict = {"ok": True, "MISSED": False}.get(line[ends[-1] :].strip())
    return Row(first.removesuffix(bare).rstrip(), bare, ours, ratio, bar, verdict)


# --- a table ----------------------------------------------------------------------------------


def markdown(runs: Mapping[str, Sequence[Run]]) -> str:
    """All rows of all benchmarks."""
    lines = ["# What the benchmarks found", ""]
    lines += ["Made by `python -m bench` from the raw texts beside it; `../README.md` explains."]
    for name, some in runs.items():
        for run in some:
            command, facts = run.command.split("\n", 1)
            lines += ["", f"## {name}, {run.server}", "", f"`{command[2:]}`: {facts}", ""]
            lines += [_line([*run.head, ""]), _line(["---", *["---:"] * 4, "---"])]
            lines += [_line(row.cells()) for row in run.rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    first, *others = (cell.replace("|", "\\|") for cell in cells)
    indent = "&nbsp;&nbsp;" if first.startswith(" ") else ""
    return f"| {indent}{first.strip()} | {' | '.join(others)} |"


# --- a plot -----------------------------------------------------------------------------------


def bars(run: Run, beginning: str) -> list[Bar]:
    """The sides of the rows that begin so, and of those that are indented below them.

    A row `what, beside X` has X's figure in its second column, and ours in its third; in a row
    that names nobody it is the bare limit's.
    """
    figures: dict[str, float] = {}
    ours, rate = OURS[0], False
    for row in _group(run.rows, beginning):
        rate = rate or "s/s" in row.what  # calls/s, messages/s, but not pub/sub
        found = re.search(r"(?:(\w*Cache) )?beside ([^(]+)", row.what)
        if row.bare and row.ours and (found or not row.what.startswith(" ")):
            ours = (found and found[1]) or ours
            figures.setdefault(found[2].strip() if found else "bare", _number(row.bare))
            figures.setdefault(ours, _number(row.ours))
    bare = next((figures.pop(side) for side in figures if side.startswith("bare")), None)
    if bare is None:
        return []
    power = 1 if rate else -1
    return [Bar(side, (its / bare) ** power) for side, its in figures.items()]


def _group(rows: Sequence[Row], beginning: str) -> Iterator[Row]:
    inside = False
    for row in rows:
        if not row.what.startswith(" "):
            inside = row.what.startswith(beginning)
        if inside:
            yield row


def _number(cell: str) -> float:
    return float(cell.replace(",", ""))


def draw(runs: Mapping[str, Sequence[Run]], path: Path) -> None:
    """Draw the bars of the first server of each benchmark.

    Args:
        runs: by the benchmark's name.
        path: of the file; its end says what kind it is.
    """
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "distlock"})
    groups = [
        (f"{name}, {label}", found)
        for name, labels in PLOTTED.items()
        for beginning, label in labels.items()
        if (found := bars(runs[name][0], beginning))
    ]
    count = sum(len(found) + 1 for _, found in groups)
    figure = Figure(figsize=(9, 0.2 * count + 0.8), layout="constrained")
    axes = figure.add_subplot()
    place, ticks, names = 0, [], []
    for label, found in groups:
        for at, bar in enumerate(sorted(found, key=lambda bar: bar.side not in OURS)):
            ticks.append(place)
            names.append(f"{label}: {bar.side}" if at == 0 else bar.side)
            colour = "tab:blue" if bar.side in OURS else "silver"
            axes.barh(place, bar.share, color=colour)
            axes.text(bar.share, place, f" {bar.share:.2g} ×", va="center", fontsize=7)
            place += 1
        place += 1
    axes.axvline(1.0, color="tab:red", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(ticks, names, fontsize=7)
    axes.set_ylim(place - 0.5, -1)
    axes.margins(x=0.1)
    servers = dict.fromkeys(run.server.split(",")[0] for some in runs.values() for run in some[:1])
    axes.set_xlabel(f"speed as a share of the bare limit's (red), {', '.join(servers)}")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
