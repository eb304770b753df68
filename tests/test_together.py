"""What a keeper asks for all that is due: one write, and to each its own answer or error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError, ResponseError

from distlock.io import IO, Route
from distlock.io.together import TogetherIO
from tests.conftest import ONE_KIND


class Keeping:
    """An IO of a keeper, with the number of its writes."""

    def __init__(self, client: redis.Redis) -> None:
        self.io = TogetherIO(Route(client), 0)
        self.writes = 0

    def count(self) -> None:
        """Count what is written from now on."""
        connection = self.io._open()
        send = connection.send_packed_command

        def counted(*args: Any) -> None:
            self.writes += 1
            send(*args)

        connection.send_packed_command = counted


@pytest.fixture
def keeping(client: redis.Redis) -> Iterator[Keeping]:
    """One for the server under test."""
    keeping = Keeping(client)
    with closing(keeping.io):
        yield keeping


async def ask(io: IO, heard: list[object], *commands: tuple[str | int, ...]) -> None:
    """Ask one after another; what is heard, or what went wrong last, is noted."""
    try:
        for words in commands:
            heard.append(await io.ask(words, 5.0))
    except Exception as error:
        heard.append(error)


@ONE_KIND
def test_what_many_ask_at_one_time_is_one_write_and_each_gets_its_own_answers(
    keeping: Keeping, client: redis.Redis
) -> None:
    keeping.count()
    client.set("text", "x")
    heard: list[list[Any]] = [[] for _ in range(300)]
    cores = [ask(keeping.io, heard[n], ("ECHO", n), ("ECHO", -n)) for n in range(299)]
    cores.append(ask(keeping.io, heard[299], ("GET", "none"), ("INCR", "text"), ("GET", "text")))
    keeping.io.run_all(cores)
    assert keeping.writes == 2
    assert heard[:299] == [[b"%d" % n, b"%d" % -n] for n in range(299)]
    assert heard[299][0] is None
    assert isinstance(heard[299][1], ResponseError)
    assert len(heard[299]) == 2


@ONE_KIND
def test_when_the_connection_breaks_all_without_an_answer_fail_and_the_next_are_right(
    keeping: Keeping,
) -> None:
    heard: list[list[Any]] = [[], [], []]
    mine = keeping.io._execute("CLIENT", "ID")
    asked = [("ECHO", 1), ("CLIENT", "KILL", "ID", mine, "SKIPME", "no"), ("ECHO", 3)]
    keeping.io.run_all(
        [ask(keeping.io, said, words) for said, words in zip(heard, asked, strict=True)]
    )
    assert isinstance(heard[2][0], ConnectionError)
    assert [len(one) for one in heard] == [1, 1, 1]
    keeping.io.run_all([ask(keeping.io, heard[n], ("ECHO", n)) for n in range(3)])
    assert [one[1] for one in heard] == [b"0", b"1", b"2"]
