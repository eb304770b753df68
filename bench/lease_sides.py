"""The sides that take turns: distlock's Lease, its peers, and bare sockets as the floor.

Each is used as its documentation says, with one object that is acquired again and again:

- `ours`: `Lease(url, name, ttl=...)` with its defaults, so it renews itself.
- `redis-py`: `Redis.lock`, which looks again every 0.1 s; neither token nor renewal.
- `redis-lock`: python-redis-lock, which waits by BLPOP; without its renewal, which would start and
  join a thread for each acquire. Its client has no socket timeout, or a long wait would fail.
- `pottery`: Redlock with one master, which looks again after up to 0.2 s.
- `bare`: a socket that sends packed bytes and reads the answers: SET NX PX and the three lines of
  Lua that delete a key if it holds the value. It cannot wait.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, Protocol
from urllib.parse import urlsplit

import hiredis
import redis
import redis.asyncio

from distlock import AsyncLease, Lease
from distlock.keys import Keys

from .table import Row, beside, compared

NAME = "bench"
KEYS = Keys(NAME)
TTL = 10.0
TITLES = {
    "redis-py": "redis-py's Lock",
    "redis-lock": "python-redis-lock",
    "pottery": "pottery's Redlock",
    "bare": "bare sockets",
}
DELETE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"
pack: Callable[..., bytes] = hiredis.pack_command


class Side(Protocol):
    """Something that one can hold; the coroutines of an asyncio side are of the same names."""

    def acquire(self) -> Any:
        """Get it, however long that takes."""

    def release(self) -> Any:
        """Give it back."""


def make(kind: str, url: str, ttl: float = TTL, **options: Any) -> Side:
    """The side of this name for threads; `options` are for ours."""
    if kind == "ours":
        return Lease(url, NAME, ttl=ttl, **options)
    if kind == "bare":
        return Bare(url)
    if kind == "redis-py":
        side: Side = redis.Redis.from_url(url).lock(NAME, timeout=ttl)
        return side
    client = redis.Redis.from_url(url, socket_timeout=None)
    if kind == "pottery":
        from pottery import Redlock

        return Redlock(key=NAME, masters={client}, auto_release_time=ttl)
    import redis_lock  # type: ignore[import-untyped]

    lock: Side = redis_lock.Lock(client, NAME, expire=round(ttl))
    return lock


def make_async(kind: str, url: str, ttl: float = TTL) -> Side:
    """The side of this name for asyncio."""
    if kind == "ours":
        return AsyncLease(url, NAME, ttl=ttl)
    if kind == "bare":
        return AsyncBare(url)
    side: Side = redis.asyncio.Redis.from_url(url).lock(NAME, timeout=ttl)
    return side


def waits(kind: str, client: redis.Redis, waiters: int = 1) -> bool:
    """Whether so many wait, as far as the server can see; CONFIG RESETSTAT comes before it all."""
    if kind == "ours":
        return client.llen(KEYS.line) >= waiters
    if kind == "redis-lock":
        return int(client.info("clients")["blocked_clients"]) >= waiters
    sets = client.info("commandstats").get("cmdstat_set", {"calls": 0})
    return int(sets["calls"]) > waiters  # the holder's was the first


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    made = socket.create_connection((parts.hostname, parts.port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class Bare:
    """A lock over one socket; whoever wants it while it is held has lost."""

    def __init__(self, url: str) -> None:
        self._socket = _connect(url)
        self._take, self._free = _packed(self.ask(pack(("SCRIPT", "LOAD", DELETE))))

    def ask(self, request: bytes) -> bytes:
        """Send it, and read the answer, which is short."""
        self._socket.sendall(request)
        return self._socket.recv(4096)

    def acquire(self) -> None:
        """Take it."""
        assert self.ask(self._take) == b"+OK\r\n"

    def release(self) -> None:
        """Give it back."""
        assert self.ask(self._free) == b":1\r\n"


class BarePair:
    """A hand-off between two by two lists: one waits by BLPOP for the RPUSH of the other.

    Args:
        mine, other: the names of the two; the first to call is `a`.
    """

    def __init__(self, url: str, mine: str, other: str) -> None:
        self._socket = _connect(url)
        self._wait = pack(("BLPOP", f"bare:{mine}", "0"))
        self._call = pack(("RPUSH", f"bare:{other}", "x"))

    def acquire(self) -> None:
        """Wait for the other."""
        self._socket.sendall(self._wait)
        self._socket.recv(4096)

    def release(self) -> None:
        """Call the other."""
        self._socket.sendall(self._call)
        self._socket.recv(4096)


class AsyncBare:
    """The same as Bare over an asyncio stream."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._reader: asyncio.StreamReader | None = None

    async def _ask(self, request: bytes) -> bytes:
        assert self._reader
        self._writer.write(request)
        return await self._reader.read(4096)

    async def acquire(self) -> None:
        """Take it; connects at the first time."""
        if not self._reader:
            parts = urlsplit(self._url)
            self._reader, self._writer = await asyncio.open_connection(parts.hostname, parts.port)
            self._take, self._free = _packed(await self._ask(pack(("SCRIPT", "LOAD", DELETE))))
        assert await self._ask(self._take) == b"+OK\r\n"

    async def release(self) -> None:
        """Give it back."""
        assert await self._ask(self._free) == b":1\r\n"


def _packed(loaded: bytes) -> tuple[bytes, bytes]:
    """The two requests, given the answer to SCRIPT LOAD."""
    sha = loaded.split(b"\r\n")[1].decode()
    token = "0123456789abcdef" * 2
    take = pack(("SET", "bare:lock", token, "NX", "PX", "10000"))
    return take, pack(("EVALSHA", sha, "1", "bare:lock", token))


def versus(
    what: str, runs: dict[str, list[float]], peer: str, sign: str, bar: float, form: str
) -> Iterator[Row]:
    """Ours beside a peer, with the bar (0: there is none); then beside all others.

    Rounds are compared one by one; a side that had fewer of them is compared by its median.
    """
    mine = runs["ours"]
    if peer not in runs:
        yield Row(what.replace(f", beside {TITLES[peer]}", ""), "", format(median(mine), form))
    elif bar:
        yield compared(what, runs[peer], mine, sign, bar, form)
    else:
        yield beside(what, runs[peer], mine, form)[0]
    for kind, its in runs.items():
        if kind not in ("ours", peer):
            its = its if len(its) == len(mine) else [median(its)] * len(mine)
            yield beside(f"  beside {TITLES[kind]}", its, mine, form)[0]
