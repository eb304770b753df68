"""From a URL to a client that is fit to work with, or to one line that says why not.

Rules:

- Connections have short timeouts and no retries of redis-py's: with its defaults a refused port
  costs 4 s, a frozen server 25 s, and a wrong password is retried as if it were a network fault.
  io.py sends again instead, within the caller's patience.
- A server is checked before the first write: version, role, eviction policy, the types of the
  keys in our names and the rights of the user.
- `explain` turns whatever the server or the network says into one of our errors; a password never
  appears in it.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import redis
from redis import exceptions as said
from redis.backoff import NoBackoff
from redis.retry import Retry

from . import scripts
from .errors import DistlockError, ServerUnfit, ServerUnreachable, UsageError
from .io import SyncIO, run
from .keys import TYPES, Keys

OLDEST = {"redis": (6, 2), "valkey": (7, 2)}


def connect(url: str, timeout: float = 5.0, connect_timeout: float = 1.5) -> redis.Redis:
    """Make a client; nothing is sent yet.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`.
        timeout: seconds after which an answer counts as lost.
        connect_timeout: seconds for making a connection.

    Raises:
        UsageError: the URL is none, or is of another kind.
    """
    if not re.match(r"(rediss?|unix)://", url):
        raise UsageError(f"{mask(url)!r} is no URL of a server: use redis://, rediss:// or unix://")
    try:
        port = urlsplit(url).port
        if port == 0:
            raise ValueError("Port out of range 0-65535")
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=connect_timeout,
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"{mask(url)!r} cannot be used: {error}; see --help") from error


def mask(url: str) -> str:
    """The URL without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


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


def check(url: str, keys: Keys, unsafe: bool = False) -> str:
    """Check that a server is fit for a pipeline, without changing anything; takes at most 2 s.

    Args:
        url: the server.
        keys: the pipeline's keys.
        unsafe: accept an eviction policy that may delete our keys.

    Returns:
        What answers there, such as `Valkey 9.1.2`.

    Raises:
        ServerUnreachable: nobody answers, or not to us.
        ServerUnfit: too old, read-only, too few rights, foreign keys in our places.
    """
    with connect(url, timeout=1.5) as client:
        io = SyncIO(client, patience=0)
        try:
            kind = _check_version(client)
            names = list(TYPES)
            foreign, refused = run(
                io.call(
                    scripts.script("server_check"),
                    keys.pick(names),
                    [*(TYPES[name] for name in names), *scripts.commands()],
                )
            )
        except (said.RedisError, ServerUnreachable) as error:
            raise explain(error, url) from error
    if refused:
        missing = " ".join(f"+{command.decode().lower()}" for command in refused)
        raise ServerUnfit(f"this user may not run all that is needed: ACL SETUSER ... {missing}")
    for key, found in foreign:
        raise ServerUnfit(
            f"key {key.decode()} holds a {found.decode()} that is not ours: take another --name, "
            "or delete it if nobody needs it"
        )
    return kind


def _check_version(client: redis.Redis) -> str:
    """Raise ServerUnfit if the server is too old, read-only or may evict; return what it is."""
    info = client.info("server") | client.info("replication")
    kind = "valkey" if "valkey_version" in info else "redis"
    version = str(info[f"{kind}_version"])
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < OLDEST[kind]:
        needed = ".".join(map(str, OLDEST[kind]))
        raise ServerUnfit(f"{kind} {version} is too old: version {needed} or later is needed")
    if info.get("role") == "slave" and str(info.get("slave_read_only", 1)) == "1":
        host, port = info.get("master_host"), info.get("master_port")
        raise ServerUnfit(f"this is a read-only replica: name its primary, {host}:{port}")
    return f"{kind.capitalize()} {version}"


def explain(error: Exception, url: str) -> DistlockError:
    """One of our errors, one line with a remedy, for whatever redis-py raised.

    Args:
        error: what was raised.
        url: the server that was asked.
    """
    if isinstance(error, ServerUnreachable) and error.__cause__:
        cause = error.__cause__
        if isinstance(cause, (*_DENIED, said.BusyLoadingError)):
            return explain(cause, url)
    if isinstance(error, DistlockError):
        return error
    where, text = mask(url), _line(error)
    for kinds, pattern, remedy, result in _REMEDIES:
        if isinstance(error, kinds) and re.search(pattern, text):
            return result(f"{where}: {remedy.format(text=text)}")
    return ServerUnfit(f"{where}: the server refused: {text}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


_DENIED = (said.AuthenticationError, said.AuthorizationError)
_REMEDIES: list[tuple[type[Exception] | tuple[type[Exception], ...], str, str, type[DistlockError]]]
_REMEDIES = [
    (said.RedisError, r"NOAUTH|without any password|Authentication required",
     "a password is needed: put it into REDIS_URL", ServerUnreachable),
    (_DENIED, r"", "user or password is wrong: check REDIS_URL", ServerUnreachable),
    (said.RedisError, r"WRONGPASS|invalid (username|password)",
     "user or password is wrong: check REDIS_URL", ServerUnreachable),
    (said.NoPermissionError, r"",
     "this user may not do what is needed ({text}): grant it with ACL SETUSER", ServerUnfit),
    (said.BusyLoadingError, r"", "the server is still loading its data: try again when it is done",
     ServerUnreachable),
    (said.OutOfMemoryError, r"",
     "the server is out of memory: raise its maxmemory, or move results away", ServerUnfit),
    (said.ReadOnlyError, r"", "this is a read-only replica: name its primary", ServerUnfit),
    (said.RedisError, r"WRONGTYPE",
     "a key in our name holds something that is not ours: take another --name, or delete it "
     "({text})", ServerUnfit),
    (said.RedisError, r"MISCONF|NOREPLICAS|disk",
     "the server refuses to write: {text}", ServerUnfit),
    ((said.ConnectionError, ServerUnreachable), r"(?i)ssl|certificate",
     "TLS failed: {text}; use rediss:// for a TLS server, redis:// for a plain one",
     ServerUnreachable),
    ((said.ConnectionError, ServerUnreachable), r"(?i)closed by server|reset by|protocol error",
     "the server hangs up ({text}); if it speaks TLS use rediss://", ServerUnreachable),
    ((said.ConnectionError, said.TimeoutError), r"",
     "no server answers ({text}): start one, or name it with --host, --port or --url",
     ServerUnreachable),
]  # fmt: skip


def warnings(client: redis.Redis) -> list[str]:
    """What an operator should know about a server, each with its remedy."""
    info = client.info("persistence") | client.info("memory")
    found = []
    if not info.get("aof_enabled"):
        found.append(
            "no append-only file: what was done since the last snapshot is lost when the server "
            "dies; CONFIG SET appendonly yes"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(
            f"the eviction policy {policy} may delete our keys; CONFIG SET maxmemory-policy "
            "noeviction"
        )
    most, used = info.get("maxmemory", 0), info.get("used_memory", 0)
    if most and used > 0.9 * most:
        found.append(f"memory is {used / most:.0%} full; raise maxmemory")
    return found
