"""One look at a pipeline: what `top` shows and the metrics serve, read at about one instant.

It costs two round trips, and one for each cache; one more when there are new errors. Nothing is
written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .cache import read_counters
from .io import Route, SyncClient, SyncIO, run
from .keys import CacheKeys, Keys
from .pipeline import ErrorRecord, InHand, Records, Status

SHOWN = 50
"""Errors that are shown, the newest."""


@dataclass(frozen=True)
class Failed:
    """An error in short: messages and tracebacks may be long.

    Attributes:
        time: when it failed, the server's seconds since 1970.
        id: of the message.
        attempt: its last.
        text: what was raised.
    """

    time: float
    id: int
    attempt: int
    text: str

    @staticmethod
    def of(error: ErrorRecord) -> Failed:
        """The short form of an error."""
        text = f"{error.exception}: {error.message}" if error.message else error.exception
        return Failed(error.time, error.id, error.attempt, text[:500])


@dataclass(frozen=True)
class Look:
    """What was read.

    Attributes:
        at: monotonic time.
        status: the pipeline's numbers.
        hands: what each handler has in hand.
        caches: the counters of the caches that have counted here, by name.
        newest: the newest error, if it is newer than those of earlier looks.
    """

    at: float
    status: Status
    hands: Mapping[str, InHand] = field(default_factory=dict)
    caches: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    newest: Failed | None = None


class Looker:
    """Reads one pipeline.

    Args:
        client: how to reach the server; it should give up soon.
        keys: the pipeline's keys.
        caches: the names of the caches whose counters are read, too.
    """

    def __init__(self, client: SyncClient, keys: Keys, caches: Sequence[str]) -> None:
        self._records = Records(SyncIO(Route(client, keys.job), patience=0), keys)
        places = [CacheKeys(name) for name in caches]  # on a Cluster each may be elsewhere
        self._caches = [(SyncIO(Route(client, keys.counters), 0), keys) for keys in places]
        self._errors = -1

    def look(self) -> Look:
        """Read everything; raises what the server or the network says."""
        status = self._records.status()
        hands = self._records.hands([*status.handlers])
        read = {keys.name: run(read_counters(io, keys)) for io, keys in self._caches}
        newest, count = None, int(status.stats.get("errors", 0))
        if 0 <= self._errors < count:
            newest = next(iter(reversed(self._page(count))), None)
        self._errors = count
        counted = {name: counts for name, counts in read.items() if counts}
        return Look(time.monotonic(), status, hands, counted, newest)

    def errors(self) -> list[Failed]:
        """The newest errors, the newest first."""
        last = self._records.last_error()
        return self._page(max(last - SHOWN + 1, 1))[::-1]

    def _page(self, first: int) -> list[Failed]:
        last, found = self._records.last_error(), list[Failed]()
        while first <= last:
            first, some = self._records.read_errors(first, last)
            found += map(Failed.of, some)
        return found[-SHOWN:]


def counted(look: Look, counter: str) -> int:
    """One of the counters that only grow: stored, generated, and all errors there ever were."""
    if counter == "generated":
        return look.status.sequence
    return int(look.status.stats.get(counter, 0))
