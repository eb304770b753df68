"""One test body for both faces of a lease: a sync one is used through threads.

`Faces` makes leases of one face that look alike; a test awaits their verbs in either case. Each
client is a process of its own as far as the server can tell: it has its own place in line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import redis
import redis.asyncio

from distlock import AsyncLease, Lease

THREADS = ThreadPoolExecutor(64)  # asyncio's own has six


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call something that blocks."""
    call = partial(function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(THREADS, call)


class Threaded:
    """A Lease whose verbs run in threads."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.lease, name)
        if not callable(found) or name in ("check", "hooks"):
            return found

        async def verb(*args: Any, **kwargs: Any) -> Any:
            return await in_thread(found, *args, **kwargs)

        return verb

    async def __aenter__(self) -> Threaded:
        await in_thread(self.lease.__enter__)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await in_thread(self.lease.__exit__, *error)


class Faces:
    """Makes leases of one face on one server.

    Args:
        face: sync or async.
        url: the server.
    """

    def __init__(self, face: str, url: str) -> None:
        self.face = face
        self.url = url

    def lease(self, name: str = "t", url: str | None = None, **options: Any) -> Any:
        """A lease as one more process would make it."""
        url = url or self.url
        if self.face == "sync":
            return Threaded(Lease(redis.Redis.from_url(url), name, **options))
        return AsyncLease(redis.asyncio.Redis.from_url(url), name, **options)

    def siblings(self, count: int, name: str = "t", **options: Any) -> list[Any]:
        """Leases of one process."""
        if self.face == "sync":
            client = redis.Redis.from_url(self.url)
            return [Threaded(Lease(client, name, **options)) for _ in range(count)]
        shared = redis.asyncio.Redis.from_url(self.url)
        return [AsyncLease(shared, name, **options) for _ in range(count)]


async def until(true: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Look until something is true, and return it; fail after some seconds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (value := true()):
        assert asyncio.get_running_loop().time() < deadline, f"not true within {seconds} s"
        await asyncio.sleep(0.005)
    return value
