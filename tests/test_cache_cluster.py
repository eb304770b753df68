"""The cache on a Cluster and behind Sentinel: whoever has a key now is followed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

from distlock import AsyncCache, Cache
from tests.caches import Caches, Getter, Threaded, get
from tests.leases import until
from tests.nodes import Cluster, Watched, close, watched

HOW: dict[str, Any] = {"expire": 60.0, "execution_limit": 5.0}


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    """One face of the cache."""
    return str(request.param)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A Cluster of three shards."""
    made = Cluster()
    yield made
    made.close()


@pytest.fixture
def doubled() -> Iterator[Cluster]:
    """The same, with a replica of the first shard."""
    made = Cluster(replicas=1)
    yield made
    made.close()


def test_on_a_cluster_each_key_is_computed_once_whatever_shard_has_it(
    face: str, cluster: Cluster
) -> None:
    async def body() -> None:
        one, other, getters = cluster.cache(face), cluster.cache(face), {}
        caches, keys = Caches(face, ""), [key for n in range(3) for key in cluster.keys(n, 3)]
        for key in keys:
            getters[key] = Getter()
        first = [get(one, key, caches.of(getters[key])) for key in keys]
        for key in keys:
            await getters[key].called()
        second = [get(other, key, caches.of(getters[key])) for key in keys]
        await until(lambda: other.stats().misses == len(keys))
        for getter in getters.values():
            getter.let_go()
        assert await asyncio.gather(*first, *second) == ["value 1"] * 2 * len(keys)
        assert {getter.calls for getter in getters.values()} == {1}
        for shard in range(3):
            for key in cluster.clients[shard].keys("distlock:*:{cache:*"):
                assert key.decode().partition(":{cache:")[2][:-1] in keys[3 * shard : 3 * shard + 3]
        for key in keys:
            assert await other.delete(key)
            assert await one.peek(key) is None
        assert (await one.get_many(keys, str, **HOW)) == {key: key for key in keys}
        assert one.stats().node_deaths == other.stats().node_deaths == 0

    cluster.run(body())


def test_counts_reach_the_shard_that_has_them(face: str, cluster: Cluster) -> None:
    async def body() -> None:
        cache = cluster.cache(face)
        for shard in range(3):
            await cache.get(cluster.keys(shard, 1)[0], lambda: 1, **HOW)
        found: list[dict[bytes, bytes]] = []

        def arrived() -> bool:
            found[:] = [client.hgetall("distlock:{cache}:counters") for client in owners]
            return any(found)

        place = "distlock:{cache}:counters"
        slot = cluster.clients[0].cluster("KEYSLOT", place)
        owners = [cluster.clients[min(slot // 5461, 2)]]
        await until(arrived)
        assert found == [{b"misses": b"3", b"computed": b"3"}]

    cluster.run(body())


def test_near_values_on_a_cluster_are_heard_of_from_every_shard(
    face: str, cluster: Cluster
) -> None:
    async def body() -> None:
        cache, other = cluster.cache(face, near=100), cluster.cache(face)
        for shard in range(3):
            (key,) = cluster.keys(shard, 1)
            async with asyncio.timeout(10):
                before = cache.stats().near_hits
                while cache.stats().near_hits == before:
                    assert await cache.get(key, lambda: "v", **HOW) == "v"
                    await asyncio.sleep(0.005)
                await other.set(key, "new", expire=60)
                while await cache.get(key, lambda: None, **HOW) != "new":
                    await asyncio.sleep(0.005)

    cluster.run(body())


def test_a_slot_that_has_moved_is_followed(face: str, cluster: Cluster) -> None:
    async def body() -> None:
        cache, (key,) = cluster.cache(face), cluster.keys(0, 1)
        assert await cache.get(key, lambda: "before", **HOW) == "before"
        assert await cache.delete(key)
        cluster.clients[0].flushall()
        for client in cluster.clients[1:] + cluster.clients[:1]:
            client.execute_command("CLUSTER", "SETSLOT", cluster.slot(key), "NODE", cluster.ids[1])
        assert await cache.get(key, lambda: "after", **HOW) == "after"
        assert cluster.clients[1].exists(f"distlock:value:{{cache:{key}}}")
        assert await cache.delete(key)
        assert cache.stats().node_deaths == 0

    cluster.run(body())


def test_while_a_slot_is_moving_no_call_fails_and_none_hangs(face: str, cluster: Cluster) -> None:
    async def body() -> None:
        cache, (key, other) = cluster.cache(face), cluster.keys(0, 2)
        slot = cluster.slot(key)
        cluster.clients[1].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.ids[0])
        cluster.clients[0].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.ids[1])
        assert await cache.get(key, lambda: "meanwhile", **HOW) == "meanwhile"
        assert not await cache.delete(key)
        assert cache.stats().node_deaths == 0
        assert await cache.get(other, lambda: 1, **HOW) == 1
        for client in cluster.clients[1:] + cluster.clients[:1]:
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", cluster.ids[1])
        assert await cache.get(key, lambda: "after", **HOW) == "after"
        assert cluster.clients[1].exists(f"distlock:value:{{cache:{key}}}")

    cluster.run(body())


def test_a_failover_is_followed_and_no_call_fails_meanwhile(face: str, doubled: Cluster) -> None:
    async def body() -> None:
        cluster, cache = doubled, doubled.cache(face)
        key, gone = cluster.keys(0, 2)
        replica = cluster.clients[3]
        assert await cache.set(key, "old", expire=60)
        assert await cache.set(gone, "old", expire=60)
        place = f"distlock:value:{{cache:{gone}}}"
        await until(lambda: place.encode() in replica.execute_command("KEYS", "*"))
        cluster.servers[0].kill()
        assert not await cache.delete(gone)
        async with asyncio.timeout(20):
            while replica.info("replication")["role"] != "master":
                assert await cache.get(gone, lambda: "new", **HOW) == "new"
                await cache.get(key, lambda: "new", **HOW)
                await asyncio.sleep(0.02)
            while not await cache.set(key, "after", expire=60):
                await asyncio.sleep(0.02)
        assert await cache.get(gone, lambda: "new", **HOW) == "new"
        assert replica.get(place) == b'"new"'  # what it had from before was deleted first
        assert await cache.get(key, lambda: None, **HOW) == "after"
        assert await cache.delete(gone)

    doubled.run(body())


def test_a_shard_that_is_gone_for_good_is_asked_no_more(
    face: str, doubled: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        cluster, cache = doubled, doubled.cache(face)
        (key,) = cluster.keys(0, 1)
        await cache.get(key, lambda: 1, **HOW)
        cluster.servers[0].kill()
        await cache.get(key, lambda: 1, **HOW)
        await until(lambda: cluster.clients[3].info("replication")["role"] == "master", 20)
        await until(lambda: "given up" in caplog.text, 10)

    doubled.run(body())


def test_a_cluster_of_which_nobody_answers_is_an_outage(face: str, cluster: Cluster) -> None:
    async def body() -> None:
        cache = cluster.cache(face)
        assert await cache.get("k", lambda: 1, **HOW) == 1
        for server in cluster.servers:
            server.kill()
        for n in range(10):
            assert await cache.get(f"k{n}", lambda n=n: n, **HOW) == n
        assert not await cache.delete("k")
        assert await cache.peek("k", "nothing") == "nothing"

    cluster.run(body())


@pytest.mark.parametrize("how", ["killed", "demoted"])
def test_behind_sentinel_the_new_primary_is_followed(face: str, how: str) -> None:
    async def body(service: Watched) -> None:
        kind: Any = redis.sentinel if face == "sync" else redis.asyncio.sentinel
        sentinel = kind.Sentinel([("127.0.0.1", service.port)])
        client = sentinel.master_for("svc")
        try:
            cache = Threaded(Cache(client)) if face == "sync" else AsyncCache(client)
            await follow(cache, service)
        finally:
            for one in (client, *sentinel.sentinels):
                await close(one)

    async def follow(cache: Any, service: Watched) -> None:
        assert await cache.get("k", lambda: 1, **HOW) == 1
        if how == "killed":
            service.primary.kill()
        else:
            service.asked.execute_command("SENTINEL", "FAILOVER", "svc")
        async with asyncio.timeout(30):
            number = 0
            while not service.other.exists(f"distlock:value:{{cache:new{number}}}"):
                number += 1
                assert await cache.get(f"new{number}", lambda: 2, **HOW) == 2
                await asyncio.sleep(0.02)
            while not await cache.set("k", 3, expire=60):
                await asyncio.sleep(0.02)
        assert await cache.get("k", lambda: None, **HOW) == 3
        assert service.other.get("distlock:value:{cache:k}") == b"3"

    with watched() as service:
        asyncio.run(body(service))
