"""The demonstration: four copies as real processes, two kills, a killed server, and the proof.

Rules:

- It always has an embedded server of its own in a fresh folder, which it deletes at the end; it
  never touches a server of the user's.
- The generator is killed when a quarter of the messages is stored, a handler at a half, the server
  at three quarters, all with SIGKILL; the copies that are left bring the server back.
- A small number of messages is slowed down, and the queue kept short, so that there is time to see
  and a generator to kill. With less than about eight the job may be over before: the end says so.
- The verdict comes from the server alone, and the exit code from the verdict.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from ..connect import check, connect
from ..errors import DistlockError
from ..glyphs import shows_blocks
from ..io import SyncIO
from ..keys import Keys
from ..pipeline import Records, Status, Verdict, Verifier
from ..place import Place
from ..server import Embedded
from ..text import harmless
from ..view import Drawing, View
from .stage import end, fresh_folder, start, undisturbed
from .timeline import Plot, Timeline, timeline_lines

COPIES = 4
TTL = 2.0
"""Seconds of lease and of a handler's life: shorter than the default, to see more in less time."""
ENOUGH = 18.0
"""Seconds of imitated work that a small number of messages makes up."""
ENDING = 60.0
"""Seconds in which all copies must have ended once the job is done."""


@dataclass
class Child:
    """One copy that the demo started."""

    process: subprocess.Popen[bytes]
    number: int
    said: TextIO
    name: str = ""
    role: str = "starting"


@dataclass
class Story:
    """What happened, for the picture and for the timings.

    Attributes:
        marks: seconds since the start for each thing that happened.
        status: the pipeline's numbers, as last read.
        looks: seconds since the start and messages stored, each time that they were read.
    """

    began: float = field(default_factory=time.monotonic)
    marks: dict[str, float] = field(default_factory=dict)
    status: Status | None = None
    looks: list[tuple[float, int]] = field(default_factory=list)

    def saw(self, status: Status) -> None:
        """Note the pipeline's numbers."""
        self.status = status
        self.looks.append((time.monotonic() - self.began, status.stored))

    def mark(self, what: str) -> bool:
        """Note the time of something, the first time that it happens."""
        if what in self.marks:
            return False
        self.marks[what] = time.monotonic() - self.began
        return True


def show(messages: int, as_json: bool, plot: str | None = None) -> int:
    """Run the demonstration.

    Args:
        messages: how many.
        as_json: print for machines.
        plot: a file for the picture of it.

    Returns:
        The exit code: 0 when everything was done, nothing lost and nothing stored twice.
    """
    file = Plot(plot) if plot is not None else None
    with fresh_folder() as folder:
        demo = Demo(messages, Embedded(folder), View(as_json, "demo"), as_json, file)
        try:
            return demo.run()
        finally:
            with undisturbed():
                demo.close()


class Demo:
    """One run of the demonstration; see `show`."""

    def __init__(
        self, messages: int, embedded: Embedded, view: View, as_json: bool, plot: Plot | None
    ) -> None:
        self._plot = plot
        self._messages = messages
        self._embedded = embedded
        self._view = view
        self._as_json = as_json
        self._story = Story()
        self._children: list[Child] = []

    def run(self) -> int:
        """Start everything, kill on the way, prove at the end."""
        self._embedded.start()
        keys, url = Keys("demo"), self._embedded.url
        place = Place(url, self._embedded, started=True)
        kind = check(url, keys)
        self._view.say(
            "server", f"server: embedded {kind} in {self._embedded.folder}, for this demo alone"
        )
        with connect(place.url) as client:
            io = SyncIO(client, patience=30)
            self._children = [self._start(number) for number in range(1, COPIES + 1)]
            with self._view.picture(self._picture):
                self._watch(Records(io, keys).status, io.sleep_now)
            seconds = time.monotonic() - self._story.began
            verdict = Verifier(io, keys).verify()
            status = Records(io, keys).status()
        return self._report(seconds, verdict, status)

    def _picture(self) -> Drawing:
        from ..picture import DemoPicture  # a pipe needs no rich

        return DemoPicture(self._story, self._children, self._messages)

    def _start(self, number: int) -> Child:
        sleep = min(ENOUGH / self._messages, TTL) if self._messages < 100_000 else 0.0
        words = ["--json", "--messages", str(self._messages), "--error-rate", "0.05"]
        words += ["--ttl", str(TTL), "--handler-ttl", str(TTL)]
        words += ["--max-queue", str(max(self._messages // 10, 1)), "--sleep", f"{sleep:.6f}"]
        said = self._embedded.folder / f"copy-{number}.log"
        process = start(
            "distlock",
            words,
            self._embedded.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said.open("w"),
        )
        return Child(process, number, said.open())

    def _watch(self, look: Callable[[], Status], sleep: Callable[[float], None]) -> None:
        """Look on until every copy has ended, and kill when it is time."""
        done_at = 0.0
        while any(child.process.poll() is None for child in self._children):
            self._tell()
            status = look()
            self._story.saw(status)
            self._act(status)
            if status.done:
                done_at = done_at or time.monotonic()
                if time.monotonic() - done_at > ENDING:
                    raise DistlockError(
                        f"not all copies have ended {ENDING:g} s after the job's end"
                    )
            sleep(0.05)
        self._tell()

    def _tell(self) -> None:
        """Pass on what the copies said."""
        for child in self._children:
            for line in child.said:
                try:
                    self._note(child, json.loads(line))
                except ValueError:
                    self._view.say("error", f"copy {child.number}: {line.strip()}")

    def _note(self, child: Child, event: dict[str, Any]) -> None:
        kind = event["event"]
        child.name = event["copy"]
        if kind == "generator" and not self._story.mark("first generator"):
            self._story.mark("next generator")
        elif kind == "reclaimed" and event["messages"]:
            self._story.mark("reclaimed")
        elif kind == "back":
            self._story.mark("server back")
        if kind != "server":
            self._view.say(kind, f"copy {child.number}: {event['text']}")

    def _act(self, status: Status) -> None:
        """Kill what is due at this point of the job; after its end nobody would bring it back."""
        done = (status.stored + status.errors) / self._messages
        owner = status.owner.split("/")[0]
        for child in self._children:
            if child.name and child.process.poll() is None:
                child.role = "generator" if child.name == owner else "handler"
        if status.done:
            return
        if done >= 0.25:
            self._kill("generator killed", "generator", owner)
        if done >= 0.5 and len(status.handlers) > 1:
            self._kill("handler killed", "handler", min(set(status.handlers) - {owner}))
        if done >= 0.75 and "server killed" not in self._story.marks:
            pid = self._embedded.pid()
            if pid and self._story.mark("server killed"):
                self._view.say("kill", f"demo: kill -9 of the server, process {pid}")
                os.kill(pid, signal.SIGKILL)

    def _kill(self, mark: str, role: str, name: str) -> None:
        for child in self._children:
            if child.name == name and child.process.poll() is None and self._story.mark(mark):
                pid = child.process.pid
                child.process.kill()
                child.process.wait()
                child.role = "killed"
                self._view.say("kill", f"demo: kill -9 of copy {child.number}, the {role} ({pid})")

    def _report(self, seconds: float, verdict: Verdict, status: Status) -> int:
        alive = [child for child in self._children if child.role != "killed"]
        failed = [child.number for child in alive if child.process.returncode]
        good = verdict.good and status.done and not failed
        timeline = Timeline(self._story.looks, self._story.marks)
        if self._as_json:
            numbers: dict[str, Any] = {"good": good, "seconds": seconds}
            numbers |= {"messages": self._messages}
            numbers |= {"lost": verdict.lost, "stored_twice": verdict.twice}
            numbers |= {"stored": status.stored, "errors": status.errors}
            numbers |= {"marks": self._story.marks, "step": timeline.step}
            numbers |= {"stored_per_second": [round(rate) for rate in timeline.rates()]}
            print(json.dumps(numbers), flush=True)
        else:
            for line in timeline_lines(timeline, shows_blocks(sys.stdout.encoding)):
                print(line, flush=True)
            for line in demo_lines(self._story.marks, seconds, verdict, status):
                print(harmless(line), flush=True)
            for number in failed:
                print(f"copy {number} failed", flush=True)
        if self._plot:
            self._plot.write(timeline)
        return 0 if good else 1

    def close(self) -> None:
        """End whatever still runs."""
        for child in self._children:
            end(child.process)
            child.said.close()
        self._embedded.stop()


def demo_lines(
    marks: Mapping[str, float], seconds: float, verdict: Verdict, status: Status
) -> Iterator[str]:
    """The end of the demo: what was killed, how long it took to go on, and the proof."""
    for killed, again, what in (
        ("generator killed", "next generator", "the next generator was at work"),
        ("handler killed", "reclaimed", "its messages were with another"),
        ("server killed", "server back", "the server was back"),
    ):
        if killed not in marks:
            yield f"{killed.split()[0]} not killed: the job was over before"
        elif marks.get(again, 0) > marks[killed]:
            after = marks[again] - marks[killed]
            yield f"{marks[killed]:6.1f} s  {killed}; {after:.1f} s later {what}"
        else:
            yield f"{marks[killed]:6.1f} s  {killed}"
    rate = verdict.sequence / seconds
    yield f"{seconds:6.1f} s  {verdict.sequence:,} messages in all, {rate:,.0f} a second"
    yield f"{status.stored:,} stored, {status.errors:,} errors (5 % were asked for)"
    yield from verdict.examples
    yield f"{verdict.lost:,} lost, {verdict.twice:,} stored twice"
