"""The way to the server: how long an answer takes, and how far its clock is from ours."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..io import SyncIO, run
from ..keys import Keys
from .finding import BAD, NOTE, OK, Finding

ASKED, SECONDS = 200, 1.0
"""How often it is asked, and for how long at most."""
SLOW, TOO_SLOW = 0.005, 0.1
"""Seconds of a round trip: each hand takes one, so slow ones cost throughput; a lease of a few
seconds is renewed at a sixth of its time."""
APART = 1.0
"""Seconds between the clocks."""


def look(io: SyncIO, keys: Keys) -> Iterator[Finding]:
    """All of it."""
    trips, offset = list[float](), 0.0
    until = time.monotonic() + SECONDS
    while len(trips) < ASKED and (not trips or time.monotonic() < until):
        sent, began = time.time(), time.monotonic()
        seconds, micros = run(io.command("TIME"))
        trips.append(time.monotonic() - began)
        if trips[-1] == min(trips):  # the quickest one tells most
            offset = int(seconds) + int(micros) / 1e6 - (sent + trips[-1] / 2)
    yield _trip(sorted(trips))
    yield _clock(offset)


def _trip(trips: list[float]) -> Finding:
    half, most = trips[len(trips) // 2], trips[min(len(trips) * 99 // 100, len(trips) - 1)]
    said = f"p50 {half * 1000:.2f} ms, p99 {most * 1000:.2f} ms"
    if most > TOO_SLOW:
        remedy = "move the copies nearer; or a --ttl and --handler-ttl of at least "
        return Finding(BAD, "round trip", said, f"{remedy}{max(most * 60, 5):.0f} s")
    if half > SLOW:
        remedy = "move the copies nearer: each hand of messages takes one"
        return Finding(NOTE, "round trip", said, remedy)
    return Finding(OK, "round trip", said)


def _clock(offset: float) -> Finding:
    if abs(offset) > APART:
        said = f"{abs(offset):,.1f} s {'before' if offset > 0 else 'behind'} ours"
        return Finding(BAD, "clock", said, "set both by NTP: tokens are made of the server's time")
    return Finding(OK, "clock", f"{abs(offset):.3f} s from ours")
