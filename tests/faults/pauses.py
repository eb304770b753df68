"""A process is stopped (SIGSTOP) at each of its requests, for two ttls; another one takes over.

python -m tests.faults.pauses [--kind valkey] [--run copy] [--point 17] [--fault late]

`pause` stops it before it sends the request, which then arrives late; `late` when the answer is
there, and was not read. Only what a user would see is checked: when it goes on nothing of it is
accepted, it says so in one line, and goes on as what it still can be.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
import traceback
from argparse import ArgumentParser
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from distlock import Cache, Lease
from distlock.io import Caller, SyncIO
from distlock.keys import CacheKeys, Keys
from distlock.pipeline import Verifier
from distlock.source import RandomSource
from distlock.worker import Context, Copy, Settings
from tests.conftest import BINARIES
from tests.faults.crew import End, Worker, crew
from tests.faults.injector.sitecustomize import PAUSES
from tests.faults.programs import WRITES
from tests.tools import partition, wait_until

TTL = 0.3
"""Seconds of everything that ends."""
LANES = 6
"""Processes that are stopped at the same time: a stopped one needs no processor."""
ROLES = ("generator", "deposed")
KEYS = Keys("test")


class Pause:
    """A run of a program that is stopped once.

    Args:
        worker: its server and zygote.
        face: of what it uses, sync or async.

    Attributes:
        stopped: it was.
    """

    program = ""

    def __init__(self, worker: Worker, face: str) -> None:
        self.worker = worker
        self.face = face
        self.client: redis.Redis = worker.client
        self.client.flushall()
        self.stopped = False

    def arguments(self) -> list[str]:
        """Of the program."""
        return [self.face, self.worker.url]

    def meanwhile(self) -> None:
        """Take over when it is stopped, wait two ttls, and have it go on."""
        if self.stopped or not (pid := self._is_stopped()):
            return
        self.stopped, began = True, time.monotonic()
        try:
            self.take_over()
            wait_until(lambda: time.monotonic() - began > 2 * TTL)
        finally:
            os.kill(pid, signal.SIGCONT)

    def _is_stopped(self) -> int:
        """The process id of the zygote's child, if that is stopped."""
        zygote = self.worker._zygote.pid
        with suppress(OSError, IndexError):
            pid = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()[0]
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                return int(pid)
        return 0

    def take_over(self) -> None:
        """Do, in this process, what another one would do meanwhile."""
        raise NotImplementedError

    def check(self, end: End) -> None:
        """Check what came of it."""
        raise NotImplementedError


class OfCopy(Pause):
    """A copy alone: it begins the job, generates it, handles it hand by hand, and is done."""

    program = "app"
    messages = 4

    def arguments(self) -> list[str]:
        options = ["--messages", str(self.messages), "--batch", "2", "--interval", "0.001"]
        return [
            "--name",
            "test",
            "--json",
            *options,
            *("--ttl", str(TTL), "--handler-ttl", str(TTL)),
        ]

    def take_over(self) -> None:
        """Another copy does the whole job: its results are to be told from the others."""
        events = self._events()
        self.said, roles = len(events), [said for said in events if said in ROLES]
        alive = set(self.client.zrange(KEYS.handlers, 0, -1))
        sequence = int(self.client.get(KEYS.sequence) or 0)
        leads = roles[-1:] == ["generator"] and self.client.exists(KEYS.lease)
        self.deposed = bool(leads) and sequence < self.messages
        settings = Settings(self.messages, ttl=TTL, handler_ttl=TTL, batch=2)
        io, side = (SyncIO(redis.Redis.from_url(self.worker.url), patience=9) for _ in "ab")
        context = Context("rival", io, KEYS, settings, say=lambda *_, **__: None)
        done = Copy(context, side, RandomSource, lambda seed: Caller(lambda _: "rival")).run()
        assert done.done, "the other copy did not come to the job's end"
        io.close()
        side.close()
        self.given_up = bool(alive.difference(self.client.zrange(KEYS.handlers, 0, -1)))
        self.kept = self._kept()

    def _kept(self) -> tuple[dict[str, list[int]], dict[bytes, bytes]]:
        return partition(self.client, KEYS), self.client.hgetall(KEYS.store(0))

    def _events(self) -> list[str]:
        lines = (self.worker.folder / "out.err").read_text().splitlines()
        return [json.loads(line)["event"] for line in lines]

    def check(self, end: End) -> None:
        assert self._kept() == self.kept, "something was accepted after the pause"
        assert len(self.kept[0]["store"]) == self.messages
        io = SyncIO(self.client)
        assert Verifier(io, KEYS).verify().good
        io.close()
        said = Counter(self._events()[self.said :])
        assert self.deposed <= said["deposed"] <= 1, f"deposed: {self._events()}"
        assert said["given-up"] == self.given_up, f"given up: {self._events()}"
        assert json.loads(end.said)["done"]


class OfLease(Pause):
    """The holder of a lease that its keeper renews, and who writes under it."""

    program = "lease_short"

    def take_over(self) -> None:
        """Another one waits for the lease, and writes."""
        held = self.client.hget("distlock:{t}:lease", "token")
        self.rival = Lease(redis.Redis.from_url(self.worker.url), "t", ttl=20)
        assert self.rival.acquire(timeout=10)
        assert self.rival.token > int(held or 0)
        self.held = held is not None
        self.rival.execute("RPUSH", WRITES, self.rival.token)
        self.writes = self.client.lrange(WRITES, 0, -1)

    def check(self, end: End) -> None:
        assert self.client.lrange(WRITES, 0, -1) == self.writes, "a write was accepted"
        assert self.rival.release(), "the other one's term was ended"
        said = [line for line in end.said.splitlines() if not line.startswith("token")]
        expected = {"gone False", "released False"}
        if not self.held:  # it had not begun, or had ended, or the machine was too busy for it
            expected |= {"refused", "released True"}
        assert len(said) == 1, said
        assert said[0] in expected, said


class OfCache(Pause):
    """A process whose getter takes longer than the time for which it has the right."""

    program = "cache_short"

    def take_over(self) -> None:
        """Another one wants the value."""
        cache = Cache(redis.Redis.from_url(self.worker.url), ttl=TTL, node_timeout=5.0)
        self.got = cache.get("k", lambda: "new", expire=60, execution_limit=15)
        self.value = self._value()
        assert self.value is not None

    def _value(self) -> Any:
        return self.client.get(CacheKeys("cache").all("k")[0])

    def check(self, end: End) -> None:
        assert self._value() == self.value, "its value was kept"
        (got,) = end.told("got")
        assert got in ("new", "old")
        assert self.got == "new" or got == "old"


RUNS: dict[str, tuple[type[Pause], str]] = {
    "copy": (OfCopy, ""),
    "lease-sync": (OfLease, "sync"),
    "lease-async": (OfLease, "async"),
    "cache-sync": (OfCache, "sync"),
    "cache-async": (OfCache, "async"),
}


def attempt(worker: Worker, name: str, fault: str) -> bool:
    """One run with one pause; whether it came to that; AssertionError: a promise is broken."""
    kind, face = RUNS[name]
    run = kind(worker, face)
    end = worker.run(run.program, run.arguments(), fault, run.meanwhile)
    assert end.code == 0, (end.code, end.errors)
    if run.stopped:
        run.check(end)
    return run.stopped


class Tried:
    """All points of a run: each request, with each pause, until it has no more requests.

    Attributes:
        points: requests that a process was stopped at, before and after.
        violations: a text for each.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.points = 0
        self.violations: list[str] = []
        self._next = itertools.count(1)
        self._over = False
        self._missed = 0
        self._mutex = threading.Lock()

    def work(self, worker: Worker) -> None:
        """Try points until there are no more."""
        while not self._over:
            with self._mutex:
                point = next(self._next)
            for pause in PAUSES:
                self._try(worker, f"{point}:{pause}")

    def _try(self, worker: Worker, fault: str) -> None:
        try:
            if attempt(worker, self.name, fault):
                self.points += 1
            else:
                self._missed += 1
                self._over = self._missed > len(PAUSES)  # how many there are is a matter of time
        except Exception:
            self.points += 1
            self.violations.append(f"{self.name} {fault}: {traceback.format_exc()}")


def try_all(workers: list[Worker], name: str) -> Tried:
    """Try every point of a run, several at the same time."""
    tried = Tried(name)
    threads = [threading.Thread(target=tried.work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tried


def main() -> None:
    """Try what is asked for, and print a line for each run."""
    parser = ArgumentParser(prog="python -m tests.faults.pauses")
    parser.add_argument("--kind", choices=sorted(BINARIES), action="append", help="of server")
    parser.add_argument("--run", choices=sorted(RUNS), action="append")
    parser.add_argument("--point", type=int)
    parser.add_argument("--fault", choices=PAUSES, default="pause")
    given, wrong = parser.parse_args(), 0
    for kind in given.kind or sorted(BINARIES):
        with crew(kind, 1 if given.point else LANES) as workers:
            for name in given.run or RUNS:
                if given.point:
                    print(attempt(workers[0], name, f"{given.point}:{given.fault}"))
                    continue
                began, tried = time.monotonic(), try_all(workers, name)
                wrong += len(tried.violations)
                numbers = f"{tried.points:4} points  {len(tried.violations)} violations"
                took = time.monotonic() - began
                print(f"{kind:6}  {name:12} {numbers}  {took:5.1f} s", flush=True)
                print("\n".join(tried.violations), end="", flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
