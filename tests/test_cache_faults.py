"""The cache when processes die, freeze, or lose their connections, and when answers are lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from distlock import Cache
from distlock.io import SyncIO, run
from distlock.keys import CacheKeys
from distlock.scripts import script
from tests.caches import Caches, Getter, get
from tests.conftest import ROOT
from tests.leases import until
from tests.test_cache import FLIGHT, VALUE, caches, flying, waiting
from tests.tools import wait_until

__all__ = ["caches"]  # the fixture
HOW: dict[str, Any] = {"expire": 10.0, "execution_limit": 20.0}
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def computer(url: str) -> Iterator[Start]:
    """Starts a process that computes, and returns when it does; ends it after the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.cache_process", url, *words]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout
        assert process.stdout.readline().startswith("computes")
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_10_a_computer_that_is_killed_is_replaced_when_its_connections_are_gone(
    caches: Caches, client: redis.Redis, computer: Start
) -> None:
    process = computer("60", "ttl=60")

    async def body() -> None:
        getter = Getter(open=True)
        waits = [get(caches.cache(), "k", caches.of(getter), **HOW) for _ in range(3)]
        await until(lambda: waiting(client) == 3)
        await until(lambda: client.info("commandstats").get("cmdstat_client|list"))
        os.kill(process.pid, signal.SIGKILL)
        killed = time.monotonic()
        assert await asyncio.gather(*waits) == ["value 1"] * 3
        assert time.monotonic() - killed < 5  # its right would have lasted for a minute
        assert getter.calls == 1

    client.config_resetstat()
    asyncio.run(body())


def test_10_a_computer_that_died_before_anybody_waited_is_replaced_as_soon(
    caches: Caches, client: redis.Redis, computer: Start
) -> None:
    process = computer("60", "ttl=60")
    process.kill()
    process.wait()

    async def body() -> None:
        getter, began = Getter(open=True), time.monotonic()
        assert await get(caches.cache(), "k", caches.of(getter), **HOW) == "value 1"
        assert time.monotonic() - began < 5

    asyncio.run(body())


def test_10_connections_of_a_server_that_was_started_again_say_nothing(
    caches: Caches, client: redis.Redis, url: str
) -> None:
    async def body() -> None:
        client.set(FLIGHT, "0123456789abcdef 60000 987654 987655 anotherserver", px=900)
        getter, began = Getter(open=True), time.monotonic()
        assert await get(caches.cache(), "k", caches.of(getter), **HOW) == "value 1"
        assert time.monotonic() - began > 0.5

    asyncio.run(body())


def test_10_a_computer_that_is_killed_is_replaced_after_its_ttl_where_nobody_may_look(
    client: redis.Redis, url: str, computer: Start
) -> None:
    client.execute_command("ACL", "SETUSER", "blind", "on", "nopass", "~*", "&*", "+@all")
    client.execute_command("ACL", "SETUSER", "blind", "-client|list")
    process = computer("60", "ttl=1")
    blind = Cache(redis.Redis.from_url(url, username="blind", password="x"))

    async def body() -> None:
        getter = Getter(open=True)
        waits = asyncio.ensure_future(asyncio.to_thread(blind.get, "k", getter.plain, **HOW))
        await until(lambda: waiting(client) == 1)
        os.kill(process.pid, signal.SIGKILL)
        killed = time.monotonic()
        assert await waits == "value 1"
        assert time.monotonic() - killed < 3

    asyncio.run(body())


def test_a_frozen_computer_is_replaced_and_its_late_value_is_refused(
    caches: Caches, client: redis.Redis, computer: Start
) -> None:
    process = computer("1", "ttl=0.5")

    async def body() -> None:
        getter = Getter(open=True)
        os.kill(process.pid, signal.SIGSTOP)
        assert await get(caches.cache(), "k", caches.of(getter), **HOW) == "value 1"
        os.kill(process.pid, signal.SIGCONT)

    asyncio.run(body())
    said = process.communicate(timeout=20)[0].split("\n")
    assert said[0].startswith("got by 1")
    assert said[1] == "refused 1"
    assert json.loads(client.get(VALUE)) == "value 1"


def test_10_one_lost_connection_of_a_living_computer_makes_no_second_one(
    caches: Caches, client: redis.Redis, computer: Start
) -> None:
    computer("1.5", "ttl=60")

    async def body() -> None:
        getter = Getter(open=True)
        waits = get(caches.cache(), "k", caches.of(getter), **HOW)
        await until(lambda: waiting(client) == 1)
        ids = client.get(FLIGHT).split()[2:4]
        assert len(ids) == 2
        client.execute_command("CLIENT", "KILL", "ID", ids[0])
        assert await waits == "by 1.5"
        assert getter.calls == 0

    asyncio.run(body())


def test_9_only_the_first_waiter_looks_ten_times_a_second_at_most(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        one, getter = caches.cache(), Getter()
        computes = get(one, "k", caches.of(getter), **HOW)
        await getter.called()
        waits = [get(caches.cache(), "k", caches.of(getter), **HOW) for _ in range(5)]
        await until(lambda: waiting(client) == 5)
        client.config_resetstat()
        began = time.monotonic()
        await asyncio.sleep(1.2)
        lasted = time.monotonic() - began
        stats = client.info("commandstats")
        looks = stats.get("cmdstat_client|list", {"calls": 0})["calls"]
        assert 1 <= looks <= 10 * lasted + 2
        sent = sum(
            stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval")
        )
        assert sent <= 3 * (lasted / 2 + 1) + 5 * (lasted / 2 + 1)
        getter.let_go()
        assert await asyncio.gather(computes, *waits) == ["value 1"] * 6

    asyncio.run(body())


def test_9_the_first_waiter_goes_on_watching_when_it_looks_again(client: redis.Redis) -> None:
    io, claim = SyncIO(client), script("cache_claim")
    keys, flight = CacheKeys("cache").all("k"), "computes 1000 1 2 s"
    client.set(FLIGHT, flight, px=1000)

    def watches(who: str) -> int:
        answer = run(io.call(claim, keys, (who, 1000, "", flight, 0, who)))
        assert answer[0] == 2
        return int(answer[2])

    assert [watches(who) for who in ("first", "other", "first", "other", "first")] == [
        1,
        0,
        1,
        0,
        1,
    ]
    client.delete(keys[4])  # the first has left
    assert [watches(who) for who in ("other", "first", "other")] == [1, 0, 1]


def test_5_a_claim_whose_answer_was_lost_is_answered_again(client: redis.Redis) -> None:
    io, claim, keys = SyncIO(client), script("cache_claim"), CacheKeys("cache").all("k")
    answers = [run(io.call(claim, keys, ("mine", 1000, "", "", 0, "me"))) for _ in range(2)]
    assert answers == [[1], [1]]  # and so nobody waits for itself


def test_5_what_a_process_has_counted_is_added_once(client: redis.Redis) -> None:
    io, count, keys = SyncIO(client), script("cache_count"), CacheKeys("cache")
    places = [keys.counters, keys.counted("me")]
    sent = [(1, "hits", 2), (1, "hits", 2), (2, "hits", 3, "misses", 1), (1, "hits", 2)]
    assert [run(io.call(count, places, args)) for args in sent] == [1, 0, 1, 0]
    assert client.hgetall(keys.counters) == {b"hits": b"5", b"misses": b"1"}
    assert client.pttl(keys.counted("me")) > 0


def test_10_nobody_waits_longer_than_a_ttl_for_a_right_when_the_clock_was_set_back(
    client: redis.Redis,
) -> None:
    io, claim, keys = SyncIO(client), script("cache_claim"), CacheKeys("cache").all("k")
    client.set(FLIGHT, "computes 1000 1 2 s", px=7_200_000)
    args = ("mine", 1000, "", "computes 1000 1 2 s", 0, "me")
    assert run(io.call(claim, keys, args))[:2] == [2, 1000]
    assert 0 < client.pttl(FLIGHT) <= 1000


def test_5_every_request_that_arrives_again_later_changes_nothing(
    client: redis.Redis, url: str
) -> None:
    """All that two caches sent is sent again, after each later step: the state stays as it is."""
    one, other = Cache(redis.Redis.from_url(url)), Cache(redis.Redis.from_url(url))
    sent: list[tuple[Any, ...]] = []
    state_keys = [f"distlock:{what}:{{cache:k}}" for what in ("value", "flight", "fresh", "watch")]

    def state() -> list[Any]:
        return client.mget(state_keys)

    def record(cache: Cache) -> None:
        member, _ = asyncio.run(cache._nodes.of("k", VALUE))
        real = member.run

        async def run(io: Any, script: Any, keys: Any, args: Any, *rest: Any, **how: Any) -> Any:
            answer = await real(io, script, keys, args, *rest, **how)
            if script.name != "cache_read":
                sent.append(("EVAL", script.text, len(keys), *keys, *args))
            return answer

        member.run = run  # type: ignore[method-assign]

    def replay() -> None:
        before = state()
        for words in sent:
            client.execute_command(*words)
            assert state() == before, words

    def fail() -> None:
        raise ValueError("no value")

    record(one)
    record(other)
    for step in (
        lambda: one.get("k", lambda: 1, thread=False, **HOW),
        lambda: other.delete("k"),
        lambda: other.get("k", lambda: 2, thread=False, **HOW),
        lambda: one.set("k", 3, expire=10),
        lambda: one.refresh("k", lambda: 4, thread=False, **HOW),
        lambda: one.delete("k"),
        lambda: other.get("k", lambda: replay(), thread=False, **HOW),
        lambda: one.delete("k"),
    ):
        step()
        replay()
    with pytest.raises(ValueError, match="no value"):
        other.get("k", fail, thread=False, **HOW)
    replay()
    assert len(sent) >= 12


def test_a_server_that_is_started_again_in_the_middle_costs_at_most_one_more_call(
    caches: Caches, real: Any, client: redis.Redis
) -> None:
    async def body() -> None:
        one, other, getter = caches.cache(), caches.cache(), Getter()
        computes = get(one, "k", caches.of(getter), **HOW)
        await getter.called()
        waits = get(other, "k", caches.of(getter), **HOW)
        await until(lambda: waiting(client) == 1)
        real.kill()
        real.start()
        getter.let_go()
        assert await computes == "value 1"
        assert await waits in ("value 1", "value 2")
        assert getter.calls <= 2
        await until(lambda: not flying(client))

    asyncio.run(body())


def test_what_many_processes_do_at_once_calls_the_getter_once(
    url: str, client: redis.Redis
) -> None:
    command = [sys.executable, "-m", "tests.cache_process", url, "0.3"]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert sum(text.count("computes") for text in said) == 1
    assert all("got by 0.3" in text for text in said)
    wait_until(lambda: client.exists(VALUE))
