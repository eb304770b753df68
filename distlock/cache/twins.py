"""The two faces of a cache, for threads and for asyncio: thin layers over the core."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar, Unpack, cast

import redis
import redis.asyncio

from ..connect import check_url, shared, shared_async
from ..errors import UsageError
from ..io import AsyncClient, AsyncHub, Hub, SyncClient, Tasks, Threads, is_async, run
from .cached import Named, dress
from .codec import Serializer
from .core import CacheCore
from .near import MISSING
from .nodes import Node, Reach
from .options import How, Options, Terms

P = ParamSpec("P")
T = TypeVar("T")


class Cache(CacheCore):
    """A cache on one or more nodes: a getter is called once per expire in the whole system.

    Args:
        nodes: a URL (`redis://`, `rediss://`, `unix://`, `redis+sentinel://`, `redis+cluster://`;
            see docs/operating.md), a client of redis-py (redis.Redis, also
            one from Sentinel, or redis.RedisCluster), or a Node, each. Keys are spread over them by
            their names, which are the same in all processes.
        name: of the cache, 1 to 64 characters of `A-Za-z0-9._-`; those who give the same share it.
        ttl: seconds after which a process that computes and is silent is taken for dead.
        node_timeout: seconds after which a node that is silent is left out.
        gutter_expire: seconds for which a value is kept at most on a node that is not its own.
        on_outage: when no node answers: "compute" in each process for itself, or "raise".
        serializer: in place of JSON.
        compress_above: bytes from which on values are compressed.
        jitter: part of the expire, 0 to below 1, by which it is shortened at random.
        near: values that are kept in this process, too; 0: none.
        near_bytes: how large they may be together, encoded.
        copy: decode a near value anew for each caller; else all get the same object.

    Raises:
        UsageError: one of these cannot be used.
    """

    def __init__(
        self,
        *nodes: str | SyncClient | Node,
        name: str = "cache",
        ttl: float = 2.0,
        node_timeout: float = 0.25,
        gutter_expire: float = 10.0,
        on_outage: str = "compute",
        serializer: Serializer | None = None,
        compress_above: int | None = None,
        jitter: float = 0.0,
        near: int = 0,
        near_bytes: int = 64 * 1024 * 1024,
        copy: bool = False,
    ) -> None:
        options = Options(
            *(ttl, node_timeout, gutter_expire, on_outage, serializer, compress_above, jitter),
            *(near, near_bytes, copy),
        )
        super().__init__(name, _nodes(nodes, SYNC), options, Threads(), REACH)

    def get(
        self,
        key: str,
        getter: Callable[[], T],
        *,
        expire: float,
        execution_limit: float,
        retries: int = 0,
        negative_expire: float = 0.0,
        stale: float = 0.0,
        thread: bool = True,
    ) -> T:
        """Return the value; compute it if there is none, once in the whole system.

        Args:
            key: 1 to 1,024 characters, no spaces or control characters.
            getter: makes the value, which JSON or the tagged form can keep (see codec), or returns
                Expires(value, seconds). It runs in a thread with the caller's context variables.
            expire: seconds for which the value is kept.
            execution_limit: seconds that this call takes at most. The getter is not ended then; its
                right is renewed up to five times this limit, and its value is kept when it comes.
            retries: how often a getter that raises is called again, at once.
            negative_expire: seconds for which a failure is remembered.
            stale: seconds for which an old value is still served while one caller renews it.
            thread: False: call the getter in the caller's thread; then the limit is not kept.

        Raises:
            ExecutionLimitExceeded: it was not there within the limit.
            GetterFailed: the getter of the caller who computed it raised.
            CannotEncode: the value cannot be stored.
            UsageError: an argument cannot be used, or the getter asks for its own key.
            NodesUnreachable: no node answers, and on_outage is "raise".
            RedisError: a node refused.
            Exception: what this caller's getter raised.
        """
        options = (expire, execution_limit, retries, negative_expire, stale, thread)
        terms = self._terms.get(options) or self._make_terms(options)
        if self._near is not None and (near := self._near.get(key)) is not MISSING:
            self._counters.near_hits += 1
            return near  # type: ignore[no-any-return]
        return cast(T, run(self._get(self._begin(key, _plain(getter), terms))))

    def get_many(
        self, keys: Sequence[str], getter: Callable[[str], T], **how: Unpack[How]
    ) -> dict[str, T]:
        """Return the values of several keys: those that are there with one trip to each node.

        The others are computed one after the other (with AsyncCache at the same time), each as by
        `get`, whose arguments these are; the getter is called with the key.
        """
        return run(self._get_many(keys, _plain(getter), Terms(**how)))

    def refresh(self, key: str, getter: Callable[[], T], **how: Unpack[How]) -> T:
        """Compute the value now; others keep the old one meanwhile. Arguments as for `get`."""
        call = self._begin(key, _plain(getter), Terms(**how))
        return cast(T, run(self._get(call, refresh=True)))

    def set(
        self, key: str, value: Any, *, expire: float, stale: float = 0.0, strict: bool = False
    ) -> bool:
        """Set the value; what is being computed for the key is not kept. See `delete`."""
        return run(self._set(key, value, expire, stale, strict))

    def delete(self, key: str, *, strict: bool = False) -> bool:
        """Delete the value, if there is one; what is being computed for the key is not kept.

        A `get` that starts after this returned True gets a value whose getter started later.

        Args:
            key: of the value.
            strict: raise when the key's own node does not answer.

        Returns:
            Whether the key's own node did it. False: it does not answer; it was done where the key
            is meanwhile, and will be done there before this process uses it again.

        Raises:
            NodesUnreachable: see strict.
        """
        return run(self._put(key, b"", 0.0, 0.0, strict))

    def peek(self, key: str, default: Any = None) -> Any:
        """The value if there is one, else the default; nothing is computed."""
        return run(self._peek(key, default))

    def cached(
        self, *, key: Callable[..., str] | None = None, **how: Unpack[How]
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Decorate a function or a method: its calls go through `get`, whose arguments these are.

        Args:
            key: gives the key for the function's arguments; by default it is made of the function's
                name and all arguments, of a method also of what its object is (see the module
                `cached`). The function gets an attribute `key_of` that does so, as for `delete`.
            how: expire, execution_limit and so on, as for `get`.

        Raises:
            UsageError: in a call: an argument does not say what it is; give `key`.
        """
        Terms(**how)

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            named = Named(_plain(function), key)

            def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
                return self.get(named.of(*args, **kwargs), lambda: function(*args, **kwargs), **how)

            return cast(Callable[P, T], dress(wrapper, named))

        return decorate


class AsyncCache(CacheCore):
    """The same for asyncio, for one event loop; nodes may be clients of redis.asyncio. See Cache.

    A getter may be `async def`: it is cancelled at the caller's limit, or with its caller, and then
    the next one who waits computes. A plain one runs in a thread, or with `thread=False` here.
    """

    def __init__(
        self,
        *nodes: str | AsyncClient | Node,
        name: str = "cache",
        ttl: float = 2.0,
        node_timeout: float = 0.25,
        gutter_expire: float = 10.0,
        on_outage: str = "compute",
        serializer: Serializer | None = None,
        compress_above: int | None = None,
        jitter: float = 0.0,
        near: int = 0,
        near_bytes: int = 64 * 1024 * 1024,
        copy: bool = False,
    ) -> None:
        options = Options(
            *(ttl, node_timeout, gutter_expire, on_outage, serializer, compress_above, jitter),
            *(near, near_bytes, copy),
        )
        tasks = Tasks()
        self._check = tasks.check
        super().__init__(name, _nodes(nodes, ASYNC), options, tasks, ASYNC_REACH)

    async def get(
        self,
        key: str,
        getter: Callable[[], Awaitable[T] | T],
        *,
        expire: float,
        execution_limit: float,
        retries: int = 0,
        negative_expire: float = 0.0,
        stale: float = 0.0,
        thread: bool = True,
    ) -> T:
        """Return the value; compute it if there is none, once in the whole system; see Cache.

        Raises:
            UsageError: see Cache; or this is another event loop than the first one.
        """
        options = (expire, execution_limit, retries, negative_expire, stale, thread)
        terms = self._terms.get(options) or self._make_terms(options)
        if self._near is not None and (near := self._near.get(key)) is not MISSING:
            self._counters.near_hits += 1
            return near  # type: ignore[no-any-return]
        self._check()
        return cast(T, await self._get(self._begin(key, getter, terms)))

    async def get_many(
        self, keys: Sequence[str], getter: Callable[[str], Awaitable[T] | T], **how: Unpack[How]
    ) -> dict[str, T]:
        """Return the values of several keys; see Cache."""
        self._check()
        return await self._get_many(keys, getter, Terms(**how))

    async def refresh(
        self, key: str, getter: Callable[[], Awaitable[T] | T], **how: Unpack[How]
    ) -> T:
        """Compute the value now; others keep the old one meanwhile; see Cache."""
        self._check()
        return cast(T, await self._get(self._begin(key, getter, Terms(**how)), refresh=True))

    async def set(
        self, key: str, value: Any, *, expire: float, stale: float = 0.0, strict: bool = False
    ) -> bool:
        """Set the value; see Cache."""
        self._check()
        return await self._set(key, value, expire, stale, strict)

    async def delete(self, key: str, *, strict: bool = False) -> bool:
        """Delete the value; see Cache."""
        self._check()
        return await self._put(key, b"", 0.0, 0.0, strict)

    async def peek(self, key: str, default: Any = None) -> Any:
        """The value if there is one, else the default; see Cache."""
        self._check()
        return await self._peek(key, default)

    def cached(
        self, *, key: Callable[..., str] | None = None, **how: Unpack[How]
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
        """Decorate a coroutine function or method; see Cache."""
        Terms(**how)

        def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
            named = Named(function, key)

            async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
                getter = partial(function, *args, **kwargs)
                return await self.get(named.of(*args, **kwargs), getter, **how)

            return cast(Callable[P, Awaitable[T]], dress(wrapper, named))

        return decorate


SYNC = (redis.Redis, redis.RedisCluster)
ASYNC = (redis.asyncio.Redis, redis.asyncio.RedisCluster)
REACH, ASYNC_REACH = Reach(shared, Hub.of), Reach(shared_async, AsyncHub.of)


def _nodes(given: Sequence[Any], kinds: tuple[type, ...]) -> list[Node]:
    """What the user gave as nodes, else UsageError."""
    nodes = [node if isinstance(node, Node) else Node(node) for node in given]
    for node in nodes:
        if isinstance(node.server, str):
            check_url(node.server)
        elif not isinstance(node.server, kinds):
            names = " or ".join(
                f"{kind.__module__.split('.client')[0]}.{kind.__name__}" for kind in kinds
            )
            raise UsageError(f"{node.server!r} is no node: give a URL, a Node, or a {names}")
    return nodes


def _plain(getter: Callable[..., T]) -> Callable[..., T]:
    """The getter, else UsageError: a synchronous cache awaits nothing."""
    if is_async(getter):
        raise UsageError(f"{getter!r} is `async def`: use AsyncCache, or give a plain function")
    return getter
