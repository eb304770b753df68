"""The cache over several nodes: killed, silent, refusing and returning ones; forks and loops."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis

from distlock import AsyncCache, Cache
from distlock.cache.member import TRIES
from distlock.errors import NodesUnreachable, UsageError
from distlock.io import run
from tests.caches import Caches, Getter, get
from tests.conftest import BINARIES, ONE_KIND, Server
from tests.leases import in_thread, until
from tests.nodes import Trio, saying
from tests.proxy import Proxy, proxy

HOW: dict[str, Any] = {"expire": 60.0, "execution_limit": 5.0}
KINDS = ["valkey", "redis"]
COUNTERS = "distlock:{counted}:counters"


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    """One face of the cache."""
    return str(request.param)


@pytest.fixture
def caches(face: str, url: str) -> Caches:
    """Makes caches of one face on one server."""
    return Caches(face, url)


@pytest.fixture
def wire(url: str) -> Iterator[Proxy]:
    """A proxy before the server."""
    with proxy(url) as made:
        yield made


def trio(face: str, kind: str, *arguments: str) -> Trio:
    """Three servers."""
    if not BINARIES[kind]:
        pytest.skip(f"{kind}-server is not installed")
    return Trio(face, [Server(kind, *arguments) for _ in range(3)])


@pytest.fixture
def nodes(face: str) -> Iterator[Trio]:
    """Three nodes that forget everything when they die."""
    made = trio(face, "valkey")
    yield made
    made.close()


@pytest.fixture
def lasting(face: str) -> Iterator[Trio]:
    """Three nodes that come back with all that they had."""
    made = trio(face, "valkey", "--appendonly", "yes", "--appendfsync", "always")
    yield made
    made.close()


async def used(nodes: Trio, cache: Any, node: int) -> None:
    """Wait until a value lies on a node again."""
    key = nodes.keys(node, 300)[-1]  # that no test asks for
    async with asyncio.timeout(10):
        while True:
            await cache.get(key, lambda: "fresh", **{**HOW, "expire": 0.05})
            if nodes.value(node, key):
                return
            await asyncio.sleep(0.01)


# --- a dead node ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_that_is_killed_under_load_fails_no_call_and_is_used_again_within_a_second(
    face: str, kind: str
) -> None:
    nodes = trio(face, kind)
    calls: list[tuple[float, float]] = []

    async def body() -> None:
        cache, ended = nodes.cache(), False

        async def load(seed: int) -> None:
            number = seed
            while not ended:
                number = (number * 1103515245 + 12345) % 2**31
                began = time.monotonic()
                key = f"key{number % 300}"
                assert await cache.get(key, partial(str, key), **HOW) == key
                calls.append((began, time.monotonic()))
                await asyncio.sleep(0)

        loads = [asyncio.create_task(load(seed)) for seed in range(8)]
        await until(lambda: len(calls) > 2000)
        nodes.servers[0].kill()
        count = len(calls)
        await until(lambda: len(calls) > count + 500)
        assert cache.stats().node_deaths == 1
        await in_thread(nodes.servers[0].start)
        back = time.monotonic()
        await until(lambda: nodes.clients[0].dbsize() > 5)
        assert time.monotonic() - back < 1
        ended = True
        await asyncio.gather(*loads)
        assert cache.stats().outages == 0
        assert cache.stats().node_deaths == 1

    try:
        asyncio.run(asyncio.wait_for(body(), 60))
    finally:
        nodes.close()
    assert max(end - began for began, end in calls) < 0.5


def test_a_death_is_counted_and_said_once_however_many_calls_meet_it(
    nodes: Trio, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        cache, keys = nodes.cache(), nodes.keys(0, 32)
        await asyncio.gather(*[cache.get(key, lambda: 1, **HOW) for key in keys])
        nodes.servers[0].kill()
        assert await asyncio.gather(*[cache.get(key, lambda: 2, **HOW) for key in keys]) == [2] * 32
        assert cache.stats().node_deaths == 1
        said = [one for one in caplog.records if "left out" in one.getMessage()]
        assert [one.levelno for one in said] == [logging.WARNING]
        assert "n0" in said[0].getMessage()

    asyncio.run(body())


def test_what_a_dead_node_had_is_kept_elsewhere_for_a_short_time_only(nodes: Trio) -> None:
    async def body() -> None:
        cache, brief = nodes.cache(), nodes.cache(gutter_expire=2)
        for owner, other in ((cache, 10_000), (brief, 2_000)):
            nodes.servers[0].kill()
            long, short, was_set = nodes.keys(0, 3)
            await owner.get(long, lambda: 1, expire=60, execution_limit=5, stale=30)
            await owner.get(short, lambda: 1, expire=1, execution_limit=5)
            assert not await owner.set(was_set, 1, expire=60, stale=30)
            for key, most in ((long, other), (short, 1000), (was_set, other)):
                client = nodes.clients[nodes.heir(key)]
                left = client.pttl(f"distlock:value:{{cache:{key}}}")
                assert most - 500 < left <= most
            for client in nodes.clients[1:]:
                client.flushall()
            await in_thread(nodes.servers[0].start)

    asyncio.run(body())


def test_a_living_node_has_its_values_for_as_long_as_they_are_meant_to_live(nodes: Trio) -> None:
    async def body() -> None:
        cache = nodes.cache()
        nodes.servers[0].kill()
        (key,) = nodes.keys(1, 1)
        await cache.get(nodes.keys(0, 1)[0], lambda: 1, **HOW)
        await cache.get(key, lambda: 1, **HOW)
        assert nodes.clients[1].pttl(f"distlock:value:{{cache:{key}}}") > 50_000

    asyncio.run(body())


def test_whoever_waits_on_a_node_that_dies_has_it_computed_elsewhere(nodes: Trio) -> None:
    async def body() -> None:
        one, other, getter, again = nodes.cache(), nodes.cache(), Getter(), Getter(open=True)
        (key,) = nodes.keys(0, 1)
        caches = Caches(nodes.face, "")
        computing = get(one, key, caches.of(getter))
        await getter.called()
        waiting = get(other, key, caches.of(again))
        await until(lambda: nodes.clients[0].scard(f"distlock:waiters:{{cache:{key}}}"))
        nodes.servers[0].kill()
        assert await waiting == "value 1"
        assert again.calls == 1  # once more, on the node that has it now
        getter.let_go()
        assert await computing == "value 1"
        assert one.stats().refused == 1

    asyncio.run(body())


# --- a silent node ----------------------------------------------------------------------------


def test_a_silent_node_costs_its_timeout_once(nodes: Trio) -> None:
    async def body() -> None:
        cache = nodes.cache(node_timeout=0.5)
        await asyncio.gather(*[cache.get(f"k{n}", lambda: 1, **HOW) for n in range(20)])
        nodes.freeze(0)
        began = time.monotonic()
        keys = nodes.keys(0, 32)
        assert await asyncio.gather(*[cache.get(key, lambda: 2, **HOW) for key in keys])
        took = time.monotonic() - began
        assert 0.4 < took < 1.4
        began = time.monotonic()
        for key in nodes.keys(0, 80)[40:]:
            await cache.get(key, lambda: 3, **HOW)
        assert time.monotonic() - began < 0.4
        assert cache.stats().node_deaths == 1
        nodes.thaw(0)
        await used(nodes, cache, 0)
        assert cache.stats().node_deaths == 1

    asyncio.run(body())


def test_callers_with_little_time_leave_a_silent_node_out_together(nodes: Trio) -> None:
    async def body() -> None:
        cache = nodes.cache(node_timeout=0.3)
        (key,) = nodes.keys(0, 1)
        await cache.get(key, lambda: 1, **HOW)
        nodes.freeze(0)
        async with asyncio.timeout(5):
            while not cache.stats().node_deaths:
                try:
                    await cache.get(key, lambda: 1, expire=60, execution_limit=0.1)
                except TimeoutError:
                    continue
        assert await cache.get(key, lambda: 1, expire=60, execution_limit=0.1) == 1
        nodes.thaw(0)

    asyncio.run(body())


# --- a node that refuses ----------------------------------------------------------------------


def refuse(client: redis.Redis, how: str) -> None:
    """Have a server answer questions and take nothing."""
    if how == "replica":
        client.replicaof("127.0.0.1", "1")
    elif how == "memory":
        client.config_set("maxmemory", "1")
    else:
        client.config_set("min-replicas-to-write", "1")


def accept(client: redis.Redis, how: str) -> None:
    """The opposite."""
    if how == "replica":
        client.replicaof("NO", "ONE")
    elif how == "memory":
        client.config_set("maxmemory", "0")
    else:
        client.config_set("min-replicas-to-write", "0")


@pytest.mark.parametrize("how", ["replica", "memory", "alone"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_node_that_takes_no_writes_is_left_out_once_until_it_does(
    face: str, kind: str, how: str
) -> None:
    nodes = trio(face, kind)

    async def body() -> None:
        cache, (key, other) = nodes.cache(), nodes.keys(0, 2)

        def refused() -> int:
            stats = nodes.clients[0].info("commandstats").get("cmdstat_set", {})
            return int(stats.get("rejected_calls", 0)) + int(stats.get("failed_calls", 0))

        refuse(nodes.clients[0], how)
        assert await cache.get(key, lambda: 1, **HOW) == 1
        assert nodes.value(nodes.heir(key), key) == b"1"
        before = refused()
        while refused() < before + 3:  # so often it was tried since
            assert await cache.get(other, lambda: 1, **{**HOW, "expire": 0.02}) == 1
            await asyncio.sleep(0.01)
        assert cache.stats().node_deaths == 1
        accept(nodes.clients[0], how)
        await used(nodes, cache, 0)
        assert cache.stats().node_deaths == 1

    try:
        asyncio.run(asyncio.wait_for(body(), 30))
    finally:
        nodes.close()


def test_a_node_that_is_loading_is_left_out_until_it_has(nodes: Trio) -> None:
    async def body() -> None:
        with saying(b"-LOADING Redis is loading the dataset in memory\r\n") as loading:
            cache = nodes.cache(loading.url, *nodes.urls[1:])
            for key in nodes.keys(0, 5):
                assert await cache.get(key, lambda: 1, **HOW) == 1
                assert nodes.value(nodes.heir(key), key) == b"1"
            before = loading.accepted
            await until(lambda: loading.accepted > before + 2)
            assert await cache.get(nodes.keys(0, 6)[5], lambda: 1, **HOW) == 1
            assert cache.stats().node_deaths == 1

    asyncio.run(body())


def test_a_wrong_password_is_said_at_once_and_concerns_its_node_alone(nodes: Trio) -> None:
    async def body() -> None:
        nodes.clients[0].config_set("requirepass", "right")
        wrong = nodes.urls[0].replace("unix://", "unix://:wrong@")
        cache = nodes.cache(wrong, *nodes.urls[1:])
        began = time.monotonic()
        for key in nodes.keys(0, 3):
            with pytest.raises(redis.AuthenticationError):
                await cache.get(key, lambda: 1, **HOW)
            with pytest.raises(redis.AuthenticationError):
                await cache.delete(key)
            with pytest.raises(redis.AuthenticationError):
                await cache.peek(key)
        assert time.monotonic() - began < 1
        assert await cache.get(nodes.keys(1, 1)[0], lambda: 1, **HOW) == 1
        assert cache.stats().node_deaths == 0

    asyncio.run(body())


def test_a_user_with_too_few_rights_is_told_and_the_node_is_not_blamed(nodes: Trio) -> None:
    async def body() -> None:
        nodes.clients[0].execute_command(
            *("ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+@all", "-set")
        )
        poor = nodes.urls[0].replace("unix://", "unix://reader:pw@")
        cache = nodes.cache(poor, *nodes.urls[1:])
        for key in nodes.keys(0, 3):
            with pytest.raises(redis.ResponseError, match=r"(?i)permission"):
                await cache.get(key, lambda: 1, **HOW)
        assert cache.stats().node_deaths == 0

    asyncio.run(body())


def test_foreign_data_in_our_places_is_replaced(caches: Caches, client: redis.Redis) -> None:
    async def body() -> None:
        cache = caches.cache()
        for what in ("value", "flight", "fresh", "watch"):
            client.flushall()
            client.rpush(f"distlock:{what}:{{cache:k}}", "foreign")
            assert await cache.get("k", lambda: 7, **HOW) == 7
            assert client.get("distlock:value:{cache:k}") == b"7"
        assert cache.stats().node_deaths == 0

    asyncio.run(body())


# --- delete and set without the owner ----------------------------------------------------------


def away(nodes: Trio, how: str) -> None:
    """Have the first node be away."""
    if how == "killed":
        nodes.servers[0].kill()
    else:
        nodes.freeze(0)


async def back(nodes: Trio, how: str) -> None:
    """Have it be back, with old data."""
    if how == "killed":
        await in_thread(nodes.servers[0].start)
    else:
        nodes.thaw(0)


@pytest.mark.parametrize("how", ["killed", "silent"])
def test_a_delete_without_the_owner_is_done_elsewhere_and_repeated_before_it_is_used_again(
    lasting: Trio, how: str
) -> None:
    async def body() -> None:
        nodes, cache = lasting, lasting.cache()
        keys = nodes.keys(0, 50)
        for key in keys:
            assert await cache.set(key, "old", expire=60)
        away(nodes, how)
        assert await cache.get(keys[0], lambda: "between", **HOW) == "between"
        assert await cache.get(keys[1], lambda: "between", **HOW) == "between"
        assert not await cache.delete(keys[0])
        assert nodes.value(nodes.heir(keys[0]), keys[0]) is None
        with pytest.raises(NodesUnreachable, match="n0") as caught:
            await cache.delete(keys[1], strict=True)
        assert caught.value.key == keys[1]
        assert nodes.value(nodes.heir(keys[1]), keys[1]) is None  # it was done all the same
        for key in keys[2:]:
            assert not await cache.delete(key)
        await back(nodes, how)
        async with asyncio.timeout(10):
            for key in keys:
                while nodes.value(0, key) != b'"new"':
                    assert await cache.get(key, lambda: "new", **{**HOW, "expire": 1}) == "new"
        assert await cache.delete(keys[0])

    asyncio.run(body())


@pytest.mark.parametrize("how", ["killed", "silent"])
def test_a_set_without_the_owner_makes_the_old_value_vanish_there(lasting: Trio, how: str) -> None:
    async def body() -> None:
        nodes, cache = lasting, lasting.cache()
        (key, other) = nodes.keys(0, 2)
        await cache.set(key, "old", expire=60)
        await cache.set(other, "old", expire=60)
        away(nodes, how)
        assert not await cache.set(key, "set", expire=60)
        with pytest.raises(NodesUnreachable):
            await cache.set(other, "set", expire=60, strict=True)
        assert await cache.get(key, lambda: "new", **HOW) == "set"
        await back(nodes, how)
        await used(nodes, cache, 0)
        for one in (key, other):  # it may have got the new one in its silence
            assert nodes.value(0, one) in (None, b'"set"')
            assert await cache.get(one, lambda: "new", **HOW) in ("set", "new")

    asyncio.run(body())


def test_the_last_of_many_deletes_and_sets_without_the_owner_is_what_is_true(
    lasting: Trio,
) -> None:
    async def body() -> None:
        nodes, cache = lasting, lasting.cache()
        (key,) = nodes.keys(0, 1)
        await cache.set(key, "old", expire=60)
        away(nodes, "silent")
        for turn in range(5):
            assert not await cache.set(key, turn, expire=60)
            assert not await cache.delete(key)
        assert not await cache.set(key, "last", expire=60)
        assert await cache.get(key, lambda: "new", **HOW) == "last"
        await back(nodes, "silent")
        await used(nodes, cache, 0)
        assert await cache.get(key, lambda: "new", **HOW) == "new"
        assert await cache.set(key, "then", expire=60)
        await used(nodes, cache, 0)
        assert await cache.get(key, lambda: "new", **HOW) == "then"

    asyncio.run(body())


def test_a_node_stays_away_while_it_refuses_what_is_owed(lasting: Trio) -> None:
    async def body() -> None:
        nodes, cache = lasting, lasting.cache()
        (key,) = nodes.keys(0, 1)
        await cache.set(key, "old", expire=60)
        refuse(nodes.clients[0], "replica")
        assert not await cache.delete(key)
        for _ in range(50):
            assert await cache.get(key, lambda: "new", **HOW) == "new"
            assert await cache.peek(key) == "new"
            await asyncio.sleep(0.01)
        accept(nodes.clients[0], "replica")
        async with asyncio.timeout(10):
            while nodes.value(0, key) != b'"new"':
                assert await cache.get(key, lambda: "new", **HOW) == "new"

    asyncio.run(body())


# --- all nodes dead ---------------------------------------------------------------------------


def test_when_all_nodes_are_dead_a_process_computes_once_for_itself_and_says_so(
    nodes: Trio, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        cache, getter = nodes.cache(), Getter()
        for server in nodes.servers:
            server.kill()
        function = Caches(nodes.face, "").of(getter)
        gets = [get(cache, "k", function) for _ in range(8)]
        await getter.called()
        await until(lambda: cache.stats().misses == 8)
        getter.let_go()
        assert await asyncio.gather(*gets) == ["value 1"] * 8
        assert getter.calls == 1
        assert await get(cache, "k", function) == "value 2"  # nothing is kept anywhere
        assert (cache.stats().outages, cache.stats().node_deaths) == (2, 3)
        told = [one for one in caplog.records if "computed here" in one.getMessage()]
        assert [one.levelno for one in told] == [logging.WARNING] * 2
        assert await cache.peek("k", "nothing") == "nothing"
        assert not await cache.delete("k")
        assert not await cache.set("k", 1, expire=5)
        with pytest.raises(NodesUnreachable):
            await cache.delete("k", strict=True)
        assert await cache.get_many(["a", "b"], lambda key: key, **HOW) == {"a": "a", "b": "b"}
        for server in nodes.servers:
            await in_thread(server.start)
        for node in range(3):
            await used(nodes, cache, node)

    asyncio.run(body())


def test_when_all_nodes_are_dead_a_cache_may_raise_instead(nodes: Trio) -> None:
    async def body() -> None:
        cache = nodes.cache(on_outage="raise")
        for server in nodes.servers:
            server.kill()
        calls = (
            lambda: cache.get("k", lambda: 1, **HOW),
            lambda: cache.refresh("k", lambda: 1, **HOW),
            lambda: cache.peek("k"),
            lambda: cache.get_many(["k"], lambda key: 1, **HOW),
        )
        for call in calls:
            with pytest.raises(NodesUnreachable, match="n0, n1, n2"):
                await call()
        assert cache.stats().computed == 0

    asyncio.run(body())


def test_a_getter_that_fails_fails_without_nodes_as_well(nodes: Trio) -> None:
    async def body() -> None:
        cache, getter = nodes.cache(), Getter(open=True, fails=True)
        for server in nodes.servers:
            server.kill()
        with pytest.raises(ValueError, match="failure 1"):
            await get(cache, "k", Caches(nodes.face, "").of(getter))

    asyncio.run(body())


# --- counters ---------------------------------------------------------------------------------


def counted(*clients: redis.Redis) -> dict[str, int]:
    """What all processes have counted on some nodes."""
    found: dict[str, int] = {}
    for client in clients:
        for name, count in client.hgetall(COUNTERS).items():
            found[name.decode()] = found.get(name.decode(), 0) + int(count)
    return found


def test_counts_reach_the_node_together_with_those_of_others(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        some = [caches.cache(name="counted") for _ in range(3)]
        for cache in some:
            for n in range(4):
                await cache.get(f"k{n}", lambda: 1, **HOW)
        wanted = {"misses": 4, "computed": 4, "hits": 8}
        await until(lambda: counted(client) == wanted)

    asyncio.run(body())


def test_counts_are_sent_once_a_second_at_most_and_only_when_there_are_any(
    caches: Caches, client: redis.Redis
) -> None:
    def additions() -> int:
        return sum(int(client.get(key)) for key in client.keys(f"{COUNTERS}:*"))

    async def body() -> None:
        cache, began = caches.cache(name="counted"), time.monotonic()
        while time.monotonic() < began + 2.5:
            await cache.get("k", lambda: 1, **HOW)
            await asyncio.sleep(0.001)
        assert 1 <= additions() <= 3
        await until(lambda: counted(client).get("hits") == cache.stats().hits)
        sent = additions()
        await asyncio.sleep(1.5)  # in which nothing happens
        assert additions() == sent

    asyncio.run(body())


def test_what_is_counted_after_the_last_call_began_is_sent_too(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        one, other, getter = caches.cache(name="counted"), caches.cache(name="counted"), Getter()
        first = get(one, "k", caches.of(getter))
        await getter.called()
        second = get(other, "k", caches.of(getter))
        await until(lambda: counted(client).get("misses") == 2)
        getter.let_go()
        await asyncio.gather(first, second)
        await until(lambda: counted(client).get("waited") == 1)

    asyncio.run(body())


def test_counts_are_added_once_although_the_answer_is_lost(
    caches: Caches, wire: Proxy, client: redis.Redis
) -> None:
    async def body() -> None:
        cache = caches.cache(wire.url, name="counted")
        for turn in range(1, 4):
            await cache.get("k", lambda: 1, **HOW)
            wire.losing = 2
            await until(lambda n=turn: counted(client).get("hits", 0) == n - 1)
            await until(lambda: wire.losing == 0)
        await cache.delete("k")
        await cache.get("k", lambda: 1, **HOW)  # which is added after all that was before
        await until(lambda: counted(client)["misses"] >= 2)
        assert counted(client) == {"misses": 2, "computed": 2, "hits": 2}

    asyncio.run(body())


def test_counts_go_to_another_node_when_theirs_is_dead_and_none_is_added_twice(
    lasting: Trio,
) -> None:
    async def body() -> None:
        nodes, cache = lasting, lasting.cache(name="counted")
        keys = [key for node in range(3) for key in nodes.keys(node, 2)]
        for key in keys:
            await cache.get(key, lambda: 1, **HOW)
        await until(lambda: counted(*nodes.clients).get("misses") == 6)
        (home,) = [n for n in range(3) if nodes.clients[n].exists(COUNTERS)]
        others = [client for client in nodes.clients if client is not nodes.clients[home]]
        nodes.servers[home].kill()
        async with asyncio.timeout(15):
            while counted(*others).get("hits", 0) < 10:
                for key in keys:
                    await cache.get(key, lambda: 1, **HOW)
                await asyncio.sleep(0.01)
        await in_thread(nodes.servers[home].start)
        await until(
            lambda: (
                counted(*nodes.clients)
                == {name: n for name, n in vars_of(cache.stats()).items() if n}
            )
        )

    asyncio.run(body())


def vars_of(stats: Any) -> dict[str, int]:
    """Counts by their names."""
    return dict(vars(stats))


# --- connections ------------------------------------------------------------------------------


@ONE_KIND
def test_200_threads_may_wait_at_once(url: str, client: redis.Redis) -> None:
    cache, go = Cache(redis.Redis.from_url(url)), threading.Event()
    computer = Cache(redis.Redis.from_url(url))
    found: list[int] = []

    def slow() -> int:
        assert go.wait(30)
        return 1

    def work(one: Cache, key: str) -> None:
        found.append(one.get(key, slow, expire=60, execution_limit=30))

    def begin(one: Cache) -> list[threading.Thread]:
        threads = [threading.Thread(target=work, args=(one, f"k{n}")) for n in range(200)]
        for thread in threads:
            thread.start()
        return threads

    async def body() -> None:
        first = begin(computer)
        await until(lambda: computer.stats().computed == 200, 30)
        second = begin(cache)
        await until(lambda: client.scard("distlock:waiters:{cache:k199}"), 30)
        await until(lambda: cache.stats().misses == 200, 30)
        go.set()
        for thread in first + second:
            await in_thread(thread.join, 30)

    asyncio.run(body())
    assert found == [1] * 400
    assert (computer.stats().computed, cache.stats().computed) == (200, 0)


def test_a_refused_port_costs_little(face: str) -> None:
    async def body() -> None:
        costs = []
        for _ in range(5):
            cache = Caches(face, "redis://127.0.0.1:1").cache(on_outage="raise")
            began = time.monotonic()
            with pytest.raises(NodesUnreachable):
                await cache.get("k", lambda: 1, **HOW)
            costs.append(time.monotonic() - began)
        assert statistics.median(costs) < 0.1

    asyncio.run(body())


def test_a_server_that_hangs_up_is_asked_a_few_times_and_no_more(face: str) -> None:
    async def body() -> None:
        with saying(b"") as rude:
            cache = Caches(face, rude.url).cache(on_outage="raise")
            with pytest.raises(NodesUnreachable):
                await cache.get("k", lambda: 1, **HOW)
            assert rude.accepted <= TRIES + 1  # the keeper may have been there already

    asyncio.run(body())


def test_a_server_that_never_answers_costs_its_timeout(face: str, wire: Proxy) -> None:
    async def body() -> None:
        wire.deaf = True
        cache = Caches(face, wire.url).cache(on_outage="raise", node_timeout=0.3)
        began = time.monotonic()
        with pytest.raises(NodesUnreachable):
            await cache.get("k", lambda: 1, **HOW)
        assert 0.25 < time.monotonic() - began < 1
        wire.deaf = False
        async with asyncio.timeout(5):
            while cache.stats().computed == 0:
                try:
                    assert await cache.get("k", lambda: 1, **HOW) == 1
                except NodesUnreachable:
                    await asyncio.sleep(0.01)

    asyncio.run(body())


# --- forks and loops --------------------------------------------------------------------------


def in_child(work: Callable[[], bool]) -> int:
    """Fork; the id of the child, which ends with 0 if the work is done well."""
    child = os.fork()
    if child == 0:
        good = False
        try:
            good = work()
        finally:
            os._exit(0 if good else 1)
    return child


def ended_well(child: int) -> bool:
    """Whether a child ended with 0."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_process_begins_anew_while_its_parent_computes(
    url: str, client: redis.Redis
) -> None:
    cache, getter, found = Cache(url, near=10), Getter(), []
    cache.get("near", lambda: 1, **HOW)
    thread = threading.Thread(target=lambda: found.append(cache.get("k", getter.plain, **HOW)))
    thread.start()

    async def body() -> None:
        await getter.called()

        def work() -> bool:  # it waits for its parent, over the server
            got = cache.get("k", lambda: "child", **HOW)
            stats = cache.stats()
            mine = cache.get("mine", lambda: "child", **HOW)
            return (got, mine) == ("value 1", "child") and (stats.computed, stats.waited) == (0, 1)

        child = in_child(work)
        await until(lambda: client.scard("distlock:waiters:{cache:k}"))
        getter.let_go()
        assert await in_thread(ended_well, child)
        await in_thread(thread.join)
        assert found == ["value 1"]
        assert cache.get("k", lambda: None, **HOW) == "value 1"

    asyncio.run(body())


def test_a_forked_process_has_an_event_loop_of_its_own(url: str) -> None:
    cache = AsyncCache(url)

    async def ask() -> object:
        return await cache.get("k", lambda: 1, **HOW)

    assert asyncio.run(ask()) == 1
    assert ended_well(in_child(lambda: asyncio.run(ask()) == 1))


def test_a_second_event_loop_is_refused(url: str) -> None:
    cache = AsyncCache(url, near=10)
    verbs: list[Callable[[], Any]] = [
        lambda: cache.get("k", lambda: 1, **HOW),
        lambda: cache.get_many(["k"], lambda key: 1, **HOW),
        lambda: cache.refresh("k", lambda: 1, **HOW),
        lambda: cache.set("k", 1, expire=5),
        lambda: cache.delete("k"),
        lambda: cache.peek("k"),
    ]

    async def call(verb: Callable[[], Any]) -> None:
        await verb()

    for verb in verbs:
        asyncio.run(call(verb)) if verb is verbs[0] else None
        with pytest.raises(UsageError, match="event loop"):
            asyncio.run(call(verb))


def test_one_client_may_serve_one_event_loop_after_another(url: str, client: redis.Redis) -> None:
    for turn in range(3):

        async def body(n: int) -> None:
            cache = AsyncCache(url)
            assert await cache.get(f"k{n}", lambda: n, **HOW) == n
            assert await cache.get(f"k{n}", lambda: None, **HOW) == n

        asyncio.run(body(turn))


# --- near values and nodes --------------------------------------------------------------------


def test_near_values_of_living_nodes_stay_while_another_is_dead(nodes: Trio) -> None:
    async def body() -> None:
        cache = nodes.cache(near=100)
        (dead, other), (alive,) = nodes.keys(0, 2), nodes.keys(1, 1)
        for key in (dead, alive):
            await near(cache, key)
        nodes.servers[0].kill()
        await cache.get(other, lambda: "v", **HOW)
        await until(lambda: cache.stats().node_deaths == 1)
        await near(cache, alive)
        before = cache.stats()
        for _ in range(100):  # its connection is tried several times meanwhile
            await cache.get(alive, lambda: "v", **HOW)
            await asyncio.sleep(0.01)
        assert cache.stats().near_hits >= before.near_hits + 99  # emptied once, when it broke

    asyncio.run(body())


def test_what_a_substitute_has_is_not_kept_near(
    nodes: Trio, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        cache, other, (key,) = nodes.cache(near=100), nodes.cache(), nodes.keys(0, 1)
        heir = nodes.keys(nodes.heir(key), 1)[0]
        await near(cache, heir)  # it hears of that node
        nodes.freeze(0)
        for _ in range(50):
            await cache.get(key, lambda: "old", **HOW)
        nodes.thaw(0)
        await until(lambda: "used again" in caplog.text)
        await other.set(key, "new", expire=60)
        assert await cache.get(key, lambda: None, **HOW) == "new"

    asyncio.run(body())


def test_near_values_of_a_node_that_falls_silent_go_when_that_is_noticed(nodes: Trio) -> None:
    async def body() -> None:
        cache, other, (key, second) = nodes.cache(near=100), nodes.cache(), nodes.keys(0, 2)
        await near(cache, key)
        nodes.freeze(0)
        assert not await other.set(key, "new", expire=60)
        await cache.get(second, lambda: 1, **HOW)  # now it is noticed
        assert await cache.get(key, lambda: None, **HOW) == "new"
        nodes.thaw(0)

    asyncio.run(body())


async def near(cache: Any, key: str) -> None:
    """Ask for a value until it comes from this process."""
    async with asyncio.timeout(10):
        before = cache.stats().near_hits
        while cache.stats().near_hits == before:
            assert await cache.get(key, lambda: "v", **HOW) == "v"
            await asyncio.sleep(0.005)


def test_a_cache_that_is_gone_asks_its_dead_node_no_more() -> None:
    cache = Cache("redis://localhost:1")
    assert cache.get("k", lambda: 1, expire=1, execution_limit=5) == 1
    member = run(cache._nodes.owner("k", "distlock:value:{cache:k}"))
    assert member.kept
    del cache
    gc.collect()
    assert not member.kept
