"""The generator's role: publish 1..K under the lease.

Rules:

- Messages are published many at once while the source is quick, each at once while it is slow. What
  was gathered when a quick source becomes slow is published by the thread that renews (T/6 later).
- While the server works on one publish, the next is gathered; it is sent when that one is answered.
- The lease is renewed with the publish that completes X messages; a thread does so at T/3.
- Where a failover has set the sequence back, generating goes on from there, and how many messages
  it has forgotten is said.
- A full queue is waited for; when no handler has lived for one ttl, as when the last one is found
  dead, the generator handles hands itself, still the owner, and says so.
- Whatever ends the term, the lease is released at once and a waiting handler woken.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice

from redis.exceptions import RedisError

from ..errors import LeaseLost, ServerUnreachable
from ..io import Interrupted, Mutex, SyncIO
from ..lease import Lease
from ..pipeline import Generator, Job, Jobs, Publish, Published
from ..source import Source
from .context import Context
from .handling import Handling

BATCH = 500
"""Messages in one publish at most: more brings nothing."""
BATCH_BYTES = 1_000_000
"""Bytes after which a batch is published."""
SLOW = 0.05
"""Seconds after which a batch is published, however small."""
LOOK = 0.5
"""Seconds between two looks at a full queue, if nobody says that it has room."""


class Gap(Exception):
    """The server has lost messages; they are generated again from `sequence` + 1 on."""

    def __init__(self, sequence: int) -> None:
        super().__init__(sequence)
        self.sequence = sequence


class Generating:
    """Generates messages for one copy.

    Args:
        context: what the parts of the copy share.
        jobs: the job's record.
        job: the job.
        lease: the copy's lease.
        source: where the messages come from.
        handling: the copy's other role, to help itself when nobody else handles.
    """

    def __init__(
        self,
        context: Context,
        jobs: Jobs,
        job: Job,
        lease: Lease,
        source: Source,
        handling: Handling,
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._jobs = jobs
        self._job = job
        self._lease = lease
        self._source = source
        self._handling = handling
        self._generator = Generator(context.io, context.keys, lease, context.settings.max_queue)
        self._under_way: Publish | None = None
        self._publishing = Mutex()  # guards the next three
        self._first = 1  # the id of the first message that was gathered and not published
        self._batch: list[bytes] = []
        self._unrenewed = 0
        self._began = 0.0
        self._room = self._settings.max_queue
        self._alone_since = 0.0
        self._said_alone = False

    def lead(self) -> None:
        """Generate until all is generated, the lease has gone on, or the copy is to stop."""
        self._context.state.role = "generator"
        token = self._lease.token
        try:
            sequence, messages = self._jobs.lead(self._lease, self._job)
            self._job = replace(self._job, messages=messages)
            self._context.compare(sequence)
            if sequence < self._job.messages:
                self._announce(sequence + 1)
            while sequence < self._job.messages and not self._context.io.stopping:
                sequence = self._generate_from(sequence + 1)
            self._handling.all_generated = sequence >= self._job.messages
        except LeaseLost as error:
            self._context.say("deposed", f"no longer the generator: {error}")
            self._context.compare(self._jobs.reached(token))
        finally:
            self._start_at(0)
            self.release()

    def release(self) -> None:
        """Hand the lease on, if it is held; if the server refuses or is away, its time ends it."""
        if self._context.io.abandoned or not self._lease.held:
            return
        with suppress(RedisError, ServerUnreachable):
            if self._lease.release():
                self._generator.ring()

    def _announce(self, first: int) -> None:
        token = self._lease.token
        self._context.state.terms += 1
        text = f"generator, with token {token}: generating from message {first} on"
        self._context.say("generator", text, token=token, first=first)

    def keep(self, side: SyncIO) -> None:
        """In the background: publish what was gathered, if the source lets it wait."""
        if not self._batch or time.monotonic() - self._began < SLOW:
            return
        if self._publishing.acquire(blocking=False):  # else the thread in front is at it
            try:
                batch, renew = self._gathered()
                if not batch:  # the thread in front has just taken it
                    return
                generator = Generator(
                    side, self._context.keys, self._lease, self._settings.max_queue
                )
                published = generator.publish(self._first, batch, renew)
                if not published.gap:  # else the thread in front has to send again what went before
                    self._count_sent(len(batch), renew)
                    self._count_published(len(batch), published)
            except LeaseLost:
                pass  # the thread in front learns it with its next publish
            finally:
                self._publishing.release()

    def _gathered(self) -> tuple[list[bytes], bool]:
        """What was gathered, and whether to renew with it."""
        batch = self._batch[:]
        return batch, self._unrenewed + len(batch) >= self._settings.renew_every

    def _count_sent(self, count: int, renew: bool) -> None:
        self._unrenewed = 0 if renew else self._unrenewed + count
        self._first += count
        del self._batch[:count]

    def _count_published(self, count: int, published: Published) -> None:
        self._context.state.generated += count
        self._context.known = max(self._context.known, published.sequence)

    def _follow(self) -> None:
        """Publish what was gathered, once what is under way is answered; its own answer waits."""
        following = self._prepare()
        self._end(following)
        if following and self._context.io.stopping:
            self._first -= following.count  # they will be generated anew
        elif following:
            following.send()
            self._under_way = following
            self._room -= following.count

    def _prepare(self) -> Publish | None:
        """A publish of what was gathered, if there is anything."""
        with self._publishing:
            batch, renew = self._gathered()
            if not batch:
                return None
            publish = self._generator.prepare(self._first, batch, renew)
            self._count_sent(len(batch), renew)
        return publish

    def _end(self, following: Publish | None = None) -> None:
        """Wait for the answer to what is under way, and then while there is no room for more."""
        publish, self._under_way = self._under_way, None
        if not publish:
            return
        published = publish.answer()
        if published.gap:
            raise Gap(published.sequence)
        with self._publishing:
            self._count_published(publish.count, published)
        self._room = self._settings.max_queue - published.queue
        if self._room <= 0 and (following or self._first <= self._job.messages):
            self._wait_for_room(published)

    def _start_at(self, first: int) -> None:
        """Forget what was gathered."""
        with self._publishing:
            self._first, self._batch, self._unrenewed = first, [], 0

    def _generate_from(self, first: int) -> int:
        """Publish the messages from id `first` on; returns the sequence when that has an end."""
        self._start_at(first)
        last = self._job.messages
        try:
            for quick in self._gatherings(islice(self._source.bodies(first), last - first + 1)):
                self._follow()
                if not quick or self._room <= 0:
                    self._end()
                if self._context.io.stopping:
                    break
            self._end()
        except Gap as gap:
            self._context.compare(gap.sequence)
            return gap.sequence
        if self._first <= last and not self._context.io.stopping:
            self._shrink(self._first - 1)
        return self._first - 1

    def _shrink(self, messages: int) -> None:
        self._jobs.shrink(self._lease, messages)
        self._job = replace(self._job, messages=messages)
        text = f"the source ended: the job has {messages} messages"
        self._context.say("shrunk", text, messages=messages)

    def _gatherings(self, bodies: Iterator[bytes]) -> Iterator[bool]:
        """Gather bodies: many while they come fast, each at once while they come slowly.

        A signal ends the gathering at once, however slow the source is: what is not published yet
        will be generated anew. Yields whether to gather the next while these are published: not
        when they come slowly, or take much memory.
        """
        most, more = 1, True
        while more:
            try:
                with self._context.io.interruptible():
                    late, size, more = self._gather(bodies, most)
            except Interrupted:
                return
            yield not late and size < BATCH_BYTES and not self._settings.interval
            most = self._most_next(most, late)

    def _gather(self, bodies: Iterator[bytes], most: int) -> tuple[bool, int, bool]:
        """Gather bodies; returns whether they came slowly, their bytes, if there may be more."""
        monotonic, batch = time.monotonic, self._batch
        size, began = 0, monotonic()
        self._began = began
        for body in bodies:
            batch.append(body)
            size += len(body)
            late = monotonic() - began > SLOW
            if len(batch) >= most or late or size >= BATCH_BYTES:
                return late, size, True
        return False, size, False

    def _most_next(self, most: int, late: bool) -> int:
        """How many bodies to gather next; with an interval, the pause comes here."""
        if interval := self._settings.interval:
            self._context.pause(lambda: self._context.io.sleep_now(interval))
        if late or interval:
            return 1
        return min(most * 2, BATCH, max(self._room, 1))

    def _wait_for_room(self, published: Published) -> None:
        """The queue is full: wait until half of it is gone."""
        wait = partial(self._generator.wait, LOOK)
        room = self._settings.max_queue // 2
        while published.queue > room and not self._context.io.stopping:
            if alone := self._is_alone(published.handlers):
                self._handling.until_room(room)
            else:
                self._context.pause(wait)
            published = self._generator.publish(published.sequence + 1, [])
            if alone and published.queue > room:  # the rest waits for a retry
                self._context.pause(wait)

    def _is_alone(self, handlers: int) -> bool:
        """Whether no handler has lived for one handler ttl."""
        now = time.monotonic()
        if handlers:
            self._alone_since, self._said_alone = 0.0, False
            return False
        if not self._alone_since:
            # none lives: who is there is dead, and was silent for one ttl already
            self._alone_since = now if self._generator.deserted() else -math.inf
        alone = now - self._alone_since >= self._job.handler_ttl
        if alone and not self._said_alone:
            self._said_alone = True
            text = "the queue is full and no handler lives: handling messages myself meanwhile"
            self._context.say("alone", text)
        return alone
