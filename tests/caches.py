"""One test body for both faces of a cache: a sync one is used through threads.

`Caches` makes caches of one face that look alike. Each is a process of its own as far as the server
can tell. `Getter` counts its calls, and ends when it is told to.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio

from distlock import AsyncCache, Cache
from tests.leases import in_thread, until


class Threaded:
    """A Cache whose verbs run in threads."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.cache, name)
        if name in ("stats", "cached"):
            return found

        async def verb(*args: Any, **kwargs: Any) -> Any:
            return await in_thread(found, *args, **kwargs)

        return verb


class Getter:
    """A getter that waits until it is let go; each call makes another value.

    Args:
        open: it does not wait.
        fails: it raises instead.
    """

    def __init__(self, open: bool = False, fails: bool = False) -> None:
        self.calls = 0
        self.fails = fails
        self._go = threading.Event()
        if open:
            self._go.set()

    def let_go(self) -> None:
        """Let it end, this time and from now on."""
        self._go.set()

    async def called(self, times: int = 1) -> None:
        """Wait until it was called."""
        await until(lambda: self.calls >= times)

    def plain(self) -> Any:
        """The function to call."""
        self.calls += 1
        call = self.calls
        assert self._go.wait(20)
        if self.fails:
            raise ValueError(f"failure {call}")
        return f"value {call}"

    async def coroutine(self) -> Any:
        """The same as `async def`."""
        self.calls += 1
        call = self.calls
        await until(self._go.is_set, 20)
        if self.fails:
            raise ValueError(f"failure {call}")
        return f"value {call}"


class Caches:
    """Makes caches of one face on one server.

    Args:
        face: sync, async or plain: the second with plain functions as getters.
        url: the server.
    """

    def __init__(self, face: str, url: str) -> None:
        self.face = face
        self.url = url

    def cache(self, *urls: str, **options: Any) -> Any:
        """A cache as one more process would make it."""
        urls = urls or (self.url,)
        if self.face == "sync":
            return Threaded(Cache(*[redis.Redis.from_url(url) for url in urls], **options))
        return AsyncCache(*[redis.asyncio.Redis.from_url(url) for url in urls], **options)

    def of(self, getter: Getter) -> Callable[[], Any]:
        """The function of a getter that this face takes."""
        return getter.coroutine if self.face == "async" else getter.plain


def get(cache: Any, key: str, function: Callable[[], Any], **how: Any) -> asyncio.Task[Any]:
    """Begin to get a value: 10 s of expire and 5 s of limit, if nothing else is said."""
    how = {"expire": 10.0, "execution_limit": 5.0, **how}
    return asyncio.ensure_future(cache.get(key, function, **how))
