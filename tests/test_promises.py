"""The promises of the design, each with tests whose names begin with its number.

Here each script runs on a real server under full control; `test_copies.py` has the same with real
processes that are really killed, and `test_bad_input.py` has promise 11.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import redis

from distlock.errors import DistlockError, JobGone, LeaseLost
from distlock.io import Argument, SyncIO, run
from distlock.keys import Keys
from distlock.lease import Lease
from distlock.pipeline import Handler, Job, Outcome, Records, Verifier
from distlock.scripts import Script, script
from distlock.source import RandomSource
from distlock.work import work
from distlock.worker import Context, Copy, Settings, clean_temp
from tests.tools import Pipe, partition, settle, wait_until

# --- 1: no message is lost, none is stored twice ----------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_1_every_id_is_in_exactly_one_place_after_every_step(io: SyncIO, seed: int) -> None:
    dice = random.Random(seed)
    pipe = Pipe(io, messages=400, max_queue=60)
    hands: dict[str, tuple[Handler, Outcome]] = {}
    records, published = pipe.records, 0

    def publish() -> None:
        nonlocal published
        count = min(dice.randint(0, 12), 400 - published)
        published = pipe.generator.publish(published + 1, [b"x"] * count).sequence

    def exchange() -> None:
        name = dice.choice("abc")
        if name not in hands:
            hands[name] = pipe.handler(name), Outcome()
        handler, outcome = hands[name]
        hand = handler.exchange(outcome, dice.choice([1, 2, 7]))
        if hand is None:
            del hands[name]
            return
        outcome = settle(hand, fail=lambda id: id % 5 == 0)
        if dice.random() < 0.2 and hand.messages:
            outcome = Outcome()
            outcome.give_back(hand.messages)
        hands[name] = handler, outcome

    def leave() -> None:
        if hands:
            handler, outcome = hands.pop(dice.choice(sorted(hands)))
            handler.exchange(outcome, 0)

    def die() -> None:
        if hands:
            name = dice.choice(sorted(hands))
            pipe.die(name)
            if dice.random() < 0.5:
                pipe.handler("operator").reclaim(name, drop=dice.random() < 0.2)
            else:
                clean_temp(io, pipe.keys, drop=False)

    def make_due() -> None:
        for message in io.client.zrange(pipe.keys.later, 0, -1):
            io.client.zadd(pipe.keys.later, {message: 1})

    def errors() -> None:
        _, some = records.read_errors(1, records.last_error())
        take = dice.random() < 0.5
        if some and take:
            records.take([some[0].order])
        elif some:
            records.retry(some[-1].order, some[-1].order)

    steps = [publish, exchange, exchange, exchange, leave, die, make_due, errors]
    for _ in range(300):
        dice.choice(steps)()
        partition(io.client, pipe.keys)
    found = partition(io.client, pipe.keys)
    assert len(found["store"]) == records.status().stored > 30
    assert Verifier(io, pipe.keys).verify().good


def test_1_verify_names_what_is_lost_stored_twice_and_foreign(io: SyncIO) -> None:
    pipe = Pipe(io, messages=5000)
    for first in range(1, 5001, 1000):
        pipe.generator.publish(first, [b"x"] * 1000)
    handler, outcome = pipe.handler("a"), Outcome()
    while (hand := handler.exchange(outcome, 1000)) and hand.messages:
        outcome = settle(hand)
    assert Verifier(io, pipe.keys).verify().good
    io.client.hdel(pipe.keys.store(0), "17")
    io.client.rpush(pipe.keys.queue, b"4321:1:x", b"junk", b"9999:1:x")
    io.client.hset(pipe.keys.store(1), "3", b"wrong bucket")
    verdict = Verifier(io, pipe.keys).verify()
    assert (verdict.lost, verdict.twice, verdict.foreign) == (1, 1, 3)
    said = " | ".join(verdict.examples)
    for text in ("17: nowhere", "4321: in store and queue", "junk", "9999", "3 in store:1"):
        assert text in said
    assert not verdict.good


def test_1_verify_looks_into_temps_of_nobody_and_buckets_beyond_the_sequence(io: SyncIO) -> None:
    pipe = Pipe(io, messages=10)
    pipe.generator.publish(1, [b"x"] * 10)
    handler = pipe.handler("a")
    handler.exchange(settle(handler.exchange(Outcome(), 4)), 1)
    temp, store = pipe.keys.temp, pipe.keys.store
    io.client.hset(temp("ghost"), mapping={"#": "1-1/2", "3": "3:1:x", "77": "77:1:x"})
    io.client.rename(temp("a"), temp("renamed"))
    io.client.hset(store(99), mapping={"405504": "x", "6": "x"})
    io.client.hset(pipe.keys.prefix + "store:00", "7", "x")
    io.client.rpush(temp("list"), "8:1:x")
    io.client.hset("distlock:{other}:temp:ghost", "3", "3:1:x")
    verdict = Verifier(io, pipe.keys).verify()
    assert (verdict.lost, verdict.twice, verdict.foreign) == (0, 1, 6)
    said = " | ".join(verdict.examples)
    for text in (
        "3: in store and temp:ghost",
        "5: in temp:renamed, which is no handler's",
        "b'77': in temp:ghost",
        "b'405504': in store:99",
        "6 in store:99",
        "7 in store:00",
        "temp:list: a list",
    ):
        assert text in said


def test_1_verify_raises_no_false_alarm_while_handlers_come_and_go(io: SyncIO, url: str) -> None:
    pipe = Pipe(io, messages=9000)
    dice, alive, published = random.Random(1), dict[str, Handler](), 0

    class Coming(SyncIO):
        """Before each request a handler joins and claims, or settles and leaves; buckets begin."""

        async def command(self, *words: Argument) -> Any:
            step()
            if words[0] == "SCAN":  # this one was not known before, and stays
                pipe.handler(f"late{next(late)}").exchange(Outcome(), 3)
            return await super().command(*words)

        async def call(self, *words: Any) -> Any:
            step()
            return await super().call(*words)

    def step() -> None:
        nonlocal published
        if published < 9000:
            published = pipe.generator.publish(published + 1, [b"x"] * 50).sequence
        if (name := dice.choice("abcdefgh")) in alive:
            handler = alive.pop(name)
            handler.exchange(settle(handler.exchange(hands.pop(name), 30)), 0)
        else:
            alive[name] = pipe.handler(name)
            hands[name] = settle(alive[name].exchange(Outcome(), 30))

    hands, late = dict[str, Outcome](), itertools.count()
    with redis.Redis.from_url(url) as client:
        for _ in range(15):
            verdict = Verifier(Coming(client, patience=0), pipe.keys).verify()
            assert verdict.good, verdict


def test_1_verify_raises_no_false_alarm_while_messages_move(io: SyncIO, url: str) -> None:
    pipe = Pipe(io, messages=3000)
    handler = pipe.handler("a")
    state: dict[str, Any] = {"published": 0, "outcome": Outcome()}

    class Moving(SyncIO):
        """Moves messages before each request, back as well as forth."""

        async def command(self, *words: Argument) -> Any:
            step()
            return await super().command(*words)

        async def call(self, *words: Any) -> Any:
            step()
            return await super().call(*words)

    def step() -> None:
        first = state["published"] + 1
        if first <= 3000:
            state["published"] = pipe.generator.publish(first, [b"x"] * 40).sequence
        hand = handler.exchange(state["outcome"], 25)
        state["outcome"] = settle(hand)
        if hand and hand.messages and first % 3 == 0:
            state["outcome"] = Outcome()
            state["outcome"].give_back(hand.messages)

    for _ in range(20):
        step()
    with redis.Redis.from_url(url) as client:
        for _ in range(10):
            verdict = Verifier(Moving(client, patience=0), pipe.keys).verify()
            assert verdict.good, verdict


# --- 2: exactly 1..K are generated ------------------------------------------------------------


def test_2_every_takeover_goes_on_at_the_sequence_and_ends_at_k(io: SyncIO) -> None:
    pipe = Pipe(io, messages=100)
    sequence, lease, generator = 0, pipe.lease, pipe.generator
    for turn in range(10):
        generator.publish(sequence + 1, [b"x"] * 10)
        pipe.expire(pipe.keys.lease)
        lease = pipe.new_lease(f"copy{turn}")
        assert lease.acquire(blocking=False)
        sequence, _ = pipe.jobs.lead(lease, pipe.job)
        generator = pipe.new_generator(lease)
    assert sequence == 100
    assert sorted(partition(io.client, pipe.keys)["queue"]) == list(range(1, 101))


def test_2_a_publish_with_a_gap_is_refused_whole_and_says_where_to_go_on(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 5)
    answer = pipe.generator.publish(8, [b"x"])
    assert (answer.gap, answer.sequence) == (True, 5)
    assert io.client.llen(pipe.keys.queue) == 5


def test_2_a_source_that_ends_early_shrinks_the_job_only_under_the_lease(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 5)
    pipe.jobs.shrink(pipe.lease, 5)
    job = pipe.jobs.read()
    assert job
    assert job.messages == 5
    assert job.asked == 100
    pipe.expire(pipe.keys.lease)
    with pytest.raises(LeaseLost):
        pipe.jobs.shrink(pipe.lease, 5)


@pytest.mark.parametrize("what", ["the sequence is another", "the record is gone"])
def test_2_a_job_is_not_shrunk_when(io: SyncIO, what: str) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 5)
    if what == "the record is gone":
        io.client.delete(pipe.keys.job)
    before = io.client.hgetall(pipe.keys.job)
    with pytest.raises(LeaseLost):
        pipe.jobs.shrink(pipe.lease, 5 if what == "the record is gone" else 4)
    assert io.client.hgetall(pipe.keys.job) == before


def test_2_a_job_whose_record_vanished_ends_its_copies_and_begins_nothing(io: SyncIO) -> None:
    pipe = Pipe(io)
    handler = pipe.handler("a")
    pipe.generator.publish(1, [b"x"] * 5)
    io.client.flushall()
    assert handler.exchange(Outcome(), 1) is None
    with pytest.raises(JobGone):
        handler.join()
    with pytest.raises(JobGone):
        handler.rest()
    lease = pipe.new_lease("again")
    assert lease.acquire(blocking=False)
    with pytest.raises(JobGone):
        pipe.jobs.lead(lease, pipe.job)
    assert pipe.jobs.read() is None


def test_2_data_without_a_record_is_no_place_to_begin(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 5)
    io.client.delete(pipe.keys.job)
    with pytest.raises(DistlockError, match="reset"):
        pipe.jobs.open(pipe.lease, pipe.job)
    assert pipe.jobs.read() is None


# --- 3: a deposed generator cannot publish ----------------------------------------------------


def test_3_a_publish_under_an_old_token_is_refused_whole(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 3)
    pipe.expire(pipe.keys.lease)
    after = pipe.new_lease("second")
    assert after.acquire(blocking=False)
    with pytest.raises(LeaseLost):
        pipe.generator.publish(4, [b"x"] * 3)
    assert not pipe.lease.held
    assert pipe.lease.renew() is False
    assert pipe.lease.release() is False
    assert io.client.llen(pipe.keys.queue) == 3
    assert after.token > pipe.lease.token
    assert io.client.hget(pipe.keys.lease, "owner") == after.owner.encode()


def test_3_the_right_owner_with_an_old_token_is_refused(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.lease.token -= 1
    with pytest.raises(LeaseLost):
        pipe.generator.publish(1, [b"x"])
    assert not io.client.exists(pipe.keys.queue)


def test_3_whatever_the_generator_writes_is_refused_with_another_token(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 5)
    later = replace(pipe.job, id="later")
    owner, token = pipe.lease.owner, pipe.lease.token - 1
    for write in (
        lambda: pipe.jobs.open(pipe.lease, later),
        lambda: pipe.jobs.lead(pipe.lease, pipe.job),
        lambda: pipe.jobs.shrink(pipe.lease, 5),
        lambda: pipe.generator.publish(6, [b"x"]),
    ):
        pipe.lease.token = token
        assert pipe.lease.owner == owner
        with pytest.raises(LeaseLost):
            write()
    assert io.client.hget(pipe.keys.job, "messages") == b"100"
    assert io.client.llen(pipe.keys.queue) == 5
    assert io.client.hget(pipe.keys.stats, "terms") == b"1"


def test_3_an_expired_lease_that_nobody_took_is_not_taken_back_by_a_publish(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.expire(pipe.keys.lease)
    with pytest.raises(LeaseLost):
        pipe.generator.publish(1, [b"x"])
    assert not io.client.exists(pipe.keys.lease)


def test_3_tokens_rise_over_release_expiry_flushall_and_a_lost_counter(io: SyncIO) -> None:
    tokens = []
    for turn in range(40):
        lease = Lease(io, "t", ttl=5.0, who=f"copy{turn}")
        assert lease.acquire(blocking=False)
        tokens.append(lease.token)
        end = (lease.release, io.client.flushall, lambda: io.client.delete("distlock:{t}:lease"))[
            turn % 3
        ]
        end()
    assert tokens == sorted(set(tokens))


def test_3_only_one_of_two_owns_and_each_term_has_an_owner_of_its_own(io: SyncIO) -> None:
    first = Lease(io, "t", ttl=5.0, who="a")
    second = Lease(io, "t", ttl=5.0, who="b")
    assert first.acquire(blocking=False)
    assert not second.acquire(blocking=False)
    owner = first.owner
    assert first.release()
    assert first.acquire(blocking=False)
    assert first.owner != owner


def test_8_a_publish_renews_the_lease_when_it_is_asked_to(io: SyncIO) -> None:
    pipe = Pipe(io, ttl=60)
    for first, renew in ((1, False), (2, True)):
        io.client.pexpire(pipe.keys.lease, 5000)
        pipe.generator.publish(first, [b"x"], renew)
        assert (io.client.pttl(pipe.keys.lease) > 50_000) is renew


def test_2_a_job_that_is_there_is_not_written_over(io: SyncIO) -> None:
    pipe = Pipe(io)
    assert pipe.jobs.open(pipe.lease, Job(messages=7, asked=7)).id == pipe.job.id
    there = pipe.jobs.read()
    assert there
    assert (there.id, there.messages) == (pipe.job.id, 100)


def test_2_a_reset_that_comes_late_deletes_nothing_of_another_job(io: SyncIO) -> None:
    pipe, reset = Pipe(io), script("job_reset")
    pipe.generator.publish(1, [b"x"])
    pipe.lease.release()
    places = [*pipe.keys.pick(["job", "lease", "handlers"]), pipe.keys.queue]
    assert run(io.call(reset, places, ("another",))) == 0
    assert io.client.exists(pipe.keys.job, pipe.keys.queue) == 2
    assert run(io.call(reset, places, (pipe.job.id,))) == 1
    assert not io.client.exists(pipe.keys.job, pipe.keys.queue)


@pytest.mark.parametrize("left", ["sequence", "stats"])
def test_2_nothing_begins_on_what_a_reset_has_left(io: SyncIO, left: str) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"])
    assert io.client.delete(pipe.keys.job, pipe.keys.sequence, pipe.keys.stats) == 3
    if left == "sequence":
        io.client.set(pipe.keys.sequence, 1)
    else:
        io.client.hset(pipe.keys.stats, "terms", 1)
    with pytest.raises(DistlockError, match="a reset was cut short"):
        pipe.jobs.open(pipe.lease, Job(messages=7, asked=7))
    assert pipe.jobs.read() is None


@pytest.mark.parametrize("size", [999_994, 999_995, 999_996, 999_997, 2**20, 3 * 2**20 + 7])
def test_1_a_message_too_long_for_one_answer_is_read_in_parts_and_unchanged(
    io: SyncIO, size: int
) -> None:
    pipe, body = Pipe(io), random.Random(size).randbytes(size)
    pipe.generator.publish(1, [b"x" * 9, body])
    handler = pipe.handler("a")
    hand = handler.exchange(Outcome(), 2)
    assert hand
    assert hand.messages[0] == b"1:1:xxxxxxxxx"
    said = b"2:1:" + body if size <= 999_996 else b"2:1@%d" % (size + 4)
    assert hand.messages[1] == said
    if b"@" in said[:5]:
        assert handler.whole(said) == [b"2", b"1", body]
    outcome = Outcome()
    outcome.fail(b"2", b"{}")
    outcome.give_back(hand.messages[:1])
    assert handler.exchange(outcome, 1)
    io.client.zadd(pipe.keys.later, {io.client.zrange(pipe.keys.later, 0, 0)[0]: 1})
    outcome = Outcome()
    outcome.store(b"1", 0, b"x")
    hand = handler.exchange(outcome, 1)  # and at the second attempt
    assert hand
    if b"@" in said[:5]:
        assert hand.messages == [b"2:2@%d" % (size + 4)]
        assert handler.whole(hand.messages[0]) == [b"2", b"2", body]


def test_1_a_lost_answer_tells_a_long_message_by_its_length_again(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x" * 2**20])
    handler = pipe.handler("a")
    asked: list[tuple[Script, list[str], list[Argument]]] = []
    call = io.call

    async def noting(script: Script, keys: Any, args: Any, patience: Any = None) -> Any:
        asked.append((script, keys, args))
        return await call(script, keys, args, patience)

    io.call = noting  # type: ignore[method-assign]
    hand = handler.exchange(Outcome(), 1)
    assert hand
    again = run(call(*asked[-1]))
    assert again[4] == hand.messages == [b"1:1@1048580"]


# --- 4: a handler that was given up for dead cannot store --------------------------------------


def test_4_a_reclaimed_handler_stores_nothing_and_joins_anew(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 6)
    dead = pipe.handler("dead")
    hand = dead.exchange(Outcome(), 3)
    assert hand
    pipe.die("dead")
    assert pipe.handler("living").reclaim("dead") == 3
    assert pipe.records.status().stats["reclaimed"] == "3"
    assert dead.exchange(settle(hand), 3) is None
    assert partition(io.client, pipe.keys)["store"] == []
    dead.join()
    hand = dead.exchange(Outcome(), 3)
    assert hand
    assert len(hand.messages) == 1  # what a dead hand held comes one at a time


def test_4_a_beat_of_a_reclaimed_handler_is_no_sign_of_life(io: SyncIO) -> None:
    pipe = Pipe(io)
    handler = pipe.handler("dead")
    pipe.die("dead")
    assert pipe.handler("living").reclaim("dead") == 0
    handler._contact = before = handler._contact - 10
    run(handler._keep(io))
    assert handler._contact == before


def test_4_a_hand_that_is_reclaimed_just_before_it_is_given_back_harms_nobody(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"])
    handler = pipe.handler("a")
    handler.exchange(Outcome(), 1)
    pipe.die("a")
    assert pipe.handler("living").reclaim("a") == 1
    run(handler._return_hand())
    handler.join()
    assert handler.exchange(Outcome(), 1) is not None


def test_4_a_reclaimed_handler_reads_nothing_more_of_a_long_message(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x" * 2**20])
    dead, living = pipe.handler("dead"), pipe.handler("living")
    hand = dead.exchange(Outcome(), 1)
    assert hand
    pipe.die("dead")
    assert living.reclaim("dead") == 1
    assert dead.whole(hand.messages[0]) == []
    new = pipe.handler("dead")
    hand = new.exchange(Outcome(), 1)
    assert hand
    assert dead.whole(hand.messages[0]) == []  # it is in a hand of its own name, but a later one
    assert living.whole(hand.messages[0]) == []
    assert new.whole(hand.messages[0])[2] == b"x" * 2**20


def test_4_a_rejoined_handler_cannot_settle_its_old_hand(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 6)
    old = pipe.handler("same")
    hand = old.exchange(Outcome(), 3)
    pipe.die("same")
    pipe.handler("living").reclaim("same")
    new = pipe.handler("same")
    assert new.exchange(Outcome(), 1)
    assert old.exchange(settle(hand), 3) is None
    assert partition(io.client, pipe.keys)["store"] == []


def test_4_a_living_handler_is_not_reclaimed(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 6)
    alive = pipe.handler("alive")
    hand = alive.exchange(Outcome(), 3)
    assert pipe.handler("other").reclaim("alive") == -1
    assert clean_temp(io, pipe.keys, drop=True) == {}
    assert alive.exchange(settle(hand), 1)
    assert len(partition(io.client, pipe.keys)["store"]) == 3


def test_4_every_exchange_and_every_rest_is_a_sign_of_life(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"])
    quiet, other = pipe.handler("quiet"), pipe.handler("other")
    hand = quiet.exchange(Outcome(), 1)
    for sign in (lambda: quiet.exchange(settle(hand), 1), quiet.rest):
        pipe.die("quiet")
        assert sign() is not None
        assert other.reclaim("quiet") == -1


def test_4_a_beat_does_not_bring_back_who_was_given_up_for_dead(io: SyncIO) -> None:
    pipe, beat = Pipe(io), script("handler_beat")
    for name in ("dead", "other"):
        pipe.handler(name)
    pipe.die("dead")
    assert pipe.handler("third").reclaim("dead") == 0
    beats = [run(io.call(beat, [pipe.keys.handlers], (who, 5000))) for who in ("dead", "other")]
    assert beats == [0, 1]
    assert set(io.client.zrange(pipe.keys.handlers, 0, -1)) == {b"other", b"third"}


def test_9_a_handler_that_has_left_beats_no_more(io: SyncIO) -> None:
    handler = Pipe(io).handler("a")
    assert handler.exchange(Outcome(), 1)
    assert handler.joined
    assert handler.exchange(Outcome(), 0)
    assert not handler.joined


def test_9_a_generator_is_woken_by_room_only_when_it_may_wait_for_some(io: SyncIO) -> None:
    pipe = Pipe(io, max_queue=10)
    for first, marked in ((1, False), (9, True)):
        pipe.generator.publish(first, [b"x"] * 8)
        assert io.client.hexists(pipe.keys.lease, "room") is marked


def test_9_one_resting_handler_at_a_time_watches_the_generator(io: SyncIO) -> None:
    pipe = Pipe(io)
    io.client.hset(pipe.keys.lease, "connections", "1 2 server")
    one, other = pipe.handler("one"), pipe.handler("other")
    rests = [handler.rest() for handler in (one, other, one)]
    assert [rest and rest.connections for rest in rests] == ["1 2 server", "", "1 2 server"]


def test_9_who_has_work_again_stands_in_line_for_the_bell_no_longer(io: SyncIO) -> None:
    pipe = Pipe(io)
    one = pipe.handler("one")
    assert one.rest()
    pipe.generator.publish(1, [b"x"])  # rings for it: it is in line no more
    io.client.zadd(pipe.keys.bell, {"one": 1})
    assert one.exchange(Outcome(), 1)
    assert not io.client.exists(pipe.keys.bell)


def test_4_an_outcome_of_another_size_is_refused_and_changes_nothing(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 6)
    handler = pipe.handler("a")
    hand = handler.exchange(Outcome(), 3)
    outcome = settle(hand)
    outcome.stored[0] = outcome.stored[0][:4]
    with pytest.raises(redis.ResponseError, match="HAND"):
        handler.exchange(outcome, 3)
    assert len(partition(io.client, pipe.keys)["temp"]) == 3


# --- 5: every script is safe to send twice ----------------------------------------------------


class Echo(SyncIO):
    """Sends each script twice, and at any later time once more; nothing may come of it."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client, patience=0)
        self.sent: list[tuple[Script, Sequence[str], Sequence[Argument]]] = []
        self.late = random.Random(5)
        self.echoes = 0

    async def call(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        patience: float | None = None,
    ) -> Any:
        """Run the script, then echo it and five older ones."""
        answer = await super().call(script, keys, args, patience)
        self.sent.append((script, list(keys), list(args)))
        for old in [self.sent[-1], *self.late.choices(self.sent, k=5)]:
            before = self._dump()
            await super().call(*old)
            assert self._dump() == before, old
            self.echoes += 1
        return answer

    def _dump(self) -> dict[bytes, Any]:
        """All keys but for times: who lives until when, and who waits since when."""
        dump: dict[bytes, Any] = {}
        for key in self.client.scan_iter():
            kind = self.client.type(key)
            if key.endswith(b":bell"):
                continue  # a hint; an echo may ring it
            if kind == b"hash":
                dump[key] = self.client.hgetall(key)
                dump[key].pop(b"room", None)  # a wish to be woken, a hint too
                dump[key].pop(b"copy", None)
            elif kind == b"list":
                dump[key] = self.client.lrange(key, 0, -1)
            elif kind == b"zset":
                dump[key] = sorted(self.client.zrange(key, 0, -1))
            elif kind == b"set":
                dump[key] = self.client.smembers(key)
            else:
                dump[key] = self.client.get(key)
        return dump


def test_5_every_script_changes_nothing_when_it_arrives_again_at_any_later_time(
    client: redis.Redis,
) -> None:
    io = Echo(client)
    pipe = Pipe(io, messages=60, max_queue=20)
    sequence, hands, records = 0, 0, pipe.records
    handlers = [pipe.handler("a"), pipe.handler("b")]
    outcomes = [Outcome(), Outcome()]
    while hands < 60:
        if sequence < 60 and hands % 3 == 0:
            sequence = pipe.generator.publish(sequence + 1, [b"x"] * 4).sequence
        who = hands % 2
        hand = handlers[who].exchange(outcomes[who], 3)
        outcomes[who] = settle(hand, fail=lambda id: id % 7 == 0)
        if hands == 20:
            pipe.die("b")
            handlers[0].reclaim("b")
            assert handlers[1].exchange(outcomes[1], 3) is None
            handlers[1].join()
            outcomes[1] = Outcome()
        if hands == 30:
            assert pipe.lease.renew()
            assert pipe.lease.release()
            pipe.lease = pipe.new_lease("second")
            assert pipe.lease.acquire(blocking=False)
            pipe.jobs.lead(pipe.lease, pipe.job)
            pipe.generator = pipe.new_generator(pipe.lease)
        for message in client.zrange(pipe.keys.later, 0, -1):
            client.zadd(pipe.keys.later, {message: 1})
        hands += 1
    for handler, outcome in zip(handlers, outcomes, strict=True):
        handler.rest()
        handler.exchange(outcome, 0)
    _, errors = records.read_errors(1, records.last_error())
    assert len(errors) > 3
    assert records.take([errors[0].order]) == 1
    assert records.retry(errors[1].order, errors[1].order)[1] == 1
    pipe.jobs.shrink(pipe.lease, 60)
    assert pipe.lease.release()
    partition(client, pipe.keys)
    pipe.jobs.reset()
    assert client.keys() == [pipe.keys.token.encode()]
    used = {script.name for script, _, _ in io.sent}
    assert used >= {
        *("lease_acquire", "lease_renew", "lease_release", "job_open", "job_lead", "job_shrink"),
        *("job_reset", "pipeline_publish", "handler_join", "handler_exchange", "handler_rest"),
        *("handler_reclaim", "errors_read", "errors_take", "errors_retry"),
    }
    assert io.echoes > 400


class Forgetful(SyncIO):
    """Often loses the answer of a request that was carried out."""

    dice = random.Random(7)
    lost = 0

    def _execute(self, *words: Argument, seconds: float | None = None) -> Any:
        answer = super()._execute(*words, seconds=seconds)
        if str(words[0]).startswith("EVAL") and self.dice.random() < 0.2:
            self.lost += 1
            raise redis.ConnectionError("the answer was lost")
        return answer


class LosesOne(SyncIO):
    """Loses the next answer of a request that was carried out, when it is told to."""

    losing = False

    def _execute(self, *words: Argument, seconds: float | None = None) -> Any:
        answer = super()._execute(*words, seconds=seconds)
        if self.losing and str(words[0]).startswith("EVAL"):
            self.losing = False
            raise redis.ConnectionError("the answer was lost")
        return answer


@pytest.fixture
def losing(client: redis.Redis) -> Iterator[LosesOne]:
    """One that is patient."""
    with closing(LosesOne(client, patience=30)) as io:
        yield io


def test_5_who_puts_errors_back_is_told_how_many_although_the_answer_was_lost(
    losing: LosesOne,
) -> None:
    pipe = Pipe(losing, attempts=1)
    pipe.generator.publish(1, [b"x"] * 9)
    handler = pipe.handler("a")
    handler.exchange(settle(handler.exchange(Outcome(), 9), fail=lambda id: id > 2), 0)
    losing.losing = True
    assert pipe.records.retry(1, pipe.records.last_error()) == (8, 7)
    assert not losing.losing
    assert losing.client.llen(pipe.keys.queue) == 7


def test_5_who_reclaims_is_told_how_many_although_the_answer_was_lost(losing: LosesOne) -> None:
    pipe = Pipe(losing)
    pipe.generator.publish(1, [b"x"] * 9)
    pipe.handler("a").exchange(Outcome(), 5)
    pipe.die("a")
    other = pipe.handler("b")
    losing.losing = True
    assert other.reclaim("a") == 5
    assert not losing.losing
    assert losing.client.llen(pipe.keys.again) == 5
    assert other.reclaim("a") == -1


def test_a_hand_ends_at_a_megabyte_of_messages_that_come_back(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x" * 600_000] * 2)
    pipe.generator.publish(3, [b"x"] * 5)
    handler = pipe.handler("a")
    outcome = settle(handler.exchange(Outcome(), 2), fail=lambda id: True)
    handler.exchange(outcome, 0)
    for message in io.client.zrange(pipe.keys.later, 0, -1):
        io.client.zadd(pipe.keys.later, {message: 1})
    handler.join()
    hand = handler.exchange(Outcome(), 7)
    assert hand
    assert [message.split(b":")[0] for message in hand.messages] == [b"1", b"2"]


def test_only_a_handler_whose_life_is_over_is_called_dead(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 5)
    pipe.handler("a").exchange(Outcome(), 1)
    for dead in ("", "a"):
        if dead:
            pipe.die(dead)
        hand = pipe.handler(f"beside {dead}").exchange(Outcome(), 1)  # a new one looks at once
        assert hand
        assert hand.dead == dead


def test_errors_are_read_and_put_back_in_pages_of_a_megabyte(io: SyncIO) -> None:
    pipe = Pipe(io, attempts=1)
    pipe.generator.publish(1, [b"x" * 300_000] * 9)
    handler, outcome = pipe.handler("a"), Outcome()
    for _ in range(10):
        outcome = settle(handler.exchange(outcome, 1), fail=lambda id: True)
    last = pipe.records.last_error()
    assert last == 9
    following, errors = pipe.records.read_errors(1, last)
    assert (following, len(errors)) == (4, 3)
    following, count = pipe.records.retry(1, last)
    assert (following, count) == (5, 4)  # the one that goes over it is with them


def run_copy(io: SyncIO, keys: Keys, **options: Any) -> Copy:
    """A copy that runs in this process."""
    side = SyncIO(io.client, patience=0)
    context = Context("me", io, keys, Settings(**options), say=lambda kind, text, **numbers: None)
    return Copy(
        context,
        side,
        RandomSource,
        lambda seed: work(None, sleep=0, error_rate=0.1, seed=seed, time_limit=None),
    )


def test_5_a_whole_job_with_a_fifth_of_all_answers_lost_stores_each_message_once(
    client: redis.Redis, keys: Keys
) -> None:
    io = Forgetful(client, patience=30)
    state = run_copy(io, keys, messages=3000, attempts=2, batch=50).run()
    assert state.done
    assert io.lost > 20
    found = partition(client, keys)
    assert len(found["store"]) + len(found["errors"]) == 3000
    stats = Records(SyncIO(client), keys).status()
    assert (stats.stored, stats.errors) == (len(found["store"]), len(found["errors"]))


# --- 6: a message that kills its handler ends in errors ---------------------------------------


def test_6_only_the_message_that_was_alone_in_its_hand_uses_up_an_attempt(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 10)
    deaths = 0
    judge = pipe.handler("judge")
    while io.client.llen(pipe.keys.queue) or io.client.llen(pipe.keys.again):
        handler = pipe.handler(f"h{deaths}")
        outcome = Outcome()
        while (hand := handler.exchange(outcome, 10)) and hand.messages:
            if any(message.startswith(b"7:") for message in hand.messages):
                pipe.die(handler.name)
                judge.reclaim(handler.name)
                deaths += 1
                break
            outcome = settle(hand)
        else:
            handler.exchange(Outcome(), 0)
    found = partition(io.client, pipe.keys)
    assert found["errors"] == [7]
    assert len(found["store"]) == 9
    assert deaths == 1 + 3  # once among others, then alone on each of its attempts
    error = pipe.records.read_errors(1, 1)[1][0]
    assert (error.exception, error.attempt) == ("HandlerDied", 3)


# --- 7: a holder knows when it no longer holds ------------------------------------------------


def test_7_a_silent_server_ends_the_term_at_a_deadline_counted_from_before_the_renewal(
    io: SyncIO,
) -> None:
    lease = Lease(io, "t", ttl=0.3, who="a")
    before = time.monotonic()
    assert lease.acquire(blocking=False)
    assert lease.held
    assert lease.deadline <= time.monotonic() + 0.3
    assert lease.deadline >= before + 0.3
    wait_until(lambda: not lease.held)
    assert time.monotonic() >= before + 0.3
    with pytest.raises(LeaseLost, match="token"):
        lease.check()


def test_7_a_renewal_sets_the_time_left_and_never_adds(io: SyncIO) -> None:
    lease = Lease(io, "t", ttl=60.0, who="a")
    assert lease.acquire(blocking=False)
    for _ in range(5):
        assert lease.renew()
    assert 59_000 < io.client.pttl("distlock:{t}:lease") <= 60_000


def test_7_an_expired_lease_is_not_renewed(io: SyncIO) -> None:
    lease = Lease(io, "t", ttl=60.0, who="a")
    assert lease.acquire(blocking=False)
    io.client.delete("distlock:{t}:lease")
    assert not lease.renew()
    assert not lease.held
    assert not io.client.exists("distlock:{t}:lease")


# --- 8 and 9: the next owner is never late, and waiting costs nothing --------------------------


def test_8_a_lease_that_ends_is_free_for_the_next_at_once(io: SyncIO) -> None:
    first = Lease(io, "t", ttl=0.2, who="a")
    second = Lease(io, "t", ttl=5.0, who="b")
    assert first.acquire(blocking=False)
    ends = first.deadline
    wait_until(lambda: second.acquire(blocking=False), 2)
    assert ends - 0.05 <= time.monotonic() < ends + 1


def test_8_a_lease_cannot_live_longer_than_its_ttl_when_the_clock_was_set_back(io: SyncIO) -> None:
    pipe = Pipe(io, ttl=2.0)
    other, handler = pipe.new_lease("other"), pipe.handler("a")
    looks: list[Callable[[], Any]] = [
        other.acquire,
        handler.rest,
        lambda: handler.exchange(Outcome(), 1),
    ]
    for look in looks:
        io.client.pexpire(pipe.keys.lease, 7_200_000)  # what a clock set back by 2 h looks like
        look()
        assert io.client.pttl(pipe.keys.lease) <= 2000


def test_8_back_offs_and_deadlines_are_cut_when_the_clock_was_set_back(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"])
    handler = pipe.handler("a")
    hand = handler.exchange(Outcome(), 1)
    handler.exchange(settle(hand, fail=lambda id: True), 1)
    far = time.time() * 1000 + 7_200_000
    io.client.zadd(pipe.keys.later, {b"1:2:x": far})
    io.client.zadd(pipe.keys.handlers, {"gone": far})
    handler.rest()
    assert io.client.zscore(pipe.keys.later, b"1:2:x") < far - 7_000_000
    assert io.client.zscore(pipe.keys.handlers, "gone") < far - 7_000_000


def test_9_a_resting_handler_is_woken_by_the_message_and_only_one_is(io: SyncIO, url: str) -> None:
    pipe = Pipe(io)
    clients = [redis.Redis.from_url(url) for _ in range(2)]
    handlers = []
    for name, client in zip("ab", clients, strict=True):
        handler = Handler(SyncIO(client), pipe.keys, pipe.job, name)
        handler.join()
        rest = handler.rest()
        assert rest
        assert not rest.work
        assert 0 < rest.seconds <= 1
        handlers.append((handler, rest))
    pipe.generator.publish(1, [b"x"])
    first, second = handlers
    assert first[0].wait(first[1]._replace(seconds=5))
    assert not second[0].wait(second[1]._replace(seconds=0.1))
    for (handler, _), client in zip(handlers, clients, strict=True):
        handler._io.deafen()  # type: ignore[attr-defined]
        client.close()


@pytest.mark.parametrize("left", [0, 1])
def test_9_a_handler_wakes_another_one_only_if_it_leaves_work(io: SyncIO, left: int) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * (2 + left))
    handler = pipe.handler("a")
    hand = handler.exchange(Outcome(), 1)
    io.client.zadd(pipe.keys.bell, {"resting": 1})
    handler.exchange(settle(hand), 1)
    assert io.client.zcard(pipe.keys.bell) == 1 - left


def test_9_a_dead_waiter_costs_the_next_one_nothing(io: SyncIO, url: str) -> None:
    pipe = Pipe(io)
    io.client.zadd(pipe.keys.bell, {"dead1": 1, "dead2": 2})
    with redis.Redis.from_url(url) as client:
        living = SyncIO(client)
        handler = Handler(living, pipe.keys, pipe.job, "a")
        handler.join()
        rest = handler.rest()
        assert rest
        pipe.generator.publish(1, [b"x"])
        assert handler.wait(rest._replace(seconds=5))
        living.deafen()


def test_9_what_waits_for_a_retry_needs_room_in_the_queue_too(io: SyncIO) -> None:
    pipe = Pipe(io, max_queue=10)
    pipe.generator.publish(1, [b"x"] * 10)
    handler = pipe.handler("a")
    outcome = settle(handler.exchange(Outcome(), 10), fail=lambda id: True)
    handler.exchange(outcome, 0)
    assert io.client.llen(pipe.keys.queue) == 0
    assert pipe.generator.publish(11, []).queue == 10


def test_9_a_full_queue_wakes_its_generator_at_half(io: SyncIO, url: str) -> None:
    with redis.Redis.from_url(url) as client:
        pipe = Pipe(SyncIO(client), max_queue=10)
        published = pipe.generator.publish(1, [b"x"] * 10)
        pipe.generator.wait(0)
        handler = Handler(io, pipe.keys, pipe.job, "a")
        handler.join()
        assert published.queue == 10
        outcome = Outcome()
        for left in (7, 4):
            assert io.client.hget(pipe.keys.lease, "room") is not None
            hand = handler.exchange(outcome, 3)
            assert hand
            assert hand.queue == left
            outcome = settle(hand)
        assert io.client.hget(pipe.keys.lease, "room") is None
        began = time.monotonic()
        pipe.generator.wait(30)
        assert time.monotonic() - began < 10
        pipe.io.deafen()
        io.deafen()


# --- what a careful reader found ---------------------------------------------------------------


def test_1_joining_anew_over_a_hand_that_was_not_settled_loses_nothing(io: SyncIO) -> None:
    pipe = Pipe(io, handler_ttl=0.3)
    pipe.generator.publish(1, [b"x"] * 10)
    handler = pipe.handler("same")
    hand = handler.exchange(Outcome(), 10)
    assert hand
    handler.join()  # a slip of the caller, or a server that came back with an older hand
    partition(io.client, pipe.keys)
    outcome = Outcome()
    while (hand := handler.exchange(outcome, 10)) and hand.messages:
        outcome = settle(hand)
    assert len(partition(io.client, pipe.keys)["store"]) == 10


def test_11_what_is_no_message_stops_a_handler_and_stays_in_the_queue(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 5)
    io.client.rpush(pipe.keys.queue, "hello")
    pipe.generator.publish(6, [b"x"] * 5)
    handler = pipe.handler("a")
    before = io.client.lrange(pipe.keys.queue, 0, -1)
    with pytest.raises(redis.ResponseError, match="FOREIGN hello"):
        handler.exchange(Outcome(), 20)
    assert io.client.lrange(pipe.keys.queue, 0, -1) == before
    io.client.lrem(pipe.keys.queue, 0, "hello")
    handler = pipe.handler("b")
    hand = handler.exchange(Outcome(), 20)
    assert hand
    assert len(hand.messages) == 10


class Broken(SyncIO):
    """Loses the connection of each request while `broken` is set."""

    broken = False

    def _execute(self, *words: Argument, seconds: float | None = None) -> Any:
        if self.broken:
            raise redis.ConnectionError("broken")
        return super()._execute(*words, seconds=seconds)


def test_4_a_beat_that_failed_is_sent_again_in_time(io: SyncIO, client: redis.Redis) -> None:
    pipe = Pipe(io, handler_ttl=0.2)
    handler, side = pipe.handler("a"), Broken(client, patience=0)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + 0.1)
    side.broken = True
    with pytest.raises(DistlockError):
        handler.keep(side)
    side.broken = False
    before = client.zscore(pipe.keys.handlers, "a")
    handler.keep(side)
    assert client.zscore(pipe.keys.handlers, "a") > before


def test_9_a_channel_that_cannot_be_had_is_waited_for_without_a_storm(url: str) -> None:
    class Deaf(SyncIO):
        async def listen(self, channel: str, topic: str = "", seconds: float = 5.0) -> bool:
            """Never succeeds, as when the server hangs up."""
            return False

    with redis.Redis.from_url(url) as client:
        began = time.monotonic()
        assert not run(Deaf(client).wait("channel", 0.2))
        assert time.monotonic() - began >= 0.2
