"""Loses one to three answers of each of many operations, and counts what came of them.

python -m tests.faults.lost_replies [--server both] [--number 1000] [--only acquire]

An answer is lost when the server has done what was asked: it is thrown away and the connection is
broken (see the injector), so the request is sent again. Two kinds of clients do that: our own
connections, and redis-py's with its default retries, which send a write again without a word. Each
operation must have been done exactly once, and nobody may see an exception. Many lanes run at once,
each with a connection and a name of its own, for the pauses between the tries are waited for.

(What redis-py sends again without a word cannot be told by whoever asked it: a release says then
that the lease had gone on, a goodbye that the handler was given up. So nothing of ours goes over a
client's own retries; here they show that the scripts bear them.)
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio

from distlock import AsyncCache, Cache
from distlock.cache.claiming import CLAIM
from distlock.cache.computing import LAND
from distlock.io import IO, Argument, SyncIO, run
from distlock.io.asynchronous import AsyncIO
from distlock.io.route import AsyncRoute
from distlock.keys import CacheKeys, Keys, wake_channel
from distlock.lease import LeaseCore
from distlock.lease.core import RETENTION
from distlock.lease.options import Options
from distlock.pipeline.generator import GeneratorCore
from distlock.pipeline.handler import HandlerCore, Outcome
from distlock.pipeline.job import Job, JobsCore
from tests.conftest import BINARIES, Server
from tests.faults.injector.sitecustomize import Injector
from tests.tools import partition, settle

NUMBER = 1000
LANES = 25
MOST = 3
"""Answers of one operation that are lost, at most."""
TTL = 60.0
"""Seconds: a machine that stands still for some seconds is another fault."""


# --- losing answers -----------------------------------------------------------------------------


@dataclass
class Losing:
    """What is to be lost of the scripts that one operation sends.

    Attributes:
        spared: scripts whose answer comes, at first.
        left: answers that are lost then.
    """

    spared: int
    left: int


UNDER_WAY: ContextVar[Losing | None] = ContextVar("losing", default=None)


def choose(number: int, data: bytes) -> str:
    """Lose the answer, if that of the operation under way is to be lost; see Injector."""
    losing = UNDER_WAY.get()
    if losing is None or b"EVAL" not in data[:24]:
        return ""
    if losing.spared:
        losing.spared -= 1
        return ""
    if losing.left:
        losing.left -= 1
        return "lost"
    return ""


# --- clients ------------------------------------------------------------------------------------


class Resending(SyncIO):
    """Sends over a client of redis-py, whose retries are its default ones."""

    async def _send(
        self, words: Sequence[Argument], seconds: float | None, most: float | None = None
    ) -> Any:
        return self.client.execute_command(*words)


class AsyncResending(AsyncIO):
    """The same for redis.asyncio."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        super().__init__(AsyncRoute(client), 0.0)
        self._client = client

    async def _send(
        self, words: Sequence[Argument], seconds: float | None, most: float | None = None
    ) -> Any:
        return await self._client.execute_command(*words)  # type: ignore[no-untyped-call]


CLIENTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "own sync": ("sync", lambda client: SyncIO(client, patience=60)),
    "own asyncio": ("async", lambda client: AsyncIO(AsyncRoute(client), 60)),
    "redis-py sync": ("sync", lambda client: Resending(client, patience=0)),
    "redis-py asyncio": ("async", AsyncResending),
}


class Lane:
    """One client, and what it does one after the other.

    Args:
        url: of the server.
        client: what kind of client.
        number: of the lane.
        count: operations.

    Attributes:
        io: of the client.
        looks: a client for looking, which loses nothing.
        lost: answers that were lost.
    """

    def __init__(self, url: str, client: str, number: int, count: int) -> None:
        self.face, make = CLIENTS[client]
        kind: Any = redis.Redis if self.face == "sync" else redis.asyncio.Redis
        self.own = client.startswith("own")
        self.client = kind(unix_socket_path=urlsplit(url).path)  # from_url would turn retries off
        self.looks = redis.Redis.from_url(url)
        self.io: IO = make(self.client)
        self.name = f"lane{number}"
        self.keys = Keys(self.name)
        self.count = count
        self.lost = 0
        self._dice = random.Random(number)

    @contextmanager
    def losing(self, spared: int = 0) -> Iterator[None]:
        """A block in which some answers are lost."""
        number = self._dice.randint(1, MOST)
        under_way = Losing(spared, number)
        token = UNDER_WAY.set(under_way)
        try:
            yield
        finally:
            UNDER_WAY.reset(token)
        assert under_way.left == 0, f"{under_way.left} of {number} answers came"
        self.lost += number

    def lease(self) -> LeaseCore:
        """A lease of the lane's name."""
        return LeaseCore(self.name, Options(ttl=TTL, auto_renew=False), RETENTION)

    async def close(self) -> None:
        """Close all its connections."""
        if isinstance(self.io, SyncIO | AsyncIO):
            self.io.close()
        self.looks.close()
        if self.face == "sync":
            self.client.close()
        else:
            await self.client.aclose()


# --- operations: each returns how often it had an effect ------------------------------------------


async def publish(lane: Lane) -> int:
    """Each message is published alone."""
    lease = lane.lease()
    assert await lease._acquire(lane.io, False, None)
    generator = GeneratorCore(lane.io, lane.keys, lease, 10**8)
    for id in range(1, lane.count + 1):
        with lane.losing():
            answer = await generator._publish(id, [b"body"], renew=True)
        assert (answer.gap, answer.sequence) == (False, id), answer
    return len(partition(lane.looks, lane.keys)["queue"])


async def exchange(lane: Lane) -> int:
    """Each hand has one message, of which every seventh fails."""
    lease = lane.lease()
    assert await lease._acquire(lane.io, False, None)
    job = await JobsCore(lane.io, lane.keys)._open(lease, Job(lane.count, lane.count, attempts=1))
    await GeneratorCore(lane.io, lane.keys, lease, 10**8)._publish(1, [b"body"] * lane.count, True)
    handler, outcome, seen = HandlerCore(lane.io, lane.keys, job, "h"), Outcome(), []
    with lane.losing():
        await handler._join()
    while len(seen) < lane.count:
        with lane.losing():
            hand = await handler._exchange(outcome, 1)
        assert hand is not None, "given up for dead"
        seen += [int(message.split(b":")[0]) for message in hand.messages]
        outcome = settle(hand, fail=lambda id: id % 7 == 0)
    with lane.losing():
        goodbye = await handler._exchange(outcome, 0)
    assert goodbye or not lane.own, "its own goodbye, and it takes itself for given up"
    assert seen == list(range(1, lane.count + 1)), seen
    found = partition(lane.looks, lane.keys)
    stats = lane.looks.hgetall(lane.keys.stats)
    counted = int(stats.get(b"stored", 0)) + int(stats.get(b"errors", 0))
    assert counted == len(found["store"]) + len(found["errors"]), (counted, found)
    assert found["errors"] == [] or all(id % 7 == 0 for id in found["errors"])
    return counted


async def acquire(lane: Lane) -> int:
    """Each acquire is a term: the caller's token is the one that the server has."""
    tokens: list[int] = []
    for _ in range(lane.count):
        lease = lane.lease()
        with lane.losing():
            assert await lease._acquire(lane.io, False, None), "it is held by nobody else"
        held = lane.looks.hgetall(lane.keys.lease)
        assert held[b"owner"].decode() == lease.owner
        assert int(held[b"token"]) == int(lane.looks.get(lane.keys.token) or 0) == lease.token
        tokens.append(lease.token)
        assert await lease._release(lane.io)
    assert tokens == sorted(tokens)
    return len(set(tokens))


async def renew(lane: Lane) -> int:
    """Each renewal sets the time left, of the same term."""
    lease, renewed = lane.lease(), 0
    assert await lease._acquire(lane.io, False, None)
    token = lease.token
    for _ in range(lane.count):
        lane.looks.pexpire(lane.keys.lease, round(TTL * 100))
        with lane.losing():
            assert await lease._renew(lane.io)
        assert lease.held
        renewed += lane.looks.pttl(lane.keys.lease) > TTL * 600
    assert lane.looks.hget(lane.keys.lease, "token") == str(token).encode()
    assert lease.token == token
    return renewed


async def release(lane: Lane) -> int:
    """Each release hands the lease to the one who waits; not a second time to the next."""
    address, granted = f"waiter-{lane.name}", 0
    with lane.looks.pubsub() as ear:
        ear.subscribe(wake_channel(address))
        while (ear.get_message(timeout=5) or {}).get("type") != "subscribe":
            pass
        for number in range(lane.count):
            lease = lane.lease()
            assert await lease._acquire(lane.io, False, None)
            heirs = [f"heir/{number}/{place}" for place in range(2)]
            for heir in heirs:
                lane.looks.rpush(lane.keys.line, f"{address} {heir} {TTL * 1000:.0f} 0 0 0")
            with lane.losing():
                done = await lease._release(lane.io)
            assert done or not lane.own, "it was released, and the caller does not know"
            owner = lane.looks.hget(lane.keys.lease, "owner") or b""
            assert owner.decode() == heirs[0], owner
            said = ear.get_message(timeout=5)
            assert said
            granted += said["data"].decode().startswith(heirs[0])
            assert ear.get_message(timeout=0) is None, "a second one was called"
            lane.looks.delete(lane.keys.lease, lane.keys.line)
    return granted


async def fill(lane: Lane) -> int:
    """Each value is computed once, and kept; the answers to claim and to land are lost in turn."""
    return await (_fill(lane) if lane.own else _fill_by_hand(lane))


async def _fill(lane: Lane) -> int:
    kind: Any = Cache if lane.face == "sync" else AsyncCache
    cache, calls = kind(lane.client, name=lane.name, ttl=TTL, node_timeout=TTL), 0

    def getter() -> int:
        nonlocal calls
        calls += 1
        return calls

    async def coroutine() -> int:
        return getter()

    function = getter if lane.face == "sync" else coroutine
    for number in range(lane.count):
        with lane.losing(spared=number % 2):
            value = cache.get(f"k{number}", function, expire=60, execution_limit=TTL)
            value = await value if isawaitable(value) else value
        assert value == number + 1
        kept = lane.looks.get(CacheKeys(lane.name).all(f"k{number}")[0])
        assert kept == str(value).encode(), kept
    counted = cache.stats()
    assert counted.computed == calls
    assert (counted.refused, counted.outages, counted.node_deaths) == (0, 0, 0), counted
    return calls


async def _fill_by_hand(lane: Lane) -> int:
    filled = 0
    for number in range(lane.count):
        keys, right = CacheKeys(lane.name).all(f"k{number}"), f"right{number}"
        args: tuple[Argument, ...] = (right, 30_000, "", "", 0, "nobody nothing")
        with lane.losing():
            assert await lane.io.call(CLAIM, keys, args) == [1]
        with lane.losing():
            filled += await lane.io.call(LAND, keys[:4], (right, "1", 60_000, 0))
        assert lane.looks.mget(keys[:2]) == [b"1", f"-{right} 0".encode()]
    return filled


OPERATIONS: dict[str, Callable[[Lane], Coroutine[Any, Any, int]]] = {
    operation.__name__: operation
    for operation in (publish, exchange, acquire, renew, release, fill)
}


# --- all of them ----------------------------------------------------------------------------------


@dataclass
class Result:
    """What came of one operation, done by one kind of client.

    Attributes:
        lost: answers.
        effects: how often the operation had an effect.
        wrong: an exception, or what a check said, for each lane that met one.
    """

    operation: str
    client: str
    number: int
    lost: int
    effects: int
    wrong: list[str]
    seconds: float

    @property
    def good(self) -> bool:
        """Whether each was done exactly once, and nobody saw an exception."""
        return self.effects == self.number and not self.wrong

    def line(self) -> str:
        """A line of the table."""
        numbers = f"{self.number:6,} {self.lost:13,} {self.effects:8,} {len(self.wrong):11}"
        return f"{self.operation:10}{self.client:18}{numbers} {self.seconds:8.1f}"


HEAD = f"{'operation':10}{'client':18}  done  answers lost  effects  exceptions  seconds"


def lose(url: str, operation: str, client: str, number: int) -> Result:
    """Do an operation so many times, by one kind of client, on an empty server; see Result."""
    with redis.Redis.from_url(url) as looks:
        looks.flushall()
    began, count = time.monotonic(), -(-number // LANES)
    counts = [min(count, number - at) for at in range(0, number, count)]
    body, wrong, effects, lost = OPERATIONS[operation], list[str](), 0, 0

    async def do(at: int) -> tuple[int, int, str]:
        lane = Lane(url, client, at, counts[at])
        try:
            return await body(lane), lane.lost, ""
        except Exception as error:
            return 0, lane.lost, f"{lane.name}: {type(error).__name__}: {error}"
        finally:
            await lane.close()

    for effect, gone, said in _all(CLIENTS[client][0], do, len(counts)):
        effects, lost = effects + effect, lost + gone
        wrong += [said] if said else []
    seconds = time.monotonic() - began
    return Result(operation, client, number, lost, effects, wrong, seconds)


def _all(face: str, do: Callable[[int], Coroutine[Any, Any, Any]], lanes: int) -> list[Any]:
    """Run all lanes at once."""
    if face == "sync":
        with ThreadPoolExecutor(lanes) as threads:
            return list(threads.map(lambda at: run(do(at)), range(lanes)))

    async def gather() -> list[Any]:
        return await asyncio.gather(*map(do, range(lanes)))

    return asyncio.run(gather())


@contextmanager
def broken(url: str) -> Iterator[None]:
    """A block in which answers can be lost."""
    undo = Injector(urlsplit(url).path, choose).install()
    try:
        yield
    finally:
        undo()


def _options() -> Namespace:
    parser = ArgumentParser(prog="python -m tests.faults.lost_replies")
    parser.add_argument("--server", choices=[*BINARIES, "both"], default="both")
    parser.add_argument("--number", type=int, default=NUMBER, help="of each operation")
    parser.add_argument("--only", choices=list(OPERATIONS), help="all, if none is named")
    return parser.parse_args()


def main() -> int:
    """See the module."""
    options = _options()
    print(f"$ python -m tests.faults.lost_replies {' '.join(sys.argv[1:])}".rstrip())
    print(
        f"{time.strftime('%Y-%m-%d %H:%M')}, Python {platform.python_version()}, redis-py "
        f"{redis.__version__}, {os.cpu_count()} cores; 1 to {MOST} answers of each are lost"
    )
    good = True
    for kind in BINARIES if options.server == "both" else [options.server]:
        server = Server(kind)
        try:
            with redis.Redis.from_url(server.url) as client:
                info = client.info("server")
            print(f"\n{kind} {info.get('valkey_version') or info['redis_version']}\n{HEAD}")
            with broken(server.url):
                for operation in [options.only] if options.only else OPERATIONS:
                    for client_kind in CLIENTS:
                        result = lose(server.url, operation, client_kind, options.number)
                        print(result.line(), *result.wrong, sep="\n  ", flush=True)
                        good = good and result.good
        finally:
            server.close()
    print("\neach was done exactly once" if good else "\nnot each was done exactly once")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
