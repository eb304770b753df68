"""The sides that take turns: distlock's Cache and AsyncCache, their peers, and bare pub/sub.

Each is used as its documentation says against many calls at once, with an expire of 60 s:

- `ours`, `ours async`: `Cache(url)` and `AsyncCache(url)` with their defaults.
- `dogpile`: a region on dogpile.cache.redis with `distributed_lock=True` (its waiters look again
  every 0.1 s); values are pickled, its default.
- `cashews`: `@cache(ttl=..., lock=True)`: its waiters ask as fast as they can.
- `aiocache`: `@cached_stampede(lease=...)` with Redis and JSON: its lock wakes those of its own
  process; the others wait for nothing.
- `bare`, `bare async`: everybody is subscribed to one channel, the first member computes the value
  and publishes its JSON. There is no cache: nothing is looked up, kept, claimed or renewed.

A side is called with a key and gives the value; the sides of asyncio are awaited.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis
import redis.asyncio

from distlock import AsyncCache, Cache

EXPIRE, LIMIT = 60.0, 30.0
TITLES = {
    "ours": "Cache",
    "ours async": "AsyncCache",
    "dogpile": "dogpile.cache",
    "cashews": "cashews",
    "aiocache": "aiocache",
    "bare async": "bare pub/sub on asyncio",
}
ASYNC = ("ours async", "cashews", "aiocache", "bare async")
CHANNEL = "bare:channel"
SMALL = {"id": 4711, "name": "x" * 140, "tags": ["a", "b", "c"], "price": 12.5}
LARGE = [SMALL | {"id": at} for at in range(50)]
"""Values of about 210 bytes and 10 kB as JSON."""
Get = Callable[[str], Any]
ended: ContextVar[list[float]] = ContextVar("ended")
"""When the getters that a call ran came to their end; set by whoever calls."""


class Plan(NamedTuple):
    """What a getter does, and what a side is told.

    Attributes:
        seconds: that the getter takes.
        ttl: of the right to compute, or of the lock.
        fails: whether the getter raises.
        value: what it returns.
        note: a list on the server to which each call of the getter adds its process; "": none.
    """

    seconds: float
    ttl: float = 2.0
    fails: bool = False
    value: Any = SMALL
    note: str = ""


class Failed(Exception):
    """What a getter raises that is to fail."""


class Getter:
    """The getter of one process.

    Args:
        plan: what it does.
        url: the server, for its note.
    """

    def __init__(self, plan: Plan, url: str) -> None:
        self._plan = plan
        self._client = redis.Redis.from_url(url) if plan.note else None

    def call(self) -> Any:
        """Take so long, and return the value."""
        self._begin()
        time.sleep(self._plan.seconds)
        return self._end()

    async def call_async(self) -> Any:
        """The same for asyncio."""
        self._begin()
        await asyncio.sleep(self._plan.seconds)
        return self._end()

    def _begin(self) -> None:
        if self._client:
            self._client.rpush(self._plan.note, f"{os.getpid()} {time.monotonic()}")

    def _end(self) -> Any:
        ended.get().append(time.monotonic())
        if self._plan.fails:
            raise Failed("as planned")
        return self._plan.value


def make(kind: str, url: str, plan: Plan, index: int = 0) -> Get:
    """The side of this name for threads; `index` is the member's number."""
    getter = Getter(plan, url)
    if kind == "ours":
        cache = Cache(url, ttl=plan.ttl)
        return lambda key: cache.get(key, getter.call, expire=EXPIRE, execution_limit=LIMIT)
    if kind == "dogpile":
        return _dogpile(url, plan, getter)
    return _bare(url, getter, index)


def _dogpile(url: str, plan: Plan, getter: Getter) -> Get:
    from dogpile.cache import make_region

    options = {"url": url, "distributed_lock": True, "thread_local_lock": False}
    options |= {"lock_timeout": plan.ttl, "redis_expiration_time": int(EXPIRE)}
    region = make_region().configure("dogpile.cache.redis", EXPIRE, options)
    return lambda key: region.get_or_create(key, getter.call)


def _bare(url: str, getter: Getter, index: int) -> Get:
    client = redis.Redis.from_url(url)
    client.ping()
    if not index:

        def publish(key: str) -> Any:
            value = getter.call()
            client.publish(CHANNEL, json.dumps(value))
            return value

        return publish
    pool = client.connection_pool
    ear = pool.connection_class(**pool.connection_kwargs | {"protocol": 2, "socket_timeout": None})
    ear.connect()
    ear.send_command("SUBSCRIBE", CHANNEL)
    ear.read_response()
    return lambda key: json.loads(ear.read_response()[2])


async def make_async(kind: str, url: str, plan: Plan, index: int = 0) -> Get:
    """The side of this name for asyncio."""
    getter = Getter(plan, url)
    if kind == "ours async":
        cache = AsyncCache(url, ttl=plan.ttl)
        return lambda key: cache.get(key, getter.call_async, expire=EXPIRE, execution_limit=LIMIT)
    if kind == "cashews":
        import cashews

        store = cashews.Cache()
        store.setup(url)
        decorate = store(ttl=plan.ttl if plan.note else EXPIRE, key="bench:{key}", lock=True)
        return decorate(_named(getter))
    if kind == "aiocache":
        return _aiocache(url, plan, getter)
    return await _bare_async(url, getter, index)


def _named(getter: Getter) -> Callable[[str], Awaitable[Any]]:
    async def value_of(key: str) -> Any:
        return await getter.call_async()

    return value_of


def _aiocache(url: str, plan: Plan, getter: Getter) -> Get:
    import aiocache  # type: ignore[import-untyped]
    from aiocache.serializers import JsonSerializer  # type: ignore[import-untyped]

    parts = urlsplit(url)
    decorate = aiocache.cached_stampede(
        lease=plan.ttl,
        ttl=EXPIRE,
        cache=aiocache.Cache.REDIS,
        endpoint=parts.hostname,
        port=parts.port,
        serializer=JsonSerializer(),
        key_builder=lambda function, key: f"aiocache:{key}",
    )
    get: Get = decorate(_named(getter))
    return get


async def _bare_async(url: str, getter: Getter, index: int) -> Get:
    client = redis.asyncio.Redis.from_url(url)
    if not index:

        async def publish(key: str) -> Any:
            value = await getter.call_async()
            await client.publish(CHANNEL, json.dumps(value))
            return value

        await client.ping()
        return publish
    pool = client.connection_pool
    ear = pool.connection_class(**pool.connection_kwargs | {"protocol": 2, "socket_timeout": None})
    await ear.connect()
    await ear.send_command("SUBSCRIBE", CHANNEL)
    await ear.read_response()

    async def hear(key: str) -> Any:
        return json.loads((await ear.read_response())[2])

    return hear
