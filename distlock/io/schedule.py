"""What has to be looked after from time to time, by the time at which it is due."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import time
from typing import Protocol

from .base import IO

LOOK = 1.0
"""Seconds for which a keeper sleeps at most while things come and go."""
log = logging.getLogger("distlock")


class Kept(Protocol):
    """Something that has to be looked after from time to time.

    Attributes:
        due: monotonic time at which to call `keep`.
        deadline: monotonic time at which it is too late.
        scheduled: the time under which the schedule has it; inf: it has not.
    """

    due: float
    deadline: float
    scheduled: float

    @property
    def kept(self) -> bool:
        """Whether there is anything to keep."""

    async def keep(self, io: IO, until: float) -> None:
        """Do what is due, in no more time than until `until` (monotonic); raise nothing."""


class Schedule:
    """What is kept, by the time at which it is due.

    What is kept again and again for a moment only, as by a lease that is taken and released, must
    not wake the keeper each time. What is not kept when it is looked at is dropped, but the keeper
    sleeps no longer than to its time: what comes in its place is due later, and calls nobody.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Kept]] = []
        self._number = itertools.count()
        self._dropped = 0.0

    def push(self, kept: Kept) -> None:
        """Add it by its time."""
        kept.scheduled = kept.due
        heapq.heappush(self._heap, (kept.due, next(self._number), kept))

    def next(self) -> float:
        """The monotonic time at which to look again; +inf when there is nothing to keep."""
        while self._heap:
            due, _, kept = self._heap[0]
            if due == kept.scheduled and kept.kept and kept.due <= due:
                return due
            heapq.heappop(self._heap)
            if due == kept.scheduled:
                kept.scheduled = math.inf
                if kept.kept:
                    self.push(kept)
                else:
                    self._dropped = min(due, time.monotonic() + LOOK)
        return self._dropped if self._dropped > time.monotonic() else math.inf

    def pop(self, now: float) -> tuple[list[Kept], float]:
        """Take what is due, and the first deadline of those that come next."""
        due = []
        while self.next() <= now:
            kept = heapq.heappop(self._heap)[2]
            kept.scheduled = math.inf
            due.append(kept)
        soon = itertools.islice(self._heap, 64)  # of thousands, the others would take long
        others = (other.deadline for _, _, other in soon if other.kept)
        return due, min(others, default=math.inf)

    def push_again(self, looked_after: list[Kept]) -> None:
        """Add what is still to be kept, unless somebody has done so."""
        for kept in looked_after:
            if kept.kept and kept.due < kept.scheduled:
                self.push(kept)


async def look_after(kept: Kept, io: IO, until: float) -> None:
    """Call `keep`; whatever happens in it, the others are kept on."""
    try:
        await kept.keep(io, until)
    except Exception:
        log.exception("looking after %r failed", kept)
        kept.due = time.monotonic() + LOOK
