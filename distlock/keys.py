"""The names of everything distlock keeps on the server: the one place that spells them.

A pipeline named `demo` owns the keys `distlock:{demo}:…` and no others. The braces are Redis
Cluster's hash tag: they keep all keys of one name in one slot, so that every script is legal
there. What each key holds stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .errors import UsageError

BUCKET = 4096
"""Ids in one store bucket: `store:<n>` holds the ids n × 4096 to n × 4096 + 4095."""

TYPES = {
    "job": "hash",
    "lease": "hash",
    "token": "string",
    "line": "list",
    "sequence": "string",
    "queue": "list",
    "again": "list",
    "later": "zset",
    "handlers": "zset",
    "errors": "hash",
    "taken": "set",
    "bell": "zset",
    "stats": "hash",
}
"""The type of each key that a name has once."""


def check_name(name: str) -> str:
    """Return `name` if it can be part of a key, else raise UsageError."""
    if not isinstance(name, str):
        raise UsageError(f"name {name!r} is no text: give a str")
    if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        return name
    shown = name if len(name) <= 40 else name[:37] + "..."
    raise UsageError(
        f"name {shown!r} cannot be used: take 1 to 64 of the characters A-Z a-z 0-9 . _ -"
    )


def lease_keys(name: str) -> list[str]:
    """The keys of a lease: itself, its last token, and the line of those who wait."""
    prefix = f"distlock:{{{check_name(name)}}}:"
    return [prefix + "lease", prefix + "token", prefix + "line"]


def lease_name(key: bytes) -> str:
    """The name of the lease that a key belongs to, "" if it is no lease's."""
    found = re.fullmatch(rb"distlock:\{([A-Za-z0-9._-]{1,64})\}:(lease|line)", key)
    return found[1].decode() if found else ""


def wake_channel(address: str) -> str:
    """The channel on which those of one address hear that a lease is theirs (see _grant.lua)."""
    return f"distlock:wake:{address}"


def check_cache_key(key: str) -> str:
    """Return `key` if it can be a key of the cache, else raise UsageError."""
    if not isinstance(key, str):
        raise UsageError(f"key {key!r} is no text: give a str")
    if key.isprintable() and " " not in key and 0 < len(key) <= 1024:
        return key
    shown = key if len(key) <= 40 else key[:37] + "..."
    raise UsageError(
        f"key {shown!r} ({len(key)} characters) cannot be used: take 1 to 1,024 characters, "
        "without spaces and control characters; urllib.parse.quote() writes the others, a hash "
        "shortens it"
    )


class CacheKeys:
    """The keys of one cache. What a key of the user's has lies in one slot.

    Args:
        name: of the cache, as for Keys.
    """

    def __init__(self, name: str) -> None:
        self.name = check_name(name)
        self.values = f"distlock:value:{{{name}:"  # what the values' keys begin with
        self.counters = f"distlock:{{{name}}}:counters"  # what the processes have counted
        others = ("flight", "fresh", "waiters", "watch")
        self._others = [f"distlock:{what}:{{{name}:" for what in others]

    def all(self, key: str) -> list[str]:
        """Value (bytes), flight (who computes it), fresh (while it is there the value is no stale
        one), waiters (a set: who is called when the flight lands), watch (who watches)."""
        return [f"{self.values}{key}}}", *[f"{prefix}{key}}}" for prefix in self._others]]

    def put(self, key: str) -> list[str]:
        """Value, flight, fresh, and done (a set: the ids of what was set or deleted)."""
        return [*self.all(key)[:3], f"distlock:done:{{{self.name}:{key}}}"]

    @staticmethod
    def probe(place: str) -> str:
        """A key in the slot of another one, to write to and see whether that can be done."""
        tag = place.partition("{")[2].rpartition("}")[0]
        return f"distlock:probe:{{{tag or place}}}"

    def counted(self, process: str) -> str:
        """The number of the last addition to the counters by one process."""
        return f"{self.counters}:{process}"


class Keys:
    """The keys of one pipeline.

    Args:
        name: 1 to 64 characters of `A-Za-z0-9._-`.

    Raises:
        UsageError: the name has other characters or another length.
    """

    def __init__(self, name: str) -> None:
        self.name = check_name(name)
        self.prefix = f"distlock:{{{name}}}:"
        self.job = self.prefix + "job"  # what K, input and seed describe
        self.lease = self.prefix + "lease"  # owner, token, ttl …; expires with the term
        self.token = self.prefix + "token"  # the last token given out
        self.line = self.prefix + "line"  # who waits for the lease, in order
        self.sequence = self.prefix + "sequence"  # the last generated id
        self.queue = self.prefix + "queue"  # messages waiting
        self.again = self.prefix + "again"  # messages of dead hands, claimed one at a time
        self.later = self.prefix + "later"  # failed messages by the time they are due
        self.handlers = self.prefix + "handlers"  # handlers by the time their life ends
        self.errors = self.prefix + "errors"  # failed for good: id -> record, #order -> id
        self.taken = self.prefix + "taken"  # ids of errors that were printed and removed
        self.bell = self.prefix + "bell"  # handlers that wait for work, by time
        self.stats = self.prefix + "stats"  # counters kept by the scripts

    def temp(self, handler: str) -> str:
        """The hand of one handler: `#` -> the hand's name, id -> message."""
        return f"{self.prefix}temp:{handler}"

    def store(self, bucket: int) -> str:
        """One bucket of finished messages: id -> result."""
        return f"{self.prefix}store:{bucket}"

    def channel(self, copy: str) -> str:
        """The channel on which one copy is woken."""
        return f"{self.bell}:{copy}"

    def pick(self, names: Iterable[str]) -> list[str]:
        """The keys with these names, in this order."""
        return [self.prefix + name for name in names]
