"""The lease when something fails: answers, connections, servers, processes, and waits cut short."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.sentinel import Sentinel

from distlock import AsyncLease, Lease, LeaseLost, NotAcquired
from distlock.errors import ServerUnreachable
from distlock.io import SyncIO, run
from distlock.keys import lease_keys
from distlock.lease.holder import READ
from tests.conftest import BINARIES, ONE_KIND, ROOT, Server
from tests.leases import Faces, in_thread, until
from tests.nodes import free_port, watched
from tests.proxy import Proxy, proxy
from tests.tools import wait_until

KEY, LINE = "distlock:{t}:lease", "distlock:{t}:line"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(params=["sync", "async"])
def faces(request: pytest.FixtureRequest, url: str) -> Faces:
    """Makes leases of one face."""
    return Faces(request.param, url)


@pytest.fixture
def wire(url: str) -> Iterator[Proxy]:
    """A proxy before the server."""
    with proxy(url) as made:
        yield made


@pytest.fixture
def process(url: str) -> Iterator[Start]:
    """Starts tests.lease_process; kills what is left of it after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.lease_process", url, *arguments]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def line(one: subprocess.Popen[str]) -> list[str]:
    """The next line that a process prints, in words."""
    assert one.stdout is not None
    return one.stdout.readline().split()


# --- answers and connections ------------------------------------------------------------------


def test_5_a_lost_answer_is_asked_for_again_and_nobody_notices(
    faces: Faces, wire: Proxy, client: redis.Redis
) -> None:
    async def body() -> None:
        lease = faces.lease(url=wire.url, auto_renew=False)
        tokens = []
        for turn in range(16):
            for verb in (lease.acquire, lease.renew, lease.release):
                wire.losing = turn % 4
                assert await verb()
                wire.losing = 0
                tokens.append(lease.token) if lease.token else None
        assert tokens == sorted(tokens)
        assert len(set(tokens)) == 16
        assert client.exists(KEY, LINE) == 0

    asyncio.run(body())


def test_5_an_answer_that_is_lost_just_when_the_server_had_forgotten_the_script(
    faces: Faces, wire: Proxy, client: redis.Redis
) -> None:
    async def body() -> None:
        lease = faces.lease(url=wire.url, auto_renew=False)
        assert await lease.acquire()
        for verb in (lease.renew, lease.release):
            client.script_flush()
            wire.sparing, wire.losing = 1, 1  # "no such script" comes, the answer after it does not
            assert await verb()
            assert wire.losing == 0
        assert client.exists(KEY) == 0

    asyncio.run(body())


def test_a_connection_made_in_haste_gives_the_next_request_its_full_time(wire: Proxy) -> None:
    io = SyncIO(redis.Redis.from_url(wire.url))
    with suppress(redis.RedisError):  # a busy machine may take longer
        run(io.attempt(READ, lease_keys("t"), (), 0.1))
    wire.holding = True
    letting_go = threading.Timer(0.3, lambda: setattr(wire, "holding", False))
    letting_go.start()
    run(io.call(READ, lease_keys("t"), ()))
    letting_go.join()
    assert io.resent == 0
    io.close()


def test_8_a_waiter_whose_connections_break_stands_in_line_again(
    faces: Faces, wire: Proxy, client: redis.Redis
) -> None:
    async def body() -> None:
        holder, waiter = faces.lease(), faces.lease(url=wire.url)
        await holder.acquire()
        waiting = asyncio.create_task(waiter.acquire())
        await until(lambda: client.llen(LINE) == 1)
        for turn in range(3):
            wire.cut()
            await until(lambda n=turn: client.llen(LINE) == n + 2)  # the old entries call nobody
        await holder.release()
        assert await asyncio.wait_for(waiting, 3)
        assert await waiter.release()
        assert client.exists(KEY, LINE) == 0

    asyncio.run(body())


def test_7_renewal_survives_connections_that_break(faces: Faces, wire: Proxy) -> None:
    async def body() -> None:
        lease = faces.lease(url=wire.url, ttl=0.6)
        await lease.acquire()
        began = time.monotonic()
        while time.monotonic() < began + 2:
            wire.cut()
            await asyncio.sleep(0.1)
            assert lease.held
        assert await lease.release()

    asyncio.run(body())


@pytest.mark.parametrize("how", ["deaf", "holding"])
def test_7_a_holder_is_told_at_its_own_deadline_when_the_server_is_silent(
    faces: Faces, wire: Proxy, how: str
) -> None:
    async def body() -> None:
        told: list[float] = []
        lease = faces.lease(
            url=wire.url, ttl=0.6, on_lost=lambda lease: told.append(time.monotonic())
        )
        await lease.acquire()
        await asyncio.sleep(0.3)  # it has been renewed by now
        setattr(wire, how, True)
        await until(lambda: told, 3)
        assert lease.deadline <= told[0] < lease.deadline + 0.25
        assert lease.lost
        setattr(wire, how, False)

    asyncio.run(body())


def test_a_server_that_is_away_is_said_within_the_timeout(faces: Faces, wire: Proxy) -> None:
    async def body() -> None:
        lease = faces.lease(url=wire.url)
        await lease.acquire()
        await lease.release()
        wire.deaf = True
        began = time.monotonic()
        with pytest.raises(ServerUnreachable, match="away"):
            await lease.acquire(timeout=0.5)
        assert 0.4 < time.monotonic() - began < 3
        wire.deaf = False
        assert await lease.acquire(timeout=5)

    asyncio.run(body())


# --- waits that are cut short -----------------------------------------------------------------


@pytest.mark.parametrize("point", ["asking", "waiting", "granted"])
def test_a_cancelled_acquire_leaves_neither_lease_nor_place(
    url: str, client: redis.Redis, point: str
) -> None:
    dice = random.Random(3)

    async def once() -> None:
        holder = AsyncLease(url, "t")
        lease = AsyncLease(redis.asyncio.Redis.from_url(url), "t")
        if point != "asking":
            await holder.acquire()
        task = asyncio.create_task(lease.acquire())
        if point == "asking":
            for _ in range(dice.randint(0, 12)):
                await asyncio.sleep(0)
        else:
            await until(lambda: client.llen(LINE) == 1)
        if point == "granted":
            await holder.release()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            await lease.release()
        if point == "waiting":
            await holder.release()
        assert client.exists(KEY, LINE) == 0

    async def body() -> None:
        for _ in range(100):
            await once()

    asyncio.run(body())


def test_ctrl_c_leaves_neither_lease_nor_place(process: Start, client: redis.Redis) -> None:
    holder = process("hold")
    assert line(holder)[0] == "held"
    waiter = process("wait")
    assert line(waiter) == ["waiting"]
    wait_until(lambda: client.llen(LINE) == 1)
    waiter.send_signal(signal.SIGINT)
    assert line(waiter) == ["interrupted"]
    assert waiter.wait(5) == 130
    assert client.exists(LINE) == 0
    holder.send_signal(signal.SIGINT)
    assert line(holder) == ["interrupted"]
    assert client.exists(KEY) == 0


def test_a_waiter_that_gives_up_as_it_is_granted_passes_it_on(
    faces: Faces, client: redis.Redis
) -> None:
    async def body() -> None:
        for turn in range(5):
            holder, hasty, patient = faces.lease(), faces.lease(), faces.lease()
            await holder.acquire()
            began = time.monotonic()
            giving_up = asyncio.create_task(hasty.acquire(timeout=0.3))
            await until(lambda: client.llen(LINE) == 1)
            waiting = asyncio.create_task(patient.acquire(timeout=5))
            await asyncio.sleep(began + 0.29 + turn / 200 - time.monotonic())
            await holder.release()  # just before, or just after it gives up
            if await giving_up:
                await hasty.release()
            assert await waiting
            await patient.release()
            assert client.exists(KEY, LINE) == 0

    asyncio.run(body())


# --- processes --------------------------------------------------------------------------------


def test_8_when_a_holder_is_killed_the_next_one_has_it_at_the_end_of_the_term(
    process: Start, url: str, client: redis.Redis
) -> None:
    holder = process("hold", "ttl=1")
    assert line(holder)[0] == "held"
    waiter = process("wait", "ttl=1")
    wait_until(lambda: client.llen(LINE) == 1)
    holder.kill()
    left = client.pttl(KEY) / 1000
    began = time.monotonic()
    assert line(waiter)[:1] == ["waiting"]
    word, _, when = line(waiter)
    assert word == "held"
    assert left - 0.1 < float(when) - began < left + 0.3


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_8_a_watched_holder_that_is_killed_is_followed_long_before_its_term_ends(
    process: Start, client: redis.Redis, delay: float
) -> None:
    holder = process("hold", "ttl=60", "watch_connection=True", f"lock_delay={delay}")
    assert line(holder)[0] == "held"
    wait_until(lambda: client.hexists(KEY, "connections"))
    waiter = process("wait", "ttl=60", "watch_connection=True")
    assert line(waiter) == ["waiting"]
    wait_until(lambda: client.llen(LINE) == 1)
    before = client.info("commandstats").get("cmdstat_client|list", {"calls": 0})["calls"]
    wait_until(
        lambda: (
            client.info("commandstats").get("cmdstat_client|list", {"calls": 0})["calls"]
            > before + 2
        )
    )
    holder.kill()
    began = time.monotonic()
    word, _, when = line(waiter)
    assert word == "held"
    assert delay <= float(when) - began < delay + 1


@ONE_KIND
def test_9_of_many_who_watch_only_the_first_in_line_asks_for_the_holders_connections(
    url: str, client: redis.Redis
) -> None:
    holder, *waiters = (
        Lease(redis.Redis.from_url(url), "t", ttl=30, watch_connection=True) for _ in range(6)
    )

    def asked() -> int:
        stats = client.info("commandstats")
        return int(stats.get("cmdstat_client|list", {"calls": 0})["calls"])

    holder.acquire()
    wait_until(lambda: client.hexists(KEY, "connections"))

    async def body() -> None:
        waiting = [asyncio.create_task(in_thread(waiter.acquire)) for waiter in waiters]
        await until(lambda: client.llen(LINE) == 5)
        before, began = asked(), time.monotonic()
        await until(lambda: asked() >= before + 20)
        assert time.monotonic() - began > 0.9  # 20 a second at most, however many wait
        holder.release()
        for _ in waiters:
            await until(lambda: any(waiter.held for waiter in waiters))
            next(waiter for waiter in waiters if waiter.held).release()
        await asyncio.gather(*waiting)

    asyncio.run(body())


@ONE_KIND
def test_a_watched_holder_keeps_its_lease_while_one_of_its_connections_lives(
    url: str, client: redis.Redis
) -> None:
    holder, waiter = (
        Lease(redis.Redis.from_url(url), "t", ttl=1, watch_connection=True) for _ in range(2)
    )
    holder.acquire()
    first = wait_until(lambda: client.hget(KEY, "connections"))

    async def body() -> None:
        waiting = asyncio.create_task(in_thread(waiter.acquire))
        await until(lambda: client.llen(LINE) == 1)
        await asyncio.sleep(0.2)
        client.execute_command("CLIENT", "KILL", "ID", first.split()[1])
        await until(lambda: client.hget(KEY, "connections") != first)  # it registers anew
        assert holder.held
        holder.release()
        assert await waiting

    asyncio.run(body())


def test_8_who_comes_first_in_line_because_the_one_before_left_watches_from_then_on(
    faces: Faces, client: redis.Redis
) -> None:
    def looks() -> int:
        stats = client.info("commandstats").get("cmdstat_client|list", {"calls": 0})
        return int(stats["calls"])

    async def body() -> None:
        holder = faces.lease(ttl=60, watch_connection=True)
        await holder.acquire()
        await until(lambda: client.hexists(KEY, "connections"))
        blind = asyncio.create_task(faces.lease(ttl=60).acquire(timeout=0.5))
        await until(lambda: client.llen(LINE) == 1)
        watching = asyncio.create_task(faces.lease(ttl=60, watch_connection=True).acquire())
        await until(lambda: client.llen(LINE) == 2)
        before = looks()
        assert not await blind
        await until(lambda: looks() > before + 2)
        await holder.release()
        assert await watching

    asyncio.run(body())


def test_8_a_waiter_that_is_killed_costs_the_next_one_nothing(
    process: Start, url: str, client: redis.Redis
) -> None:
    holder = Lease(url, "t", ttl=60)
    holder.acquire()
    first = process("wait", "ttl=60")
    wait_until(lambda: client.llen(LINE) == 1)
    second = process("wait", "ttl=60")
    wait_until(lambda: client.llen(LINE) == 2)
    first.kill()
    first.wait()
    holder.release()
    began = time.monotonic()
    assert line(second) == ["waiting"]
    word, _, when = line(second)
    assert word == "held"
    assert float(when) - began < 1


def test_3_a_process_that_was_frozen_writes_nothing_afterwards_and_is_told(
    process: Start, url: str, client: redis.Redis
) -> None:
    writer = process("write", "ttl=0.3")
    assert line(writer)[0] == "held"
    wait_until(lambda: client.llen("{t}:writes") > 10)
    writer.send_signal(signal.SIGSTOP)
    after = Lease(url, "t", ttl=5)
    assert after.acquire(timeout=5)
    after.execute("RPUSH", "{t}:writes", after.token)
    count = client.llen("{t}:writes")
    began = time.monotonic()
    writer.send_signal(signal.SIGCONT)
    word, when = line(writer)
    assert word == "lost"
    assert float(when) - began < 0.5
    assert line(writer) == ["gone"]
    assert client.llen("{t}:writes") == count
    tokens = [int(token) for token in client.lrange("{t}:writes", 0, -1)]
    assert tokens == sorted(tokens)
    after.release()


def test_a_forked_process_begins_anew(url: str, client: redis.Redis) -> None:
    lease = Lease(url, "t", ttl=0.5)
    lease.acquire()
    child = os.fork()
    if child == 0:
        other = Lease(url, "u", ttl=0.5)
        good = other.acquire() and not Lease(url, "t").acquire(blocking=False)
        time.sleep(1)  # twice its ttl: it is renewed here, too
        os._exit(0 if good and other.held and other.release() else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert lease.held
    assert lease.release()


# --- servers ----------------------------------------------------------------------------------


@pytest.fixture(params=["valkey", "redis"])
def mortal(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own, to be killed; it forgets everything."""
    if not BINARIES[request.param]:
        pytest.skip(f"{request.param}-server is not installed")
    server = Server(request.param)
    yield server
    server.close()


@pytest.mark.parametrize("face", ["sync", "async"])
def test_3_a_server_that_starts_again_and_has_forgotten_everything_grants_a_higher_token(
    mortal: Server, face: str
) -> None:
    faces = Faces(face, mortal.url)

    async def body() -> None:
        holder, waiter = faces.lease(ttl=1), faces.lease(ttl=1)
        await holder.acquire()
        token = holder.token
        waiting = asyncio.create_task(waiter.acquire())
        with redis.Redis.from_url(mortal.url) as client:
            await until(lambda: client.llen(LINE) == 1)
        mortal.kill()
        await in_thread(mortal.start)
        assert await asyncio.wait_for(waiting, 10)
        assert waiter.token > token
        await until(lambda: holder.lost, 3)
        assert waiter.held

    asyncio.run(body())


def test_8_a_clock_that_is_set_back_does_not_stretch_a_term(
    faces: Faces, client: redis.Redis
) -> None:
    async def body() -> None:
        holder, waiter = faces.lease(ttl=0.5, auto_renew=False), faces.lease(ttl=0.5)
        await holder.acquire()
        client.pexpire(KEY, 7_200_000)
        assert await waiter.acquire(timeout=5)

    asyncio.run(body())


@pytest.mark.parametrize("face", ["sync", "async"])
def test_an_acquire_is_refused_unless_enough_replicas_confirm_it(mortal: Server, face: str) -> None:
    faces = Faces(face, mortal.url)
    replica = Server(mortal.kind)

    async def body() -> None:
        with redis.Redis.from_url(mortal.url) as client, redis.Redis.from_url(replica.url) as other:
            lease = faces.lease(ttl=1, wait_replicas=1)
            with pytest.raises(NotAcquired, match="0 of 1 replicas") as caught:
                await lease.acquire()
            assert caught.value.key == KEY
            assert client.exists(KEY) == 0
            client.config_set("repl-diskless-sync-delay", 0)
            client.config_set("port", port := free_port())
            other.replicaof("127.0.0.1", str(port))
            await until(lambda: other.info("replication")["master_link_status"] == "up", 20)
            assert await lease.acquire()
            assert other.hget(KEY, "token") == str(lease.token).encode()
            assert await lease.release()

    try:
        asyncio.run(body())
    finally:
        replica.close()


@pytest.mark.parametrize("face", ["sync", "async"])
@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_it_works_on_a_cluster(kind: str, face: str) -> None:
    if not BINARIES[kind]:
        pytest.skip(f"{kind}-server is not installed")
    port = free_port()
    server = Server(kind, "--cluster-enabled", "yes", "--port", str(port))
    try:
        with redis.Redis(port=port) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: client.cluster("INFO")["cluster_state"] == "ok")
        asyncio.run(hand_over_on_a_cluster(face, port))
    finally:
        server.close()


async def hand_over_on_a_cluster(face: str, port: int) -> None:
    if face == "sync":
        clients: list[Any] = [redis.RedisCluster(host="127.0.0.1", port=port) for _ in range(2)]
        holder, waiter = (Lease(client, "t") for client in clients)
        assert holder.acquire()
        waiting = asyncio.create_task(in_thread(waiter.acquire))
        await until(lambda: holder.holder().waiters)
        assert holder.execute("SET", "{t}:x", "1") == b"OK"
        holder.release()
        assert await asyncio.wait_for(waiting, 2)
        for client in clients:
            client.close()
        return
    async with (
        redis.asyncio.RedisCluster(host="127.0.0.1", port=port) as one,
        redis.asyncio.RedisCluster(host="127.0.0.1", port=port) as other,
    ):
        first, second = AsyncLease(one, "t"), AsyncLease(other, "t")
        assert await first.acquire()
        granted = asyncio.create_task(second.acquire())
        while not (await first.holder()).waiters:
            await asyncio.sleep(0.01)
        assert await first.execute("SET", "{t}:x", "1") == b"OK"
        await first.release()
        assert await asyncio.wait_for(granted, 2)


def test_it_works_over_sentinel_and_finds_the_new_primary() -> None:
    with watched() as service:
        other = service.other
        sentinel = Sentinel([("127.0.0.1", service.port)])
        lease = Lease(sentinel.master_for("svc"), "t", ttl=30)
        assert lease.acquire()
        token = lease.token
        wait_until(lambda: other.hget(KEY, "token") == str(token).encode())
        service.primary.kill()
        wait_until(lambda: other.info("replication")["role"] == "master", 30)
        assert lease.renew()
        assert lease.release()
        assert lease.acquire()
        assert lease.token > token
        assert other.hget(KEY, "token") == str(lease.token).encode()


def test_a_user_who_may_not_look_at_connections_waits_like_the_others(
    url: str, client: redis.Redis
) -> None:
    client.execute_command(
        *("ACL", "SETUSER", "narrow", "reset", "on", ">pw", "~*", "&*", "+@all", "-client|list")
    )
    narrow = url.replace("unix://", "unix://narrow:pw@")
    holder = Lease(redis.Redis.from_url(url), "t", ttl=0.6, watch_connection=True)
    waiter = Lease(redis.Redis.from_url(narrow), "t", ttl=0.6, watch_connection=True)
    holder.acquire()
    wait_until(lambda: client.hexists(KEY, "connections"))

    async def body() -> None:
        waiting = asyncio.create_task(in_thread(waiter.acquire))
        await until(lambda: client.llen(LINE) == 1)
        await asyncio.sleep(0.3)
        holder.release()
        assert await asyncio.wait_for(waiting, 3)
        client.execute_command("ACL", "SETUSER", "narrow", "-client|id")
        blind = Lease(redis.Redis.from_url(narrow), "u", ttl=0.3, watch_connection=True)
        assert blind.acquire()
        await asyncio.sleep(0.5)
        assert blind.held  # it cannot register, and is renewed all the same
        blind.release()

    try:
        asyncio.run(body())
    finally:
        waiter.release()
        client.execute_command("ACL", "DELUSER", "narrow")


def test_7_a_lost_lease_ends_the_block_even_when_the_server_never_comes_back(
    url: str, wire: Proxy
) -> None:
    async def body() -> None:
        async with AsyncLease(wire.url, "t", ttl=0.4):
            wire.deaf = True
            await asyncio.sleep(30)

    began = time.monotonic()
    with pytest.raises(LeaseLost):
        asyncio.run(body())
    assert time.monotonic() - began < 3
