"""The live views: what `View.picture` draws while a copy or a demo runs.

Each is drawn at most 4 times a second by a thread of rich's; the numbers of the server are read
once a second, and stay as they were while the server is away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from .text import harmless

if TYPE_CHECKING:
    from .demo.pipeline import Child, Story
    from .demo.story import Doing
    from .demo.story import Story as CacheStory
    from .pipeline import Status
    from .worker import State


def progress_bar() -> Progress:
    """A bar with numbers and the time left."""
    return Progress(
        BarColumn(None),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        expand=True,
    )


class CopyPicture:
    """The live view of one copy.

    Args:
        state: the copy's own numbers.
        look: reads the pipeline's numbers; called once a second.
    """

    def __init__(self, state: State, look: Callable[[], Status]) -> None:
        self._state = state
        self._look = look
        self._status: Status | None = None
        self._looked = 0.0
        self._bar = progress_bar()
        self._task = self._bar.add_task("", total=None)
        self._last = (time.monotonic(), 0)
        self._rate = 0.0

    def _read(self) -> Status | None:
        """The numbers, read anew once a second; the old ones while the server is away."""
        now = time.monotonic()
        if now - self._looked < 1:
            return self._status
        self._looked = now
        try:
            status = self._look()
        except Exception:
            return self._status  # the copy itself reports what is wrong with the server
        done = status.stored + status.errors + status.taken
        self._rate = max(done - self._last[1], 0) / (now - self._last[0]) if self._status else 0.0
        self._last, self._status = (now, done), status
        total = status.job.messages if status.job else None
        self._bar.update(self._task, completed=done, total=total)
        return status

    def draw(self) -> RenderableType:
        """The view as rich draws it."""
        state, status = self._state, self._read()
        head = Text.assemble((f" {state.role} ", "reverse"), f"  in hand {state.hand:,}")
        head.append(f"  stored here {state.stored:,}  failed here {state.failed:,}")
        if status is None:
            return Group(head)
        rate = Text(f"{self._rate:,.0f} a second  ")
        line = rate + numbers_line(status)
        return Group(head, self._bar, line)


class DemoPicture:
    """The live view of the demo.

    Args:
        story: what happened so far.
        children: the copies.
        messages: K.
    """

    def __init__(self, story: Story, children: Sequence[Child], messages: int) -> None:
        self._story = story
        self._children = children
        self._bar = progress_bar()
        self._task = self._bar.add_task("", total=messages)

    def draw(self) -> RenderableType:
        """A line for each copy, the bar, and the pipeline's numbers."""
        styles = {"generator": "bold green", "killed": "red", "handler": "cyan"}
        lines = [
            Text.assemble(f"copy {child.number}  ", (child.role, styles.get(child.role, "dim")))
            for child in self._children
        ]
        status = self._story.status
        if status is None:
            return Group(*lines)
        done = status.stored + status.errors + status.taken
        self._bar.update(self._task, completed=done)
        return Group(*lines, self._bar, numbers_line(status))


def numbers_line(status: Status) -> Text:
    """The pipeline's numbers in one line."""
    lease = f"{harmless(status.owner)} {status.lease_left:.1f} s" if status.owner else "free"
    return Text(
        f"queue {status.queue + status.again:,}  temp {status.temp:,}  later {status.later:,}  "
        f"errors {status.errors:,}  takeovers {status.takeovers:,}  lease {lease}"
    )


class CachePicture:
    """The live view of the cache's demo.

    Args:
        story: what happened so far.
    """

    def __init__(self, story: CacheStory) -> None:
        self._story = story

    def draw(self) -> RenderableType:
        """A row for each worker, and a line for the nodes."""
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("#", "worker", "key"):
            table.add_column(name, no_wrap=True)
        for name in ("computed", "waited", "hits"):
            table.add_column(name, justify="right", no_wrap=True)
        for number, worker in self._story.workers.items():
            what, style = worker_does(worker)
            counts = (worker.computed, worker.waited, worker.hits)
            table.add_row(
                str(number), Text(what, style), worker.key, *(f"{count:,}" for count in counts)
            )
        nodes = Text()
        for name, state in self._story.nodes.items():
            nodes.append(f"{name} ").append(state, "red" if state == "killed" else "green")
            nodes.append("  ")
        windows = f"windows {self._story.complete()} of {self._story.plan.windows}"
        return Group(table, nodes.append(windows))


def worker_does(worker: Doing) -> tuple[str, str]:
    """What a worker does, and its style: who asks and gets no answer at once waits."""
    styles = {"computes": "bold green", "waits": "yellow", "hit": "cyan", "killed": "red"}
    waits = worker.doing == "asks" and time.monotonic() - worker.since > 0.1
    what = "waits" if waits else worker.doing
    return what, styles.get(what, "dim")
