"""The lease as a library: both faces from one body, on each real server.

`test_lease_faults.py` has what fails and dies, `test_lease_model.py` and
`test_lease_interleavings.py` what may happen in any order.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import pickle
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from distlock import (
    AsyncLease,
    Lease,
    LeaseLost,
    NotAcquired,
    StaleToken,
    TokenGuard,
    lead,
)
from distlock.errors import UsageError
from distlock.io import SyncIO, run
from distlock.keys import Keys
from distlock.scripts import script
from tests.conftest import ONE_KIND
from tests.leases import Faces, until
from tests.tools import wait_until

KEY, LINE = "distlock:{t}:lease", "distlock:{t}:line"


@pytest.fixture(params=["sync", "async"])
def faces(request: pytest.FixtureRequest, url: str) -> Faces:
    """Makes leases of one face."""
    return Faces(request.param, url)


# --- acquire, renew, release ------------------------------------------------------------------


def test_a_lease_is_taken_renewed_and_given_back(faces: Faces, client: redis.Redis) -> None:
    async def body() -> None:
        lease = faces.lease(ttl=5)
        assert await lease.acquire()
        assert lease.held
        assert lease.token > 1_700_000_000_000_000
        client.pexpire(KEY, 1000)
        assert await lease.renew()
        assert 4000 < client.pttl(KEY) <= 5000
        assert await lease.release()
        assert not lease.held
        assert not lease.lost
        assert client.keys() == [b"distlock:{t}:token"]
        assert 6 * 86400 < client.ttl("distlock:{t}:token") <= 7 * 86400

    asyncio.run(body())


def test_while_another_holds_it_a_try_fails_at_once_and_a_wait_at_its_deadline(
    faces: Faces, client: redis.Redis
) -> None:
    async def body() -> None:
        holder, other = faces.lease(), faces.lease()
        await holder.acquire()
        assert not await other.acquire(blocking=False)
        assert not await other.acquire(timeout=0)
        began = time.monotonic()
        assert not await other.acquire(timeout=0.2)
        assert 0.2 <= time.monotonic() - began < 1
        assert client.exists(LINE) == 0
        with pytest.raises(NotAcquired, match="holds it") as caught:
            async with faces.lease(wait=0.05):
                pass
        assert (caught.value.key, caught.value.owner) == (KEY, holder.owner)
        assert caught.value.token == holder.token

    asyncio.run(body())


def test_an_uncontended_acquire_and_release_are_two_commands(
    faces: Faces, client: redis.Redis
) -> None:
    async def body() -> None:
        lease = faces.lease()
        await lease.acquire()  # connects, and makes the scripts known
        await lease.release()
        before = client.info("commandstats")
        for _ in range(10):
            await lease.acquire()
            await lease.release()
        after = client.info("commandstats")
        calls = {
            name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after
        }
        assert calls["cmdstat_evalsha"] == 20
        assert calls.get("cmdstat_ping", 0) == calls.get("cmdstat_subscribe", 0) == 0

    asyncio.run(body())


def test_3_tokens_rise_over_release_expiry_and_flushall(faces: Faces, client: redis.Redis) -> None:
    async def body() -> None:
        tokens = []
        for turn in range(9):
            lease = faces.lease(auto_renew=False)
            await lease.acquire()
            tokens.append(lease.token)
            if turn % 3 == 0:
                await lease.release()
            elif turn % 3 == 1:
                client.delete(KEY)
            else:
                client.flushall()
        assert tokens == sorted(set(tokens))

    asyncio.run(body())


def test_an_object_has_one_term_at_a_time(faces: Faces, client: redis.Redis) -> None:
    async def body() -> None:
        lease = faces.lease()
        with pytest.raises(LeaseLost, match="not held"):
            await lease.release()
        with pytest.raises(LeaseLost, match="not held"):
            lease.check()
        assert client.keys() == []
        await lease.acquire()
        token = lease.token
        with pytest.raises(UsageError, match="held by this object"):
            await lease.acquire()
        assert lease.token == token
        assert lease.held
        await lease.release()
        with pytest.raises(LeaseLost):
            await lease.release()

    asyncio.run(body())


@ONE_KIND
@pytest.mark.parametrize(
    ("options", "word"),
    [
        *(({"ttl": ttl}, "ttl") for ttl in (0, -1, math.nan, math.inf, "5", True, None, 0.01)),
        *(({"name": name}, "name") for name in ("", "a" * 10_000, "a b", "{a}", "a*", None, b"a")),
        *(({"wait": wait}, "wait") for wait in (-1, "1", math.nan)),
        *(({"lock_delay": delay}, "lock_delay") for delay in (-1, "1", math.nan)),
        *(({"wait_replicas": count}, "wait_replicas") for count in (-1, 1.5, True, "1")),
        ({"on_lost": 5}, "on_lost"),
        ({"who": "a b"}, "who"),
    ],
)
def test_11_what_cannot_be_used_is_refused_in_one_line(
    faces: Faces, client: redis.Redis, options: dict[str, Any], word: str
) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        faces.lease(**options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert client.keys() == []


@ONE_KIND
def test_11_a_timeout_or_a_server_that_cannot_be_used_is_refused(faces: Faces) -> None:
    async def body() -> None:
        lease = faces.lease()
        for timeout in (-1, math.nan, "1", True):
            with pytest.raises(UsageError, match="timeout"):
                await lease.acquire(timeout=timeout)
        with pytest.raises(UsageError, match="timeout"):
            await lease.acquire(blocking=False, timeout=1)
        assert await lease.acquire()

    asyncio.run(body())
    for kind in (Lease, AsyncLease):
        for server in (None, 5, "localhost", "http://x", b"redis://x"):
            with pytest.raises(UsageError):
                kind(server, "t")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no server"):
        Lease(redis.asyncio.Redis(), "t")  # type: ignore[arg-type]


# --- waiting ----------------------------------------------------------------------------------


def test_8_a_release_hands_it_to_those_who_wait_in_the_order_of_arrival(
    faces: Faces, client: redis.Redis
) -> None:
    async def body() -> None:
        holder, order = faces.lease(), []
        await holder.acquire()

        async def wait(number: int) -> None:
            async with faces.lease() as lease:
                order.append((number, lease.token))

        waiters = []
        for number in range(5):
            waiters.append(asyncio.create_task(wait(number)))
            await until(lambda n=number: client.llen(LINE) == n + 1)
        await holder.release()
        await asyncio.gather(*waiters)
        assert [number for number, _ in order] == list(range(5))
        assert [token for _, token in order] == sorted(token for _, token in order)
        assert client.exists(KEY, LINE) == 0

    asyncio.run(body())


def test_8_nobody_barges_in_before_those_who_wait(faces: Faces, client: redis.Redis) -> None:
    async def body() -> None:
        holder, waiter, other = faces.lease(), faces.lease(), faces.lease()
        await holder.acquire()
        waiting = asyncio.create_task(waiter.acquire())
        await until(lambda: client.llen(LINE) == 1)
        client.delete(KEY)  # as if the holder had died: nobody called the waiter
        assert not await other.acquire(blocking=False)
        assert await waiting
        assert waiter.held

    asyncio.run(body())


def test_the_waiters_of_one_process_cost_one_place_and_are_served_in_order(
    faces: Faces, client: redis.Redis
) -> None:
    async def body() -> None:
        holder, order = faces.lease(), []
        await holder.acquire()
        leases = faces.siblings(8)

        async def wait(number: int) -> None:
            async with leases[number]:
                order.append(number)

        waiters = []
        for number in range(8):
            waiters.append(asyncio.create_task(wait(number)))
            if faces.face == "sync":
                await asyncio.sleep(0.02)  # lets the thread come as far as its queue
        await until(lambda: client.llen(LINE) == 1)
        await holder.release()
        await asyncio.gather(*waiters)
        assert sorted(order) == list(range(8))
        if faces.face == "async":
            assert order == list(range(8))

    asyncio.run(body())


def test_8_a_waiter_takes_over_when_the_term_of_a_silent_holder_ends(faces: Faces) -> None:
    async def body() -> None:
        holder, waiter = faces.lease(ttl=0.5, auto_renew=False), faces.lease(ttl=0.5)
        await holder.acquire()
        assert await waiter.acquire()
        assert holder.deadline - 0.05 <= time.monotonic() < holder.deadline + 0.5
        assert holder.lost
        with pytest.raises(LeaseLost, match=f"token {holder.token}"):
            holder.check()
        assert not await holder.release()
        assert waiter.held

    asyncio.run(body())


def test_8_a_term_that_is_shorter_than_what_the_next_one_knows_does_not_make_it_late(
    faces: Faces, client: redis.Redis
) -> None:
    async def body() -> None:
        holder, short, long = faces.lease(ttl=60), faces.lease(ttl=0.3), faces.lease(ttl=60)
        await holder.acquire()
        waiting = asyncio.create_task(short.acquire())
        await until(lambda: client.llen(LINE) == 1)
        after = asyncio.create_task(long.acquire(timeout=5))
        await until(lambda: client.llen(LINE) == 2)
        short._options.__dict__["auto_renew"] = False
        await holder.release()
        assert await waiting
        assert await after  # that one knew of 60 s

    asyncio.run(body())


def test_9_a_waiter_sends_at_most_two_commands_a_ttl(faces: Faces, client: redis.Redis) -> None:
    async def body() -> None:
        holder, waiter = faces.lease(ttl=0.5, auto_renew=False), faces.lease(ttl=0.5)
        await holder.acquire()
        waiting = asyncio.create_task(waiter.acquire())
        await until(lambda: client.llen(LINE) == 1)
        before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        began = time.monotonic()
        while time.monotonic() < began + 3:
            assert await holder.renew()
            await asyncio.sleep(0.15)
        sent = client.info("commandstats")["cmdstat_evalsha"]["calls"] - before
        renewals = math.ceil((time.monotonic() - began) / 0.15) + 1
        assert sent <= renewals + 2 * 3 / 0.5
        await holder.release()
        assert await waiting

    asyncio.run(body())


def test_8_a_waiter_that_does_not_listen_is_passed_over(faces: Faces, client: redis.Redis) -> None:
    async def body() -> None:
        holder, waiter = faces.lease(), faces.lease()
        await holder.acquire()
        for number in range(20):
            client.rpush(LINE, f"dead{number} gone/{number} 10000 0 0 0")
        waiting = asyncio.create_task(waiter.acquire())
        await until(lambda: client.llen(LINE) == 21)
        await holder.release()
        assert await asyncio.wait_for(waiting, 2)

    asyncio.run(body())


def test_what_is_no_entry_of_ours_is_passed_over(faces: Faces, client: redis.Redis) -> None:
    async def body() -> None:
        holder, waiter = faces.lease(), faces.lease()
        await holder.acquire()
        client.rpush(LINE, b"junk", b"", b"two words", b"\xff a b c d e")
        waiting = asyncio.create_task(waiter.acquire())
        await until(lambda: client.llen(LINE) == 5)
        assert waiter.owner in (await holder.holder()).waiters
        await holder.release()
        assert await asyncio.wait_for(waiting, 2)
        assert client.exists(LINE) == 0

    asyncio.run(body())


# --- renewal and loss -------------------------------------------------------------------------


def test_7_it_renews_itself_while_it_is_held(faces: Faces) -> None:
    async def body() -> None:
        leases = [faces.lease(f"t{number}", ttl=0.3) for number in range(3)]
        for lease in leases:
            await lease.acquire()
        began = time.monotonic()
        while time.monotonic() < began + 1.2:
            assert all(lease.held for lease in leases)
            await asyncio.sleep(0.02)
        for lease in leases:
            assert await lease.release()

    asyncio.run(body())


def test_7_a_holder_is_told_once_when_the_server_says_that_it_is_lost(
    faces: Faces, client: redis.Redis
) -> None:
    async def body() -> None:
        told: list[Any] = []
        lease = faces.lease(ttl=0.6, on_lost=told.append)
        await lease.acquire()
        client.delete(KEY)
        await until(lambda: told, 2)
        assert lease.lost
        assert not lease.held
        assert not await lease.renew()
        assert client.exists(KEY) == 0  # it never takes an expired lease back
        with pytest.raises(LeaseLost, match="lost"):
            lease.check()
        assert not await lease.release()
        assert len(told) == 1
        assert await lease.acquire()
        assert not lease.lost

    asyncio.run(body())


def test_7_of_two_that_notice_a_loss_at_once_one_tells(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    lease, io = Lease(client, "t", on_lost=told.append), SyncIO(client)
    monkeypatch.setattr(io, "spawn", lambda function: function())
    assert lease.acquire(blocking=False)
    for _ in range(2):
        lease._note_loss(io, "it is gone")
    assert told == [lease]


def test_7_an_owner_whose_term_is_over_here_writes_nothing_although_the_server_would_take_it(
    faces: Faces, client: redis.Redis
) -> None:
    async def body() -> None:
        lease = faces.lease(ttl=0.2, auto_renew=False)
        await lease.acquire()
        client.pexpire(KEY, 60_000)
        await until(lambda: not lease.held)
        with pytest.raises(LeaseLost):
            await lease.execute("SET", "x", "late")
        assert not client.exists("x")

    asyncio.run(body())


def test_7_leaving_the_block_of_a_lost_lease_raises(faces: Faces, client: redis.Redis) -> None:
    async def body() -> None:
        async def lose(fail: bool) -> None:
            async with faces.lease(ttl=0.3) as lease:
                client.delete(KEY)
                await until(lambda: lease.lost)
                if fail:
                    raise ZeroDivisionError

        with pytest.raises(LeaseLost, match="lost"):
            await lose(fail=False)
        if faces.face == "sync":  # the body's own error comes first
            with pytest.raises(ZeroDivisionError):
                await lose(fail=True)

    asyncio.run(body())


def test_7_the_body_of_async_with_is_cancelled_and_sees_lease_lost(
    url: str, client: redis.Redis
) -> None:
    async def body() -> None:
        seen: list[type] = []

        async def work() -> None:
            try:
                await asyncio.sleep(30)
            except BaseException as error:
                seen.append(type(error))
                raise

        async def losing() -> None:
            async with AsyncLease(url, "t", ttl=0.3):
                client.delete(KEY)
                await work()

        with pytest.raises(LeaseLost):
            await losing()
        assert seen == [asyncio.CancelledError]
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

        async def cancelled() -> None:
            async with AsyncLease(url, "t"):
                await work()

        task = asyncio.create_task(cancelled())
        await until(lambda: client.exists(KEY))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):  # not from us: it stays what it is
            await task
        assert client.exists(KEY) == 0

    asyncio.run(body())


def test_7_a_renewal_by_hand_sets_the_time_and_never_adds(
    faces: Faces, client: redis.Redis
) -> None:
    async def body() -> None:
        lease = faces.lease(ttl=60)
        await lease.acquire()
        for _ in range(5):
            assert await lease.renew()
        assert 59_000 < client.pttl(KEY) <= 60_000
        assert lease.deadline <= time.monotonic() + 60

    asyncio.run(body())


@ONE_KIND
def test_7_what_fails_for_one_lease_keeps_no_other_from_being_renewed(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    client = redis.Redis.from_url(url)
    bad, good = Lease(client, "t", ttl=1), Lease(client, "u", ttl=1)
    bad.hooks = [broken]
    bad.acquire()
    good.acquire()
    client.delete(KEY)
    wait_until(lambda: "ZeroDivisionError" in caplog.text)
    ends = good.deadline
    wait_until(lambda: good.deadline > ends + 1)
    assert good.release()


def test_8_who_is_next_is_told_to_watch_and_who_does_not_listen_any_more_is_dropped(
    faces: Faces, client: redis.Redis
) -> None:
    async def body() -> None:
        holder, *waiters = (faces.lease(ttl=30, watch_connection=True) for _ in range(3))
        await holder.acquire()
        waiting = []
        for number, waiter in enumerate(waiters):
            waiting.append(asyncio.create_task(waiter.acquire()))
            await until(lambda n=number: client.llen(LINE) == 2 * n + 1)
            client.rpush(LINE, f"nobody{number} gone/{number} 30000 0 0 1")
        await holder.release()
        await waiting[0]
        await until(lambda: client.llen(LINE) == 2)
        await waiters[0].release()
        await waiting[1]
        assert not client.exists(LINE)

    asyncio.run(body())


# --- writes that need the lease ---------------------------------------------------------------


def test_3_a_term_is_ended_for_its_dead_holder_and_no_other_for_it(client: redis.Redis) -> None:
    io, keys, bury = (
        SyncIO(client),
        Keys("t").pick(["lease", "token", "line"]),
        script("lease_bury"),
    )
    lease = Lease(client, "t")
    assert lease.acquire(blocking=False)
    client.hset(keys[0], "connections", "1 2 server")
    for token, connections in ((lease.token - 1, "1 2 server"), (lease.token, "1 3 server")):
        assert run(io.call(bury, keys, (token, connections))) == 0
        assert client.hget(keys[0], "token") == b"%d" % lease.token
    assert run(io.call(bury, keys, (lease.token, "1 2 server"))) == 1
    assert not client.exists(keys[0])


def test_3_a_write_is_done_only_while_the_lease_is_held(faces: Faces, client: redis.Redis) -> None:
    async def body() -> None:
        lease, after = faces.lease(auto_renew=False), faces.lease()
        await lease.acquire()
        assert await lease.execute("SET", "x", "1") == b"OK"
        assert await lease.execute_all(
            [("INCR", "x"), ("GET", "nothing"), ("APPEND", "x", b"\x00")]
        )
        assert client.get("x") == b"2\x00"
        added = await lease.eval("return redis.call('INCRBY', KEYS[1], ARGV[1])", ["n"], [5])
        assert added == 5
        with pytest.raises(redis.ResponseError):
            await lease.execute("INCR", "x")
        assert lease.held
        client.delete(KEY)
        await after.acquire()
        for write in (
            lambda: lease.execute("SET", "x", "late"),
            lambda: lease.execute_all([("SET", "x", "late")]),
            lambda: lease.eval("return redis.call('SET', KEYS[1], 'late')", ["x"]),
        ):
            with pytest.raises(LeaseLost):
                await write()
        assert client.get("x") == b"2\x00"
        assert lease.lost
        with pytest.raises(UsageError, match="7,000"):
            await after.execute("RPUSH", "x", *["y"] * 8000)

    asyncio.run(body())


@pytest.mark.parametrize("over", ["another's token", "its lock delay has begun"])
def test_3_the_server_refuses_an_owner_who_does_not_know_yet_that_its_term_is_over(
    faces: Faces, client: redis.Redis, over: str
) -> None:
    token = over == "another's token"

    async def refused(act: str, lease: Any) -> bool:
        if act == "write":
            with pytest.raises(LeaseLost):
                await lease.execute("SET", "x", "late")
            return True
        return not await (lease.renew() if act == "renew" else lease.release())

    async def body() -> None:
        for act in ("write", "renew", "release") if token else ("write", "renew"):
            lease = faces.lease(ttl=30, lock_delay=10, auto_renew=False)
            await lease.acquire()
            _ = client.hincrby(KEY, "token", 1) if token else client.pexpire(KEY, 9000)
            held, left = client.hgetall(KEY), client.pttl(KEY)
            assert await refused(act, lease)
            assert client.hgetall(KEY) == held
            assert client.pttl(KEY) <= left
            client.delete(KEY)
        assert not client.exists("x")

    asyncio.run(body())


def test_3_a_guard_elsewhere_refuses_what_comes_with_an_older_token() -> None:
    guard = TokenGuard(highest=7)
    guard.check(7)
    guard.check(9)
    with pytest.raises(StaleToken, match="9 was seen"):
        guard.check(8)
    assert guard.highest == 9
    for wrong in (0, -1, True, "9", None):
        with pytest.raises(UsageError, match="no token"):
            guard.check(wrong)  # type: ignore[arg-type]


def test_3_a_column_in_sql_refuses_what_comes_with_an_older_token(url: str) -> None:
    base = sqlite3.connect(":memory:")
    base.execute("CREATE TABLE report (id INTEGER PRIMARY KEY, body TEXT, token INTEGER)")
    base.execute("INSERT INTO report VALUES (1, 'empty', 0)")

    def write(lease: Lease, text: str) -> bool:
        change = "UPDATE report SET body = ?, token = ? WHERE id = 1 AND token <= ?"
        return base.execute(change, (text, lease.token, lease.token)).rowcount == 1

    first, second = Lease(url, "t", ttl=0.2, auto_renew=False), Lease(url, "t")
    first.acquire()
    assert write(first, "first")
    second.acquire()  # the first one's time is over, and it does not know
    assert write(second, "second")
    assert not write(first, "late")
    assert base.execute("SELECT body FROM report").fetchone() == ("second",)
    second.release()


# --- ways to use it ---------------------------------------------------------------------------


def test_a_decorated_function_runs_under_a_term_of_its_own_each_time(
    url: str, client: redis.Redis
) -> None:
    tokens: list[bytes | None] = []

    @Lease(url, "t")
    def plain(number: int, *, word: str) -> str:
        tokens.append(client.hget(KEY, "token"))
        return word * number

    @AsyncLease(url, "t")
    async def task(number: int) -> int:
        tokens.append(client.hget(KEY, "token"))
        await asyncio.sleep(0)
        return number

    async def together() -> list[int]:
        return list(await asyncio.gather(*(task(number) for number in range(5))))

    assert plain(2, word="ab") == "abab"
    assert plain.__name__ == "plain"
    assert asyncio.run(together()) == list(range(5))
    assert None not in tokens
    assert len(set(tokens)) == 6
    assert client.exists(KEY) == 0


def test_it_is_released_by_another_thread_and_by_a_pickled_copy(
    url: str, client: redis.Redis
) -> None:
    lease = Lease(url, "t")
    lease.acquire()
    thread = threading.Thread(target=lease.release)
    thread.start()
    thread.join()
    assert client.exists(KEY) == 0
    lease.acquire()
    copy = pickle.loads(pickle.dumps(lease))
    assert (copy.owner, copy.token, copy.ttl) == (lease.owner, lease.token, lease.ttl)
    assert not copy.held  # not before the server said so
    assert copy.renew()
    assert copy.held
    assert copy.release()
    wait_until(lambda: not lease.renew())
    assert lease.lost
    with pytest.raises(UsageError, match="cannot be pickled"):
        pickle.dumps(Lease(client, "t"))


def test_holder_says_who_holds_it_and_who_waits(faces: Faces, client: redis.Redis) -> None:
    async def body() -> None:
        free = await faces.lease().holder()
        assert (free.owner, free.token, free.left, free.waiters) == ("", 0, 0, [])
        lease, waiter = faces.lease(who="me", ttl=7), faces.lease(who="you")
        await lease.acquire()
        waiting = asyncio.create_task(waiter.acquire())
        await until(lambda: client.llen(LINE) == 1)
        found = await lease.holder()
        assert found.owner == lease.owner
        assert found.owner.startswith("me/")
        assert found.token == lease.token
        assert abs(found.since - time.time()) < 5
        assert 5 < found.left <= 7
        assert [name.split("/")[0] for name in found.waiters] == ["you"]
        await lease.release()
        await waiting
        await waiter.release()

    asyncio.run(body())


def test_lead_runs_a_function_in_one_copy_and_elsewhere_when_that_one_loses_it(
    url: str, client: redis.Redis
) -> None:
    led: list[int] = []
    inside = threading.Lock()
    release = threading.Event()

    def work(number: int) -> Callable[[Lease], int]:
        def function(lease: Lease) -> int:
            with inside:
                led.append(number)
            while not release.is_set():
                lease.check()
                release.wait(0.01)
            return number

        return function

    def copy(number: int) -> None:
        lead(Lease(redis.Redis.from_url(url), "t", ttl=0.3), work(number))

    copies = [threading.Thread(target=copy, args=(number,)) for number in range(2)]
    for thread in copies:
        thread.start()
    wait_until(lambda: led and client.llen(LINE) == 1)
    assert len(led) == 1
    client.delete(KEY)  # the first one is deposed; it sees that at its next check
    wait_until(lambda: len(led) >= 2)
    assert led[0] != led[1]
    release.set()
    for thread in copies:
        thread.join(10)
        assert not thread.is_alive()


def test_lead_cancels_a_coroutine_whose_lease_is_lost_and_runs_it_again(
    url: str, client: redis.Redis
) -> None:
    ran: list[str] = []

    async def function(lease: AsyncLease) -> str:
        ran.append("begun")
        if len(ran) == 1:
            client.delete(KEY)
            try:
                await asyncio.sleep(30)
            finally:
                ran.append("cancelled")
        return "done"

    assert asyncio.run(lead(AsyncLease(url, "t", ttl=0.3), function)) == "done"  # type: ignore[arg-type]
    assert ran == ["begun", "cancelled", "begun"]


def test_a_lock_delay_keeps_a_successor_waiting_after_a_death_but_not_after_a_release(
    faces: Faces, client: redis.Redis
) -> None:
    async def body() -> None:
        holder = faces.lease(ttl=0.3, lock_delay=0.6, auto_renew=False)
        waiter = faces.lease(ttl=5)
        began = time.monotonic()
        await holder.acquire()
        assert client.pttl(KEY) > 300
        assert holder.deadline <= time.monotonic() + 0.3
        waiting = asyncio.create_task(waiter.acquire())
        await until(lambda: client.pttl(KEY) <= 600)
        assert not await holder.renew()  # it is over, although nobody may follow yet
        with pytest.raises(LeaseLost):
            await holder.execute("SET", "x", "late")
        assert await waiting
        assert time.monotonic() - began >= 0.9
        waiting = asyncio.create_task(holder.acquire())
        await until(lambda: client.llen(LINE) == 1)
        await waiter.release()
        assert await asyncio.wait_for(waiting, 2)

    asyncio.run(body())


@ONE_KIND
def test_a_users_own_client_may_have_any_settings(faces: Faces, url: str) -> None:
    """No short timeout, no small pool and no decoding of the client's is in the way of a wait."""
    settings: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": 0.2,
        "max_connections": 1,
    }

    async def body() -> None:
        holder = faces.lease(ttl=0.8, auto_renew=False)
        await holder.acquire()
        if faces.face == "sync":
            lease = Lease(redis.Redis.from_url(url, **settings), "t")
            assert await asyncio.to_thread(lease.acquire)
            assert lease.holder().owner == lease.owner
            assert lease.release()
        else:
            other = AsyncLease(redis.asyncio.Redis.from_url(url, **settings), "t")
            assert await other.acquire()
            assert (await other.holder()).owner == other.owner
            assert await other.release()

    asyncio.run(body())


def test_the_shortest_ttl_works(faces: Faces) -> None:
    async def body() -> None:
        lease = faces.lease(ttl=0.05, auto_renew=False)
        for _ in range(5):
            assert await lease.acquire()
            assert 0 < lease.deadline - time.monotonic() <= 0.05
            await until(lambda: lease.lost)

    asyncio.run(body())


def test_the_twins_agree() -> None:
    def public(kind: type) -> dict[str, str]:
        found = {}
        for name, member in inspect.getmembers(kind):
            if callable(member) and (not name.startswith("_") or name == "__init__"):
                text = str(inspect.signature(member)).replace("Async", "").replace("'", "")
                found[name] = text.replace("| SyncIO", "").replace("SyncClient ", "Client")
        return found

    sync, other = public(Lease), public(AsyncLease)
    assert set(sync) == set(other)
    for name in sync:
        assert sync[name].split(" -> ")[0] == other[name].split(" -> ")[0], name
