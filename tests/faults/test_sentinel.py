"""Behind Sentinel: the application, the lease and the cache by a URL, and a primary that dies.

All other failovers are run by `python -m tests.faults.failovers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import redis

from distlock import AsyncCache, AsyncLease, Cache, Lease
from distlock.connect import check_url, connect
from distlock.errors import UsageError
from distlock.io import Route, SyncIO, Unconfirmed
from distlock.keys import Keys
from distlock.lease import Lease as SyncLease
from distlock.place import find
from tests.conftest import Done
from tests.faults.failovers import run
from tests.faults.service import PASSWORDS, Service, service
from tests.tools import Pipe, wait_until

SECRETS = tuple(PASSWORDS.values())
Program = Callable[..., Done]


@pytest.fixture(scope="module")
def locked() -> Iterator[Service]:
    """A service whose servers and sentinels want passwords, each another one."""
    with service("valkey", locked=True) as made:
        yield made


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://:secret@h:1", "the service's name stands after the hosts"),
        ("redis+sentinel://:secret@h:1/", "the service's name stands after the hosts"),
        ("redis+sentinel://:secret@/svc", "hosts are written host:port,host:port"),
        ("redis+sentinel://:secret@h:1,/svc", "hosts are written host:port,host:port"),
        ("redis+sentinel://:secret@h:0/svc", "ports from 1 to 65535"),
        ("redis+sentinel://:secret@h:1,g:65536/svc", "ports from 1 to 65535"),
        ("redis+sentinel://:sec/ret@h:1/svc", "special characters like %2F"),
        ("redis+sentinel://:secret@h:1/svc/x", "the database after / is a number"),
        ("redis+sentinel://:secret@h:1/svc/1/2", "the database after / is a number"),
        ("redis+sentinel://:secret@h:1/svc?db=x", "Invalid value for 'db'"),
        ("redis+sentinel://h/svc?sentinel_password=secret&colour=red", "argument 'colour'"),
        ("redis+cluster://:secret@h:1/2", "a Cluster has database 0 only"),
        ("redis+cluster://h?sentinel_password=secret", "belong to redis+sentinel://"),
        ("redis+cluster://:secret@h?decode_responses=1", "decode_responses would change bytes"),
        ("rediss+cluster://:secret@h?ssl_cert_reqs=perhaps", "Invalid SSL Certificate"),
        ("redis+clusters://:secret@h", "redis+sentinel:// or redis+cluster://"),
        ("valkey+sentinel://:secret@h/svc", "is no URL of a server"),
    ],
)
def test_11_a_wrong_url_gets_one_clear_line_without_the_password(url: str, said: str) -> None:
    for use in (check_url, lambda url: Lease(url, "t"), lambda url: AsyncLease(url, "t"), Cache):
        with pytest.raises(UsageError) as caught:
            use(url)
        assert said in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_url_says_how_to_come_to_sentinels_and_servers() -> None:
    url = "rediss+sentinel://me:p%2Fw@one:7,[::1]/svc/3?sentinel_password=x&ssl_ca_certs=/ca"
    pool = connect(url).connection_pool
    asked = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in asked] == [("one", 7), ("::1", 26379)]
    assert {one["password"] for one in asked} == {"x"}
    assert {one["ssl_ca_certs"] for one in asked} == {"/ca"}
    kwargs = pool.connection_kwargs
    assert (kwargs["username"], kwargs["password"], kwargs["db"]) == ("me", "p/w", 3)
    assert kwargs["ssl_ca_certs"] == "/ca"
    assert issubclass(pool.connection_class, redis.SSLConnection)
    assert find("redis+sentinel://h/svc", 4).url == "redis+sentinel://h/svc?db=4"
    assert find("redis+sentinel://h/svc/4", 4).url.endswith("/svc/4?db=4")
    with pytest.raises(UsageError, match="name two databases"):
        find("redis+sentinel://h/svc/3", 4)
    with pytest.raises(UsageError, match="database 0 only"):
        find("redis+cluster://h", 4)


def test_every_command_works_behind_sentinel_and_no_password_is_shown(
    locked: Service, program: Program
) -> None:
    said = []
    for line in (
        "--messages 50 --error-rate 0.2 --attempts 1 --wait-replicas 2",
        "status",
        "verify",
        "leases",
        "--getErrors",
        "--retryErrors",
        "--cleanTemp",
        "lease nightly --wait 0 -- true",
        "--reset --yes --messages 20",
    ):
        code, out, err = program(*line.split(), REDIS_URL=locked.url)
        assert code == 0, err
        said.append(out + err)
    there = f"(Sentinel service svc, primary 127.0.0.1:{locked.primary()}, 2 replicas) at redis+"
    assert there in said[0]
    assert f"server     Valkey 9.1.2 {there}" in said[1] or there in said[1]
    assert "done: 50 messages" in said[0]
    assert "50 generated: 0 lost, 0 stored twice" in said[2]
    for secret in SECRETS:
        assert secret not in "".join(said)


@pytest.mark.parametrize("which", ["servers", "sentinels"])
def test_a_wrong_password_is_said_at_once_and_for_which_layer(
    locked: Service, program: Program, which: str
) -> None:
    code, _, said = program("status", REDIS_URL=locked.url.replace(PASSWORDS[which], "wrong"))
    assert code == 3
    needle = "the sentinels refuse" if which == "sentinels" else "user or password is wrong"
    assert needle in said
    assert "wrong@" not in said
    assert "password=wrong" not in said


def test_an_unknown_service_and_sentinels_that_are_away_are_named(
    locked: Service, program: Program
) -> None:
    code, _, said = program("status", REDIS_URL=locked.url.replace("/svc", "/other"))
    assert code == 3
    assert "know no living primary of service 'other'" in said
    away = "redis+sentinel://127.0.0.1:1,127.0.0.1:2/svc"
    code, _, said = program("status", REDIS_URL=away)
    assert code == 3
    assert "no sentinel answers" in said


def test_no_connection_to_a_sentinel_stays_open(locked: Service) -> None:
    client = connect(locked.url)
    connection = Route(client, "k").connection()
    connection.connect()
    wait_until(lambda: not locked.asked())
    connection.disconnect()


def test_lease_and_cache_take_the_url_in_both_faces_and_in_several_event_loops(
    locked: Service,
) -> None:
    with Lease(locked.url, "t", wait_replicas=2) as lease:
        assert lease.execute("SET", "{t}:x", "1") == b"OK"
        token = lease.token
    assert Cache(locked.url).get("k", lambda: 1, expire=60, execution_limit=5) == 1

    async def body() -> int:
        async with AsyncLease(locked.url, "t") as lease:
            assert await AsyncCache(locked.url).get("k", int, expire=9, execution_limit=5) == 1
            return lease.token

    tokens = [token, asyncio.run(body()), asyncio.run(body())]
    assert tokens == sorted(set(tokens))


def test_what_no_replica_confirms_does_not_count_and_is_sent_again(locked: Service) -> None:
    route = Route(connect(locked.url), Keys("test").job)
    io = SyncIO(route, patience=20, replicas=2)
    pipe = Pipe(io)
    (port, *_) = locked.servers.keys() - {locked.primary()}
    locked.freeze(port)
    try:
        io.patience = 0.1
        with pytest.raises(Exception, match="1 of 2 replicas confirmed a write") as caught:
            pipe.generator.publish(1, [b"x"])
        assert isinstance(caught.value.__cause__, Unconfirmed)
    finally:
        locked.thaw(port)
    io.patience = 20
    published = pipe.generator.publish(1, [b"x"])
    assert (published.sequence, published.queue) == (1, 1)
    io.close()


def test_3_a_token_is_above_all_that_its_owner_knows_of_even_if_a_failover_forgot_them(
    io: SyncIO, client: redis.Redis
) -> None:
    lease = SyncLease(io, "t")
    assert lease.acquire(blocking=False)
    ahead = lease.token + 3600 * 1_000_000  # of a primary whose clock was an hour ahead
    lease.release()
    client.set(Keys("t").token, ahead)
    assert lease.acquire(blocking=False)
    assert (highest := lease.token) > ahead
    lease.release()
    client.delete(Keys("t").token)  # the new one knows nothing of it
    assert lease.acquire(blocking=False)
    assert lease.token > highest


def test_1_a_primary_that_dies_loses_nothing_that_a_replica_had_confirmed() -> None:
    failover = run("valkey", "kill", replicas=1)
    assert not failover.wrong, failover
    assert failover.forgotten == failover.messages == failover.results == failover.repeated == 0
    assert failover.stored > 1000
