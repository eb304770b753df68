"""Turns: those of one process who want the same thing, one after the other, as they came."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

Mutex = threading.Lock


class Turns:
    """Turns of threads, by key. `turn` never suspends: it is for cores over the synchronous IO."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._lines: dict[str, deque[threading.Lock]] = {}

    @asynccontextmanager
    async def turn(self, key: str, deadline: float) -> AsyncIterator[bool]:
        """Wait for the turn, at most until `deadline` (monotonic); yields whether it came."""
        mine = threading.Lock()
        try:
            with self._mutex:
                line = self._lines.setdefault(key, deque())
                line.append(mine)
                mine.acquire()
                if line[0] is mine:
                    mine.release()
            left = deadline - time.monotonic()
            yield mine.acquire(timeout=max(left, 0)) if left < math.inf else mine.acquire()
        finally:
            self._leave(key, mine)

    def _leave(self, key: str, mine: threading.Lock) -> None:
        with self._mutex:
            line = self._lines.get(key, deque())
            if mine not in line:
                return
            first = line[0] is mine
            line.remove(mine)
            if not line:
                del self._lines[key]
            elif first:
                line[0].release()


class AsyncTurns:
    """Turns of tasks, by key."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, key: str, deadline: float) -> AsyncIterator[bool]:
        """See Turns."""
        line = self._lines.setdefault(key, deque())
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(mine)
        try:
            came = line[0] is mine
            if not came:
                left = deadline - time.monotonic()
                await asyncio.wait([mine], timeout=None if left == math.inf else max(left, 0))
                came = mine.done()
            yield came
        finally:
            first = line[0] is mine
            line.remove(mine)
            if not line:
                self._lines.pop(key, None)
            elif first and not line[0].done():
                line[0].set_result(None)
