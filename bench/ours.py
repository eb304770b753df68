"""distlock as the benchmark drives it: real copies with everything on, over its own connections.

The sizes of hands are fixed where a row says so; else a copy runs as `app_start.py` runs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, NamedTuple

from distlock.connect import connect
from distlock.io import Background, Caller, SyncIO
from distlock.keys import Keys
from distlock.lease import Lease
from distlock.pipeline import Generator, Job, Jobs, Outcome
from distlock.source import Source
from distlock.work import work
from distlock.worker import Context, Copy, Settings
from distlock.worker.generating import Generating
from distlock.worker.handling import Handling

from .crew import resident
from .servers import flush

KEYS = Keys("bench")
BODY = b"x" * 90
Running = Callable[[], tuple[float, float]]
"""What a running copy does; returns its resident megabytes: at the end, and at most."""


class Ready:
    """The same 90 bytes again and again: what a source costs is another row's matter."""

    description = "bench"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def count(self) -> None:
        """It never ends."""

    def bodies(self, start: int) -> Iterator[bytes]:
        """The bodies."""
        return repeat(BODY)


def make_context(url: str, name: str, settings: Settings | None = None) -> Context:
    """What the parts of one copy share, connected."""
    io = SyncIO(connect(url))
    io.client.ping()
    return Context(name, io, KEYS, settings or Settings(), _silent)


def _silent(kind: str, text: str, /, **numbers: Any) -> None:
    """What a copy says is nobody's matter here."""


def make_work(error_rate: float = 0.0) -> Caller:
    """The application's own imitated work, which does nothing or fails."""
    return work(None, sleep=0, error_rate=error_rate, seed=0, time_limit=None)


def make_copy(
    url: str,
    name: str,
    settings: Settings | None = None,
    source: Callable[[int], Source] = Ready,
    function: Callable[..., Any] | None = None,
) -> Copy:
    """One copy of the application, not running yet; `function` is called for each message."""
    context = make_context(url, name, settings)
    caller = Caller(function) if function else make_work()
    return Copy(context, SyncIO(context.io.client, 0), source, lambda seed: caller)


class Leader(NamedTuple):
    """The lease of a job, held, and its generator."""

    job: Job
    lease: Lease
    generator: Generator
    io: SyncIO


def lead(url: str, messages: int, attempts: int = 3, ttl: float = 60.0) -> Leader:
    """Empty the server and become the generator of a new job."""
    io = SyncIO(connect(url))
    flush(io.client)
    lease = Lease(io, KEYS.name, ttl=ttl, who="leader")
    lease.acquire(blocking=False)
    job = Jobs(io, KEYS).open(lease, Job(messages, messages, Ready.description, 0, attempts))
    assert job is not None
    Jobs(io, KEYS).lead(lease, job)
    return Leader(job, lease, Generator(io, KEYS, lease, 10**9), io)


def fill(url: str, messages: int, attempts: int = 3, size: int = 500) -> float:
    """Begin a job and publish all of it, fenced and renewing; returns the seconds of publishing."""
    leader = lead(url, messages, attempts)
    began = time.perf_counter()
    for first in range(1, messages + 1, size):
        count = min(size, messages + 1 - first)
        leader.generator.publish(first, [BODY] * count)
    took = time.perf_counter() - began
    leader.lease.release()
    leader.io.client.close()
    return took


class Drained(NamedTuple):
    """What a drain did."""

    messages: int
    hands: int
    seconds: float


class Drainer:
    """A handler of fixed hands: a copy's own processing and exchange, with its heartbeat thread."""

    def __init__(self, url: str, name: str, want: int, error_rate: float = 0.0) -> None:
        context = make_context(url, name)
        job = Jobs(context.io, KEYS).read()
        assert job is not None
        lease = Lease(context.io, KEYS.name, ttl=context.settings.ttl, who=name)
        self._io, self._want = context.io, want
        self._side = SyncIO(context.io.client, 0)
        self._handling = Handling(context, job, lease, make_work(error_rate))
        self.handler = self._handling.handler
        self.handler.join()

    def drain(self) -> Drained:
        """Handle everything that waits, and say goodbye."""
        exchange, process, want = self.handler.exchange, self._handling._process, self._want
        hands, done, outcome = 0, 0, Outcome()
        with Background(lambda: self.handler.keep(self._side), 5 / 6):
            began = time.perf_counter()
            while (hand := exchange(outcome, want)) and hand.messages:
                outcome = process(hand.messages)
                hands += 1
                done += len(hand.messages)
            took = time.perf_counter() - began
            self.handler.exchange(Outcome(), 0)
        self._io.deafen()
        self._io.client.close()
        return Drained(done, hands, took)


def generate(url: str, messages: int, source: Source) -> float:
    """A copy's own loop as the generator; returns the seconds it took."""
    leader = lead(url, messages)
    context = make_context(url, "leader", Settings(max_queue=10**9))
    handling = Handling(context, leader.job, leader.lease, make_work())
    jobs = Jobs(context.io, KEYS)
    generating = Generating(context, jobs, leader.job, leader.lease, source, handling)
    began = time.perf_counter()
    sequence = generating._generate_from(1)
    took = time.perf_counter() - began
    assert sequence == messages
    leader.lease.release()
    return took


def draining(url: str, name: str, want: int) -> Callable[[], Drained]:
    """A member of a crew that drains what is there."""
    return Drainer(url, name, want).drain


def running(
    url: str, name: str, settings: Settings, source: Callable[[int], Source] = Ready
) -> Running:
    """A member of a crew that is a whole copy, with all that one on a terminal has loaded."""
    import click  # noqa: F401
    import rich.live
    import rich.progress
    import rich.table  # noqa: F401

    copy = make_copy(url, name, settings, source)

    def act() -> tuple[float, float]:
        assert copy.run().done
        return resident()

    return act
