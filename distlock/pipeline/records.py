"""What the operator reads and moves: status, errors, the hands of the dead.

Rules:

- Everything is read in pages of at most 1,000 entries or 1 MB, so memory stays constant.
- Each error has an order number that never comes again: taking it or retrying it twice, or late,
  does nothing.
- Only errors whose order numbers are named are removed: what was written out, and nothing else.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..io import IO, run
from ..keys import Keys
from ..scripts import script
from .job import Job

STATUS, READ = script("status_read"), script("errors_read")
TAKE, RETRY = script("errors_take"), script("errors_retry")


@dataclass(frozen=True)
class Status:
    """All numbers of a pipeline at one instant; times are seconds.

    Attributes:
        now: the server's time, seconds since 1970.
        job: the job, None when there is none.
        owner: the lease's owner, "" when nobody holds it.
        token: the last token given out.
        lease_left: time the lease has left.
        sequence, queue, again, later, errors, taken: messages.
        stats: the scripts' counters.
        handlers: each handler with the time its life has left, negative when it is dead.
    """

    now: float
    job: Job | None
    owner: str
    token: int
    lease_left: float
    sequence: int
    queue: int
    again: int
    later: int
    errors: int
    taken: int
    stats: dict[str, str]
    handlers: dict[str, float]

    @property
    def stored(self) -> int:
        """Messages in the store."""
        return int(self.stats.get("stored", 0))

    @property
    def takeovers(self) -> int:
        """How often another term began after the first."""
        return max(int(self.stats.get("terms", 0)) - 1, 0)

    @property
    def temp(self) -> int:
        """Messages in hands."""
        elsewhere = self.queue + self.again + self.later + self.stored + self.errors + self.taken
        return self.sequence - elsewhere

    @property
    def done(self) -> bool:
        """Whether all K messages are stored, in the errors or taken."""
        ended = self.stored + self.errors + self.taken
        return self.job is not None and self.sequence >= self.job.messages <= ended


class ErrorRecord(NamedTuple):
    """A message that failed for good.

    Attributes:
        order: its place among the errors, oldest first; never given out twice.
        time: when it failed, the server's seconds since 1970.
        id, attempt, body: the message.
        exception, message, traceback: what was raised.
        handler: where.
    """

    order: int
    time: float
    id: int
    attempt: int
    body: bytes
    exception: str
    message: str
    traceback: str
    handler: str

    @staticmethod
    def parse(record: bytes) -> ErrorRecord:
        """Read what the script `_fail.lua` wrote."""
        order, time, report, message = record.split(b"\n", 3)
        id, attempt, body = message.split(b":", 2)
        said: dict[str, Any] = json.loads(report)
        return ErrorRecord(int(order), int(time) / 1000, int(id), int(attempt), body, **said)


class RecordsCore:
    """Status and errors of a pipeline, over any IO."""

    def __init__(self, io: IO, keys: Keys) -> None:
        self._io = io
        self._keys = keys

    async def _status(self) -> Status:
        names = ["job", "lease", "token", "sequence", "queue", "again", "later"]
        names += ["handlers", "errors", "taken", "stats"]
        answer = await self._io.call(STATUS, self._keys.pick(names), ())
        now, job, lease, left, token, sequence, queue, again, later = answer[:9]
        errors, taken, stats, handlers = answer[9:]
        owner = dict(zip(lease[::2], lease[1::2], strict=True)).get(b"owner", b"")
        counters = zip(stats[::2], stats[1::2], strict=True)
        lives = zip(handlers[::2], handlers[1::2], strict=True)
        return Status(
            now=now / 1000,
            job=Job.parse(job),
            owner=owner.decode(),
            token=int(token),
            lease_left=max(left, 0) / 1000,
            sequence=int(sequence),
            queue=queue,
            again=again,
            later=later,
            errors=errors,
            taken=taken,
            stats={key.decode(): value.decode() for key, value in counters},
            handlers={name.decode(): (float(end) - now) / 1000 for name, end in lives},
        )

    async def _last_error(self) -> int:
        return int(await self._io.command("HGET", self._keys.stats, "errors") or 0)

    async def _read_errors(self, first: int, last: int) -> tuple[int, list[ErrorRecord]]:
        following, records = await self._io.call(READ, [self._keys.errors], (first, last))
        return following, [ErrorRecord.parse(record) for record in records]

    async def _take(self, orders: Sequence[int]) -> int:
        return int(await self._io.call(TAKE, self._keys.pick(["errors", "taken"]), orders))

    async def _retry(self, first: int, last: int) -> tuple[int, int]:
        keys = self._keys.pick(["errors", "queue", "bell", "stats"])
        args = (first, last, secrets.token_hex(8))
        following, count = await self._io.call(RETRY, keys, args)
        return following, count


class Records(RecordsCore):
    """Status and errors of a pipeline, for synchronous code."""

    def status(self) -> Status:
        """All numbers at one instant."""
        return run(self._status())

    def last_error(self) -> int:
        """The order number of the newest error there ever was, 0 if none."""
        return run(self._last_error())

    def read_errors(self, first: int, last: int) -> tuple[int, list[ErrorRecord]]:
        """One page of errors with order numbers from `first` to `last`.

        Returns the number to go on with (above `last` at the end) and the errors.
        """
        return run(self._read_errors(first, last))

    def take(self, orders: Sequence[int]) -> int:
        """Remove errors that were written out; returns how many were still there."""
        return run(self._take(orders))

    def retry(self, first: int, last: int) -> tuple[int, int]:
        """Put one page of errors back in the queue, attempts anew.

        Returns the number to go on with (above `last` at the end) and how many it put back.
        """
        return run(self._retry(first, last))
