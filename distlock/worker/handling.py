"""The handler's role: one hand after another, and a try for the lease now and then.

Rules:

- Hands start at one message, double while one is quick and shrink when one is slow. When a
  message takes long, the untouched rest of its hand is given back at once: nobody hoards.
- A try for the lease comes when its time is over: after N messages, and whenever idle.
- Whoever finds a dead handler reclaims its hand.
- Results of a handler that was given up for dead are dropped: others have its messages.
"""

from __future__ import annotations

import time
from functools import partial

from ..io import Caller
from ..keys import BUCKET
from ..lease import Lease
from ..pipeline import Hand, Handler, Job, Message, Outcome, report, text_of
from ..work import encode
from .context import Context

QUICK = 0.25
"""Seconds that a hand may take; one that takes half of it grows."""
HAND_BYTES = 1_000_000
"""Bytes of results after which the rest of a hand is given back."""


class Handling:
    """Handles messages for one copy.

    Args:
        context: what the parts of the copy share.
        job: the job.
        lease: the copy's lease, to try for.
        work: the function for one message.
    """

    def __init__(self, context: Context, job: Job, lease: Lease, work: Caller) -> None:
        self._context = context
        self._settings = context.settings
        self._lease = lease
        self._work = work
        self._limit = min(context.settings.ttl / 4, QUICK)
        self._want = 1
        self._since_try = 0
        self.all_generated = False
        self.handler = Handler(context.io, context.keys, job, context.name)

    def until_lead(self) -> None:
        """Handle until the lease is held, the job is done, or the copy is to stop."""
        state = self._context.state
        state.role = "handler"
        outcome = self._begin()
        while not (self._context.io.stopping or state.done or self._lease.held):
            hand, outcome = self._next(outcome)
            lease_left = hand.lease_left if hand.messages else self._rest()
            if lease_left == 0 and not self.all_generated and self._may_try(hand):
                self._since_try = 0
                self._lease.acquire(blocking=False)
        self._leave(outcome)

    def until_room(self, room: int) -> None:
        """As the generator: handle until the queue is no longer than `room`."""
        outcome, queue = self._begin(), room + 1
        while queue > room and self._lease.held and not self._context.io.stopping:
            hand, outcome = self._next(outcome)
            queue = hand.queue
        self._leave(outcome)
        self._lease.check()

    def _begin(self) -> Outcome:
        self.handler.join()
        self._want = 1
        return Outcome()

    def _leave(self, outcome: Outcome) -> None:
        self._context.state.hand = 0
        if self.handler.joined:
            self._exchange(outcome, 0)

    def _next(self, outcome: Outcome) -> tuple[Hand, Outcome]:
        """Exchange hands and handle the next; returns it and what became of it."""
        while (hand := self._exchange(outcome, self._want)) is None:
            outcome = self._begin()
        outcome.stored.clear()  # else long results would be held beside the next hand
        if hand.dead:
            self._reclaim(hand.dead)
        return hand, self._process(hand.messages)

    def _exchange(self, outcome: Outcome, want: int) -> Hand | None:
        """See Handler.exchange; what it settled counts from then on."""
        hand = self.handler.exchange(outcome, want)
        if hand is None:
            self._given_up(outcome)
        else:
            self._context.state.stored += outcome.results
        return hand

    def _given_up(self, outcome: Outcome) -> None:
        forgotten, results = self.handler.forgotten(), outcome.results
        if forgotten is None:
            text = f"given up for dead: {results} results were not accepted, "
            self._context.say("given-up", f"{text}others have the messages", results=results)
            return
        self._context.state.forgotten_results += forgotten
        self._context.state.stored -= forgotten
        text = f"the server has forgotten {forgotten:,} results that it had acknowledged, and did "
        text += f"not accept {results:,} more: these messages are handled again"
        self._context.say("forgotten", text, forgotten=forgotten, results=results)

    def _process(self, messages: list[bytes]) -> Outcome:
        """Handle the messages of one hand, and decide how many to want next."""
        outcome, context = Outcome(), self._context
        io, monotonic, call = context.io, time.monotonic, self._work.call
        context.state.hand = len(messages)
        if messages:
            context.known = max(context.known, int(messages[-1].split(b":", 1)[0]))
        began = monotonic()
        late, size = began + self._limit, 0
        for done in range(len(messages)):
            if io.stopping or (done and (size > HAND_BYTES or monotonic() > late)):
                outcome.give_back(messages[done:])
                break
            parts = messages[done].split(b":", 2)
            if len(parts) < 3 and not (parts := self.handler.whole(messages[done])):
                outcome.give_back(messages[done:])
                break
            messages[done] = b""  # a long one would be held twice until the hand is settled
            id, attempt, body = parts
            number = int(id)
            try:
                result = call(Message(number, body, int(attempt)))
                kept = body if result is None else self._encoded(result)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit and CancelledError fail a message, too
                last = int(attempt) >= self.handler.job.attempts  # else the report is not kept
                kept = report(error, context.name) if last else b""
                outcome.fail(id, kept)
                if context.tells_failures:
                    self._tell_failure(number, int(attempt), error)
            else:
                outcome.store(id, number // BUCKET, kept)
            size += len(kept)
        took = monotonic() - began
        self._count(outcome, len(messages) - len(outcome.returned), took)
        return outcome

    def _tell_failure(self, id: int, attempt: int, error: BaseException) -> None:
        """Say that a message failed, in short: the errors keep the whole of it."""
        what, most = type(error).__qualname__, self.handler.job.attempts
        text = f"message {id} failed, attempt {attempt} of {most}: {what}: {text_of(error)[:300]}"
        numbers = {"message_id": id, "attempt": attempt, "exception": what}
        self._context.say("failed", text, **numbers, final=attempt >= most)

    def _encoded(self, result: object) -> bytes:
        kept, most = encode(result), self._settings.max_body
        if len(kept) > most:
            raise ValueError(f"the result has {len(kept)} bytes, --max-body is {most}")
        return kept

    def _count(self, outcome: Outcome, done: int, took: float) -> None:
        """Note what was done in how many seconds, and decide how many messages to want next."""
        failed = len(outcome.failed) // 2
        self._context.state.failed += failed
        self._since_try += done
        if took <= self._limit / 2:
            self._want = min(self._want * 2, self._settings.batch)
        elif took > self._limit:
            self._want = max(1, int(done * self._limit / took))

    def _may_try(self, hand: Hand) -> bool:
        return not hand.messages or self._since_try >= self._settings.try_every

    def _rest(self) -> float | None:
        """Nothing to claim: wait until there may be; returns the seconds the lease had left."""
        context = self._context
        rang: bool | None = False
        while not (rang or context.io.stopping):
            rest = self.handler.rest()
            if rest is None:
                return None  # given up for dead: the next exchange says so
            self.all_generated = rest.lease_left is None
            context.state.done = rest.done
            if rest.dead:
                self._reclaim(rest.dead)
            if rest.dead or rest.work or rest.done or rest.lease_left == 0:
                return rest.lease_left
            rang = context.pause(partial(self.handler.wait, rest))
        return None

    def _reclaim(self, dead: str) -> None:
        count = self.handler.reclaim(dead)
        if count >= 0:
            text = f"reclaimed {count} messages of {dead}, which died"
            self._context.say("reclaimed", text, handler=dead, messages=count)
