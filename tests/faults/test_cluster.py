"""On a Cluster: a primary that is killed, and a slot that moves, under load.

Each is repeated, on both servers, with the pauses measured, by `python -m tests.faults.clusters`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import redis

from distlock import AsyncCache, AsyncLease, Cache, Lease
from distlock.connect import connect
from distlock.io import Route
from distlock.keys import Keys
from tests.conftest import Done, Server
from tests.faults.clusters import kill, made, move, name_in, reshard
from tests.leases import until
from tests.nodes import Cluster, free_port
from tests.tools import wait_until

Program = Callable[..., Done]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A Cluster of three primaries with a replica each."""
    with closing(made("valkey")) as cluster:
        yield cluster


def test_every_command_works_on_a_cluster_whatever_shard_has_the_pipeline(
    cluster: Cluster, program: Program
) -> None:
    names = [name_in(cluster, shard, "commands") for shard in range(3)]
    for name in names:
        options = ("--name", name, "--messages", "40", "--error-rate", "0.2", "--attempts", "1")
        code, _, said = program(*options, "--wait-replicas", "1", REDIS_URL=cluster.url)
        assert code == 0, said
        assert "Valkey 9.1.2 (Cluster, 3 primaries) at redis+cluster://" in said
        code, out, _ = program("verify", "--name", name, REDIS_URL=cluster.url)
        assert (code, "40 generated: 0 lost, 0 stored twice" in out) == (0, True)
        for mode in ("--getErrors", "--retryErrors", "--cleanTemp", "--reset --yes --messages 5"):
            code, _, said = program("--name", name, *mode.split(), REDIS_URL=cluster.url)
            assert code == 0, said
    Cache(cluster.url).get("k", int, expire=60, execution_limit=5)
    code, out, _ = program("status", "--name", names[1], REDIS_URL=cluster.url)
    assert "server     Valkey 9.1.2 (Cluster, 3 primaries)" in out
    assert code == 0
    with Lease(cluster.url, names[0]), Lease(cluster.url, names[1]), Lease(cluster.url, names[2]):
        code, out, _ = program("leases", REDIS_URL=cluster.url)
    assert [line.split()[0] for line in out.splitlines()] == ["LEASE", *sorted(names)]


def test_a_cluster_that_is_away_is_said_in_one_line_and_changes_no_client(
    program: Program,
) -> None:
    away = "redis+cluster://:secret@127.0.0.1:1,127.0.0.1:2"
    lease = Lease(away, "t")  # nothing is asked before it is needed
    assert not lease.held
    code, _, said = program("status", REDIS_URL=away)
    assert (code, said.count("\n"), "secret" in said) == (3, 1, False)
    assert "no server answers" in said


def test_a_server_that_is_no_cluster_is_named_as_that(program: Program) -> None:
    port = free_port()
    with closing(Server("valkey", "--port", str(port))):
        code, _, said = program("status", REDIS_URL=f"redis+cluster://127.0.0.1:{port}")
    assert (code, said.count("\n")) == (3, 1)
    assert "Cluster mode is not enabled on this node" in said


def test_a_client_of_what_is_no_cluster_keeps_no_connection_open() -> None:
    port = free_port()
    with closing(Server("valkey", "--port", str(port))) as server:
        route = Route(connect(f"redis+cluster://127.0.0.1:{port}", timeout=1.0), "k")
        with pytest.raises(redis.ConnectionError, match="not enabled") as said:
            route.connection()
        with closing(redis.Redis.from_url(server.url)) as admin:
            wait_until(lambda: len(admin.client_list()) == 1)
        assert said  # it knows the frames that know the nodes, and nobody else does


def test_lease_and_cache_take_the_url_in_several_event_loops(cluster: Cluster) -> None:
    async def body() -> int:
        async with AsyncLease(cluster.url, "loops") as lease:
            cache = AsyncCache(cluster.url)
            for shard in range(3):
                (key,) = cluster.keys(shard, 1)
                assert await cache.get(key, lambda: 5, expire=60, execution_limit=5) == 5
            return lease.token

    tokens = [asyncio.run(body()) for _ in range(3)]
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_held_lease_is_renewed_and_writes_under_it_go_on_while_its_slot_moves(
    face: str, cluster: Cluster
) -> None:
    name = name_in(cluster, 0, face)
    slot = int(cluster.clients[0].cluster("KEYSLOT", name))

    async def body() -> None:
        lease = (Lease if face == "sync" else AsyncLease)(cluster.url, name, ttl=3)
        assert await done(lease.acquire())
        token, began = lease.token, lease.deadline
        await until(lambda: lease.deadline > began)  # whoever renews it is connected, too
        assert move(cluster, slot)
        moved = time.monotonic()
        assert await done(lease.execute("SET", f"{{{name}}}:x", "1")) == b"OK"
        await until(lambda: lease.deadline > moved + 3)  # it is renewed where it is now
        assert lease.held
        assert cluster.clients[1].hget(Keys(name).lease, "token") == str(token).encode()
        assert await done(lease.release())

    asyncio.run(body())


async def done(answer: object) -> object:
    """What a verb of either face says."""
    return await answer if asyncio.iscoroutine(answer) else answer


def test_1_a_slot_that_moves_under_load_loses_nothing(cluster: Cluster) -> None:
    fault = reshard(cluster)
    assert not fault.wrong, fault


def test_1_a_killed_primary_is_followed_by_all_that_was_in_its_shard(cluster: Cluster) -> None:
    fault = kill(cluster)
    assert not fault.wrong, fault
