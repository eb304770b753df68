"""The pipeline against a model of it: where each message is, and whose turn it is, at any time.

One machine runs on fakeredis and on a real server. The clock is the machine's: `time_passes` has
all that the server keeps times of come nearer, and moves the clock of the copies. Copies come, die
and are given up for dead and go on none the less; any request that was ever sent may arrive once
more. After each step the server is compared with the model, message by message, and I0 is checked;
in the end one more copy does what is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from distlock.errors import LeaseLost
from distlock.io import SyncIO, run
from distlock.keys import Keys
from distlock.lease import Lease
from distlock.pipeline import Generator, Hand, Handler, Job, Jobs, Outcome, Records, Verifier
from distlock.pipeline.generator import PUBLISH
from tests.conftest import ONE_KIND
from tests.tools import Clock, Pipe, partition

KEYS = Keys("t")
TTL, LIFE = 63.0, 23.0
"""Seconds of a lease's term and of a handler's life."""
PASSES = st.sampled_from([5.0, 30.0, 70.0])
"""Seconds that pass; no sum of them is near one of those two."""
MESSAGES, ATTEMPTS = 40, 3
WHICH = st.integers(0, 11)
"""Which of those for whom a rule is."""
Waiting = tuple[int, int]
"""A message: id and attempt."""


class Recorder(SyncIO):
    """The synchronous IO; remembers what was sent."""

    sent: list[tuple[Any, ...]]

    async def call(self, *call: Any) -> Any:
        """See IO."""
        self.sent.append(call[:3])
        return await super().call(*call)


class Copy:
    """One copy: generator, handler and operator, as its process would be.

    Attributes:
        hand: the messages in its hand, as it was told; None when it is no handler.
        alive: whether it does anything any more.
        sequence: the last generated id that it knows of.
    """

    def __init__(self, name: str, server: redis.Redis, sent: list[tuple[Any, ...]]) -> None:
        self.name = name
        self.io = Recorder(server, patience=0)
        self.io.sent = sent
        self.lease = Lease(self.io, KEYS.name, ttl=TTL, who=name)
        self.jobs = Jobs(self.io, KEYS)
        self.generator = Generator(self.io, KEYS, self.lease, 1000)
        self.records = Records(self.io, KEYS)
        self.handler: Handler | None = None
        self.hand: Hand | None = None
        self.sequence = 0

    def join(self, job: Job) -> None:
        """Become a handler."""
        self.handler = self.handler or Handler(self.io, KEYS, job, self.name)
        self.handler.join()
        self.hand = Hand([], None, "", 0)


class Model:
    """What the server should say.

    Attributes:
        queue, again: messages in order. later: their attempts by id.
        hands: by handler.
        errors: message by order number.
        owner: whose lease it is, "" when it is free. left: its seconds.
    """

    def __init__(self) -> None:
        self.sequence = 0
        self.messages = MESSAGES
        self.queue: list[Waiting] = []
        self.again: list[Waiting] = []
        self.later: dict[int, int] = {}
        self.hands: dict[str, dict[int, int]] = {}
        self.store: set[int] = set()
        self.errors: dict[int, Waiting] = {}
        self.taken: set[int] = set()
        self.orders = 0
        self.owner = ""
        self.left = 0.0

    def fail(self, id: int, attempt: int) -> None:
        """A message fails for good."""
        self.orders += 1
        self.errors[self.orders] = (id, attempt)

    def settle(self, name: str, failed: set[int], returned: list[int]) -> None:
        """A hand ends: what is neither failed nor returned is stored."""
        hand = self.hands[name]
        self.queue[:0] = [(id, hand[id]) for id in returned]
        for id, attempt in hand.items():
            if id in failed and attempt < ATTEMPTS:
                self.later[id] = attempt + 1
            elif id in failed:
                self.fail(id, attempt)
            elif id not in returned:
                self.store.add(id)
        self.hands[name] = {}

    def claim(self, want: int, again: bool, due: list[int]) -> list[Waiting]:
        """What the next hand is: one of a dead hand, else what is due, then the queue."""
        if again:
            return self.again[:1]
        retries = [(id, self.later[id]) for id in due[:want]]
        return retries + self.queue[: want - len(retries)]

    def take(self, name: str, hand: list[Waiting]) -> None:
        """The next hand is claimed."""
        self.hands[name] = dict(hand)
        for id, _ in hand:
            self.later.pop(id, None)
        self.again = [message for message in self.again if message not in hand]
        self.queue = [message for message in self.queue if message not in hand]

    def reclaim(self, name: str, drop: bool) -> int:
        """A dead handler's hand goes to others."""
        hand = self.hands.pop(name)
        for id, attempt in hand.items():
            if drop or (len(hand) == 1 and attempt >= ATTEMPTS):
                self.fail(id, attempt)
            else:
                self.again.append((id, attempt + (len(hand) == 1)))
        return len(hand)

    def wait_out(self, seconds: float) -> None:
        """Time passes."""
        self.left -= seconds
        if self.left <= 0:
            self.owner = ""


def some(eligible: Callable[[Copy], Any], **strategies: Any) -> Callable[..., Any]:
    """Makes a rule for one of those copies for which it can be said."""

    def decorate(method: Callable[..., None]) -> Any:
        def one(self: PipelineMachine, which: int, **drawn: Any) -> None:
            copies = [copy for copy in self.copies if eligible(copy)]
            method(self, copies[which % len(copies)], **drawn)

        one.__name__ = method.__name__
        is_any = precondition(lambda self: any(map(eligible, self.copies)))
        return is_any(rule(which=WHICH, **strategies)(one))

    return decorate


class PipelineMachine(RuleBasedStateMachine):
    """The rules: what copies, their deaths, an operator and the clock can do."""

    server: ClassVar[redis.Redis]
    clock: ClassVar[Clock]

    def __init__(self) -> None:
        super().__init__()
        self.server.flushall()
        self.sent: list[tuple[Any, ...]] = []
        self.deaths = itertools.count(1)  # when lives ended, each at another time, long ago
        self.names = (f"c{n}" for n in itertools.count())
        self.model = Model()
        self.tokens = [0]
        self.copies = [self._new_copy() for _ in range(3)]
        first = self.copies[0]
        wanted = Job(messages=MESSAGES, asked=MESSAGES, attempts=ATTEMPTS, handler_ttl=LIFE)
        assert first.lease.acquire(blocking=False)
        self.job = first.jobs.open(first.lease, wanted)
        first.lease.release()
        self._take_the_lease(first)

    def _new_copy(self) -> Copy:
        return Copy(next(self.names), self.server, self.sent)

    def _now(self) -> int:
        seconds, microseconds = self.server.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def _dead(self) -> list[str]:
        now = self._now()
        found = self.server.zrange(KEYS.handlers, 0, -1, withscores=True)
        return [name.decode() for name, deadline in found if deadline < now]

    # --- the generator --------------------------------------------------------------------------

    @some(lambda copy: not copy.lease.held)
    def take_the_lease(self, copy: Copy) -> None:
        """If it is free; and begin where the last one ended."""
        self._take_the_lease(copy)

    def _take_the_lease(self, copy: Copy) -> None:
        got = copy.lease.acquire(blocking=False)
        assert got == (not self.model.owner)
        if got:
            self.model.owner, self.model.left = copy.lease.owner, TTL
            assert copy.lease.token > self.tokens[-1]
            self.tokens.append(copy.lease.token)
            copy.sequence, messages = copy.jobs.lead(copy.lease, self.job)
            assert (copy.sequence, messages) == (self.model.sequence, self.model.messages)

    @some(lambda copy: copy.lease.token, count=st.integers(0, 6), renew=st.booleans())
    def publish(self, copy: Copy, count: int, renew: bool) -> None:
        """As the generator, or as one that takes itself for it."""
        ids = range(copy.sequence + 1, min(copy.sequence + count, self.model.messages) + 1)
        try:
            published = copy.generator.publish(copy.sequence + 1, [b"x"] * len(ids), renew)
        except LeaseLost:
            assert copy.lease.owner != self.model.owner
            return
        assert copy.lease.owner == self.model.owner
        assert not published.gap
        self.model.sequence += len(ids)
        self.model.queue += ((id, 1) for id in ids)
        self.model.left = TTL if renew else self.model.left
        assert published.sequence == self.model.sequence
        assert published.queue == len(self.model.queue) + len(self.model.later)
        copy.sequence = published.sequence

    @some(lambda copy: copy.lease.token, ends=st.sampled_from(["renew"] * 3 + ["release"]))
    def renew_or_release(self, copy: Copy, ends: str) -> None:
        """By the owner, or by an old one."""
        mine = copy.lease.owner == self.model.owner
        if ends == "release":
            assert copy.lease.release() == mine
            self.model.owner = "" if mine else self.model.owner
        elif copy.lease.token:
            assert copy.lease.renew() == mine
            self.model.left = TTL if mine else self.model.left

    @precondition(lambda self: self.model.sequence > MESSAGES // 2)
    @some(lambda copy: copy.lease.token)
    def the_source_ends(self, copy: Copy) -> None:
        """Earlier than it was said; only its generator can say so."""
        mine = copy.lease.owner == self.model.owner
        try:
            copy.jobs.shrink(copy.lease, copy.sequence)
            assert mine
            self.model.messages = self.model.sequence
        except LeaseLost:
            assert not mine

    # --- handlers -------------------------------------------------------------------------------

    @some(lambda copy: copy.hand is None)
    def join(self, copy: Copy) -> None:
        """Become a handler."""
        copy.join(self.job)
        self.model.hands[copy.name] = {}

    @some(
        lambda copy: copy.hand is not None,
        want=st.integers(0, 7),
        fails=st.integers(0, 7),
        rest=st.integers(0, 3),
    )
    def exchange(self, copy: Copy, want: int, fails: int, rest: int) -> None:
        """One hand for the next: some fail, some are given back; given up for dead, nothing is."""
        assert copy.handler
        assert copy.hand is not None
        messages = copy.hand.messages
        parts = [message.split(b":", 2) for message in messages]
        kept = max(len(parts) - rest, 0)
        done, given = parts[:kept], messages[kept:]
        outcome, failed = Outcome(), {int(id) for id, *_ in done if (int(id) + fails) % 8 < 3}
        for id, _, body in done:
            if int(id) in failed:
                outcome.fail(id, b'{"exception":"E","message":"","traceback":"","handler":"h"}')
            else:
                outcome.store(id, 0, body)
        outcome.give_back(given)
        again, before, due = bool(self.model.again), self._now(), self._due()
        there = copy.name in self.model.hands
        copy.hand = copy.handler.exchange(outcome, want)
        assert (copy.hand is not None) == there
        if copy.hand is None:
            return
        returned = [int(message.split(b":")[0]) for message in given]
        self.model.settle(copy.name, failed, returned)
        if not want:
            copy.hand = None
            del self.model.hands[copy.name]
            return
        got = [(int(i), int(a)) for i, a, _ in (m.split(b":", 2) for m in copy.hand.messages)]
        possible = [
            self.model.claim(want, again, [id for id, score in due if score <= now])
            for now in (before, self._now())
        ]
        assert got in possible
        self.model.take(copy.name, got)
        assert copy.hand.queue == len(self.model.queue)

    def _due(self) -> list[tuple[int, float]]:
        """What waits for its back-off, and when it is due, in order."""
        found = self.server.zrange(KEYS.later, 0, -1, withscores=True)
        return [(int(message.split(b":")[0]), score) for message, score in found]

    @some(lambda copy: copy.hand is not None and not copy.hand.messages)
    def rest(self, copy: Copy) -> None:
        """A handler with nothing in hand asks whether there is anything to do."""
        assert copy.handler
        due, dead = [score <= self._now() for _, score in self._due()], self._dead()
        rest = copy.handler.rest()
        assert (rest is not None) == (copy.name in self.model.hands)
        if rest is None:
            copy.hand = None
            return
        ended = len(self.model.store) + len(self.model.errors) + len(self.model.taken)
        all_generated = self.model.sequence == self.model.messages
        assert rest.done == (all_generated and ended == self.model.messages)
        assert rest.work or rest.done or not (self.model.queue or self.model.again or any(due))
        assert rest.dead in {*dead, ""}
        assert rest.seconds <= 1.0
        if all_generated:
            assert rest.lease_left is None
        else:
            assert (rest.lease_left == 0) == (not self.model.owner)

    @some(lambda copy: copy.hand is not None)
    def fall_silent(self, copy: Copy) -> None:
        """For as long as a handler may; it may go on later."""
        self.server.zadd(KEYS.handlers, {copy.name: next(self.deaths)}, xx=True)

    @some(lambda copy: True)
    def be_killed(self, copy: Copy) -> None:
        """Whatever it was at; another one comes."""
        self.copies[self.copies.index(copy)] = self._new_copy()
        copy.io.close()

    @some(lambda copy: True, victim=WHICH, drop=st.sampled_from([False] * 3 + [True]))
    def reclaim(self, copy: Copy, victim: int, drop: bool) -> None:
        """Ask for a hand: only a dead one's can be had."""
        if not self.model.hands:
            return
        name = sorted(self.model.hands)[victim % len(self.model.hands)]
        is_dead = name in self._dead()
        got = Handler(copy.io, KEYS, self.job, "operator").reclaim(name, drop)
        assert got == (self.model.reclaim(name, drop) if is_dead else -1)

    # --- the operator, the network and the clock ------------------------------------------------

    @precondition(lambda self: self.model.errors)
    @rule(which=WHICH, take=st.booleans())
    def deal_with_an_error(self, which: int, take: bool) -> None:
        """Take it, or put it in the queue."""
        records = self.copies[0].records
        order = sorted(self.model.errors)[which % len(self.model.errors)]
        id, attempt = self.model.errors.pop(order)
        _, (error,) = records.read_errors(order, order)
        assert (error.id, error.attempt) == (id, attempt)
        if take:
            assert records.take([order]) == 1
            self.model.taken.add(id)
        else:
            assert records.retry(order, order) == (order + 1, 1)
            self.model.queue.append((id, 1))

    @rule(ago=st.integers(0, 200))
    def a_request_arrives_once_more(self, ago: int) -> None:
        """However late: nothing changes."""
        script, keys, args = self.sent[-1 - ago % len(self.sent)]
        answer = self._send(script, keys, args)
        if script is PUBLISH and len(args) > 7:
            assert answer[0] in (0, -1)  # it was done before, or it is an old owner's
        if args[:1] == (self.model.owner,) or args[:1] == [self.model.owner]:
            renews = script.name == "lease_renew" or (script is PUBLISH and args[3])
            self.model.left = TTL if renews else self.model.left

    def _send(self, script: Any, keys: Any, args: Any) -> Any:
        return run(SyncIO.call(self.copies[0].io, script, keys, args))

    @rule(seconds=PASSES)
    def time_passes(self, seconds: float) -> None:
        """For the copies and the server alike."""
        self.clock.now += seconds
        for key in (KEYS.later, KEYS.handlers):
            for member, score in self.server.zrange(key, 0, -1, withscores=True):
                if score > 1000:
                    self.server.zadd(key, {member: max(score - seconds * 1000, 1000)})
        left = self.server.pttl(KEYS.lease)
        if left > 0:
            self.server.pexpire(KEYS.lease, max(round(left - seconds * 1000), 0))
        self.model.wait_out(seconds)

    # --- what must be true ------------------------------------------------------------------------

    @invariant()
    def the_server_says_what_the_model_says(self) -> None:
        """Each message, where it is and in which order; K, the sequence, the owner, the token."""
        model, server = self.model, self.server
        partition(server, KEYS)
        assert int(server.get(KEYS.sequence) or 0) == model.sequence
        assert int(server.hget(KEYS.job, "messages")) == model.messages
        assert _parsed(server.lrange(KEYS.queue, 0, -1)) == model.queue
        assert _parsed(server.lrange(KEYS.again, 0, -1)) == model.again
        assert dict(_parsed(server.zrange(KEYS.later, 0, -1))) == model.later
        assert {int(id) for id in server.hkeys(KEYS.store(0))} == model.store
        assert {int(id) for id in server.smembers(KEYS.taken)} == model.taken
        orders = {
            int(n[1:]): int(id) for n, id in server.hgetall(KEYS.errors).items() if n[:1] == b"#"
        }
        assert orders == {order: id for order, (id, _) in model.errors.items()}
        handlers = {name.decode() for name in server.zrange(KEYS.handlers, 0, -1)}
        assert handlers == set(model.hands)
        for name, hand in model.hands.items():
            temp = server.hgetall(KEYS.temp(name))
            assert temp.pop(b"#")
            assert dict(_parsed(temp.values())) == hand
        assert (server.hget(KEYS.lease, "owner") or b"").decode() == model.owner
        assert int(server.get(KEYS.token)) == self.tokens[-1]
        held = [copy.lease for copy in self.copies if copy.lease.held]
        assert [lease.owner for lease in held] in ([], [model.owner])

    def teardown(self) -> None:
        """One more copy does what is left; then every request arrives once more."""
        self.time_passes(seconds=70.0)
        last = self._new_copy()
        self._take_the_lease(last)
        left = self.model.messages - self.model.sequence
        last.generator.publish(last.sequence + 1, [b"x"] * left)
        last.join(self.job)
        assert last.handler
        for name in self._dead():
            last.handler.reclaim(name)
        outcome = Outcome()
        while (hand := last.handler.exchange(outcome, 1000)) and hand.messages:
            outcome = Outcome()
            for id, _, body in (message.split(b":", 2) for message in hand.messages):
                outcome.store(id, 0, body)
            for message in self.server.zrange(KEYS.later, 0, -1):
                self.server.zadd(KEYS.later, {message: 1})
        last.handler.exchange(Outcome(), 0)
        found = partition(self.server, KEYS)
        for call in self.sent:
            self._send(*call)
        assert partition(self.server, KEYS) == found
        assert sum(len(found[place]) for place in ("store", "errors", "taken")) == (
            self.model.messages
        )
        assert Verifier(last.io, KEYS).verify().good
        for copy in (*self.copies, last):
            copy.io.close()


def _parsed(messages: Any) -> list[Waiting]:
    return [(int(id), int(attempt)) for id, attempt, _ in (m.split(b":", 2) for m in messages)]


def check(server: redis.Redis, monkeypatch: pytest.MonkeyPatch, examples: int) -> None:
    """Run the machine on a server."""
    kind = type("Machine", (PipelineMachine,), {"server": server, "clock": Clock(monkeypatch)})
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    chosen = settings(
        max_examples=examples,
        stateful_step_count=50,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=slow,
    )
    run_state_machine_as_test(kind, settings=chosen)


def test_1_the_pipeline_does_what_the_model_says_on_fakeredis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fakeredis.FakeRedis() as server:
        check(server, monkeypatch, 12)


@ONE_KIND
def test_1_the_pipeline_does_what_the_model_says_on_a_real_server(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(client, monkeypatch, 60)


def test_5_a_late_copy_of_a_reclaim_takes_no_hand_of_a_later_death(client: redis.Redis) -> None:
    io = Recorder(client, patience=0)
    io.sent = []
    pipe = Pipe(io, messages=5)
    pipe.generator.publish(1, [b"x"] * 5)
    handler, operator = pipe.handler("a"), pipe.handler("operator")
    handler.exchange(Outcome(), 2)
    client.zadd(pipe.keys.handlers, {"a": 1})
    assert operator.reclaim("a", drop=True) == 2
    copy = io.sent[-1]
    handler.join()
    handler.exchange(Outcome(), 2)
    client.zadd(pipe.keys.handlers, {"a": 2})
    pipe.handler("b").exchange(Outcome(), 1)
    client.zadd(pipe.keys.handlers, {"b": 1})
    assert operator.reclaim("b") == 1  # the copy is not of the last reclaim any more
    before = partition(client, pipe.keys)
    run(SyncIO.call(io, *copy))
    assert partition(client, pipe.keys) == before
    assert operator.reclaim("a") == 2
