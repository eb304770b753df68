"""What a cache and a call of it can be told, checked before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Required, TypedDict

from ..checks import seconds, whole
from ..errors import UsageError
from .codec import Codec, Serializer

SHORTEST = 0.001
"""Seconds that an expire and a limit have at least."""


class Expires(NamedTuple):
    """What a getter may return instead of a value, to say itself for how long it may be kept.

    Attributes:
        value: the value.
        seconds: its expire.
    """

    value: Any
    seconds: float


@dataclass(frozen=True)
class Options:
    """The options of a cache; times are seconds. See Cache.

    Raises:
        UsageError: one of them cannot be used.
    """

    ttl: float = 2.0
    node_timeout: float = 0.25
    gutter_expire: float = 10.0
    on_outage: str = "compute"
    serializer: Serializer | None = None
    compress_above: int | None = None
    jitter: float = 0.0
    near: int = 0
    near_bytes: int = 64 * 1024 * 1024
    copy: bool = False

    def __post_init__(self) -> None:
        seconds("ttl", self.ttl, 0.05)
        seconds("node_timeout", self.node_timeout, 0.005)
        seconds("gutter_expire", self.gutter_expire, SHORTEST)
        whole("near", self.near, 0, 1 << 40)
        whole("near_bytes", self.near_bytes, 1, 1 << 50)
        if self.on_outage not in ("compute", "raise"):
            raise UsageError(f"on_outage {self.on_outage!r} cannot be used: 'compute' or 'raise'")
        if not isinstance(self.jitter, int | float) or not 0 <= self.jitter < 1:
            raise UsageError(f"jitter {self.jitter!r} cannot be used: take a part of 0 to below 1")
        Codec(self.serializer, self.compress_above)


class How(TypedDict, total=False):
    """The options of one call of `get`; see Cache.get. Times are seconds."""

    expire: Required[float]
    execution_limit: Required[float]
    retries: int
    negative_expire: float
    stale: float
    thread: bool


@dataclass(frozen=True, slots=True)
class Terms:
    """What one call of `get` was told; times are seconds.

    Raises:
        UsageError: something in it cannot be used.
    """

    expire: float
    execution_limit: float
    retries: int = 0
    negative_expire: float = 0.0
    stale: float = 0.0
    thread: bool = True

    def __post_init__(self) -> None:
        seconds("expire", self.expire, SHORTEST)
        seconds("execution_limit", self.execution_limit, SHORTEST)
        seconds("negative_expire", self.negative_expire, 0.0)
        seconds("stale", self.stale, 0.0)
        whole("retries", self.retries, 0, 1000)


def checked_getter(getter: object) -> Callable[[], Any]:
    """The getter, else UsageError."""
    if not callable(getter):
        raise UsageError(
            f"getter {getter!r} cannot be called: give a function without arguments, such as "
            "lambda: compute(42)"
        )
    return getter


def milliseconds(time: float) -> int:
    """Seconds as whole milliseconds, rounded up: 0 only if it is 0."""
    return math.ceil(time * 1000)
