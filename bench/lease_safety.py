"""Rows about what must never happen: writes of a holder whose time is over, and remains.

Stale writes: a process writes under its lease as fast as it can, each write a transaction of
`execute_all` that reads the last token given out and appends its own; it is stopped by SIGSTOP at
some moment, another one takes over when the ttl is over, and the first goes on. It tries 25 times
more each time, made to believe that its term goes on, so that each try reaches the server (else its
own clock would refuse them). Stale is a write that was accepted although a newer token had been
given out: by its own answer, and by the order of the tokens in the list.

Told: a holder is stopped until its term is over, and goes on.

Cancelled acquires: a task is cancelled after 0, 1, 2 ... turns of the event loop, and what the
server has is read when the task has ended. Those that ended by themselves before do not count.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, pairwise
from multiprocessing.connection import Connection
from typing import NamedTuple

import redis
import redis.asyncio

from distlock import AsyncLease, Lease, LeaseLost

from .crew import Crew
from .lease_sides import KEYS, NAME, TTL
from .servers import Server
from .table import Row, judged

# --- told of the loss ---------------------------------------------------------------------------

SHORT = 0.3
"""Seconds of that holder's ttl."""


def told(server: Server, number: int) -> Iterator[Row]:
    """Milliseconds from the SIGCONT of a holder whose term is over to the call of its `on_lost`."""
    took = [_told(server) for _ in range(number)]
    what = "frozen holder: ms from the SIGCONT to its on_lost, at most"
    yield judged(what, max(took), "<=", 50, ".1f")


def _told(server: Server) -> float:
    server.empty()
    mine, its = multiprocessing.get_context("spawn").Pipe()
    crew = Crew((_freezing, (server.url, its))).start()
    pid = mine.recv()
    time.sleep(random.uniform(0, 2 * SHORT))  # any moment is as good as another
    os.kill(pid, signal.SIGSTOP)
    while server.client.exists(KEYS.lease):
        time.sleep(0.01)
    time.sleep(SHORT)  # its own deadline, too, is long over
    awake = time.monotonic()
    os.kill(pid, signal.SIGCONT)
    when: float = mine.recv()
    crew.kill()
    return (when - awake) * 1000


def _freezing(url: str, its: Connection) -> Callable[[], None]:
    lease = Lease(url, NAME, ttl=SHORT, on_lost=lambda lease: its.send(time.monotonic()))
    lease.acquire()
    its.send(os.getpid())
    return signal.pause


# --- stale writes -------------------------------------------------------------------------------

LOG = f"{KEYS.prefix}log"
TRIES = 25


class Tried(NamedTuple):
    """What one holder did: writes accepted, and how many of those were stale."""

    accepted: int
    stale: int


def stale(server: Server, rounds: int) -> Iterator[Row]:
    """Writes accepted with an older token after a newer one was given out."""
    server.empty()
    server.client.config_resetstat()
    mine, its = multiprocessing.get_context("spawn").Pipe()
    crew = Crew((_writing, (server.url, its, rounds))).start()
    pid = mine.recv()
    lease = Lease(server.url, NAME, ttl=TTL)
    tried = [_deposed(lease, pid, mine) for _ in range(rounds)]
    crew.join()
    accepted, wrong = (sum(one[i] for one in tried) for i in (0, 1))
    tokens = [int(token) for token in server.client.lrange(LOG, 0, -1)]
    wrong = max(wrong, sum(later < earlier for earlier, later in pairwise(tokens)))
    refused = server.client.info("errorstats")["errorstat_LEASELOST"]["count"]
    assert refused + wrong >= rounds * TRIES
    what = f"stale writes accepted of {refused + wrong:,} tried, {rounds} SIGSTOPs"
    yield judged(what, wrong, "<=", 0, ".0f")
    yield Row("  writes accepted in time", "", f"{accepted - wrong:,}")


def _deposed(lease: Lease, pid: int, pipe: Connection) -> Tried:
    """Stop the writer, take over, write, let it go on, and hear what it did."""
    pipe.recv()
    time.sleep(random.uniform(0, 0.02))
    os.kill(pid, signal.SIGSTOP)
    lease.acquire()
    _write(lease)
    os.kill(pid, signal.SIGCONT)
    tried: Tried = pipe.recv()
    _write(lease)
    lease.release()
    return tried


def _write(lease: Lease) -> bool:
    """Append the token to the log; whether a newer one had been given out."""
    words = (("GET", KEYS.token), ("RPUSH", LOG, lease.token))
    last = lease.execute_all(words)[0]
    return bool(int(last) > lease.token)


def _writing(url: str, pipe: Connection, rounds: int) -> Callable[[], None]:
    """A member that writes until it has lost the lease, and then tries on."""
    lease = Lease(url, NAME, ttl=0.1)
    pipe.send(os.getpid())

    def write_until_lost() -> Iterator[bool]:
        while True:
            try:
                yield _write(lease)
            except LeaseLost:
                return

    def act() -> None:
        for _ in range(rounds):
            lease.acquire()
            pipe.send("writing")
            answers = list(write_until_lost())
            for _ in range(TRIES):
                lease.why, lease.deadline = "", math.inf
                answers += write_until_lost()
            pipe.send(Tried(len(answers), sum(answers)))
            lease.release()

    return act


# --- cancelled acquires -------------------------------------------------------------------------

TURNS = 40
"""Turns of the event loop after which a task is cancelled, at most; a round trip takes fewer."""


class Scene(NamedTuple):
    """What goes on when a task is cancelled.

    Attributes:
        held: another client holds the lease, so the task waits.
        behind: another task of the same process waits already; this one waits for that one only.
        handing: the holder releases at the same moment.
    """

    held: bool = False
    behind: bool = False
    handing: bool = False


SCENES = {
    "before the reply": Scene(),
    "while waiting": Scene(held=True),
    "while waiting behind another task": Scene(held=True, behind=True),
    "at the moment of the grant": Scene(held=True, handing=True),
}


def cancelled(server: Server, number: int) -> Iterator[Row]:
    """Acquires cancelled at each point that left a key or an entry in the line."""
    its = f"{asyncio.run(_left_by_redis_py(server, number))}"
    for point, scene in SCENES.items():
        left = asyncio.run(_left(server, scene, number))
        what = f"acquires cancelled {point}: remains of {number}"
        yield judged(what, left, "<=", 0, ".0f", its)
        its = ""


async def _left_by_redis_py(server: Server, number: int) -> int:
    """How many of its cancelled acquires of a free lock left the lock."""
    left = done = 0
    async with redis.asyncio.Redis.from_url(server.url) as client:
        for turns in _turns():
            await client.delete(NAME)
            task = asyncio.create_task(client.lock(NAME, timeout=TTL).acquire())
            if await _cancel(task, turns):
                done += 1
                left += await client.exists(NAME)
            if done == number:
                break
    return left


def _turns() -> Iterator[int]:
    return (1 + at % TURNS for at in count())


async def _cancel(task: asyncio.Task[bool], turns: int) -> bool:
    """Cancel it after so many turns of the event loop; whether that was in time."""
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


async def _left(server: Server, scene: Scene, number: int) -> int:
    """How many acquires, of so many that were cancelled, left something."""
    server.empty()
    left = done = 0
    connect = redis.asyncio.Redis.from_url
    async with connect(server.url) as here, connect(server.url) as elsewhere:
        for turns in _turns():
            gone, remains = await _play(server.client, scene, turns, here, elsewhere)
            done += gone
            left += gone and bool(remains)
            if done == number:
                return left
            server.client.delete(KEYS.lease, KEYS.line)
    raise AssertionError


async def _play(
    client: redis.Redis,
    scene: Scene,
    turns: int,
    here: redis.asyncio.Redis,
    elsewhere: redis.asyncio.Redis,
) -> tuple[bool, int]:
    """One scene; whether the task was cancelled in time, and how many things were left."""
    holder, first, lease = (AsyncLease(side, NAME) for side in (elsewhere, here, here))
    others: list[asyncio.Task[bool]] = []
    if scene.held:
        await holder.acquire()
    if scene.behind:
        others.append(asyncio.create_task(first.acquire()))
        await _one_in_line(client)
    task = asyncio.create_task(lease.acquire())
    if scene.held:
        await _one_in_line(client)
    if scene.handing:
        others.append(asyncio.create_task(holder.release()))
    gone = await _cancel(task, turns)
    remains = client.llen(KEYS.line) - scene.behind
    if scene.held and not scene.handing:
        await holder.release()
    await asyncio.gather(*others)
    for late in (first, lease):
        if late.held:
            await late.release()
    return gone, remains + client.exists(KEYS.lease) + client.llen(KEYS.line)


async def _one_in_line(client: redis.Redis) -> None:
    while not client.llen(KEYS.line):
        await asyncio.sleep(0.0005)
