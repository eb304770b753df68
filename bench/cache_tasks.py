"""The row about connections: many tasks of one process wait for as many keys of another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import redis

from distlock import AsyncCache

from .crew import Crew
from .servers import Server
from .table import Row, judged


def tasks(server: Server, number: int) -> Iterator[Row]:
    """The most connections while so many tasks of a process wait for as many keys of another."""
    server.empty()
    before = int(server.client.info("clients")["connected_clients"])
    crew = Crew((_computing, (server.url, number)), (_waiting, (server.url, number))).start()
    most = 0
    while not server.client.exists("bench:done"):
        most = max(most, int(server.client.info("clients")["connected_clients"]) - before)
        time.sleep(0.05)
    _, (waited, late) = crew.join().values
    what = f"{number:,} tasks wait for {number:,} keys: connections of both processes"
    yield judged(what, most, "<=", 32, ".0f")
    yield judged("  values that came with a wake-up", waited, ">=", number, ",.0f")
    yield Row("  s from the end of the first getter to the last value", "", f"{late:.2f}")


def _computing(url: str, number: int) -> Callable[[], None]:
    async def getter() -> float:
        client = redis.Redis.from_url(url)
        while client.scard("bench:ready") == 0:
            await asyncio.sleep(0.2)
        client.close()
        return time.monotonic()

    async def act() -> None:
        cache = AsyncCache(url)
        made = asyncio.Event()

        async def value() -> float:
            await made.wait()
            return ended

        keys = [f"key:{at}" for at in range(number)]
        calls: list[Any] = [cache.get(key, value, expire=60, execution_limit=60) for key in keys]
        tasks = [asyncio.ensure_future(call) for call in calls]
        ended = await getter()
        made.set()
        await asyncio.gather(*tasks)

    return lambda: asyncio.run(act())


def _waiting(url: str, number: int) -> Callable[[], tuple[int, float]]:
    async def never() -> Any:
        raise AssertionError("the other process computes")

    async def act() -> tuple[int, float]:
        client = redis.Redis.from_url(url)
        while client.dbsize() < number:
            await asyncio.sleep(0.1)
        cache = AsyncCache(url)
        keys = [f"key:{at}" for at in range(number)]
        calls: list[Any] = [cache.get(key, never, expire=60, execution_limit=60) for key in keys]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(3)
        client.sadd("bench:ready", 1)
        began = (await asyncio.gather(*tasks))[0]
        late = time.monotonic() - began
        client.set("bench:done", 1)
        return cache.stats().waited, late

    return lambda: asyncio.run(act())
