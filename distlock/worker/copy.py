"""One copy of the application: its roles, one after the other.

Rules:

- The first copy to take the lease writes the job's record. Every other one reads it, and ends with
  a usage error when an option that it was given says something else.
- A thread renews the lease at T/3 and says that the hand is alive, over its own connection, so a
  slow message is not a death. (Code that holds the interpreter's lock for longer is one.)
- A copy at work waits, as long as it is patient, for a server that takes no writes for now. One
  that begins says so at once.
- A copy that is done or told to end gives back the rest of its hand and hands the lease on. From
  one that ends otherwise, its hand is taken when its life is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..errors import LeaseLost, UsageError
from ..io import Background, Caller, Interrupted, SyncIO, run
from ..lease import Lease
from ..pipeline import Job, Jobs
from ..source import Source
from .context import Context, Settings, State
from .generating import Generating
from .handling import Handling

MESSAGES = 1_000_000
ATTEMPTS = 3
HANDLER_TTL = 5.0


class Copy:
    """One copy of the application.

    Args:
        context: what the parts of the copy share.
        side: the IO of the thread that renews.
        source: makes the source of messages, given the job's seed.
        work: makes the function for one message, given the job's seed.
    """

    def __init__(
        self,
        context: Context,
        side: SyncIO,
        source: Callable[[int], Source],
        work: Callable[[int], Caller],
    ) -> None:
        self._context = context
        self._say, context.say = context.say, self._tell
        self._side = side
        self._make_source = source
        self._make_work = work
        self._jobs = Jobs(context.io, context.keys)
        ttl, who = context.settings.ttl, context.name
        self._lease = Lease(context.io, context.keys.name, ttl=ttl, who=who, watch_connection=True)

    def _tell(self, kind: str, text: str, /, **numbers: Any) -> None:
        """Tell of an event; in a term as the owner, with the owner id and the token."""
        if self._lease.token:
            numbers = {"owner": self._lease.owner, "token": self._lease.token} | numbers
        self._say(kind, text, **numbers)

    def run(self) -> State:
        """Work until the job is done or a signal ends it.

        Returns:
            What this copy did.

        Raises:
            DistlockError: why it cannot go on.
            RedisError: the server refused; see `connect.explain`.
        """
        began, state = time.monotonic(), self._context.state
        try:
            if job := self._open():
                self._work_on(job)
        except Interrupted:
            state.left_behind = True
            self._context.say("left", "the server is away: others take over what I held")
        finally:
            state.seconds = time.monotonic() - began
            self._context.io.deafen()
        return state

    def _work_on(self, job: Job) -> None:
        """Be generator or handler, as the lease has it, until the job is done."""
        context = self._context
        context.io.through_refusals = True
        work, source = self._make_work(job.seed), self._make_source(job.seed)
        handling = Handling(context, job, self._lease, work)
        generating = Generating(context, self._jobs, job, self._lease, source, handling)

        def keep() -> None:
            run(self._lease.keep(self._side))
            generating.keep(self._side)
            handling.handler.keep(self._side)

        try:
            with Background(keep, min(self._lease.ttl, job.handler_ttl) / 6):
                while not (context.io.stopping or context.state.done):
                    generating.lead() if self._lease.held else handling.until_lead()
        finally:
            generating.release()
            if not context.io.abandoned:
                work.close()

    def _open(self) -> Job | None:
        """Read the job, or write it under the lease; None when a signal came before."""
        pause, wanted, io = 0.02, None, self._context.io
        while (job := self._jobs.read()) is None:
            try:
                with io.interruptible():
                    wanted = wanted or self._wanted()  # may read a whole file, and refuse it
                if self._lease.acquire(blocking=False):
                    job = self._begin(wanted)
                    break
                io.sleep_now(pause)  # the owner is about to write it
            except LeaseLost:
                continue
            except Interrupted:
                return None
            pause = min(pause * 2, 0.25)
        try:
            source = self._make_source(job.seed)
            compare(job, self._context.settings, source, self._context.keys.name)
        except UsageError:
            if self._lease.held:
                self._lease.release()
            raise
        if not self._lease.held:
            text = f"handler of a job of {job.messages} messages"
            self._context.say("handler", text, messages=job.messages)
        return job

    def _begin(self, wanted: Job) -> Job:
        try:
            job = self._jobs.open(self._lease, wanted)
        except BaseException:
            self._lease.release()
            raise
        self._context.say("begun", f"a new job of {job.messages} messages", messages=job.messages)
        return job

    def _wanted(self) -> Job:
        settings = self._context.settings
        seed = settings.seed or 0
        source = self._make_source(seed)
        count = source.count()
        asked = settings.messages or count or MESSAGES
        return Job(
            messages=min(asked, count or asked),
            asked=asked,
            source=source.description,
            seed=seed,
            attempts=settings.attempts or ATTEMPTS,
            handler_ttl=settings.handler_ttl or HANDLER_TTL,
        )


def compare(job: Job, given: Settings, source: Source | None, name: str) -> None:
    """Raise UsageError when an option that was given is not what the job `name` says."""
    for option, mine, its in (
        ("--messages", given.messages, job.asked),
        ("--seed", given.seed, job.seed),
        ("--attempts", given.attempts, job.attempts),
        ("--handler-ttl", given.handler_ttl, job.handler_ttl),
    ):
        if mine is not None and round(mine, 3) != its:
            raise UsageError(
                f"{option} {mine:.15g}: the job {name!r} has {its:.15g}: leave the option out "
                "to join it, take another --name, or begin anew with --reset"
            )
    if source and source.description != job.source:
        raise UsageError(
            f"the job {name!r} takes its messages from {job.source!r}, this copy from "
            f"{source.description!r}: give the same --input or --generate, or begin anew with "
            "--reset"
        )
