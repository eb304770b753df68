"""Electing a leader: a function that runs in exactly one copy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar, overload

from ..errors import LeaseLost, NotAcquired, ServerUnreachable
from .twins import AsyncLease, Lease

T = TypeVar("T")


@overload
def lead(lease: Lease, function: Callable[[Lease], T]) -> T:
    """In a thread."""


@overload
def lead(lease: AsyncLease, function: Callable[[AsyncLease], Awaitable[T]]) -> Awaitable[T]:
    """In a task."""


def lead(lease: Any, function: Any) -> Any:
    """Run a function while holding a lease; wait for it as long as others do so.

    Call it in every copy. One of them leads; when it dies, another one does. The function gets the
    lease: a plain one must call `lease.check()` now and then, an async one is cancelled when the
    lease is lost. Then, and while the server is away, this copy waits for its next turn.

    Args:
        lease: a Lease or an AsyncLease.
        function: called with the lease; `async def` for an AsyncLease.

    Returns:
        What the function returned while the lease was held; the lease is released then.

    Raises:
        Exception: whatever else the function raised; the lease is released then, too.
    """
    if isinstance(lease, AsyncLease):
        return _lead(lease, function)
    while True:
        with suppress(LeaseLost, NotAcquired, ServerUnreachable), lease:
            return function(lease)


async def _lead(lease: AsyncLease, function: Callable[[AsyncLease], Awaitable[T]]) -> T:
    while True:
        with suppress(LeaseLost, NotAcquired, ServerUnreachable):
            async with lease:
                return await function(lease)
