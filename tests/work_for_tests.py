"""Sources and handlers' functions for the tests, as a user would write them."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from multiprocessing.connection import Connection

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


def until_told(start: int) -> Iterator[str]:
    """Messages until there is the file $STOP."""
    for id in itertools.count(start):
        if os.path.exists(os.environ["STOP"]):
            return
        yield f"body {id}"


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


def noted(message: Message) -> None:
    """Notes in the file $NOTES that it has begun a message, which takes 10 ms, or $PAUSE s."""
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{message.id}\n")
    time.sleep(float(os.environ.get("PAUSE", "0.01")))


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


class Odd(BaseException):
    """Not even an Exception."""


class Nasty(Exception):
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def leaves(message: Message) -> None:
    """Wants to end the program at message 3."""
    if message.id == 3:
        sys.exit(0)


def odd(message: Message) -> None:
    """Raises at message 3 what `except Exception` does not catch."""
    if message.id == 3:
        raise Odd("odd")


def nasty(message: Message) -> None:
    """Raises at message 3 what was caused by something that cannot be printed."""
    if message.id == 3:
        raise ValueError("wrong") from Nasty()


def speechless(message: Message) -> None:
    """Raises at message 3 what cannot be printed."""
    if message.id == 3:
        raise Nasty


async def cancels(message: Message) -> None:
    """Awaits at message 3 a task that is cancelled."""
    if message.id == 3:
        task = asyncio.get_running_loop().create_task(asyncio.sleep(10))
        task.cancel()
        await task


def large(message: Message) -> bytes:
    """Returns 200 kB."""
    return b"x" * 200_000


def _wait_to_be_ended(ready: Connection) -> None:
    ready.send(True)
    time.sleep(60)


def forks(message: Message) -> None:
    """Starts a process that has to be ended from outside."""
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe()
    child = context.Process(target=_wait_to_be_ended, args=(its,))
    child.start()
    ours.recv()  # CPython forgets a signal that comes while it is still forking
    child.terminate()
    child.join(5)
    assert child.exitcode == -signal.SIGTERM


def two_and_then_none_for_long(start: int) -> Iterator[str]:
    """Two messages; the third takes a minute."""
    yield "one"
    yield "two"
    time.sleep(60)


async def two_and_then_none_for_long_async(start: int) -> AsyncIterator[str]:
    """The same, async."""
    yield "one"
    yield "two"
    await asyncio.sleep(60)


def chatty(message: Message) -> None:
    """Prints a line for each message."""
    print(f"handled {message.id}")
