"""What a child of the zygote runs: the application, and small programs with a lease or a cache.

They print what they know, a line for each event, at once: what was printed before a SIGKILL stays.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from distlock import Message
from distlock.errors import LeaseLost, ServerUnreachable
from tests.caches import Caches, get
from tests.leases import Faces

TTL = 30.0
"""Seconds for everything: a machine that stands still for some seconds is another fault."""
WRITES = "{t}:writes"
"""The list to which a lease's owner writes its token."""


def say(*words: object) -> None:
    """One line, at once."""
    print(*words, flush=True)


# --- the application ----------------------------------------------------------------------------


def app(*arguments: str) -> None:
    """`python app_start.py` with these arguments."""
    from distlock import cli

    sys.argv = ["app_start.py", *arguments]
    cli.main()


LAST = 13


def fourth_fails_thirteenth_ends(message: Message) -> None:
    """Every fourth message fails; the last one has its copy told to end."""
    if message.id % 4 == 0:
        raise ValueError(f"no fourth message: {message.id}")
    if message.id == LAST:
        os.kill(os.getpid(), signal.SIGTERM)


# --- a lease --------------------------------------------------------------------------------------


async def lease_alone(face: str, url: str) -> None:
    """Acquire, write, renew and release."""
    lease = Faces(face, url).lease(ttl=TTL)
    assert await lease.acquire()
    await _hold(lease)


async def lease_from(face: str, url: str) -> None:
    """The same, after standing in line."""
    lease = Faces(face, url).lease(ttl=TTL)
    assert await lease.acquire(timeout=20)
    await _hold(lease)


async def lease_to(face: str, url: str, waits: str) -> None:
    """The same, and release only when somebody waits for it, as the file `waits` says."""
    lease = Faces(face, url).lease(ttl=TTL)
    assert await lease.acquire()
    while not os.path.exists(waits):  # a question to the server would be one more request
        await asyncio.sleep(0.002)
    await _hold(lease)


async def lease_again(face: str, url: str) -> None:
    """Acquire and release twice, by one object."""
    lease = Faces(face, url).lease(ttl=TTL)
    for _ in range(2):
        assert await lease.acquire(blocking=False)
        say("token", lease.token)
        assert await lease.release()
    say("done")


async def _hold(lease: Any) -> None:
    say("token", lease.token)
    try:
        await lease.execute("RPUSH", WRITES, lease.token)
    except ServerUnreachable:  # it is sent once; nobody knows
        say("unsure")
    assert await lease.renew()
    assert lease.held
    assert await lease.release()
    say("done")


async def lease_short(face: str, url: str) -> None:
    """Write under a lease of 0.3 s that its keeper renews, until it is lost or has been long."""
    lease = Faces(face, url).lease(ttl=0.3)
    if not await lease.acquire(blocking=False):
        say("refused")
        return
    say("token", lease.token)
    try:
        for _ in range(5):
            await lease.execute("RPUSH", WRITES, lease.token)
            await asyncio.sleep(0.06)
        say("released", await lease.release())
    except LeaseLost:
        say("gone", lease.held)


# --- a cache --------------------------------------------------------------------------------------


async def cache_get(face: str, url: str) -> None:
    """Get a value twice: it is computed, then there."""

    def getter() -> str:
        say("called")
        return "value"

    async def coroutine() -> str:
        return getter()

    cache = Caches(face, url).cache(ttl=TTL, node_timeout=TTL)
    function = coroutine if face == "async" else getter
    for _ in range(2):
        say("got", await get(cache, "k", function))


async def cache_short(face: str, url: str) -> None:
    """Get a value whose computation takes longer than the right's ttl of 0.3 s."""

    def getter() -> str:
        time.sleep(0.25)
        return "old"

    async def coroutine() -> str:
        await asyncio.sleep(0.25)
        return "old"

    cache = Caches(face, url).cache(node_timeout=5.0, ttl=0.3)
    function = coroutine if face == "async" else getter
    say("got", await get(cache, "k", function, execution_limit=20.0))


PROGRAMS: dict[str, Callable[..., None]] = {"app": app}


def _program(body: Callable[..., Coroutine[Any, Any, None]]) -> None:
    def program(*arguments: str) -> None:
        asyncio.run(body(*arguments))

    PROGRAMS[body.__name__] = program


for _body in (
    *(lease_alone, lease_from, lease_to, lease_again, lease_short, cache_get, cache_short),
):
    _program(_body)
