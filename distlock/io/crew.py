"""Work beside the caller, and what many wait for: with threads, or with tasks.

- A thread that runs a user's function is a daemon: it never holds up the exit of the interpreter.
- It has the caller's context variables.
- Over threads nothing here suspends: it is for cores over the synchronous IO.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from ..errors import UsageError
from .base import run
from .caller import is_async

Core = Callable[[], Coroutine[Any, Any, Any]]


class Latch:
    """What one brings about once and many threads wait for.

    The first who waits makes the event, and looks for the value after that: `set` looks for the
    event after it set the value. Where nobody waits there is none.

    Attributes:
        value: what it was set to, None before.
    """

    _making = threading.Lock()

    def __init__(self) -> None:
        self.value: Any = None
        self._event: threading.Event | None = None

    def set(self, value: Any) -> None:
        """Let all go who wait, with a value."""
        self.value = value
        if self._event:
            self._event.set()

    async def wait(self, seconds: float) -> Any:
        """The value, or None when it did not come within some seconds."""
        with self._making:
            event = self._event = self._event or threading.Event()
        if self.value is None:
            event.wait(max(seconds, 0))
        return self.value


class AsyncLatch:
    """The same for the tasks of one event loop."""

    def __init__(self) -> None:
        self.value: Any = None
        self._event = asyncio.Event()

    def set(self, value: Any) -> None:
        """Let all go who wait, with a value."""
        self.value = value
        self._event.set()

    async def wait(self, seconds: float) -> Any:
        """The value, or None when it did not come within some seconds."""
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._event.wait()
        except TimeoutError:
            return None
        return self.value


class Crew(Protocol):
    """What a core needs to have others work."""

    def latch(self) -> Latch | AsyncLatch:
        """Something to wait for."""

    def aside(self, core: Core) -> Callable[[], object]:
        """Run a core beside the caller; returns what cancels it, where that is possible."""

    async def call(self, function: Callable[[], Any], thread: bool) -> Any:
        """Call a user's function, which may take long; its answer may have to be awaited."""

    async def each(self, cores: Sequence[Core]) -> list[Any]:
        """Run cores, at the same time where that costs no threads; their answers."""

    def reset(self) -> None:
        """Begin anew, as a process that was forked does."""


class Threads:
    """The crew of a synchronous program."""

    latch = Latch

    def aside(self, core: Core) -> Callable[[], object]:
        """Run a core in a thread of its own; it cannot be cancelled."""
        context = contextvars.copy_context()
        threading.Thread(target=lambda: context.run(run, core()), daemon=True).start()
        return lambda: None

    async def call(self, function: Callable[[], Any], thread: bool) -> Any:
        """Call a user's function here: whoever asks is a thread for it already."""
        made = function()
        if inspect.iscoroutine(made):
            made.close()
            raise UsageError(
                f"{function!r} gave a coroutine, which nothing here awaits: use the "
                "twin for asyncio, AsyncCache, or give a plain function"
            )
        return made

    async def each(self, cores: Sequence[Core]) -> list[Any]:
        """Run cores one after the other."""
        return [await core() for core in cores]

    def reset(self) -> None:
        """Nothing to do: threads are not forked."""


class Tasks:
    """The crew of an event loop."""

    latch = AsyncLatch

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, as a process that was forked does: it has an event loop of its own."""
        self._running: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        """Raise UsageError in another event loop than the first one."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise UsageError(
                "this object belongs to the event loop that used it first: make one for each loop"
            )

    def aside(self, core: Core) -> Callable[[], object]:
        """Run a core in a task of its own."""
        task = asyncio.create_task(core())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task.cancel

    async def call(self, function: Callable[[], Any], thread: bool) -> Any:
        """Call a user's function: `async def` here, another one in a thread, if asked to."""
        return await _in_thread(function) if thread and not is_async(function) else function()

    async def each(self, cores: Sequence[Core]) -> list[Any]:
        """Run cores at the same time."""
        return list(await asyncio.gather(*[core() for core in cores]))


def is_due(made: object) -> bool:
    """Whether what a function returned has to be awaited."""
    return inspect.isawaitable(made)


async def _in_thread(function: Callable[[], Any]) -> Any:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if isinstance(error, StopIteration):  # a future takes none
            error = RuntimeError("the function raised StopIteration")
        if future.done():
            return
        if error:
            future.set_exception(error)
        else:
            future.set_result(value)

    def call() -> None:
        value, error = None, None
        try:
            value = function()
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, value, error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(call,), daemon=True).start()
    return await future
