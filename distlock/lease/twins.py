"""The two faces of a lease, for threads and for asyncio: thin layers over the core."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import redis
import redis.asyncio

from ..connect import checked, shared, shared_async
from ..errors import LeaseError, ServerUnreachable, UsageError
from ..io import Argument, AsyncClient, AsyncHub, Body, Hub, SyncClient, SyncIO, run
from .core import RETENTION, LeaseCore
from .holder import Holder, read
from .options import Options, checked_timeout
from .pickling import pickled

P = ParamSpec("P")
T = TypeVar("T")
Kind = type[BaseException] | None


class Lease(LeaseCore):
    """A lease: one owner at a time in the whole system.

    Use it as a context manager, as a decorator (each call has a term of its own), or by its verbs.
    An object has one term at a time; threads, tasks and processes that compete have one each.

    Args:
        server: a URL (`redis://`, `rediss://`, `unix://`, `redis+sentinel://`, `redis+cluster://`),
            or a client of redis-py: redis.Redis, also one from Sentinel, or redis.RedisCluster. Its
            retries do not matter.
        name: of the lease: 1 to 64 characters of `A-Za-z0-9._-`. It lives in the keys
            `distlock:{name}:lease`, `:token` and `:line`.
        ttl: seconds for which a term lasts without renewal, from 0.05 on.
        wait: seconds to wait for it in `with` and as a decorator; None: for ever.
        on_lost: called in a thread, with the lease, when it is lost.
        auto_renew: renew it in the background while it is held, every third of the ttl.
        watch_connection: the holder registers its connections, and whoever is first in line takes
            over within 0.1 s when they are gone, not only when the ttl is over.
        wait_replicas: replicas that must confirm an acquire; else it is refused.
        lock_delay: seconds that a successor waits when this holder died, for a resource that cannot
            check tokens.
        who: what the owner ids begin with; host:pid by default.

    Raises:
        UsageError: one of these cannot be used.
    """

    def __init__(
        self,
        server: str | SyncClient | SyncIO,
        name: str,
        *,
        ttl: float = 10.0,
        wait: float | None = None,
        on_lost: Callable[[Lease], Any] | None = None,
        auto_renew: bool = True,
        watch_connection: bool = False,
        wait_replicas: int = 0,
        lock_delay: float = 0.0,
        who: str = "",
    ) -> None:
        options = Options(
            *(ttl, wait, on_lost, auto_renew, watch_connection, wait_replicas, lock_delay, who)
        )
        super().__init__(name, options, 0 if isinstance(server, SyncIO) else RETENTION)
        self._server = server
        if isinstance(server, SyncIO):  # whoever has an IO of its own keeps the lease itself
            self._hub = Hub(server)
        elif isinstance(server, str):
            self._hub = Hub.of(shared(server), self._keys[0])
        elif isinstance(server, redis.Redis | redis.RedisCluster):
            self._hub = Hub.of(server, self._keys[0])
        else:
            raise UsageError(f"{server!r} is no server: give a URL or a redis.Redis client")
        self._seen, self._keep = self._hub.seen, self._hub.keep

    def acquire(self, *, blocking: bool = True, timeout: float | None = None) -> bool:
        """Become the owner.

        Args:
            blocking: wait while somebody else holds it, in the order of arrival.
            timeout: seconds to wait at most; None: for ever.

        Returns:
            Whether the lease is held now; False when somebody else held it until the timeout.

        Raises:
            UsageError: this object holds it already, or the timeout is no number.
            NotAcquired: too few replicas confirmed it; it was given back.
            ServerUnreachable: the server was away for longer than the timeout, or 10 s.
            RedisError: the server refused.
        """
        timeout = checked_timeout(blocking, timeout)
        with self._hub.borrow() as io:
            got = run(self._acquire(io, blocking, timeout))
        if got:
            self._keep(self)
        return got

    def renew(self) -> bool:
        """Set the time left to the ttl, now; False when the lease has gone on."""
        with self._hub.borrow() as io:
            kept = run(self._renew(io))
        if kept:
            self._keep(self)
        return kept

    def release(self) -> bool:
        """Give the lease back; the first who waits is its owner at once.

        Returns:
            Whether it was still held; False when it had gone on before.

        Raises:
            LeaseLost: this object does not hold it, nor did it lose it.
            ServerUnreachable: it will end when its ttl is over.
        """
        with self._hub.borrow() as io:
            return run(self._release(io))

    def holder(self) -> Holder:
        """Who holds it, since when and for how long, and who waits."""
        with self._hub.borrow() as io:
            return run(read(io, self.name))

    def execute(self, *words: Argument) -> Any:
        """Send one command, only while the lease is held, at one instant; returns its answer.

        On a cluster its keys must be in the slot of `{name}`. It is sent once.

        Raises:
            LeaseLost: the lease has gone on; nothing was done.
            ServerUnreachable: no answer came; it may have been done or not.
            RedisError: the server refused the command.
        """
        return self.execute_all([words])[0]

    def execute_all(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Send several commands as `execute` does, all at one instant, with nothing in between.

        When one of them fails, those before it stay done and those after it are not.
        """
        with self._hub.borrow() as io:
            return run(self._execute(io, commands))

    def eval(self, text: str, keys: Sequence[str] = (), args: Sequence[Argument] = ()) -> Any:
        """Run a Lua script as `execute` runs a command; it sees KEYS and ARGV as ever."""
        with self._hub.borrow() as io:
            return run(self._eval(io, text, keys, args))

    def __enter__(self) -> Lease:
        if not self.acquire(timeout=self._options.wait):
            raise self._not_acquired(self.holder())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if not self.token:
            return  # released in the body
        lost = self._lost_error() if self.lost else None
        with suppress(*() if error is None and not lost else (LeaseError, ServerUnreachable)):
            self.release()
        if lost and error is None:
            raise lost

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorate a function: each call runs under a term of its own."""

        @wraps(function)
        def under_lease(*args: P.args, **kwargs: P.kwargs) -> T:
            with type(self)(self._server, self.name, **self.options):
                return function(*args, **kwargs)

        return under_lease

    def __reduce__(self) -> tuple[Any, ...]:
        return pickled(self, self._server)


class AsyncLease(LeaseCore):
    """The same for asyncio, over a URL or a redis.asyncio.Redis or RedisCluster; see Lease.

    The body of `async with` is cancelled when the lease is lost, and LeaseLost comes out of it.
    `on_lost` may be `async def`; it runs in a task.
    """

    def __init__(
        self,
        server: str | AsyncClient,
        name: str,
        *,
        ttl: float = 10.0,
        wait: float | None = None,
        on_lost: Callable[[AsyncLease], Any] | None = None,
        auto_renew: bool = True,
        watch_connection: bool = False,
        wait_replicas: int = 0,
        lock_delay: float = 0.0,
        who: str = "",
    ) -> None:
        options = Options(
            *(ttl, wait, on_lost, auto_renew, watch_connection, wait_replicas, lock_delay, who)
        )
        super().__init__(name, options)
        self._server = server
        self._body: Body | None = None
        if isinstance(server, str):
            checked(server)
        elif not isinstance(server, redis.asyncio.Redis | redis.asyncio.RedisCluster):
            raise UsageError(f"{server!r} is no server: give a URL or a redis.asyncio.Redis client")

    def _hub(self) -> AsyncHub:
        server = self._server
        client = shared_async(server) if isinstance(server, str) else server
        hub = AsyncHub.of(client, self._keys[0])
        self._seen, self._keep = hub.seen, hub.keep
        return hub

    async def acquire(self, *, blocking: bool = True, timeout: float | None = None) -> bool:
        """Become the owner; see Lease. Cancelled at any point it leaves nothing behind."""
        timeout, hub = checked_timeout(blocking, timeout), self._hub()
        got = await self._acquire(hub.io, blocking, timeout)
        if got:
            self._keep(self)
        return got

    async def renew(self) -> bool:
        """Set the time left to the ttl, now; False when the lease has gone on."""
        hub = self._hub()
        kept = await self._renew(hub.io)
        if kept:
            self._keep(self)
        return kept

    async def release(self) -> bool:
        """Give the lease back; see Lease."""
        return await self._release(self._hub().io)

    async def holder(self) -> Holder:
        """Who holds it, since when and for how long, and who waits."""
        return await read(self._hub().io, self.name)

    async def execute(self, *words: Argument) -> Any:
        """Send one command, only while the lease is held, at one instant; see Lease."""
        return (await self.execute_all([words]))[0]

    async def execute_all(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Send several commands, all at one instant; see Lease."""
        return await self._execute(self._hub().io, commands)

    async def eval(self, text: str, keys: Sequence[str] = (), args: Sequence[Argument] = ()) -> Any:
        """Run a Lua script as `execute` runs a command; see Lease."""
        return await self._eval(self._hub().io, text, keys, args)

    async def __aenter__(self) -> AsyncLease:
        if not await self.acquire(timeout=self._options.wait):
            raise self._not_acquired(await self.holder())
        self._body = Body()
        self.hooks = [self._body.end]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        body, self._body, self.hooks = self._body, None, []
        ended = body is not None and await body.ended_by(kind)
        if not self.token:
            return  # released in the body
        lost = self._lost_error() if self.lost else None
        ours = error is None or ended
        with suppress(*() if ours and not lost else (LeaseError, ServerUnreachable)):
            await self.release()
        if lost and ours:
            raise lost from error

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Decorate a coroutine function: each call runs under a term of its own."""

        @wraps(function)
        async def under_lease(*args: P.args, **kwargs: P.kwargs) -> T:
            async with type(self)(self._server, self.name, **self.options):
                return await function(*args, **kwargs)

        return under_lease

    def __reduce__(self) -> tuple[Any, ...]:
        return pickled(self, self._server)
