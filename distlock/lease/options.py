"""What a lease can be told, checked before anything is sent."""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import UsageError

SHORTEST, LONGEST = 0.05, 365 * 86_400.0
"""Seconds that a ttl may have."""


def seconds(what: str, value: object, least: float, most: float = LONGEST) -> float:
    """The value as seconds, else UsageError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{what} {value!r} is no number: give seconds, such as 10 or 0.5")
    if not least <= value <= most or math.isnan(value):
        raise UsageError(f"{what} {value!r} cannot be used: take {least:g} to {most:g} seconds")
    return float(value)


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
        count = self.wait_replicas
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 100:
            raise UsageError(f"wait_replicas {count!r} cannot be used: take 0 to 100")
        if self.who and not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", self.who):
            raise UsageError(
                f"who {self.who[:40]!r} cannot be used: take at most 64 of the characters "
                "A-Z a-z 0-9 . _ : -"
            )
        object.__setattr__(self, "who", self.who or this_process())
