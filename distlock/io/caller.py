"""Calling a user's function: plain or `async def`, with or without a time limit."""

from __future__ import annotations

import asyncio
import builtins
import inspect
import signal
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any


class TimeLimitExceeded(BaseException):
    """A message took longer than its time limit; no `except Exception` of its code hides it."""


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a function, or an object's `__call__`, is `async def`."""
    method = getattr(function, "__call__", None)  # noqa: B004 - not whether, but which
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(method)


class Caller:
    """Calls a user's function, plain or `async def`, one at a time, in the main thread.

    Args:
        function: what to call.
        limit: seconds after which a call is ended with TimeLimitExceeded, or None. A plain
            function is ended by SIGALRM, which code that stays in C does not see.
    """

    def __init__(self, function: Callable[..., Any], limit: float | None = None) -> None:
        self._limit = limit
        self._runner: asyncio.Runner | None = None
        self.call: Callable[..., Any] = function
        if is_async(function):
            self._runner = asyncio.Runner()
            self.call = self._on_loop(function, self._runner.get_loop())
        elif limit:
            self.call = self._limited(function, limit)

    def _on_loop(
        self, function: Callable[..., Awaitable[Any]], loop: asyncio.AbstractEventLoop
    ) -> Callable[..., Any]:
        async def limited(*args: Any) -> Any:
            try:
                async with asyncio.timeout(self._limit) as scope:
                    return await function(*args)
            except builtins.TimeoutError:
                if scope.expired():
                    raise TimeLimitExceeded(f"longer than {self._limit:g} s") from None
                raise

        # the loop alone, not Runner.run: that one takes SIGINT for itself
        return lambda *args: loop.run_until_complete(limited(*args))

    def _limited(self, function: Callable[..., Any], limit: float) -> Callable[..., Any]:
        def ring(signum: int, frame: FrameType | None) -> None:
            raise TimeLimitExceeded(f"longer than {limit:g} s")

        signal.signal(signal.SIGALRM, ring)

        def limited(*args: Any) -> Any:
            signal.setitimer(signal.ITIMER_REAL, limit)
            try:
                return function(*args)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

        return limited

    def close(self) -> None:
        """Close the event loop, if there is one."""
        if self._runner:
            self._runner.close()
