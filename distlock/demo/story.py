"""What has happened so far in the cache's demo: from the workers' reports to the verdict.

Nothing here touches the outside: the reports come in, and what a person is to be told goes out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..ring import Ring
from .judge import Computation, Kills, Window, complete, judge
from .worker import Plan, node_name


class Event(NamedTuple):
    """Something that a person is told: its kind, and a line."""

    kind: str
    text: str


@dataclass
class Doing:
    """What one worker does, and has done.

    Attributes:
        doing: starting, asks, computes, waits, hit, ended or killed.
        key: for which it does so.
        since: monotonic time.
        computed, waited, hits, failed: how its calls ended.
        left_out: it does not use the killed node.
    """

    doing: str = "starting"
    key: str = ""
    since: float = 0.0
    computed: int = 0
    waited: int = 0
    hits: int = 0
    failed: int = 0
    left_out: bool = False


@dataclass
class Story:
    """All that happened.

    Attributes:
        plan: what is to be shown.
        workers: by their numbers.
        nodes: what each of them does, by their names.
        computations: calls of getters, by worker and key in the order in which they began.
        values: what was answered for each key: one value, if all is well.
        kills: what was killed.
        began: monotonic time.
        again: monotonic time at which the last worker used the killed node again.
    """

    plan: Plan
    workers: dict[int, Doing] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    computations: list[Computation] = field(default_factory=list)
    values: dict[str, set[int]] = field(default_factory=dict)
    kills: Kills = field(default_factory=Kills)
    began: float = field(default_factory=time.monotonic)
    again: float = 0.0

    def __post_init__(self) -> None:
        self.workers = {number: Doing() for number in range(1, self.plan.workers + 1)}
        self.nodes = {node_name(number): "serves" for number in range(1, self.plan.nodes + 1)}
        names = list(self.nodes)
        ring = Ring(names, [1.0] * len(names))
        self._places = {key: [names[at] for at in ring.order(key)] for key in self.plan.keys}

    def keys_of(self, node: str) -> list[str]:
        """The keys that are a node's own."""
        return [key for key, places in self._places.items() if places[0] == node]

    def windows(self) -> dict[str, list[Window]]:
        """The lives of each key's value, judged."""
        return judge(self.computations, self._places.__getitem__, self.kills, self.plan.expire)

    def complete(self) -> int:
        """How many windows every key has had."""
        return complete(self.windows(), self.plan.keys)

    def hear(self, number: int, report: Mapping[str, Any]) -> Iterator[Event]:
        """Take in one report of a worker; gives what is worth telling."""
        worker, what, at = self.workers[number], report["what"], report["at"]
        if what == "log":
            yield from self._logged(number, worker, at, report["text"])
            return
        key = report["key"]
        if what == "computes":
            self.computations.append(Computation(key, number, report["node"], at))
        elif what == "ends":
            self._last(number, key).ended = at
        elif what == "got":
            self._got(worker, key, report["how"], report["value"])
            if report["how"] == "computed":
                yield self._landed(number, key, at)
        elif what == "failed":
            worker.failed += 1
            yield Event("failed", f"worker {number}: {report['text']}")
        doing = report["how"] if what == "got" else what
        if what != "ends" and number != self.kills.worker:
            worker.doing, worker.key, worker.since = doing, key, at

    def killed(self, number: int, key: str, at: float) -> None:
        """Note that a worker was killed while it computed a key."""
        self.kills.worker, self.kills.worker_at = number, at
        self.workers[number].doing, self.workers[number].key = "killed", key

    def _last(self, number: int, key: str) -> Computation:
        """The last computation of a worker for a key."""
        its = (one for one in reversed(self.computations) if (one.worker, one.key) == (number, key))
        return next(its)

    def _got(self, worker: Doing, key: str, how: str, value: int) -> None:
        self.values.setdefault(key, set()).add(value)
        worker.computed += how == "computed"
        worker.waited += how == "waited"
        worker.hits += how == "hit"

    def _landed(self, number: int, key: str, at: float) -> Event:
        one = self._last(number, key)
        one.landed = at
        waiting = sum(other.doing == "asks" and other.key == key for other in self.workers.values())
        where = f"worker {number} computed it for {one.node or 'itself'} in {at - one.began:.1f} s"
        return Event("computed", f"{key}: {where}" + (f", {waiting} waited" if waiting else ""))

    def _logged(self, number: int, worker: Doing, at: float, text: str) -> Iterator[Event]:
        """What the library logs; that the killed node is away, and back, is as it should be."""
        its = f"cache node {self.kills.node} is "
        if self.kills.node and text.startswith(its + "left out"):
            worker.left_out = True
        elif worker.left_out and text.startswith(its + "used again"):
            worker.left_out = False
            self.again = max(self.again, at)
        else:
            yield Event("log", f"worker {number}: {text.partition(': Error')[0]}")

    @property
    def left_out(self) -> bool:
        """Whether a worker that lives does not use the killed node."""
        alive = (one for number, one in self.workers.items() if number != self.kills.worker)
        return any(one.left_out for one in alive)

    @property
    def taken_over(self) -> Computation | None:
        """The computation that came after the one whose worker was killed."""
        cut = [one for one in self.computations if self.kills.cut(one)]
        later = (
            one for one in self.computations if cut and one.key == cut[0].key and one is not cut[0]
        )
        return next((one for one in later if one.began >= self.kills.worker_at), None)

    def good(self) -> bool:
        """The verdict."""
        windows = self.windows()
        return (
            all(window.good for its in windows.values() for window in its)
            and all(len(values) == 1 for values in self.values.values())
            and complete(windows, self.plan.keys) >= self.plan.windows
        )

    def count(self, what: str) -> int:
        """A count over all workers."""
        return sum(getattr(worker, what) for worker in self.workers.values())
