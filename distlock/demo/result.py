"""The end of the cache's demo: the table, what the kills cost, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .judge import NODE, NOTHING, WORKER, Window
from .story import Story

MARKS = {
    NODE: ("n", "its node was killed, and another one has its part meanwhile"),
    WORKER: ("w", "the worker that computed it was killed"),
    NOTHING: ("!", "nothing explains it"),
}


def result_lines(story: Story, seconds: float, good: bool) -> Iterator[str]:
    """The end, for a person."""
    windows = story.windows()
    yield f"computations of each key in each window (one life of a value, {story.plan.expire:g} s):"
    yield from table_lines(windows)
    yield from _kill_lines(story)
    counts = f"{len(story.computations)} computations, {story.count('waited'):,} waited"
    counts += f" for one, {story.count('hits'):,} hits"
    if failed := story.count("failed"):
        counts += f", {failed:,} failed"
    yield f"{seconds:6.1f} s  in all: {counts}"
    yield from _wrong(story, windows)
    if good:
        yield "each value was computed once in each window, but where a kill explains it"
    else:
        yield "NOT each value was computed once in each window, but where a kill explains it"


def table_lines(windows: Mapping[str, Sequence[Window]]) -> Iterator[str]:
    """Key, window, and how many computations, with a mark for what explains more than one."""
    rows = {key: [_cell(window) for window in its] for key, its in windows.items()}
    most = max(map(len, rows.values()))
    width = max(len(text) for row in [*rows.values(), [str(most)]] for text in row) + 2
    first = max(len("window"), *map(len, rows))
    yield "window".ljust(first) + "".join(f"{number:>{width}}" for number in range(1, most + 1))
    for key, row in rows.items():
        yield key.ljust(first) + "".join(text.rjust(width) for text in row)
    for why, (mark, text) in MARKS.items():
        if any(why in window.why for its in windows.values() for window in its):
            yield f"{mark}: {text}"


def _cell(window: Window) -> str:
    marks = "".join(mark for why, (mark, _) in MARKS.items() if why in window.why)
    return f"{len(window.computations)}{marks}"


def _kill_lines(story: Story) -> Iterator[str]:
    """What was killed, and how long it took to go on."""
    kills = story.kills
    if not kills.worker:
        yield "no worker was killed: each computation was over before"
    else:
        line = f"{kills.worker_at - story.began:6.1f} s  worker {kills.worker} killed at work"
        if after := story.taken_over:
            later = after.began - kills.worker_at
            line += f"; {later:.1f} s later worker {after.worker} computed {after.key}"
        yield line
    if kills.node:
        line = f"{kills.node} killed; {kills.node_back - kills.node_at:.1f} s later it was back"
        if not story.left_out:
            line += f", {max(story.again - kills.node_back, 0):.1f} s later all used it"
        yield f"{kills.node_at - story.began:6.1f} s  {line}"


def _wrong(story: Story, windows: Mapping[str, Sequence[Window]]) -> Iterator[str]:
    """What is not as it should be, each in a line."""
    for its in windows.values():
        for number, window in enumerate(its, 1):
            for one, why in zip(window.computations, window.why, strict=True):
                if why == NOTHING:
                    who = f"worker {one.worker} computed it for {one.node or 'itself'}"
                    when = f"at {one.began - story.began:.2f} s"
                    yield f"{one.key}, window {number}: {who} {when}, and nothing explains it"
    for key, values in story.values.items():
        if len(values) > 1:
            yield f"{key}: {len(values)} different values"


def result_object(story: Story, seconds: float, good: bool) -> dict[str, Any]:
    """The end, for a machine; times are seconds since the beginning."""
    kills = {
        name: round(value - story.began, 3) if isinstance(value, float) else value
        for name, value in asdict(story.kills).items()
        if value != math.inf
    }
    return {
        "good": good,
        "seconds": round(seconds, 3),
        "keys": {
            key: [_window_object(story, window) for window in its]
            for key, its in story.windows().items()
        },
        "kills": kills,
        "computed": len(story.computations),
        "waited": story.count("waited"),
        "hits": story.count("hits"),
        "failed": story.count("failed"),
    }


def _window_object(story: Story, window: Window) -> list[dict[str, Any]]:
    return [
        {
            "worker": one.worker,
            "node": one.node,
            "began": round(one.began - story.began, 3),
            "why": why,
        }
        for one, why in zip(window.computations, window.why, strict=True)
    ]
