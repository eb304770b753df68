"""From a URL to a client that is fit to work with, or to one line that says why not.

Rules:

- Connections have short timeouts and no retries of redis-py's: with its defaults a refused port
  costs 4 s, a frozen server 25 s, and a wrong password is retried as if it were a network fault.
  io.py sends again instead, within the caller's patience.
- A server is checked before the first write: version, role, the types of the keys in our names and
  the rights of the user.
- Whatever the server or the network says becomes one of our errors, see `remedies`.
"""

from __future__ import annotations

import re
from functools import cache
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis import exceptions as said
from redis.backoff import NoBackoff
from redis.retry import Retry

from . import scripts
from .about import members, read_info
from .errors import ServerUnfit, ServerUnreachable, UsageError
from .io import AsyncClient, PerLoop, Route, SyncClient, SyncIO, is_away, run
from .keys import TYPES, Keys
from .remedies import explain
from .text import mask
from .topology import parse

OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
TRIES = 4
"""Times that a server is asked whether it is fit, while connections break at once."""
DIRECT = ("HKEYS", "HMGET", "SCAN", "SSCAN", "SUBSCRIBE")
"""Commands that are sent by themselves and stand in no script."""


FOLLOWING = 1.5
"""Seconds after which an answer counts as lost where another server may have taken over."""


def connect(url: str, timeout: float = 5.0, connect_timeout: float = 1.5) -> SyncClient:
    """Make a client; nothing is sent yet.

    Args:
        url: `redis://`, `rediss://` (TLS), `unix://`, or one of those in `topology`.
        timeout: seconds after which an answer counts as lost.
        connect_timeout: seconds for making a connection.

    Raises:
        UsageError: the URL is none, or is of another kind.
    """
    check_url(url)
    if there := parse(url):
        return there.client(timeout, connect_timeout)
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=connect_timeout,
            retry=Retry(NoBackoff(), 0),
        )
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # else it shows at the first command only
        if pool.get_encoder().decode_responses:
            raise ValueError("decode_responses would change bytes: leave it out")
    except (ValueError, TypeError, said.RedisError) as error:
        raise UsageError(f"{mask(url)!r} cannot be used: {error}; see --help") from error
    return client


def patience_for(url: str, most: float = 5.0) -> float:
    """Seconds after which an answer counts as lost, `most` at most."""
    return min(most, FOLLOWING) if parse(url) else most


@cache
def shared(url: str) -> SyncClient:
    """The one client of this process for a URL; raises like `connect`."""
    return connect(url, patience_for(url))


_async_clients: PerLoop[dict[str, AsyncClient]] = PerLoop(dict)


def shared_async(url: str) -> AsyncClient:
    """The one client of the running event loop for a URL."""
    clients = _async_clients.mine()
    if url not in clients:
        clients[url] = _connect_async(url)
    return clients[url]


@cache
def checked(url: str) -> None:
    """Say what is wrong with a URL; raises like `connect`."""
    connect(url).close()


def _connect_async(url: str) -> AsyncClient:
    checked(url)
    if there := parse(url):
        return there.async_client(FOLLOWING, 1.5)
    return redis.asyncio.Redis.from_url(url, socket_timeout=5.0, socket_connect_timeout=1.5)


def check_url(url: str) -> None:
    """Raise UsageError for a URL of another kind, and for what redis-py would misread.

    The error of `urlsplit` is not passed on: it may quote a part of the password.
    """
    if parse(url):
        return
    if not re.match(r"(rediss?|unix)://", url):
        raise UsageError(
            f"{mask(url)!r} is no URL of a server: use redis://, rediss:// or unix://, "
            "redis+sentinel:// or redis+cluster://"
        )
    try:
        parts = urlsplit(url)
        fits = parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(
            f"{mask(url)!r} cannot be used: a port is 1 to 65535, and in a password special "
            "characters are written like %2F for /"
        )
    if parts.scheme != "unix" and not re.fullmatch(r"[/\d]*", parts.path):
        raise UsageError(f"{mask(url)!r} cannot be used: the database after / is a number")


def answers(url: str) -> bool:
    """Whether a server answers there, whatever it says."""
    with connect(url, timeout=1.0, connect_timeout=0.5) as client:
        try:
            client.ping()
        except (said.AuthenticationError, said.AuthorizationError, said.BusyLoadingError):
            return True
        except (said.ConnectionError, said.TimeoutError):
            return False
        except said.RedisError:
            return True
        return True


def check(url: str, keys: Keys) -> str:
    """Check that a server is fit for a pipeline, without changing anything.

    A server that is silent is given up in time for the program to end within 2 s of its start; one
    lost connection does not end it.

    Args:
        url: the server.
        keys: the pipeline's keys.

    Returns:
        What answers there, such as `Valkey 9.1.2` or `Valkey 9.1.2 (Cluster, 3 primaries)`.

    Raises:
        ServerUnreachable: nobody answers, or not to us.
        ServerUnfit: too old, read-only, too few rights, foreign keys in our places.
    """
    broken = 0
    while True:
        try:
            kind, foreign, refused = _ask(url, keys)
            break
        except (said.RedisError, ServerUnreachable) as error:
            broken += 1
            if broken == TRIES or not _broke(error):
                raise explain(error, url) from error
    if refused:
        rights = [f"+{command.decode().lower()}" for command in refused]
        if {"+publish", "+subscribe"}.intersection(rights):
            rights.append("&distlock:*")  # it may be the channels alone that are missing
        raise ServerUnfit(
            f"{mask(url)}: this user may not do all that is needed: "
            f"ACL SETUSER ... {' '.join(rights)}"
        )
    for key, found in foreign:
        raise ServerUnfit(
            f"{mask(url)}: key {key.decode()} holds a {found.decode()} that is not ours: take "
            "another --name, or delete it if nobody needs it"
        )
    return kind


def _ask(url: str, keys: Keys) -> tuple[str, list[list[bytes]], list[bytes]]:
    """What answers there, which keys in our places are foreign, which commands are refused."""
    ours = [*keys.pick(TYPES), keys.store(0)]
    args = [*TYPES.values(), "hash", *scripts.commands(), *DIRECT]
    with connect(url, timeout=1.2, connect_timeout=1.2) as client:
        io = SyncIO(Route(client, keys.job), patience=0)
        try:
            kind = _check_version(io, mask(url))
            foreign, refused = run(io.call(scripts.script("server_check"), ours, args))
            return kind + members(url, client, io), foreign, refused
        finally:
            io.close()


def _broke(error: Exception) -> bool:
    """Whether a connection broke: then one more tells whether the server is there."""
    cause = error.__cause__ if isinstance(error, ServerUnreachable) else error
    return isinstance(cause, said.ConnectionError) and is_away(cause)


def _check_version(io: SyncIO, where: str) -> str:
    """Raise ServerUnfit if the server is too old or read-only; return what it is."""
    try:
        info = read_info(io, "server", "replication")
    except said.NoPermissionError:
        return "server"  # which says itself what it does not know, or does not take
    kind = "valkey" if "valkey_version" in info else "redis"
    version = info[f"{kind}_version"]
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < OLDEST[kind]:
        needed = ".".join(map(str, OLDEST[kind]))
        raise ServerUnfit(
            f"{where}: {kind} {version} is too old: version {needed} or later is needed"
        )
    if info.get("role") == "slave" and info.get("slave_read_only", "1") == "1":
        host, port = info.get("master_host"), info.get("master_port")
        raise ServerUnfit(f"{where}: this is a read-only replica: name its primary, {host}:{port}")
    return f"{kind.capitalize()} {version}"
