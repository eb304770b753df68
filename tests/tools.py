"""What several tests use: the check of promise 1, a pipeline in hand, a clock, a bounded wait, a
shell with the program in it."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from distlock.io import SyncIO
from distlock.keys import Keys
from distlock.lease import Lease
from distlock.pipeline import Generator, Hand, Handler, Job, Jobs, Outcome, Records

ROOT = Path(__file__).parents[1]
PLACES = ("queue", "again", "later", "temp", "store", "errors", "taken")


def wait_until(true: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Look until something is true, and return it; fail after some seconds."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        time.sleep(0.005)
    return value


def activated(folder: Path) -> dict[str, str]:
    """The environment of a shell as in a venv: `python` and `distlock` are what the tests run.

    Args:
        folder: where the two are written.
    """
    python = shlex.quote(sys.executable)
    programs = {
        "python": f'#!/bin/sh\nexec {python} "$@"\n',
        "distlock": f"#!{sys.executable}\nfrom distlock.cli import main\nmain()\n",
    }
    folder.mkdir(exist_ok=True)
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    environment.pop("REDIS_URL", None)
    return environment


class Clock:
    """The leases' clock in the thread that makes it: it stands still but for who sets `now`.

    Other threads have the real one. A keeper that an earlier test left behind waits by that: a term
    that went by this one would never be due, and be asked again and again without a pause.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self._thread = threading.get_ident()
        for module in ("lease.core", "lease.term", "pipeline.generator"):
            monkeypatch.setattr(f"distlock.{module}.time", self)

    def monotonic(self) -> float:
        """Later at each look, but not by much."""
        if threading.get_ident() != self._thread:
            return time.monotonic()
        self.now += 1e-6
        return self.now


def partition(client: redis.Redis, keys: Keys) -> dict[str, list[int]]:
    """Where each id is, read in one MULTI snapshot; fails unless each is in exactly one place."""
    found = None
    while found is None:  # a copy that runs may have joined meanwhile, or begun a bucket
        found = snapshot(client, keys)
    return found


def snapshot(client: redis.Redis, keys: Keys) -> dict[str, list[int]] | None:
    """See `partition`; None when the snapshot shows keys that were not known before it."""
    handlers = [name.decode() for name in client.zrange(keys.handlers, 0, -1)]
    sequence = int(client.get(keys.sequence) or 0)
    with client.pipeline(transaction=True) as instant:
        instant.get(keys.sequence)
        instant.lrange(keys.queue, 0, -1)
        instant.lrange(keys.again, 0, -1)
        instant.zrange(keys.later, 0, -1)
        instant.hkeys(keys.errors)
        instant.smembers(keys.taken)
        for handler in handlers:
            instant.hkeys(keys.temp(handler))
        for bucket in range(sequence // 4096 + 1):
            instant.hkeys(keys.store(bucket))
        instant.zrange(keys.handlers, 0, -1)
        *read, alive = instant.execute()
    joined = {name.decode() for name in alive} - set(handlers)
    if joined or int(read[0] or 0) // 4096 > sequence // 4096:
        return None
    temps, stores = read[6 : 6 + len(handlers)], read[6 + len(handlers) :]
    found = {
        "queue": [int(message.split(b":")[0]) for message in read[1]],
        "again": [int(message.split(b":")[0]) for message in read[2]],
        "later": [int(message.split(b":")[0]) for message in read[3]],
        "errors": [int(id) for id in read[4] if not id.startswith(b"#")],
        "taken": [int(id) for id in read[5]],
        "temp": [int(id) for temp in temps for id in temp if id != b"#"],
        "store": [int(id) for store in stores for id in store],
    }
    check_places(found, int(read[0] or 0))
    return found


def check_places(found: dict[str, list[int]], sequence: int) -> None:
    """Fail unless each id up to the sequence is in exactly one place."""
    everywhere = sorted(id for ids in found.values() for id in ids)
    assert everywhere == list(range(1, sequence + 1)), found


class Pipe:
    """A pipeline with a job that was begun, and what its copies are made of.

    Args:
        io: where it is.
        messages: K.
        max_queue: of its generator.
        attempts: of each message.
        ttl: of its leases, seconds.
        handler_ttl: seconds.
    """

    def __init__(
        self,
        io: SyncIO,
        messages: int = 100,
        max_queue: int = 1000,
        attempts: int = 3,
        ttl: float = 5.0,
        handler_ttl: float = 5.0,
    ) -> None:
        self.io = io
        self.keys = Keys("test")
        self.max_queue = max_queue
        self.ttl = ttl
        self.jobs = Jobs(io, self.keys)
        self.records = Records(io, self.keys)
        self.lease = self.new_lease("first")
        assert self.lease.acquire(blocking=False)
        wanted = Job(messages=messages, asked=messages, attempts=attempts, handler_ttl=handler_ttl)
        self.job = self.jobs.open(self.lease, wanted)
        self.jobs.lead(self.lease, self.job)
        self.generator = self.new_generator(self.lease)

    def new_lease(self, copy: str) -> Lease:
        """The lease of another copy."""
        return Lease(self.io, self.keys.name, ttl=self.ttl, who=copy)

    def new_generator(self, lease: Lease) -> Generator:
        """A generator under a lease."""
        return Generator(self.io, self.keys, lease, self.max_queue)

    def handler(self, name: str) -> Handler:
        """A handler that has joined."""
        handler = Handler(self.io, self.keys, self.job, name)
        handler.join()
        return handler

    def expire(self, key: str) -> None:
        """Have the lease end now."""
        self.io.client.delete(key)

    def die(self, handler: str) -> None:
        """Have a handler's life end now, as if it had been silent for its ttl."""
        self.io.client.zadd(self.keys.handlers, {handler: 1})


def settle(hand: Hand | None, fail: Callable[[int], bool] = lambda id: False) -> Outcome:
    """An outcome that stores every message of a hand with its body, or fails it."""
    outcome = Outcome()
    for message in hand.messages if hand else []:
        id, _, body = message.split(b":", 2)
        if fail(int(id)):
            outcome.fail(id, '{"exception":"E","message":"m","traceback":"t","handler":"h"}')
        else:
            outcome.store(id, int(id) // 4096, body)
    return outcome
