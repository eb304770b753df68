"""What a lease can be told, checked before anything is sent."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..checks import seconds, whole
from ..errors import UsageError

SHORTEST = 0.05
"""Seconds that a ttl has at least."""


def checked_timeout(blocking: bool, timeout: float | None) -> float | None:
    """The timeout of an acquire in seconds, or None for ever; else UsageError."""
    if timeout is None:
        return None
    if not blocking:
        raise UsageError("blocking=False does not wait: leave the timeout out")
    return seconds("timeout", timeout, 0.0)


@cache
def _host() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:40] or "host"


def this_process() -> str:
    """A name for this process that a person can find: host:pid."""
    return f"{_host()}:{os.getpid()}"


@dataclass(frozen=True)
class Options:
    """The options of a lease; times are seconds. See Lease.

    Raises:
        UsageError: one of them cannot be used.
    """

    ttl: float = 10.0
    wait: float | None = None
    on_lost: Callable[[Any], Any] | None = None
    auto_renew: bool = True
    watch_connection: bool = False
    wait_replicas: int = 0
    lock_delay: float = 0.0
    who: str = ""

    def __post_init__(self) -> None:
        seconds("ttl", self.ttl, SHORTEST)
        seconds("lock_delay", self.lock_delay, 0.0)
        if self.wait is not None:
            seconds("wait", self.wait, 0.0)
        if self.on_lost is not None and not callable(self.on_lost):
            raise UsageError(f"on_lost {self.on_lost!r} cannot be called: give a function")
        whole("wait_replicas", self.wait_replicas, 0, 100)
        if self.who and not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", self.who):
            raise UsageError(
                f"who {self.who[:40]!r} cannot be used: take at most 64 of the characters "
                "A-Z a-z 0-9 . _ : -"
            )
        object.__setattr__(self, "who", self.who or this_process())
