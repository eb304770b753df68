"""The cache's demonstration: workers ask for factorials, one of them and a node are killed, and a
table shows that each value was computed once all the same.

Rules:

- The nodes are embedded servers of its own in a fresh folder; it never touches one of the user's.
- When every key has been computed once, the first worker that a node shows at work on one is killed
  in the middle of it. A little later the node that has most keys is killed, and brought back while
  the values that it had still live. Both by SIGKILL.
- Nothing outlives it: Ctrl-C ends all, and when it is itself killed the workers do so.
- The verdict comes from the workers' reports (see judge), and the exit code from the verdict.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import redis

from ..connect import check, connect
from ..errors import DistlockError
from ..io import SyncIO
from ..keys import CacheKeys, Keys
from ..text import harmless
from ..view import Drawing, View
from .result import result_lines, result_object
from .stage import end, fresh_folder, start, undisturbed
from .story import Story
from .victim import Computing, computing, kill_in_flight
from .worker import NAME, Plan, nodes_in, worker_name

LOOK = 0.05
"""Seconds between two looks at what the workers say."""
PATIENCE = 30.0
"""Seconds beyond what one life of a value takes after which nothing is expected any more."""
MORE = 2
"""Windows beyond those asked for in which a worker may still be caught at work."""


@dataclass
class Child:
    """The process of one worker."""

    process: subprocess.Popen[bytes]
    said: TextIO

    def tell(self, word: bytes) -> None:
        """Say one word to it."""
        assert self.process.stdin
        with suppress(BrokenPipeError):  # that it has ended is seen by its exit code
            self.process.stdin.write(word)


def show(plan: Plan, as_json: bool) -> int:
    """Run the demonstration.

    Args:
        plan: what is to be shown.
        as_json: print for machines.

    Returns:
        The exit code: 0 when each value was computed once, but where a kill explains it.
    """
    with fresh_folder() as folder:
        demo = CacheDemo(plan, folder, View(as_json, "demo"), as_json)
        try:
            return demo.run()
        finally:
            with undisturbed():
                demo.close()


class CacheDemo:
    """One run of the demonstration; see `show`."""

    def __init__(self, plan: Plan, folder: Path, view: View, as_json: bool) -> None:
        self._plan = plan
        self._folder = folder
        self._view = view
        self._as_json = as_json
        self._nodes = nodes_in(folder, plan.nodes)
        self._clients = {name: connect(node.url) for name, node in self._nodes.items()}
        self._io = SyncIO(next(iter(self._clients.values())), patience=0)
        self._children: dict[int, Child] = {}
        self._story = Story(plan)

    def run(self) -> int:
        """Start everything, kill on the way, judge at the end."""
        # the workers first: whatever happens to this process now, they end the nodes
        self._children = {number: self._start(number) for number in self._story.workers}
        for node in self._nodes.values():
            node.start()
        kind = check(next(iter(self._nodes.values())).url, Keys(NAME))
        nodes = f"{len(self._nodes)} nodes, embedded {kind}"
        self._view.say("server", f"{nodes}, in {self._folder}, for this demo alone")
        with self._view.picture(self._picture):
            self._story.began = time.monotonic()
            self._tell_all(b"g")
            self._watch()
            self._tell_all(b"q")
            self._wait()
        return self._report(time.monotonic() - self._story.began)

    def _picture(self) -> Drawing:
        from ..picture import CachePicture  # a pipe needs no rich

        return CachePicture(self._story)

    def _start(self, number: int) -> Child:
        what = {"number": number, "plan": asdict(self._plan), "folder": str(self._folder)}
        said = self._folder / f"worker-{number}.log"
        with said.open("w") as out:
            process = start(
                "distlock.demo.worker",
                [json.dumps(what)],
                self._folder,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
            )
        return Child(process, said.open())

    def _tell_all(self, word: bytes) -> None:
        for child in self._children.values():
            child.tell(word)

    # --- watching -------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Look on until every key has had its windows, and kill when it is time."""
        acts, complete, moved = self._acts(), 0, time.monotonic()
        patience = self._plan.expire + self._plan.execution_limit + PATIENCE
        while next(acts, None) or complete < self._plan.windows:
            self._hear()
            if complete != self._story.complete():
                complete, moved = self._story.complete(), time.monotonic()
            if time.monotonic() - moved > patience:
                raise DistlockError(f"a key was not computed for {patience:g} s: please report it")
            self._io.sleep_now(LOOK)

    def _hear(self) -> None:
        """Take in what the workers said, and that none has ended by itself."""
        for number, child in self._children.items():
            for line in child.said:
                try:
                    events = self._story.hear(number, json.loads(line))
                    for event in events:
                        self._view.say(event.kind, event.text)
                except ValueError:
                    self._view.say("error", f"worker {number}: {line.strip()}")
            code = child.process.poll()
            if code and number != self._story.kills.worker:
                raise DistlockError(f"worker {number} ended by itself, with exit code {code}")

    def _wait(self) -> None:
        """Wait until all workers have ended."""
        deadline = time.monotonic() + self._plan.execution_limit + PATIENCE
        while any(child.process.poll() is None for child in self._children.values()):
            if time.monotonic() > deadline:
                raise DistlockError("a worker does not end: please report it")
            self._hear()
            self._io.sleep_now(LOOK)
        self._hear()

    # --- killing --------------------------------------------------------------------------------

    def _acts(self) -> Iterator[bool]:
        """What the demo does on the way, one look at a time: the kills."""
        story, last = self._story, self._plan.windows + MORE
        while story.complete() < 1:
            yield True
        while not self._kill_worker() and story.complete() < last:
            yield True
        deadline = time.monotonic() + self._plan.expire + PATIENCE
        while story.kills.worker and not story.taken_over and time.monotonic() < deadline:
            yield True
        yield from self._rest(min(self._plan.expire / 4, 3.0))
        node = max(self._nodes, key=lambda name: len(story.keys_of(name)))
        self._kill_node(node)
        yield from self._rest(min(self._plan.expire / 2, 4.0))
        self._bring_back(node)
        deadline = time.monotonic() + PATIENCE
        while story.left_out and time.monotonic() < deadline:
            yield True

    def _rest(self, seconds: float) -> Iterator[bool]:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            yield True

    def _kill_worker(self) -> bool:
        """Kill a worker in the middle of a computation, if one is found there."""
        numbers = {worker_name(number): number for number in self._children}
        for found in computing(self._clients, NAME, self._plan.keys):
            number = numbers.get(found.worker)
            if number is None:
                continue
            process = self._children[number].process
            at = kill_in_flight(process.pid, partial(self._landed, found))
            if at is None:
                continue
            self._story.killed(number, found.key, at)
            text = f"kill -9 of worker {number}, which computes {found.key} for {found.node}"
            self._view.say("kill", f"{text} (process {process.pid})")
            return True
        return False

    def _landed(self, found: Computing) -> bool:
        place = CacheKeys(NAME).all(found.key)[1]
        try:
            return bool(self._clients[found.node].get(place) != found.flight)
        except redis.RedisError:
            return True

    def _kill_node(self, name: str) -> None:
        pid, kills = self._nodes[name].pid(), self._story.kills
        if pid is None:
            raise DistlockError(f"{name} has ended by itself: see {self._nodes[name].log}")
        its = len(self._story.keys_of(name))
        kills.node, kills.node_at = name, time.monotonic()
        os.kill(pid, signal.SIGKILL)
        self._story.nodes[name] = "killed"
        self._view.say("kill", f"kill -9 of {name}, which has {its} of the keys (process {pid})")

    def _bring_back(self, name: str) -> None:
        self._nodes[name].start()
        self._story.kills.node_back = time.monotonic()
        self._story.nodes[name] = "serves"
        self._view.say("back", f"{name} is back, with what it had")

    # --- the end --------------------------------------------------------------------------------

    def _report(self, seconds: float) -> int:
        story = self._story
        good = story.good()
        if self._as_json:
            print(json.dumps(result_object(story, seconds, good)), flush=True)
        else:
            for line in result_lines(story, seconds, good):
                print(harmless(line), flush=True)
        return 0 if good else 1

    def close(self) -> None:
        """End whatever still runs."""
        for child in self._children.values():
            end(child.process)
            child.said.close()
        for node in self._nodes.values():
            node.stop()
