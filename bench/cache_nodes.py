"""Rows about three nodes: one killed and started again, and hits from many processes.

- outage: four processes ask for one of 2,000 keys at random, pause 1 ms, and so on for 12 s; all
  keys are there at the start. After 3 s one of three nodes is killed, after 6 s it is started
  again, empty. A miss is a call that found no value on a node, whoever computes it then. "Used
  again" is from the first PING that the node answers to the process that uses it last (its log).
- crowd: eight processes; `paced`: each pauses 2 to 4 ms after a call.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from statistics import quantiles
from typing import Any, NamedTuple

import redis

from distlock import AsyncCache, Cache
from distlock.ring import Ring

from .cache_sides import EXPIRE, LIMIT, SMALL, TITLES
from .crew import Crew
from .servers import Server
from .table import Row, judged

KEYS = [f"key:{at}" for at in range(2000)]
RUN, KILL, BACK = 12.0, 3.0, 6.0


class Load(NamedTuple):
    """What one process saw."""

    calls: int
    errors: list[str]
    misses: int
    slowest: float
    again: list[float]


class Again(logging.Handler):
    """Notes when this process uses a node again."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Look at one line of the log."""
        if record.getMessage().endswith("is used again"):
            self.times.append(time.monotonic())


def outage(kind: str, rounds: int) -> Iterator[Row]:
    """One of three nodes killed and started again under load."""
    for side, member in (("ours", _loaded), ("ours async", _loaded_async)):
        calm = max(load.slowest for load in _run(kind, member, kill=False)[0])
        runs = [_run(kind, member) for _ in range(rounds)]
        loads = list(chain.from_iterable(run for run, _ in runs))
        calls, errors = sum(load.calls for load in loads), sum(len(load.errors) for load in loads)
        what = f"one of three nodes killed, {TITLES[side]}, {rounds} runs of {RUN:.0f} s: errors"
        yield judged(f"{what} of {calls:,} calls", errors, "<=", 0, ".0f")
        misses = 100 * sum(load.misses for load in loads) / calls
        yield judged("  misses, %", misses, "<=", 8, ".1f")
        slowest = max(load.slowest for load in loads) * 1000
        what = "  slowest call, ms; beside it the slowest of a run without a death"
        yield judged(what, slowest, "<=", 50, ".1f", f"{calm * 1000:.1f}")
        late = [max(load.again, default=1e9) - back for run, back in runs for load in run]
        what = "  s until it is used again, in the last process"
        yield judged(what, max(late), "<=", 1.0, ".2f")


def _run(kind: str, member: Callable[..., Any], kill: bool = True) -> tuple[list[Load], float]:
    """What each process saw, and when the node was back."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(kind)) for _ in range(3)]
        urls = [server.url for server in servers]
        cache = Cache(*urls)
        for key in KEYS:
            cache.set(key, SMALL, expire=EXPIRE)
        crew = Crew(*[(member, (urls,))] * 4).start()
        back = 0.0
        if kill:
            time.sleep(KILL)
            servers[0].kill()
            time.sleep(BACK - KILL)
            servers[0].start()
            back = time.monotonic()
        return crew.join().values, back


def _loaded(urls: list[str]) -> Callable[[], Load]:
    again, cache = _listening(), Cache(*urls)

    def act() -> Load:
        calls, slowest, errors = 0, 0.0, []
        end = time.monotonic() + RUN
        while (began := time.monotonic()) < end:
            try:
                cache.get(random.choice(KEYS), _value, expire=EXPIRE, execution_limit=LIMIT)
            except Exception as error:
                errors.append(repr(error))
            slowest = max(slowest, time.monotonic() - began)
            calls += 1
            time.sleep(0.001)
        return Load(calls, errors, cache.stats().misses, slowest, again.times)

    _warm(cache)
    return act


def _listening() -> Again:
    again = Again()
    logging.getLogger("distlock").addHandler(again)
    return again


def _warm(cache: Cache) -> None:
    for key in KEYS[:100]:
        cache.peek(key)


def _value() -> Any:
    return SMALL


def _loaded_async(urls: list[str]) -> Callable[[], Load]:
    again, cache, loop = _listening(), AsyncCache(*urls), asyncio.new_event_loop()

    async def warm() -> None:
        for key in KEYS[:100]:
            await cache.peek(key)

    async def getter() -> Any:
        return SMALL

    async def act() -> Load:
        calls, slowest, errors = 0, 0.0, []
        end = time.monotonic() + RUN
        while (began := time.monotonic()) < end:
            try:
                await cache.get(random.choice(KEYS), getter, expire=EXPIRE, execution_limit=LIMIT)
            except Exception as error:
                errors.append(repr(error))
            slowest = max(slowest, time.monotonic() - began)
            calls += 1
            await asyncio.sleep(0.001)
        return Load(calls, errors, cache.stats().misses, slowest, again.times)

    loop.run_until_complete(warm())
    return lambda: loop.run_until_complete(act())


# --- hits from eight processes ------------------------------------------------------------------


def crowd(kind: str, seconds: float) -> Iterator[Row]:
    """Hits from eight processes on three nodes, and on one key; bare is GET and json.loads."""
    with ExitStack() as stack:
        urls = [stack.enter_context(Server(kind)).url for _ in range(3)]
        cache = Cache(*urls)
        for key in KEYS:
            cache.set(key, SMALL, expire=EXPIRE * 10)
        _fill_bare(urls)
        for paced in (True, False):
            how = "paced" if paced else "at full speed"
            both = [_crowd(urls, side, KEYS, paced, seconds) for side in ("bare", "ours")]
            yield from _crowd_rows(f"8 processes, 3 nodes, {how}: us of a hit", both, seconds)
        hot = KEYS[:1]
        both = [_crowd(urls, side, hot, False, seconds) for side in ("bare", "ours")]
        yield from _crowd_rows("8 processes, one key, at full speed: us of a hit", both, seconds)
        both[1] = _crowd(urls, "near", hot, False, seconds)
        yield from _crowd_rows("8 processes, one key, near: us of a hit", both, seconds)


def _fill_bare(urls: list[str]) -> None:
    ring = Ring(urls, [1.0] * len(urls))
    for key in KEYS:
        with redis.Redis.from_url(urls[ring.owner(key)]) as client:
            client.set(key, json.dumps(SMALL))


def _crowd_rows(what: str, both: list[tuple[list[float], int]], seconds: float) -> Iterator[Row]:
    cuts = [quantiles(took, n=100) for took, _ in both]
    for name, at in (("p50", 49), ("p99", 98)):
        its, mine = (cut[at] * 1e6 for cut in cuts)
        form = ".1f" if mine < 10 else ".0f"
        yield Row(f"{what}, {name}", f"{its:.0f}", format(mine, form), f"{mine / its:.2f}")
    its, mine = (calls / seconds for _, calls in both)
    yield Row("  calls/s of all", f"{its:,.0f}", f"{mine:,.0f}", f"{mine / its:.2f}")


def _crowd(
    urls: list[str], side: str, keys: list[str], paced: bool, seconds: float
) -> tuple[list[float], int]:
    """Seconds of some of the calls, and how many there were."""
    args = (urls, side, keys, paced, seconds)
    values = Crew(*[(_asking, args)] * 8).start().join().values
    return list(chain.from_iterable(took for took, _ in values)), sum(many for _, many in values)


def _asking(
    urls: list[str], side: str, keys: list[str], paced: bool, seconds: float
) -> Callable[[], tuple[list[float], int]]:
    get = _bare(urls) if side == "bare" else _ours(urls, 1000 * (side == "near"))
    for key in keys[:100] * (100 // len(keys[:100])):
        get(key)
        time.sleep(0.001)

    def act() -> tuple[list[float], int]:
        took, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            key = random.choice(keys)
            began = time.perf_counter()
            get(key)
            took.append(time.perf_counter() - began)
            if paced:
                time.sleep(random.uniform(0.002, 0.004))
        return random.sample(took, min(len(took), 20_000)), len(took)

    return act


def _bare(urls: list[str]) -> Callable[[str], Any]:
    clients: list[Any] = [redis.Redis.from_url(url) for url in urls]
    ring = Ring(urls, [1.0] * len(urls))
    return lambda key: json.loads(clients[ring.owner(key)].execute_command("GET", key))


def _ours(urls: list[str], near: int) -> Callable[[str], Any]:
    cache = Cache(*urls, near=near)
    return lambda key: cache.get(key, _value, expire=EXPIRE, execution_limit=LIMIT)
