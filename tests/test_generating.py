"""A generator gathers the next messages while the server works on the last: nothing gets lost.

Between the two, anything may happen to the connection, the lease and the server.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from distlock.errors import DistlockError, LeaseLost
from distlock.io import Caller, SyncIO
from distlock.pipeline import Outcome, Published
from distlock.worker import Context, Settings
from distlock.worker.generating import SLOW, Generating
from distlock.worker.handling import Handling
from tests.tools import Pipe, partition, wait_until

TWO = [b"x", b"y"]


class Deaf(SyncIO):
    """Does not reach the server with what is begun while `deaf` is set."""

    deaf = False

    def begin(self, *args: Any) -> None:
        """Lose it."""
        if not self.deaf:
            super().begin(*args)


def _begun(pipe: Pipe, first: int, bodies: list[bytes]) -> Callable[[], Published]:
    publish = pipe.generator.prepare(first, bodies)
    publish.send()
    return publish.answer


def _asked(client: redis.Redis) -> int:
    return int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


def test_what_is_begun_is_sent_at_once_and_sent_once(io: SyncIO, client: redis.Redis) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, TWO)
    before = _asked(client)
    answer = _begun(pipe, 3, TWO)
    wait_until(lambda: client.llen(pipe.keys.queue) == 4)
    assert answer().sequence == 4
    assert _asked(client) == before + 1


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda io: io.client.ping(),
        lambda io: io._execute("PING"),
        lambda io: io._open(),
        lambda io: io._connection.disconnect(),
        lambda io: io.client.client_kill_filter(_type="normal", skipme=True),
        lambda io: io.client.script_flush(),
        lambda io: io.close(),
    ],
    ids=["another-connection", "command", "look", "lost", "killed", "flushed", "closed"],
)
def test_1_whatever_comes_between_a_publish_and_its_answer_loses_and_doubles_nothing(
    client: redis.Redis, meanwhile: Callable[[SyncIO], Any]
) -> None:
    io = SyncIO(client)
    pipe = Pipe(io)
    for first in (1, 3, 5):
        answer = _begun(pipe, first, TWO)
        meanwhile(io)
        published = answer()
        assert (published.gap, published.sequence, published.queue) == (False, first + 1, first + 1)
    assert partition(io.client, pipe.keys)["queue"] == [1, 2, 3, 4, 5, 6]


def test_an_answer_is_never_taken_for_that_of_another_request(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, TWO)
    _begun(pipe, 3, TWO)
    assert io._execute("ECHO", "mine") == b"mine"
    first = _begun(pipe, 3, TWO)
    second = _begun(pipe, 5, TWO)
    assert first().sequence == 6
    assert second().sequence == 6
    assert partition(io.client, pipe.keys)["queue"] == [1, 2, 3, 4, 5, 6]


def test_7_a_publish_that_is_refused_for_a_gap_renews_nothing(io: SyncIO) -> None:
    pipe = Pipe(io)
    before = pipe.lease.deadline
    assert pipe.generator.publish(50, TWO, renew=True).gap
    assert pipe.lease.deadline == before


def test_what_is_published_aside_asks_for_no_wake_up(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, TWO)
    generating, _ = _generating(io, pipe, {})
    generating._start_at(3)
    generating._batch.append(b"x")
    generating.keep(io)
    assert io.client.llen(pipe.keys.queue) == 3
    assert not io.client.hexists(pipe.keys.lease, "room")


def test_3_a_publish_under_way_is_refused_when_the_lease_has_gone_on(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.expire(pipe.keys.lease)
    answer = _begun(pipe, 1, TWO)
    with pytest.raises(LeaseLost):
        answer()
    assert not pipe.lease.held
    assert not io.client.exists(pipe.keys.queue)


def test_a_forked_process_does_not_read_the_answer_of_its_parent(
    io: SyncIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = _begun(Pipe(io), 1, TWO)
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(DistlockError, match="forked"):
            answer()
    assert answer().sequence == 2


class Source:
    """Gives messages, quickly; before some of them something happens."""

    description = "test"

    def __init__(self, events: dict[int, Callable[[], Any]]) -> None:
        self._events = events

    def count(self) -> None:
        """It never ends."""

    def bodies(self, start: int) -> Iterator[bytes]:
        """Bodies that tell their ids."""
        for id in itertools.count(start):
            self._events.pop(id, int)()
            yield b"%d" % id


def _generating(
    io: SyncIO, pipe: Pipe, events: dict[int, Callable[[], Any]], **how: Any
) -> tuple[Generating, list[str]]:
    said: list[str] = []
    context = Context("c", io, pipe.keys, Settings(**how), lambda kind, *_, **__: said.append(kind))
    handling = Handling(context, pipe.job, pipe.lease, Caller(lambda message: None))
    return Generating(context, pipe.jobs, pipe.job, pipe.lease, Source(events), handling), said


def _slow() -> None:
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 1.2 * SLOW)


def _check(io: SyncIO, pipe: Pipe, messages: int) -> None:
    assert partition(io.client, pipe.keys)["queue"] == list(range(1, messages + 1))
    for message in io.client.lrange(pipe.keys.queue, 0, -1):
        id, _, body = message.split(b":")
        assert id == body


@pytest.mark.parametrize("deaf", [False, True], ids=["arrived", "lost"])
def test_1_what_is_published_aside_while_a_publish_is_under_way_comes_after_it(
    client: redis.Redis, deaf: bool
) -> None:
    io, side = Deaf(client), SyncIO(client)
    pipe = Pipe(io, messages=3000)
    aside: list[int] = []

    def slow() -> None:
        _slow()
        before = client.llen(pipe.keys.queue)
        generating.keep(side)
        aside.append(client.llen(pipe.keys.queue) - before)

    def lose() -> None:
        io.deaf = deaf

    generating, said = _generating(io, pipe, {1000: lose, 1600: slow, 2000: slow})
    assert generating._generate_from(1) == 3000
    assert (min(aside) > 0) is not deaf
    assert not said
    assert generating._context.state.generated == 3000
    _check(io, pipe, 3000)


def test_8_what_a_failover_forgets_under_a_publish_is_generated_again(io: SyncIO) -> None:
    pipe = Pipe(io, messages=3000)

    def forget() -> None:
        io.client.set(pipe.keys.sequence, 100)
        io.client.ltrim(pipe.keys.queue, 0, 99)

    generating, said = _generating(io, pipe, {1700: forget})
    sequence = generating._generate_from(1)
    assert sequence == 100
    assert said == ["gap"]
    assert generating._generate_from(sequence + 1) == 3000
    _check(io, pipe, 3000)


def test_3_a_lease_that_goes_on_under_a_publish_ends_the_generating(io: SyncIO) -> None:
    pipe = Pipe(io, messages=3000)
    generating, _ = _generating(io, pipe, {1700: lambda: pipe.expire(pipe.keys.lease)})
    with pytest.raises(LeaseLost):
        generating._generate_from(1)
    published = io.client.llen(pipe.keys.queue)
    assert published < 1700
    _check(io, pipe, published)


def test_a_signal_while_a_publish_is_under_way_has_its_answer_read(io: SyncIO) -> None:
    pipe = Pipe(io, messages=3000)
    generating, _ = _generating(io, pipe, {1700: io.interrupt})
    published = generating._generate_from(1)
    assert 0 < published < 1700
    assert generating._context.state.generated == published
    _check(io, pipe, published)


def test_before_a_slow_source_is_asked_again_what_it_gave_is_known_to_be_published(
    io: SyncIO,
) -> None:
    pipe = Pipe(io, messages=3000)
    counted: list[int] = []
    state: list[Any] = []

    def note() -> None:
        counted.append(state[0].generated)

    generating, _ = _generating(io, pipe, {1600: _slow, 1601: note})
    state.append(generating._context.state)
    assert generating._generate_from(1) == 3000
    assert counted == [1600]


def test_6_a_generator_whose_last_handler_died_takes_its_hand_at_once(io: SyncIO) -> None:
    pipe = Pipe(io, messages=30, max_queue=10, handler_ttl=300)
    generating, said = _generating(io, pipe, {}, max_queue=10, handler_ttl=300)
    pipe.generator.publish(1, TWO * 3)
    hand = pipe.handler("dead").exchange(Outcome(), 4)
    assert hand
    pipe.die("dead")

    def wait(seconds: float) -> None:
        pytest.fail("it waits for the handler to die once more")

    generating._generator.wait = wait  # type: ignore[method-assign]
    assert generating._generate_from(7) == 30
    assert said == ["alone", "reclaimed"]
    found = partition(io.client, pipe.keys)
    assert found["temp"] == []
    assert set(found["store"]) >= {1, 2, 3, 4}


class Taken:
    """A generator's queue whose messages are all taken whenever the generator waits for room."""

    def __init__(self, pipe: Pipe, generating: Generating, side: SyncIO) -> None:
        self.found: list[list[int]] = []
        self._client, self._queue = pipe.io.client, pipe.keys.queue
        self._generating, self._side = generating, side
        generating._generator.wait = self._wait  # type: ignore[method-assign]

    def _wait(self, seconds: float) -> None:
        self._generating._began = 0.0  # whatever was gathered has waited for long
        self._generating.keep(self._side)
        messages = self._client.lrange(self._queue, 0, -1)
        self.found.append([int(message.split(b":")[0]) for message in messages])
        self._client.delete(self._queue)


@pytest.mark.parametrize("bound", [1, 7, 100])
def test_a_publish_under_way_counts_for_the_bound_of_the_queue(io: SyncIO, bound: int) -> None:
    pipe = Pipe(io, messages=400, max_queue=bound)
    lengths: list[int] = []

    def note() -> None:
        lengths.append(io.client.llen(pipe.keys.queue))

    generating, _ = _generating(io, pipe, {bound + 1: note}, max_queue=bound)
    taken = Taken(pipe, generating, SyncIO(io.client))
    assert generating._generate_from(1) == 400
    assert max(map(len, taken.found)) == bound
    assert lengths == [0]  # a full queue is waited for at once, not when the source gives more


def test_a_queue_that_others_fill_meanwhile_is_waited_for_before_the_last_messages(
    io: SyncIO,
) -> None:
    pipe = Pipe(io, messages=15, max_queue=100)
    returned = [b"1:1:1"] * 100

    def fill() -> None:
        io.client.rpush(pipe.keys.queue, *returned)

    generating, _ = _generating(io, pipe, {7: fill}, max_queue=100)
    taken = Taken(pipe, generating, SyncIO(io.client))
    assert generating._generate_from(1) == 15
    assert [max(found) for found in taken.found] == [7]


def test_a_signal_while_the_queue_is_full_leaves_it_as_it_is(io: SyncIO) -> None:
    pipe = Pipe(io, messages=400, max_queue=100)
    returned = [b"1:1:1"] * 100

    def fill() -> None:
        io.client.rpush(pipe.keys.queue, *returned)

    generating, _ = _generating(io, pipe, {7: fill}, max_queue=100)
    generating._generator.wait = lambda seconds: io.interrupt()  # type: ignore[method-assign]
    assert generating._generate_from(1) == 7
    assert io.client.llen(pipe.keys.queue) == 107
    assert generating._context.state.generated == 7


def test_when_the_thread_in_front_was_quicker_the_other_one_sends_nothing(io: SyncIO) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, TWO)
    generating, _ = _generating(io, pipe, {})
    generating._start_at(3)
    generating._batch.append(b"x")

    class Late:
        def acquire(self, blocking: bool) -> bool:
            """Succeed, when the batch is gone."""
            generating._batch.clear()
            return True

        def release(self) -> None:
            """Nothing to do."""

    generating._publishing = Late()  # type: ignore[assignment]
    before = _asked(io.client)
    generating.keep(io)
    assert _asked(io.client) == before
    assert not io.client.hexists(pipe.keys.lease, "room")
