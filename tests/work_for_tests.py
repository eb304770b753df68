"""Sources and handlers' functions for the tests, as a user would write them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator

from distlock import Message


def ten(start: int) -> Iterator[str]:
    """Ten messages, then no more."""
    for id in range(start, 11):
        yield f"body {id}"


async def ten_async(start: int) -> AsyncIterator[bytes]:
    """The same, as an async generator."""
    for id in range(start, 11):
        await asyncio.sleep(0)
        yield f"body {id}".encode()


def broken(start: int) -> Iterator[str]:
    """Raises at the third message."""
    yield from ("one", "two")
    raise ValueError("no third message")


def shout(message: Message) -> str:
    """Returns a text."""
    return message.body.decode().upper()


async def shout_async(message: Message) -> dict[str, object]:
    """Returns something for JSON, after a wait."""
    await asyncio.sleep(0)
    return {"id": message.id, "attempt": message.attempt, "body": message.body.decode()}


def second_try(message: Message) -> None:
    """Fails on the first attempt."""
    if message.attempt == 1:
        raise RuntimeError(f"not yet: {message.id}")


def poison(message: Message) -> None:
    """Kills its process at message 500."""
    if message.id == 500:
        os.kill(os.getpid(), signal.SIGKILL)


def endless(message: Message) -> None:
    """Takes for ever at message 3."""
    while message.id == 3:
        time.sleep(0.01)


async def endless_async(message: Message) -> None:
    """Takes for ever at message 3, on the event loop."""
    while message.id == 3:
        await asyncio.sleep(0.01)
