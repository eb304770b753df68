"""Seeing a death before its time is over: the server knows whose connections are gone.

Rules:

- Whoever wants to be watched names two connections. Both must be gone.
- Their absence counts only if they were seen alive before, over the connection that still asks, or
  if their server is named, too, and is still the one that runs: a server that was started again
  numbers its connections anew.
- It is a matter of speed alone. Who lives on without its connections is refused by its token, or
  its right, like any other that was replaced.
"""

from __future__ import annotations

import re

from redis.exceptions import NoPermissionError

from .base import IO


async def running(io: IO, seconds: float) -> str:
    """The id of the server that runs, "" if it must not be asked."""
    try:
        info = await io.ask(("INFO", "server"), seconds)
    except NoPermissionError:
        return ""
    found = re.search(rb"run_id:(\w+)", info)
    return found[1].decode() if found else ""


class Pulse:
    """The eyes of one who waits.

    Args:
        io: over which to ask.
        seconds: for an answer; None: as patiently as the IO is.

    Attributes:
        forbidden: CLIENT LIST is not for this user; nothing can be seen.
    """

    def __init__(self, io: IO, seconds: float | None = None) -> None:
        self.forbidden = False
        self._io = io
        self._seconds = seconds
        self._alive: tuple[str, int] = ("", 0)

    async def gone(self, connections: str, server: str = "") -> bool:
        """Whether both connections (ids, with a space between) are gone that were there before.

        Args:
            connections: the ids.
            server: the id of the server that gave them, "" if unknown.
        """
        words = ("CLIENT", "LIST", "ID", *connections.split())
        try:
            if self._seconds is None:
                listed = await self._io.command(*words)
            else:
                listed = await self._io.ask(words, self._seconds)
        except NoPermissionError:
            self.forbidden = True
            return False
        seen = (connections, await self._io.standing())
        if b"id=" in listed:
            self._alive = seen
            return False
        if self._alive != seen and server and server == await running(self._io, self._seconds or 5):
            self._alive = seen
        return self._alive == seen
