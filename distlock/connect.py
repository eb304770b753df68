"""From a URL to a client that is fit to work with, or to one line that says why not.

Rules:

- Connections have short timeouts and no retries of redis-py's: with its defaults a refused port
  costs 4 s, a frozen server 25 s, and a wrong password is retried as if it were a network fault.
  io.py sends again instead, within the caller's patience.
- A server is checked before the first write: version, role, the types of the keys in our names and
  the rights of the user.
- `explain` turns whatever the server or the network says into one of our errors; a password never
  appears in it.
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
from .errors import DistlockError, PasswordNeeded, ServerUnfit, ServerUnreachable, UsageError
from .io import SyncIO, run
from .keys import TYPES, Keys
from .text import mask

OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
DIRECT = ("HKEYS", "HMGET", "SCAN", "SSCAN", "SUBSCRIBE")
"""Commands that are sent by themselves and stand in no script."""


def connect(url: str, timeout: float = 5.0, connect_timeout: float = 1.5) -> redis.Redis:
    """Make a client; nothing is sent yet.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`.
        timeout: seconds after which an answer counts as lost.
        connect_timeout: seconds for making a connection.

    Raises:
        UsageError: the URL is none, or is of another kind.
    """
    check_url(url)
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


@cache
def shared(url: str) -> redis.Redis:
    """The one client of this process for a URL; raises like `connect`."""
    return connect(url)


@cache
def shared_async(url: str) -> redis.asyncio.Redis:
    """The same for redis.asyncio; nothing in it belongs to an event loop."""
    connect(url).close()  # says what is wrong with the URL
    return redis.asyncio.Redis.from_url(url, socket_timeout=5.0, socket_connect_timeout=1.5)


def check_url(url: str) -> None:
    """Raise UsageError for a URL of another kind, and for what redis-py would misread.

    The error of `urlsplit` is not passed on: it may quote a part of the password.
    """
    if not re.match(r"(rediss?|unix)://", url):
        raise UsageError(f"{mask(url)!r} is no URL of a server: use redis://, rediss:// or unix://")
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

    A server that is silent is given up in time for the program to end within 2 s of its start.

    Args:
        url: the server.
        keys: the pipeline's keys.

    Returns:
        What answers there, such as `Valkey 9.1.2`.

    Raises:
        ServerUnreachable: nobody answers, or not to us.
        ServerUnfit: too old, read-only, too few rights, foreign keys in our places.
    """
    ours = [*keys.pick(TYPES), keys.store(0)]
    args = [*TYPES.values(), "hash", *scripts.commands(), *DIRECT]
    with connect(url, timeout=1.2, connect_timeout=1.2) as client:
        try:
            kind = _check_version(client, mask(url))
            call = SyncIO(client, patience=0).call(scripts.script("server_check"), ours, args)
            foreign, refused = run(call)
        except (said.RedisError, ServerUnreachable) as error:
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


def _check_version(client: redis.Redis, where: str) -> str:
    """Raise ServerUnfit if the server is too old or read-only; return what it is."""
    try:
        info = client.info("server") | client.info("replication")
    except said.NoPermissionError:
        return "server"  # which says itself what it does not know, or does not take
    kind = "valkey" if "valkey_version" in info else "redis"
    version = str(info[f"{kind}_version"])
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < OLDEST[kind]:
        needed = ".".join(map(str, OLDEST[kind]))
        raise ServerUnfit(
            f"{where}: {kind} {version} is too old: version {needed} or later is needed"
        )
    if info.get("role") == "slave" and str(info.get("slave_read_only", 1)) == "1":
        host, port = info.get("master_host"), info.get("master_port")
        raise ServerUnfit(f"{where}: this is a read-only replica: name its primary, {host}:{port}")
    return f"{kind.capitalize()} {version}"


def explain(error: Exception, url: str) -> DistlockError:
    """One of our errors, one line with a remedy, for whatever redis-py raised.

    Args:
        error: what was raised.
        url: the server that was asked.
    """
    if isinstance(error, ServerUnreachable) and error.__cause__:
        cause = error.__cause__
        busy = isinstance(cause, said.ResponseError) and str(cause).startswith("BUSY ")
        if busy or isinstance(cause, (*_DENIED, said.BusyLoadingError)):
            assert isinstance(cause, said.RedisError)
            return explain(cause, url)
    if isinstance(error, DistlockError):
        return error
    where, text = mask(url), _line(error)
    for kinds, pattern, remedy, result in _REMEDIES:
        if isinstance(error, kinds) and re.search(pattern, f"{where.partition(':')[0]}: {text}"):
            return result(f"{where}: {remedy.format(text=text)}")
    return ServerUnfit(f"{where}: the server refused: {text}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


_DENIED = (said.AuthenticationError, said.AuthorizationError)
_SILENT = (said.ConnectionError, said.TimeoutError, ServerUnreachable)
_REMEDIES: list[tuple[type[Exception] | tuple[type[Exception], ...], str, str, type[DistlockError]]]
_REMEDIES = [
    (said.RedisError, r"NOAUTH|client already authenticated|Authentication required",
     "a password is needed: put it into REDIS_URL or into a --password-file", PasswordNeeded),
    (said.RedisError, r"without any password configured",
     "this user has no password: leave it out of REDIS_URL, and --password-file",
     ServerUnreachable),
    (_DENIED, r"", "user or password is wrong: check REDIS_URL or --password-file",
     ServerUnreachable),
    (said.RedisError, r"WRONGPASS|invalid (username|password)",
     "user or password is wrong: check REDIS_URL or --password-file", ServerUnreachable),
    (said.NoPermissionError, r"",
     "this user may not do what is needed ({text}): grant it with ACL SETUSER", ServerUnfit),
    (said.BusyLoadingError, r"", "the server is still loading its data: try again when it is done",
     ServerUnreachable),
    (said.RedisError, r"used memory > 'maxmemory'",
     "the server is out of memory: raise its maxmemory, or move results away", ServerUnfit),
    (said.RedisError, r"read only (replica|slave)",
     "this is a read-only replica: name its primary", ServerUnfit),
    (said.RedisError, r"FOREIGN",
     "the queue holds what is no message of ours: remove it with LREM ({text})", ServerUnfit),
    (said.RedisError, r"WRONGTYPE",
     "a key in our name holds something that is not ours: take another --name, or delete it "
     "({text})", ServerUnfit),
    (said.RedisError, r"unknown command.*HELLO",
     "the server is too old: Redis 6.2, Valkey 7.2 or later is needed", ServerUnfit),
    (said.RedisError, r"DB index", "there is no such database ({text}): take another --db",
     UsageError),
    (said.RedisError, r"NOREPLICAS",
     "too few replicas are connected for its min-replicas-to-write: bring them back ({text})",
     ServerUnfit),
    (said.RedisError, r"MISCONF|disk",
     "the server cannot write to its disk: make room there, or see its log ({text})", ServerUnfit),
    (said.RedisError, r"BUSY ",
     "a script keeps the server busy: wait for its end, or end it with SCRIPT KILL",
     ServerUnreachable),
    (_SILENT, r"(?i)ssl|certificate|^rediss:.*(timeout|closed|reset|no such file)",
     "TLS failed: {text}; use rediss:// for a TLS server, redis:// for a plain one, and "
     "?ssl_ca_certs=FILE for an authority of your own",
     ServerUnreachable),
    ((said.ConnectionError, ServerUnreachable), r"(?i)closed by server|reset by|protocol error",
     "the server hangs up ({text}); if it speaks TLS use rediss://", ServerUnreachable),
    (said.InvalidResponse, r"",
     "what answers is no Redis and no Valkey ({text}): name another --host, --port or --url, and "
     "use rediss:// if it speaks TLS", ServerUnreachable),
    ((said.ConnectionError, said.TimeoutError), r"",
     "no server answers ({text}): start one, or name it with --host, --port or --url",
     ServerUnreachable),
]  # fmt: skip
