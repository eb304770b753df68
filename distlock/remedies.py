"""Whatever the server or the network says, in one line with a remedy; a password never appears."""

from __future__ import annotations

import re

from redis import exceptions as said

from .errors import DistlockError, PasswordNeeded, ServerUnfit, ServerUnreachable, UsageError
from .text import mask
from .topology import REFUSED


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
    (_DENIED, REFUSED, REFUSED + ": check sentinel_username and sentinel_password in REDIS_URL",
     ServerUnreachable),
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
     "this user may not do what is needed ({text}): grant it with ACL SETUSER; `doctor` names what",
     ServerUnfit),
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
