"""Rows about a value that is there: read by one thread or task, near, and the ring's look-up."""

from __future__ import annotations

import asyncio
import json
import time
import timeit
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import redis
import redis.asyncio

from distlock import AsyncCache, Cache
from distlock.ring import Ring

from .cache_sides import EXPIRE, LARGE, LIMIT, SMALL, TITLES, Plan, ended, make, make_async
from .peers import present
from .servers import Server
from .table import Row, beside, compared, judged

Rates = dict[str, list[float]]


def hits(server: Server, rounds: int, number: int) -> Iterator[Row]:
    """Hits a second beside GET and json.loads over redis-py with hiredis, and beside peers."""
    for value, name in ((SMALL, "210 B"), (LARGE, "10 kB")):
        server.empty()
        server.client.set("bare:key", json.dumps(value, separators=(",", ":")))
        found = _hits(server.url, value, rounds, number)
        yield from _beside(f"hit, {name}: calls/s, Cache", *found, "ours")
        found = asyncio.run(_hits_async(server.url, value, rounds, number))
        yield from _beside(f"hit, {name}: calls/s, AsyncCache", *found, "ours async")


def _beside(what: str, rates: Rates, spent: Rates, mine: str) -> Iterator[Row]:
    ours = rates[mine]
    yield compared(f"{what} beside bare GET + loads", rates["bare"], ours, ">=", 0.95, ",.0f")
    yield beside("  us of CPU of the caller's process", spent["bare"], spent[mine], ".0f")[0]
    for kind in rates:
        if kind in ("bare", mine):
            continue
        its = f"{median(a / b for a, b in zip(rates[kind], rates['bare'], strict=True)):.2f}"
        yield beside(f"  beside {TITLES[kind]} ({its} x bare)", rates[kind], ours, ",.0f")[0]


def _hits(url: str, value: Any, rounds: int, number: int) -> tuple[Rates, Rates]:
    client, plan = redis.Redis.from_url(url), Plan(0, value=value)
    ended.set([])

    def bare(key: str) -> Any:
        return json.loads(client.execute_command("GET", "bare:key"))  # type: ignore[no-untyped-call]

    sides = {"bare": bare} | {kind: make(kind, url, plan) for kind in present("ours", "dogpile")}
    rates: Rates = defaultdict(list)
    spent: Rates = defaultdict(list)
    for side in sides.values():
        assert [side("key") for _ in range(50)] == [value] * 50
    for _ in range(rounds):
        for kind, side in sides.items():
            began, cpu = time.perf_counter(), time.process_time()
            for _ in range(number):
                side("key")
            rates[kind].append(number / (time.perf_counter() - began))
            spent[kind].append((time.process_time() - cpu) / number * 1e6)
    return rates, spent


async def _hits_async(url: str, value: Any, rounds: int, number: int) -> tuple[Rates, Rates]:
    client, plan = redis.asyncio.Redis.from_url(url), Plan(0, value=value)
    ended.set([])

    async def bare(key: str) -> Any:
        answer = await client.execute_command("GET", "bare:key")  # type: ignore[no-untyped-call]
        return json.loads(answer)

    sides: dict[str, Callable[[str], Awaitable[Any]]] = {"bare": bare}
    for kind in present("ours async", "cashews", "aiocache"):
        sides[kind] = await make_async(kind, url, plan)
    rates: Rates = defaultdict(list)
    spent: Rates = defaultdict(list)
    for side in sides.values():
        assert [await side("key") for _ in range(50)] == [value] * 50
    for _ in range(rounds):
        for kind, side in sides.items():
            began, cpu = time.perf_counter(), time.process_time()
            for _ in range(number):
                await side("key")
            rates[kind].append(number / (time.perf_counter() - began))
            spent[kind].append((time.process_time() - cpu) / number * 1e6)
    await client.aclose()
    return rates, spent


# --- near ---------------------------------------------------------------------------------------


def near(server: Server, rounds: int, number: int) -> Iterator[Row]:
    """Hits a second of a value that is kept in the process."""
    server.empty()
    cache = Cache(server.url, near=1000)
    hits = lambda: cache.stats().near_hits  # noqa: E731

    get = partial(cache.get, "key", lambda: SMALL, expire=EXPIRE, execution_limit=LIMIT)
    while not hits():
        get()
        time.sleep(0.01)
    rates = [number / timeit.timeit(get, number=number) for _ in range(rounds)]
    assert hits() > rounds * number
    yield judged("near hit: calls/s, Cache", median(rates), ">=", 1e6, ",.0f")
    rates, theirs = asyncio.run(_near_async(server.url, rounds, number))
    its = f"{median(theirs):,.0f}" if theirs else ""
    yield judged(
        "near hit: calls/s, AsyncCache beside cashews in memory",
        *(median(rates), ">=", 1e6, ",.0f", its),
    )


async def _near_async(url: str, rounds: int, number: int) -> tuple[list[float], list[float]]:
    cache = AsyncCache(url, near=1000)

    def getter() -> Any:
        return SMALL

    get = partial(cache.get, "key", getter, expire=EXPIRE, execution_limit=LIMIT)
    while not cache.stats().near_hits:
        await get()
        await asyncio.sleep(0.01)
    its = _cashews() if present("cashews") else None
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(await _rate(get, number))
        if its:
            theirs.append(await _rate(its, number // 20))
    return ours, theirs


def _cashews() -> Callable[[], Awaitable[Any]]:
    import cashews

    store: Any = cashews.Cache()
    store.setup("mem://")

    @store(ttl=EXPIRE, key="bench")
    async def value() -> Any:
        return SMALL

    return value


async def _rate(get: Callable[[], Awaitable[Any]], number: int) -> float:
    began = time.perf_counter()
    for _ in range(number):
        await get()
    return number / (time.perf_counter() - began)


# --- the ring -----------------------------------------------------------------------------------


def ring(rounds: int, number: int = 100_000) -> Iterator[Row]:
    """Microseconds for a key's node, of three."""
    nodes = Ring([f"cache-{at}:6379/0" for at in range(3)], [1.0] * 3)
    took = [timeit.timeit(lambda: nodes.owner("user:4711"), number=number) for _ in range(rounds)]
    yield judged("a key's node, of three: us", median(took) / number * 1e6, "<=", 1.0, ".2f")
