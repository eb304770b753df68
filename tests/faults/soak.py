"""Eight copies at work, and a fault every 0.05 to 0.6 s, for as long as is asked for.

python -m tests.faults.soak --seconds 600 --seed 1          (or `make soak`)

The seed decides which fault comes when and whom it hits: a copy is killed (SIGKILL), stopped for up
to two ttls (SIGSTOP, SIGCONT) or told to end (SIGTERM); the server is killed, which the copies
start again, loses its scripts (SCRIPT FLUSH), or all of its connections (CLIENT KILL). For a copy
that has ended another one is started. After each fault I0 is checked. When the time is over the
source ends, and the copies do what is left; then `verify` says whether all is well.

The exit code is 1 at the first violation, which is printed with the fault's number; the same seed
brings the same faults again, as far as the machine is as quick as before.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections import Counter
from contextlib import suppress
from pathlib import Path

import redis

from distlock.io import SyncIO
from distlock.keys import Keys
from distlock.pipeline import Records, Status, Verifier
from distlock.server import Embedded
from tests.conftest import ROOT
from tests.faults.server_kills import patient
from tests.tools import partition, wait_until

KEYS = Keys("test")
COPIES = 8
TTL = 1.0
FAULTS = {"kill": 3, "stop": 3, "end": 2, "server": 1, "flush": 1, "cut": 2}
"""Which there are, and how often each comes beside the others."""
ENDS = (0, -signal.SIGKILL, -signal.SIGTERM)
"""Exit codes that are as they must be; the last: it was told to end before it could listen."""
UNREACHABLE = 3
ROLES = ('"begun"', '"handler"', '"generator"')
"""What a copy says when it has begun."""
OPTIONS = [
    *("--name", "test", "--json", "--messages", "100000000", "--max-queue", "500"),
    *("--generate", "tests.work_for_tests:until_told", "--sleep", "0.02", "--error-rate", "0.02"),
    *("--attempts", "2", "--ttl", str(TTL), "--handler-ttl", str(TTL)),
]


class Soak:
    """One soak.

    Args:
        seed: decides the faults.
        folder: for the server and what the copies say.

    Attributes:
        faults: how many of which kind there were.
        looks: how often I0 was checked.
        begun: copies that were started.
        early: those of them that ended with 3 before they had begun, as the server was killed.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.dice = random.Random(seed)
        self.folder = folder
        self.faults: Counter[str] = Counter()
        self.looks = 0
        self.embedded = Embedded(folder / "server")
        self.embedded.start()
        self.client = patient(self.embedded.url)
        self.io = SyncIO(patient(self.embedded.url), patience=30)
        self.records = Records(self.io, KEYS)
        self.copies: list[subprocess.Popen[bytes]] = []
        self.logs: dict[int, Path] = {}
        self.asleep: dict[int, float] = {}
        self.begun = self.early = 0

    def start_copies(self) -> None:
        """Start another one for each that has ended; fails when one ended as it must not."""
        for copy in [copy for copy in self.copies if copy.poll() is not None]:
            self._check_end(copy)
            self.copies.remove(copy)
        while len(self.copies) < COPIES:
            self.begun += 1
            self.copies.append(self._start(self.folder / f"{self.begun}.jsonl"))

    def _start(self, log: Path) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "DISTLOCK_HOME": str(self.embedded.folder),
            "REDIS_URL": "",
            "STOP": str(self.folder / "stop"),
            "PYTHONPATH": str(ROOT),
        }
        with open(log, "wb") as said:
            command = [sys.executable, str(ROOT / "app_start.py"), *OPTIONS]
            out = subprocess.DEVNULL
            copy = subprocess.Popen(command, env=environment, stdout=out, stderr=said)
        self.logs[copy.pid] = log
        return copy

    def _check_end(self, copy: subprocess.Popen[bytes]) -> None:
        said = self.logs[copy.pid].read_text()[-2000:]
        if copy.returncode == UNREACHABLE and not any(role in said for role in ROLES):
            self.early += 1  # the server was killed between its first two looks at it
            return
        assert copy.returncode in ENDS, f"a copy ended with {copy.returncode}: {said}"

    def run(self, seconds: float) -> None:
        """Bring about faults for some seconds, and look after each."""
        self.start_copies()
        wait_until(lambda: self.status().stored, 60)
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._wake(now)
            self.fault()
            self.look()
            self.start_copies()
            pause = self.dice.uniform(0.05, 0.6) - (time.monotonic() - now)
            time.sleep(max(pause, 0))

    def fault(self) -> None:
        """One of them."""
        what = self.dice.choices([*FAULTS], [*FAULTS.values()])[0]
        which, long = self.dice.randrange(COPIES), self.dice.uniform(0.1, 2 * TTL)
        victim = self.copies[which]
        self.faults[what] += 1
        if what in ("kill", "end"):
            victim.send_signal(signal.SIGKILL if what == "kill" else signal.SIGTERM)
        elif what == "stop":
            victim.send_signal(signal.SIGSTOP)
            self.asleep[victim.pid] = time.monotonic() + long
        elif what == "server":
            if pid := self.embedded.pid():
                os.kill(pid, signal.SIGKILL)
        elif what == "flush":
            self.client.script_flush()
        else:
            for kind in ("normal", "pubsub"):
                self.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def _wake(self, now: float) -> None:
        for copy in self.copies:
            if copy.pid in self.asleep and self.asleep[copy.pid] <= now:
                copy.send_signal(signal.SIGCONT)
                del self.asleep[copy.pid]

    def look(self) -> None:
        """I0."""
        partition(self.client, KEYS)
        self.looks += 1

    def finish(self) -> None:
        """The source ends; all who live do what is left, and end by themselves."""
        (self.folder / "stop").touch()
        self._wake(float("inf"))
        deadline = time.monotonic() + 180
        while not self.status().done:
            assert time.monotonic() < deadline, f"not done after 180 s: {self.status()}"
            self.start_copies()
            time.sleep(0.1)
        for copy in self.copies:
            copy.wait(60)
            self._check_end(copy)
        self.look()
        assert Verifier(self.io, KEYS).verify().good, "verify finds something wrong"
        stored: dict[bytes, bytes] = {}
        for bucket in range(self.status().sequence // 4096 + 1):
            stored.update(self.client.hgetall(KEYS.store(bucket)))
        assert all(body == b"body " + id for id, body in stored.items()), "a wrong result is stored"

    def status(self) -> Status:
        """All numbers."""
        return self.records.status()

    def events(self) -> Counter[str]:
        """How often the copies said what; a line that was cut by a kill counts for nothing."""
        said: Counter[str] = Counter()
        for log in self.folder.glob("*.jsonl"):
            for line in log.read_text().splitlines():
                with suppress(json.JSONDecodeError):
                    said[json.loads(line)["event"]] += 1
        return said

    def close(self) -> None:
        """Leave nothing behind."""
        for copy in self.copies:
            copy.kill()
            copy.wait()
        self.embedded.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def report(soak: Soak, seconds: float) -> None:
    """Print the figures."""
    status, said = soak.status(), soak.events()
    ended = f"{status.stored:,} stored, {status.errors:,} errors"
    print(
        f"{status.sequence:,} messages: {ended}; {seconds:.0f} s; {soak.begun} copies were started"
    )
    print(f"{sum(soak.faults.values())} faults: {dict(sorted(soak.faults.items()))}")
    print(
        f"{soak.early} copies ended with exit code 3, as the server was killed while they started"
    )
    print(f"{soak.looks} times each id was in exactly one place, after each fault and at the end")
    print(f"{status.takeovers} takeovers, {status.stats.get('reclaimed', 0)} messages of the dead")
    shown = ("deposed", "given-up", "reclaimed", "restarted", "away", "back", "alone", "stopping")
    print(f"what the copies said: { ({kind: said[kind] for kind in shown}) }")
    print("0 lost, 0 stored twice: verify says so", flush=True)


def main() -> None:
    """Soak."""
    parser = ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"python -m tests.faults.soak --seconds {given.seconds:g} --seed {given.seed}")
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}", flush=True
    )
    soak, began = (
        Soak(given.seed, Path(tempfile.mkdtemp(prefix="dl-", dir="/tmp"))),
        time.monotonic(),
    )
    try:
        soak.run(given.seconds)
        soak.finish()
        report(soak, time.monotonic() - began)
    except (AssertionError, redis.RedisError) as error:
        print(f"violation after fault {sum(soak.faults.values())} ({dict(soak.faults)}): {error}")
        sys.exit(1)
    finally:
        soak.close()


if __name__ == "__main__":
    main()
