"""Whether each value was computed once: decided from what the workers said, and from the kills.

Rules:

- A *window* is one life of a value: from the call of its getter until `expire` after the getter's
  end, or later. A computation that begins within it is one too many, unless a kill explains it.
- A kill of a worker explains the next computation of the key that it was computing then, on the
  node where it did so.
- A kill of a node explains that the keys which are its own are computed on the one that has its
  part meanwhile, once there, until it has been back for a moment; and that what was being computed
  for it when it died is computed again. Nothing else.
- A computation on any other node than the key's is wrong, even if it is the only one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

CLOCK = 0.02
"""Seconds by which the clock of a node and ours may differ over one life of a value."""
KEPT = 1.0
"""Seconds within which a node has what a getter returned."""
NOTICED = 2.0
"""Seconds within which every worker uses a node again that is back; the cache promises one."""
WORKER, NODE, NOTHING = "worker", "node", "nothing"
"""What explains a computation that would be one too many."""


@dataclass
class Computation:
    """One call of a getter; times are monotonic, of the whole machine.

    Attributes:
        key: what for.
        worker: whose number it is.
        node: where the right to compute was taken.
        began: when the getter was called.
        ended: when it returned.
        landed: when its caller had the value, if it waited for it so long.
    """

    key: str
    worker: int
    node: str
    began: float
    ended: float = math.inf
    landed: float = math.inf

    @property
    def over(self) -> float:
        """When the node had the value at the latest, if it could have it."""
        return min(self.landed, self.ended + KEPT)


@dataclass
class Kills:
    """What was killed.

    Attributes:
        worker: the number of the worker that was killed.
        worker_at: when.
        node: the name of the node that was killed.
        node_at: when.
        node_back: when it answered again.
    """

    worker: int = 0
    worker_at: float = math.inf
    node: str = ""
    node_at: float = math.inf
    node_back: float = math.inf

    def cut(self, computation: Computation) -> bool:
        """Whether the worker was killed while it computed this."""
        its = computation.worker == self.worker
        return its and computation.began <= self.worker_at <= computation.over

    def lost(self, computation: Computation) -> bool:
        """Whether the node was killed while this was being computed for it."""
        its = computation.node == self.node
        return its and computation.began <= self.node_at <= computation.over

    def away(self, node: str, when: float) -> bool:
        """Whether the others may have the part of a node then."""
        return node == self.node and self.node_at <= when <= self.node_back + NOTICED


@dataclass
class Window:
    """One life of a value.

    Attributes:
        computations: those that began in it.
        why: what explains each of them, "" for the one that is due.
    """

    computations: list[Computation] = field(default_factory=list)
    why: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether there is nothing in it that nothing explains."""
        return NOTHING not in self.why

    @property
    def whole(self) -> bool:
        """Whether a value came of it."""
        return any(computation.ended < math.inf for computation in self.computations)


Places = Callable[[str], Sequence[str]]
"""The nodes of a key: its own, then the one that has it while that is away."""


def judge(
    computations: Iterable[Computation], places: Places, kills: Kills, expire: float
) -> dict[str, list[Window]]:
    """Sort computations into windows, and say what explains each that is not the first of its own.

    Args:
        computations: all of them, in any order.
        places: the nodes of a key.
        kills: what was killed.
        expire: seconds for which a value is kept.

    Returns:
        The windows of each key, in order.
    """
    ordered = sorted(computations, key=lambda one: (one.key, one.began))
    return {
        key: list(_windows(its, places(key), kills, expire))
        for key, its in groupby(ordered, lambda one: one.key)
    }


def _windows(
    computations: Iterable[Computation], places: Sequence[str], kills: Kills, expire: float
) -> Iterator[Window]:
    """The windows of one key; a value lives on the node on which it was computed."""
    window, lives = Window(), dict[str, Computation]()
    for one in computations:
        before = lives.get(one.node)
        if before is not None and not _lives(before, one.began, expire):
            before = None
        elsewhere = any(_lives(other, one.began, expire) for other in lives.values())
        if before is None and (one.node == places[0] or not elsewhere):
            if window.computations:
                yield window
            window = Window()
        window.computations.append(one)
        window.why.append(_why(one, before, places, kills))
        lives[one.node] = one
    if window.computations:
        yield window


def _lives(computation: Computation, when: float, expire: float) -> bool:
    return when < computation.ended + expire - CLOCK


def _why(one: Computation, before: Computation | None, places: Sequence[str], kills: Kills) -> str:
    """What explains a computation although the value of the one before still lives there, if so."""
    moved = one.node == places[1] and kills.away(places[0], one.began)
    if one.node != places[0] and not moved:
        return NOTHING
    if before is None:
        return NODE if moved else ""
    if kills.cut(before) and one.began >= kills.worker_at:
        return WORKER
    return NODE if kills.lost(before) and one.began >= kills.node_at else NOTHING


def complete(windows: Mapping[str, Sequence[Window]], keys: Iterable[str]) -> int:
    """How many windows every key has had, each with a value."""
    return min(sum(window.whole for window in windows.get(key, ())) for key in keys)
