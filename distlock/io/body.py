"""The body of an `async with`, which can be ended from elsewhere. After asyncio.Timeout."""

from __future__ import annotations

import asyncio


class Body:
    """The rest of the running task's block, from now on."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._ended = False

    def end(self) -> None:
        """Cancel it."""
        if not self._ended:
            self._ended = True
            self._task.cancel()

    async def ended_by(self, kind: type[BaseException] | None) -> bool:
        """Whether what came out of it is the cancellation by `end`, and no other one."""
        if not self._ended:
            return False
        if kind is None:  # it came to its end at the same moment
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                kind = asyncio.CancelledError
        alone = self._task.uncancel() <= self._cancelling
        return alone and kind is not None and issubclass(kind, asyncio.CancelledError)
