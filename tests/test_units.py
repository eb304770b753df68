"""Pure logic, and what fakeredis is enough for."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from distlock.errors import GeneratorFailed, ServerUnreachable, UsageError
from distlock.io import Argument, Caller, SyncIO, run
from distlock.io.packing import LONG, PACK, packed
from distlock.keys import BUCKET, Keys
from distlock.message import Message
from distlock.pipeline import ErrorRecord, Job, Outcome, Verifier, report
from distlock.scripts import script
from distlock.source import FileSource, RandomSource, load
from distlock.text import harmless, mask
from distlock.work import encode, work
from tests.tools import Pipe, settle

# --- keys, job, errors ------------------------------------------------------------------------


def test_all_keys_of_a_name_share_one_hash_tag() -> None:
    keys = Keys("a.b-c_1")
    for key in (keys.job, keys.temp("h"), keys.store(3), keys.channel("h")):
        assert key.startswith("distlock:{a.b-c_1}:")


@pytest.mark.parametrize(
    "name", ["", "a b", "{x}", "a*", "x" * 65, "x" * 10_000, "ä", "a\n", "a:b"]
)
def test_a_name_that_cannot_be_part_of_a_key_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="1 to 64"):
        Keys(name)


def test_a_job_is_read_as_it_was_written() -> None:
    job = Job(7, 9, "file of 3 bytes, ab", 5, 2, 0.25, "id")
    fields = [field.encode() for field in job.fields()]
    assert Job.parse(fields) == job
    assert Job.parse([]) is None


def test_a_record_of_an_error_keeps_newlines_of_body_and_traceback() -> None:
    try:
        raise ValueError("two\nlines \x1b[31m")
    except ValueError as error:
        line = report(error, "h")
    assert b"\n" not in line
    record = ErrorRecord.parse(b"3\n1500\n%b\n17:2:a\nb:c" % line)
    assert (record.order, record.time, record.id, record.attempt) == (3, 1.5, 17, 2)
    assert record.body == b"a\nb:c"
    assert record.message == "two\nlines \x1b[31m"
    assert "test_units.py" in record.traceback


def test_a_report_is_bounded_and_survives_an_exception_that_cannot_be_printed() -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert b"cannot be had" in report(Nasty(), "h")
    for text in ("x" * 10**6, "é" * 10**6, "\ud800" * 10**5):
        assert len(report(ValueError(text), "h")) < 40_000


# --- sources ----------------------------------------------------------------------------------


def test_random_text_is_a_function_of_seed_and_id() -> None:
    bodies = list(itertools.islice(RandomSource(3).bodies(1), 5000))
    assert list(itertools.islice(RandomSource(3).bodies(4001), 999)) == bodies[4000:4999]
    assert {len(body) for body in bodies} == set(range(80, 101))
    assert len(set(bodies)) > 4900
    assert next(RandomSource(4).bodies(1)) != bodies[0]


def test_lines_pass_unchanged_and_a_takeover_begins_at_the_right_one(tmp_path: Path) -> None:
    lines = [b"one", b"", b"\xff\x00\r", b"x" * 1_000_000, b"last"]
    (tmp_path / "f").write_bytes(b"\n".join(lines))
    source = FileSource(str(tmp_path / "f"), 2_000_000)
    assert source.count() == 5
    for start in range(1, 6):
        assert list(source.bodies(start)) == lines[start - 1 :]
    (tmp_path / "f").write_bytes(b"\n".join(lines) + b"\n")
    assert list(FileSource(str(tmp_path / "f"), 2_000_000).bodies(1)) == lines


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_lines_of_any_length_are_read_in_parts_and_told_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr("distlock.source.READ", 4)
    lines = [bytes([65 + length]) * length for length in (*range(14), 8, 4, 0, 4)]
    (tmp_path / "f").write_bytes(b"\n".join([*lines, b"z"]) + end)
    source = FileSource(str(tmp_path / "f"), 13)
    for start in range(1, len(lines) + 1):
        assert list(source.bodies(start)) == [*lines[start - 1 :], b"z"]
    for most in range(1, 13):
        with pytest.raises(UsageError, match=f"line {most + 2} is longer"):
            FileSource(str(tmp_path / "f"), most).count()


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"line\n" * 1000)
    bodies = FileSource(str(path), 100).bodies(1)
    next(bodies)
    with path.open("ab") as file:
        file.write(b"more\n")
    with pytest.raises(GeneratorFailed, match="changed"):
        list(bodies)


def test_two_files_of_one_size_have_two_fingerprints(tmp_path: Path) -> None:
    descriptions = set()
    for text in (b"aaaa\n" * 99_999, b"aaab\n" * 99_999, b"aaaa\n" * 99_998 + b"aaab\n"):
        (tmp_path / "f").write_bytes(text)
        descriptions.add(FileSource(str(tmp_path / "f"), 100).description)
    assert len(descriptions) == 3


def test_a_function_is_found_by_module_and_name() -> None:
    assert load("itertools:count", "--generate") is itertools.count


# --- work -------------------------------------------------------------------------------------


def test_what_a_function_returns_is_what_is_kept() -> None:
    assert encode(b"raw\xff") == b"raw\xff"
    assert encode("text ä") == "text ä".encode()
    assert encode({"a": [1, None]}) == b'{"a": [1, null]}'
    with pytest.raises(TypeError):
        encode(object())
    for lacking in (float("nan"), [float("inf")]):
        with pytest.raises(ValueError, match="JSON"):
            encode(lacking)


def test_simulated_failures_depend_on_seed_and_id_alone() -> None:
    def failing(seed: int) -> list[int]:
        caller = work(None, sleep=0, error_rate=0.05, seed=seed, time_limit=None)
        failed = []
        for id in range(1, 20_001):
            try:
                caller.call(Message(id, b"", 1))
            except Exception:
                failed.append(id)
        return failed

    assert failing(1) == failing(1) != failing(2)
    assert 900 < len(failing(1)) < 1100


def test_an_async_function_is_called_to_its_end() -> None:
    async def twice(message: Message) -> int:
        return message.id * 2

    caller = Caller(twice)
    assert caller.call(Message(21, b"", 1)) == 42
    caller.close()


def test_a_core_that_suspends_over_the_synchronous_io_is_a_loud_error() -> None:
    class Suspends:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def core() -> None:
        await Suspends()

    with pytest.raises(RuntimeError, match="suspended"):
        run(core())


# --- what is shown ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 漢", "plain ä 漢"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\r\t\x00\x7f", "a\\nb\\r\\t\\x00\\x7f"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\x9b31m", "\\x9b31m"),
        ("[/bold]", "[/bold]"),
        ("\ud800", "\\ud800"),
    ],
)
def test_nothing_that_is_printed_can_steer_a_terminal(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_a_password_is_never_shown() -> None:
    for url in ("redis://:secret@h:1/0", "redis://user:secret@h", "unix://u:secret@/tmp/s"):
        assert "secret" not in mask(url)


# --- the pipeline on fakeredis ----------------------------------------------------------------


def test_one_message_goes_from_queue_to_temp_to_store(fake_io: SyncIO) -> None:
    pipe = Pipe(fake_io)
    client, keys = fake_io.client, pipe.keys
    pipe.generator.publish(1, [b"hello"])
    assert client.lrange(keys.queue, 0, -1) == [b"1:1:hello"]
    handler = pipe.handler("a")
    hand = handler.exchange(Outcome(), 1)
    assert hand
    assert client.hget(keys.temp("a"), "1") == b"1:1:hello"
    handler.exchange(settle(hand), 0)
    assert client.hgetall(keys.store(0)) == {b"1": b"hello"}
    assert not client.exists(keys.temp("a"))
    assert not client.exists(keys.handlers)


def test_ids_are_kept_in_buckets(fake_io: SyncIO) -> None:
    pipe = Pipe(fake_io, messages=10_000)
    for first in range(1, 10_001, 1000):
        pipe.generator.publish(first, [b"x"] * 1000)
    handler, outcome = pipe.handler("a"), Outcome()
    while (hand := handler.exchange(outcome, 1000)) and hand.messages:
        outcome = settle(hand)
    lengths = [fake_io.client.hlen(pipe.keys.store(bucket)) for bucket in range(3)]
    assert lengths == [BUCKET - 1, BUCKET, 10_000 - 2 * BUCKET + 1]
    verdict = Verifier(fake_io, pipe.keys).verify()
    assert verdict.good
    assert verdict.places["store"] == 10_000


def test_retries_come_back_when_due_with_growing_back_off(fake_io: SyncIO) -> None:
    pipe = Pipe(fake_io)
    client, keys = fake_io.client, pipe.keys
    pipe.generator.publish(1, [b"x"])
    handler = pipe.handler("a")
    hand = handler.exchange(Outcome(), 1)
    waits = []
    for attempt in (1, 2):
        handler.exchange(settle(hand, fail=lambda id: True), 1)
        ((message, due),) = client.zrange(keys.later, 0, -1, withscores=True)
        assert message == b"1:%d:x" % (attempt + 1)
        seconds, microseconds = client.time()
        waits.append(due - seconds * 1000 - microseconds / 1000)
        client.zadd(keys.later, {message: 1})
        hand = handler.exchange(Outcome(), 1)
        assert hand
        assert hand.messages == [message]
    handler.exchange(settle(hand, fail=lambda id: True), 1)
    assert client.zcard(keys.later) == 0
    assert client.hlen(keys.errors) == 2
    assert 300 < waits[0] <= 500
    assert 800 < waits[1] <= 1000


def test_a_job_with_wide_messages_counts_hands_in_bytes(fake_io: SyncIO) -> None:
    pipe = Pipe(fake_io)
    pipe.generator.publish(1, [b"x" * 300_000] * 10)
    handler = pipe.handler("a")
    hand = handler.exchange(Outcome(), 500)
    assert hand
    assert len(hand.messages) == 4  # the fourth goes beyond 1 MB


def test_a_hand_of_narrow_messages_is_not_counted_one_by_one(fake_io: SyncIO) -> None:
    pipe = Pipe(fake_io)
    pipe.generator.publish(1, [b"x" * 1024] * 10)
    assert not fake_io.client.hexists(pipe.keys.stats, "wide")
    pipe.generator.publish(11, [b"x" * 1025])
    assert fake_io.client.hexists(pipe.keys.stats, "wide")
    assert [len(message) for message in fake_io.client.lrange(pipe.keys.queue, -2, -1)] == [
        len("10:1:") + 1024,
        len("11:1:") + 1025,
    ]


def test_what_is_given_back_comes_first_and_in_order(fake_io: SyncIO) -> None:
    pipe = Pipe(fake_io)
    pipe.generator.publish(1, [b"x"] * 6)
    handler, outcome = pipe.handler("a"), Outcome()
    hand = handler.exchange(outcome, 4)
    assert hand
    outcome.store(b"1", 0, b"x")
    outcome.give_back(hand.messages[1:])
    hand = handler.exchange(outcome, 10)
    assert hand
    assert [message[:1] for message in hand.messages] == [b"2", b"3", b"4", b"5", b"6"]


def test_errors_are_read_page_by_page_taken_and_retried(fake_io: SyncIO) -> None:
    pipe, orders = Pipe(fake_io, messages=2500, attempts=1), []
    pipe.generator.publish(1, [b"x"] * 500)
    handler, outcome = pipe.handler("a"), Outcome()
    while (hand := handler.exchange(outcome, 500)) and hand.messages:
        outcome = settle(hand, fail=lambda id: True)
    following, last = 1, pipe.records.last_error()
    while following <= last:
        following, errors = pipe.records.read_errors(following, last)
        assert len(errors) <= 1000
        orders += [error.order for error in errors]
    assert orders == list(range(1, 501))
    assert pipe.records.take(orders[:10]) == 10
    assert pipe.records.take(orders[:10]) == 0
    assert pipe.records.retry(1, last) == (last + 1, 490)
    assert pipe.records.retry(1, last) == (last + 1, 0)
    assert fake_io.client.llen(pipe.keys.queue) == 490
    assert fake_io.client.lrange(pipe.keys.queue, 0, 0) == [b"11:1:x"]


def test_a_command_with_long_words_is_sent_as_any_other() -> None:
    long = b"x" * (LONG + 1)
    for words in (
        ("GET", b"a"),
        ("SET", "ä", long),
        ("EVALSHA", 7, long, long, "", b"\r\n", -1),
        (long,),
        (*range(100), long),
    ):
        assert b"".join(packed(words)) == PACK(words)
    for few in (1, 1000):
        assert any(piece is long for piece in packed((*range(few), long)))


def test_patience_that_is_used_up_is_there_again_once_the_server_answers(fake_io: SyncIO) -> None:
    class Away(SyncIO):
        """A server that is away while told so."""

        away = True

        async def _send(self, words: Sequence[Argument], seconds: float | None) -> Any:
            if self.away:
                raise ConnectionError("gone")
            return b"here"

    def asked_for(patience: float | None) -> float:
        began = time.monotonic()
        with pytest.raises(ServerUnreachable):
            run(io.call(script("pipeline_ring"), ["bell"], (), patience))
        return time.monotonic() - began

    io = Away(fake_io.client, patience=0.7)
    assert asked_for(1) >= 1  # a bound of its own uses nothing up
    assert asked_for(None) >= 0.7
    assert asked_for(30) < 2
    assert asked_for(0.1) < 0.4
    io.away = False
    assert run(io.call(script("pipeline_ring"), ["bell"], ())) == b"here"
    io.away = True
    assert asked_for(None) >= 0.7
