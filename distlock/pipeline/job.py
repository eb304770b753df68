"""The job: what K, the input and the seed describe, written once and read by all.

Rules:

- The first owner of the lease writes the record; a second writer finds it there. Every copy works
  on the job it read: when the record has vanished or is another one (FLUSHALL, `--reset`), the
  copy ends with JobGone and never begins a silent second 1..K.
- K shrinks, fenced by the lease, when the source ends early; nothing else ever changes.
- A reset deletes the record first and the sequence last: a sequence without a record says that a
  reset was cut short, and nothing begins until it is repeated.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import DistlockError, JobGone, LeaseLost
from ..io import IO, run
from ..keys import BUCKET, Keys
from ..lease import LeaseCore
from ..scripts import script

FORMAT = "1"
OPEN, LEAD, SHRINK = script("job_open"), script("job_lead"), script("job_shrink")
RESET = script("job_reset")


@dataclass(frozen=True)
class Job:
    """The record of a job.

    Attributes:
        messages: K, how many messages there will be.
        asked: K as it was asked for; `messages` is less when the source ended before.
        source: where they come from, with the size and fingerprint of a file.
        seed: what random text and simulated failures depend on.
        attempts: how often a message is tried before it ends in the errors.
        handler_ttl: seconds after its last sign of life when a handler counts as dead.
        id: chosen at random, to tell this job from any other of the same name.
    """

    messages: int
    asked: int
    source: str = "random"
    seed: int = 0
    attempts: int = 3
    handler_ttl: float = 5.0
    id: str = ""

    def fields(self) -> list[str]:
        """The record as the server keeps it: field, value, field, value, …"""
        ttl = str(round(self.handler_ttl * 1000))
        return [
            *("format", FORMAT, "id", self.id, "messages", str(self.messages)),
            *("asked", str(self.asked), "source", self.source),
            *("seed", str(self.seed), "attempts", str(self.attempts), "handler_ttl", ttl),
        ]

    @staticmethod
    def parse(record: list[bytes] | dict[bytes, bytes]) -> Job | None:
        """The job in a record read from the server, or None when there is no record.

        Raises:
            DistlockError: the record is of another format.
        """
        if isinstance(record, list):
            record = dict(zip(record[::2], record[1::2], strict=True))
        if not record:
            return None
        field = {key.decode(): value.decode() for key, value in record.items()}
        if field.get("format") != FORMAT:
            raise DistlockError(
                f"the job on the server has format {field.get('format')}, this program reads "
                f"{FORMAT}: use the version of distlock that began it, or --reset"
            )
        return Job(
            messages=int(field["messages"]),
            asked=int(field["asked"]),
            source=field["source"],
            seed=int(field["seed"]),
            attempts=int(field["attempts"]),
            handler_ttl=int(field["handler_ttl"]) / 1000,
            id=field["id"],
        )


def job_gone(keys: Keys) -> JobGone:
    """The error for a record that vanished or was replaced under a running copy."""
    return JobGone(
        f"the record of job {keys.name!r} vanished from the server or is another one now: this "
        "copy cannot vouch for its messages and ends; start it again to begin or join the new job"
    )


class JobsCore:
    """The record of a pipeline's job, over any IO."""

    def __init__(self, io: IO, keys: Keys) -> None:
        self._io = io
        self._keys = keys

    async def _read(self) -> Job | None:
        return Job.parse(await self._io.command("HGETALL", self._keys.job))

    async def _open(self, lease: LeaseCore, job: Job) -> Job:
        job = replace(job, id=job.id or secrets.token_hex(8))
        keys = self._keys.pick(["job", "lease", "sequence", "stats"])
        state = await self._io.call(OPEN, keys, (lease.owner, lease.token, *job.fields()))
        if state == -2:
            raise DistlockError(
                f"job {self._keys.name!r} has no record but its data is still there: a reset was "
                "cut short, or somebody deleted the record; run --reset to begin anew"
            )
        there = job if state == 1 else await self._read()
        if state == -1 or there is None:
            raise LeaseLost("the lease has gone on before the job was written: start again")
        return there

    async def _lead(self, lease: LeaseCore, job: Job) -> tuple[int, int]:
        keys = self._keys.pick(["job", "lease", "sequence", "stats"])
        args = (lease.owner, lease.token, job.id)
        state, sequence, messages = await self._io.call(LEAD, keys, args)
        if state == -1:
            raise job_gone(self._keys)
        if state == 0:
            lease.lose()
            lease.check()
        return sequence, messages

    async def _shrink(self, lease: LeaseCore, messages: int) -> None:
        keys = self._keys.pick(["lease", "job", "sequence"])
        if not await self._io.call(SHRINK, keys, (lease.owner, lease.token, messages)):
            lease.lose()
            raise LeaseLost("the lease has gone on before the job could be shrunk")

    async def _sequence(self) -> int:
        return int(await self._io.command("GET", self._keys.sequence) or 0)

    async def _reached(self, token: int) -> int:
        term, began = await self._io.command("HMGET", self._keys.stats, "term", "began")
        return int(began) if int(term or 0) > token else await self._sequence()

    async def _there(self) -> bool:
        keys = self._keys.pick(["job", "sequence", "stats"])
        return bool(await self._io.command("EXISTS", *keys))

    async def _reset(self, progress: Callable[[int, int], None]) -> None:
        """Delete everything but the last token, page by page, whatever the record's format."""
        keys = self._keys
        id = await self._io.command("HGET", keys.job, "id") or b""
        handlers = await self._io.command("ZRANGE", keys.handlers, 0, -1)
        rest = [keys.temp(handler.decode()) for handler in handlers]
        rest += (keys.store(bucket) for bucket in range(await self._sequence() // BUCKET + 1))
        rest += keys.pick(["queue", "again", "later", "errors", "taken", "bell", "stats"])
        rest += [keys.handlers, keys.sequence]
        fixed = keys.pick(["job", "lease", "handlers"])
        for at in range(0, len(rest), 500):
            state = await self._io.call(RESET, fixed + rest[at : at + 500], (id,))
            if state == -1:
                raise DistlockError(
                    f"job {keys.name!r} has a copy at work: end it first (a killed one counts as "
                    "alive until its --ttl and --handler-ttl are over), then --reset again"
                )
            if state == 0:
                raise DistlockError(f"job {keys.name!r} was begun anew by somebody else")
            progress(at, len(rest))


class Jobs(JobsCore):
    """The record of a pipeline's job, for synchronous code."""

    def read(self) -> Job | None:
        """The job as it stands on the server, or None."""
        return run(self._read())

    def open(self, lease: LeaseCore, job: Job) -> Job:
        """Write the record under a lease; returns the one that is there then."""
        return run(self._open(lease, job))

    def lead(self, lease: LeaseCore, job: Job) -> tuple[int, int]:
        """Begin a term as generator; returns the sequence and K, raises LeaseLost or JobGone."""
        return run(self._lead(lease, job))

    def shrink(self, lease: LeaseCore, messages: int) -> None:
        """Say that the source ended after so many messages; raises LeaseLost."""
        return run(self._shrink(lease, messages))

    def sequence(self) -> int:
        """The id of the last generated message."""
        return run(self._sequence())

    def reached(self, token: int) -> int:
        """The id of the last message that the term with this token has left on the server.

        That is where a later term has begun, or else the sequence.
        """
        return run(self._reached(token))

    def there(self) -> bool:
        """Whether there is a job, or what a reset that was cut short has left of one."""
        return run(self._there())

    def reset(self, progress: Callable[[int, int], None] = lambda done, all: None) -> None:
        """Delete the pipeline; raises DistlockError while a copy is alive.

        Args:
            progress: told now and then how many keys are deleted, of how many.
        """
        return run(self._reset(progress))
