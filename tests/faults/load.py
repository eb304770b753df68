"""A load on servers that fail over: copies of the application, and a lease that ticks.

The ticks are what the copies' reports are held against: a token that was acknowledged and that the
new primary does not know is an acknowledged write that was lost, whoever says otherwise.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import redis

from distlock.connect import connect
from distlock.errors import DistlockError
from distlock.io import Route, SyncIO
from distlock.keys import Keys
from distlock.lease import Lease
from tests.conftest import ROOT

TTL = 1.0
"""Seconds, of the lease and of the handlers."""
OPTIONS = ("--json", "--ttl", f"{TTL:g}", "--handler-ttl", f"{TTL:g}")


class Copies:
    """Copies of the application on one URL, each a process.

    Args:
        url: of the servers.
        name: of their pipeline.
        count: of copies.
        options: of each.
    """

    def __init__(self, url: str, name: str, count: int, *options: str) -> None:
        command = [sys.executable, str(ROOT / "app_start.py"), "--name", name, *OPTIONS, *options]
        self._processes = [
            subprocess.Popen(
                command,
                env={**os.environ, "REDIS_URL": url, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]

    def end(self, seconds: float = 60) -> list[dict[str, Any]]:
        """Have all end; returns each one's numbers, with its events and its exit code."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float = 60) -> list[dict[str, Any]]:
        """Wait until all have ended; see `end`."""
        summaries = []
        for process in self._processes:
            said, events = process.communicate(timeout=seconds)
            summary: dict[str, Any] = json.loads(said) if said else {}
            told = [json.loads(line) for line in events.splitlines() if line[:1] == "{"]
            summaries.append(summary | {"events": told, "code": process.returncode, "err": events})
        return summaries

    def close(self) -> None:
        """Kill what is left."""
        for process in self._processes:
            process.kill()
            process.communicate()


class Ticks:
    """Takes and gives back a lease again and again, in a thread.

    Args:
        url: of the servers.
        name: of the lease.
        replicas: that must confirm each time.
        patience: seconds for which servers that are away are waited for; 0: it ends then.

    Attributes:
        tokens: those that were acknowledged, with the time of each.
    """

    def __init__(self, url: str, name: str, replicas: int = 0, patience: float = 0) -> None:
        self.tokens: list[tuple[int, float]] = []
        self._url, self._keys = url, Keys(name)
        self._replicas, self._patience = replicas, patience
        self._ended = False
        self.go_on()

    def go_on(self) -> None:
        """Begin, or begin again."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        route = Route(connect(self._url, timeout=1.5), self._keys.job)
        io = SyncIO(route, self._patience, replicas=self._replicas)
        lease = Lease(io, self._keys.name, ttl=TTL)
        failed = False
        while not (self._ended or failed):
            try:
                if lease.acquire(blocking=False):
                    self.tokens.append((lease.token, time.monotonic()))
                    lease.release()
            except (DistlockError, redis.RedisError):
                failed = not self._patience
        io.close()

    def stopped(self) -> bool:
        """Whether the server went away."""
        return not self._thread.is_alive()

    def forgotten(self, client: redis.Redis) -> int:
        """How many tokens were acknowledged that a server does not know of."""
        last = int(client.get(self._keys.token) or 0)
        return sum(token > last for token, _ in self.tokens)

    def repeated(self) -> int:
        """How many tokens were not above all before them."""
        highest, count = 0, 0
        for token, _ in self.tokens:
            count += token <= highest
            highest = max(highest, token)
        return count

    def longest_pause(self, since: float = 0.0) -> float:
        """Seconds between two tokens, at most; of those after some (monotonic) time."""
        times = [at for _, at in self.tokens if at >= since]
        return max((b - a for a, b in pairwise(times)), default=0.0)

    def end(self) -> None:
        """End it."""
        self._ended = True
        self._thread.join()


@contextmanager
def copies(url: str, name: str, count: int, *options: str) -> Iterator[Copies]:
    """Copies at work; see Copies."""
    made = Copies(url, name, count, *options)
    try:
        yield made
    finally:
        made.close()
