"""The embedded server is killed with kill -9 during a run; the copies bring it back.

python -m tests.faults.server_kills [--rounds 3] [--messages 5000]

For messages that take 1 ms and for none that takes anything: how quick three copies are with
seven kills, without a kill, and without the append-only file, the median of some rounds. After
each kill I0 is checked, in the end what is stored. The exit code is 1 if anything is lost or stored
twice.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from distlock.io import SyncIO
from distlock.keys import Keys
from distlock.pipeline import Records, Status, Verifier
from distlock.server import Embedded
from tests.conftest import ROOT
from tests.tools import partition, wait_until

KEYS = Keys("test")
KILLS = 7
COPIES = 3


@dataclass
class Ran:
    """What a run came to.

    Attributes:
        rate: messages a second, from when all copies were at work to the last message.
        kills: how often the server was killed.
        restarts: how often a copy said that it started it again.
        stored: messages in the store.
        good: what `verify` says.
    """

    rate: float
    kills: int
    restarts: int
    stored: int
    good: bool


@contextmanager
def server() -> Iterator[Embedded]:
    """An embedded server in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="dl-", dir="/tmp"))
    embedded = Embedded(folder)
    try:
        embedded.start()
        yield embedded
    finally:
        embedded.stop()
        shutil.rmtree(folder, ignore_errors=True)


def patient(url: str) -> redis.Redis:
    """A client that waits for a server that is being started again."""
    return redis.Redis.from_url(url, retry=Retry(ConstantBackoff(0.02), 1000))


def run(embedded: Embedded, messages: int, kills: int, sleep: float, safe: bool = True) -> Ran:
    """Have three copies do a job, and kill their server on the way.

    Args:
        embedded: the server, which has no job.
        messages: K.
        kills: how many, spread over the job.
        sleep: seconds that a message takes.
        safe: with an append-only file.

    Raises:
        AssertionError: after a kill an id is not in exactly one place.
    """
    environment = {**os.environ, "DISTLOCK_HOME": str(embedded.folder), "REDIS_URL": ""}
    options = ["--name", "test", "--json", "--messages", str(messages), "--sleep", str(sleep)]
    command = [sys.executable, str(ROOT / "app_start.py"), *options]
    with patient(embedded.url) as client:
        client.config_set("appendonly", "yes" if safe else "no")
        io = SyncIO(client, patience=20)
        records = Records(io, KEYS)
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        copies = [
            subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload]
            for _ in range(COPIES)
        ]
        try:
            wait_until(lambda: _all_work(records.status()), 60)
            began, before, killed = time.monotonic(), records.status().stored, 0
            while killed < kills and not (status := records.status()).done:
                assert _runs(copies)
                if status.stored >= before + killed * (messages - before) // (kills + 3):
                    _kill(embedded)
                    killed += 1
                    partition(client, KEYS)
            wait_until(lambda: _runs(copies) and records.status().done, 120)
            rate = (messages - before) / (time.monotonic() - began)
            said = [copy.communicate(timeout=60)[1] for copy in copies]
        finally:
            for copy in copies:
                copy.kill()
                copy.communicate()
        found = partition(client, KEYS)
        events = [json.loads(line)["event"] for lines in said for line in lines.splitlines()]
        good = Verifier(io, KEYS).verify().good
        io.close()
        return Ran(rate, killed, events.count("restarted"), len(found["store"]), good)


def _all_work(status: Status) -> bool:
    """Whether all copies are at work: one that only starts would end with 3 without its server."""
    return len(status.handlers) + bool(status.owner) == COPIES


def _runs(copies: list[subprocess.Popen[str]]) -> bool:
    """True; fails when a copy has ended otherwise than it should."""
    codes = [copy.poll() for copy in copies]
    assert not any(codes), f"copies ended with {codes}"
    return True


def _kill(embedded: Embedded) -> None:
    pid = wait_until(embedded.pid)
    os.kill(pid, signal.SIGKILL)


def measure(messages: int, sleep: float, rounds: int) -> bool:
    """Print a line for each way to run a job; whether nothing was lost or stored twice."""
    ways = {"killed": (KILLS, True), "not killed": (0, True), "no file": (0, False)}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    fine, killed = True, 0
    for _ in range(rounds):
        for way, (kills, safe) in ways.items():
            with server() as embedded:
                ran = run(embedded, messages, kills, sleep, safe)
            rates[way].append(ran.rate)
            killed += ran.kills
            fine = fine and ran.good and ran.stored == messages
    print(f"\n{messages:,} messages, --sleep {sleep:g}, {COPIES} copies, {rounds} rounds")
    for way, rate in rates.items():
        middle, least, most = statistics.median(rate), min(rate), max(rate)
        print(f"  {way:10}  {middle:8,.0f} messages a second  ({least:,.0f} to {most:,.0f})")
    with_file, bare = (statistics.median(rates[way]) for way in ("not killed", "no file"))
    print(f"  with the append-only file {1 - with_file / bare:+.1%} slower")
    print(f"  {killed} kills: 0 lost, 0 stored twice: {fine}", flush=True)
    return fine


def main() -> None:
    """Measure both speeds."""
    parser = ArgumentParser(prog="python -m tests.faults.server_kills")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=5000, help="that take 1 ms each")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}")
    fine = [
        measure(given.messages, 0.001, given.rounds),
        measure(given.messages * 60, 0.0, given.rounds),
    ]
    sys.exit(not all(fine))


if __name__ == "__main__":
    main()
