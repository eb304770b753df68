"""The cache as a library: both faces from one body, on each real server.

`test_cache_faults.py` has processes that die, `test_cache_model.py` what may happen in any order,
`test_cache_nodes.py` several nodes, `test_cache_near.py` what is kept in the process.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import logging
import math
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import redis

import distlock.cache.codec
from distlock import AsyncCache, Cache, CannotEncode, ExecutionLimitExceeded, Expires, GetterFailed
from distlock.cache import Serializer
from distlock.cache.computing import LAND
from distlock.cache.flight import RENEW, Flight
from distlock.errors import UsageError
from distlock.io import SyncIO, run
from distlock.io.crew import Latch
from distlock.keys import CacheKeys
from tests.caches import Caches, Getter, get
from tests.conftest import ONE_KIND, ROOT
from tests.leases import in_thread, until

VALUE, FLIGHT, WAITERS = (f"distlock:{kind}:{{cache:k}}" for kind in ("value", "flight", "waiters"))
HOW: dict[str, Any] = {"expire": 10.0, "execution_limit": 5.0}


@pytest.fixture(params=["sync", "async", "plain"])
def caches(request: pytest.FixtureRequest, url: str) -> Caches:
    """Makes caches of one face."""
    return Caches(request.param, url)


def flying(client: redis.Redis) -> bytes:
    """The right of the flight that is under way, b"" if there is none."""
    right = (client.get(FLIGHT) or b"").split(b" ")[0]
    return b"" if right.startswith(b"-") else right


def waiting(client: redis.Redis) -> int:
    """How many processes wait for flights of the key."""
    return int(client.scard(WAITERS))


# --- once -------------------------------------------------------------------------------------


def test_10_a_getter_is_called_once_and_all_others_get_its_value(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        getter = Getter()
        some = [caches.cache() for _ in range(5)]
        gets = [get(cache, "k", caches.of(getter)) for cache in some for _ in range(3)]
        await getter.called()
        await until(lambda: waiting(client) >= 4)
        getter.let_go()
        assert await asyncio.gather(*gets) == ["value 1"] * 15
        assert getter.calls == 1
        assert await get(some[0], "k", caches.of(getter)) == "value 1"
        assert json.loads(client.get(VALUE)) == "value 1"
        assert 9000 < client.pttl(VALUE) <= 10000
        counts = [cache.stats() for cache in some]
        assert sum(count.computed for count in counts) == 1
        assert sum(count.misses for count in counts) == 15
        assert sum(count.waited for count in counts) == 14
        assert sum(count.hits for count in counts) == 1

    asyncio.run(body())


def test_a_right_that_has_gone_on_is_not_renewed(caches: Caches, client: redis.Redis) -> None:
    async def body() -> None:
        cache, getter = caches.cache(), Getter()
        waits = get(cache, "k", caches.of(getter))
        await getter.called()
        client.pexpire(FLIGHT, 60_000)
        right = flying(client).decode()
        for its, renewed in (("another", 0), (right, 1)):
            assert client.eval(RENEW.text, 2, VALUE, FLIGHT, its, 70_000) == renewed
            assert (client.pttl(FLIGHT) > 60_000) == bool(renewed)
        getter.let_go()
        await waits

    asyncio.run(body())


def test_9_a_right_that_was_refused_is_not_asked_for_again(client: redis.Redis) -> None:
    flight = Flight(Latch(), [VALUE, FLIGHT], "")
    flight.took_off(time.monotonic(), 2.0, 60.0)
    assert flight.kept
    run(flight.keep(SyncIO(client), math.inf))
    assert not flight.kept


def test_every_key_of_a_cache_ends_by_itself(caches: Caches, client: redis.Redis) -> None:
    async def body() -> None:
        cache, getter = caches.cache(), Getter()
        gets = [get(one, "k", caches.of(getter)) for one in (cache, caches.cache())]
        await until(lambda: waiting(client))
        await cache.delete("other")
        await cache.set("stale", 1, expire=5, stale=5)
        kinds = {key.split(b":")[1] for key in client.keys("distlock:*")}
        assert kinds >= {b"flight", b"waiters", b"done", b"value", b"fresh"}
        assert [key for key in client.keys("*") if client.pttl(key) < 0] == []
        getter.let_go()
        await asyncio.gather(*gets)
        assert [key for key in client.keys("*") if client.pttl(key) < 0] == []
        assert not waiting(client)  # who was woken has been struck off

    asyncio.run(body())


def test_none_is_a_value(caches: Caches) -> None:
    async def body() -> None:
        cache = caches.cache()
        assert await cache.get("k", lambda: None, **HOW) is None
        assert await cache.get("k", lambda: 1, **HOW) is None
        assert await cache.peek("k", "nothing") is None
        assert await cache.peek("other", "nothing") == "nothing"

    asyncio.run(body())


def test_after_the_expire_it_is_computed_again(caches: Caches, client: redis.Redis) -> None:
    async def body() -> None:
        cache, getter = caches.cache(), Getter(open=True)
        assert await get(cache, "k", caches.of(getter), expire=0.1) == "value 1"
        await until(lambda: not client.exists(VALUE))
        assert await get(cache, "k", caches.of(getter)) == "value 2"

    asyncio.run(body())


def test_a_getter_may_say_itself_for_how_long_its_value_is_kept(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        cache = caches.cache()
        assert await cache.get("k", lambda: Expires([1], 0.5), **HOW) == [1]
        assert 0 < client.pttl(VALUE) <= 500
        with pytest.raises(UsageError, match="Expires"):
            await cache.get("l", lambda: Expires(1, -1), **HOW)

    asyncio.run(body())


def test_the_right_is_renewed_while_a_slow_getter_runs(caches: Caches, client: redis.Redis) -> None:
    async def body() -> None:
        one, other, getter = caches.cache(ttl=0.2), caches.cache(ttl=0.2), Getter()
        first = get(one, "k", caches.of(getter))
        await getter.called()
        second = get(other, "k", caches.of(getter))
        right, began = flying(client), time.monotonic()
        while time.monotonic() - began < 0.8:  # four lives of a right that is not renewed
            assert flying(client) == right
            await asyncio.sleep(0.01)
        getter.let_go()
        assert await asyncio.gather(first, second) == ["value 1", "value 1"]

    asyncio.run(body())


def test_2000_tasks_that_wait_for_2000_keys_share_a_few_connections(
    url: str, client: redis.Redis
) -> None:
    async def body() -> None:
        one, other = [Caches("async", url).cache(ttl=20) for _ in range(2)]
        go = asyncio.Event()

        async def slow() -> int:
            await go.wait()
            return 1

        before = len(client.client_list())
        gets = [
            asyncio.create_task(cache.get(f"k{n}", slow, expire=10, execution_limit=60))
            for n in range(2000)
            for cache in (one, other)
        ]
        waiters = "distlock:waiters:{cache:k1999}"
        await until(lambda: client.exists(waiters), 60)
        assert len(client.client_list()) - before <= 32
        go.set()
        assert await asyncio.gather(*gets) == [1] * 4000
        assert one.stats().computed + other.stats().computed == 2000

    asyncio.run(body())


def test_a_landing_strikes_off_all_who_waited_for_it_and_nobody_else(client: redis.Redis) -> None:
    client.set(FLIGHT, "right 60000")
    client.sadd(WAITERS, "here other", *[f"process{n} right" for n in range(2500)])
    landed = SyncIO(client).call(LAND, CacheKeys("cache").all("k")[:4], ("right", "1", 1000, 0))
    assert run(landed) == 1
    assert client.smembers(WAITERS) == {b"here other"}


def test_two_caches_of_one_name_in_one_process_are_both_woken(
    url: str, client: redis.Redis
) -> None:
    async def body() -> None:
        client.config_resetstat()
        getter = Getter()
        computes = get(AsyncCache(url, ttl=60), "k", getter.coroutine)
        await getter.called()
        waits = [get(AsyncCache(url, ttl=60), "k", getter.coroutine) for _ in range(3)]
        await until(lambda: client.info("commandstats").get("cmdstat_sadd", {}).get("calls") == 3)
        assert waiting(client) == 1  # they are called at one address
        getter.let_go()
        assert await asyncio.wait_for(asyncio.gather(computes, *waits), 4) == ["value 1"] * 4

    asyncio.run(body())


# --- delete, set, refresh, peek ---------------------------------------------------------------


def test_who_asks_after_a_delete_gets_a_value_whose_getter_began_after_it(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        one, other = caches.cache(), caches.cache()
        old, new = Getter(), Getter()
        new.calls = 100
        computes = get(one, "k", caches.of(old))
        await old.called()
        waits, joins = get(other, "k", caches.of(old)), get(one, "k", caches.of(old))
        await until(lambda: waiting(client) == 1)
        assert await other.delete("k") is True
        after = [get(one, "k", caches.of(new)), get(other, "k", caches.of(new))]
        await new.called(101)
        old.let_go()
        assert await asyncio.gather(computes, waits, joins) == ["value 1"] * 3
        assert not client.exists(VALUE)
        assert one.stats().refused == 1
        new.let_go()
        assert await asyncio.gather(*after) == ["value 101"] * 2
        assert json.loads(client.get(VALUE)) == "value 101"
        assert old.calls == 1
        assert new.calls == 101

    asyncio.run(body())


@pytest.mark.parametrize("verb", ["delete", "set"])
def test_10_a_delete_is_final_at_every_step_of_a_get(url: str, verb: str) -> None:
    """The get is stopped before and after each of its requests, and the delete put in between."""

    async def run(stop: int) -> bool:
        client = redis.Redis.from_url(url)
        client.flushall()
        one, other = Cache(redis.Redis.from_url(url)), Cache(redis.Redis.from_url(url))
        started: list[str] = []
        steps = iter(range(1000))
        stopped = False

        def change() -> None:
            nonlocal stopped
            stopped = True
            started.append("change")
            if verb == "delete":
                assert other.delete("k")
            else:
                assert other.set("k", "set", expire=10)

        def getter() -> str:
            step()
            started.append(f"getter {len(started)}")
            step()
            return started[-1]

        def step() -> None:
            if next(steps) == stop:
                change()

        async def stepping(io: Any, words: Any, deadline: Any) -> Any:
            step()
            answer = await real_ask(io, words, deadline)
            step()
            return answer

        async def running(*args: Any, **how: Any) -> Any:
            step()
            answer = await real_run(*args, **how)
            step()
            return answer

        member, _ = await one._nodes.of("k", VALUE)
        real_ask, real_run = member.ask, member.run
        member.ask, member.run = stepping, running  # type: ignore[method-assign]
        first = one.get("k", getter, thread=False, **HOW)
        if not stopped:
            return False
        member.ask, member.run = real_ask, real_run  # type: ignore[method-assign]
        for cache in (one, other):
            found = cache.get("k", lambda: "later", thread=False, **HOW)
            began = started.index(found) if found in started else 1000
            assert found in ("set", "later") or began > started.index("change"), (started, found)
            if verb == "set":
                assert found in ("set", first)
        return True

    stop = 0
    while asyncio.run(run(stop)):
        stop += 1
    assert stop == 8  # a look, a claim, a getter and a landing, each before and after


def test_a_value_that_is_set_is_there_and_voids_what_is_computed(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        one, other, getter = caches.cache(), caches.cache(), Getter()
        computes = get(one, "k", caches.of(getter))
        await getter.called()
        assert await other.set("k", "set", expire=5)
        assert await get(one, "k", caches.of(getter)) == "set"
        getter.let_go()
        assert await computes == "value 1"
        assert json.loads(client.get(VALUE)) == "set"
        assert 4000 < client.pttl(VALUE) <= 5000

    asyncio.run(body())


def test_a_refresh_computes_now_while_readers_keep_the_old_value(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        one, other, getter = caches.cache(), caches.cache(), Getter()
        await one.set("k", "old", expire=10)
        refresh = asyncio.ensure_future(one.refresh("k", caches.of(getter), **HOW))
        await getter.called()
        assert await get(other, "k", caches.of(getter)) == "old"
        assert await get(one, "k", caches.of(getter)) == "old"
        getter.let_go()
        assert await refresh == "value 1"
        assert await get(other, "k", caches.of(getter)) == "value 1"

    asyncio.run(body())


def test_a_refresh_voids_a_right_that_is_under_way(caches: Caches, client: redis.Redis) -> None:
    async def body() -> None:
        one, other, old, new = caches.cache(), caches.cache(), Getter(), Getter(open=True)
        new.calls = 100
        computes = get(one, "k", caches.of(old))
        await old.called()
        waits = get(other, "k", caches.of(old))
        await until(lambda: waiting(client) == 1)
        assert await other.refresh("k", caches.of(new), **HOW) == "value 101"
        old.let_go()
        assert await asyncio.gather(computes, waits) == ["value 1", "value 1"]
        assert json.loads(client.get(VALUE)) == "value 101"

    asyncio.run(body())


def test_many_values_come_with_one_trip_and_the_rest_is_computed(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        cache = caches.cache()
        for key in "abc":
            await cache.set(key, key.upper(), expire=10)
        before = client.info("stats")["total_commands_processed"]
        assert await cache.get_many(["a", "b", "c"], str, **HOW) == {"a": "A", "b": "B", "c": "C"}
        assert client.info("stats")["total_commands_processed"] - before <= 3
        found = await cache.get_many(["c", "d", "a", "d"], lambda key: key * 2, **HOW)
        assert list(found.items()) == [("c", "C"), ("d", "dd"), ("a", "A")]
        assert await cache.get_many([], str, **HOW) == {}

    asyncio.run(body())


# --- limits -----------------------------------------------------------------------------------


def test_the_limit_bounds_the_call_and_a_late_value_of_a_thread_is_kept(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        if caches.face == "async":
            return  # a coroutine is cancelled: see below
        one, other, getter = caches.cache(), caches.cache(), Getter()
        began = time.monotonic()
        first = get(one, "k", caches.of(getter), execution_limit=0.3)
        await getter.called()
        second = get(other, "k", caches.of(getter), execution_limit=0.3)
        patient = get(other, "k", caches.of(getter), execution_limit=10)
        for hasty in (first, second):
            with pytest.raises(ExecutionLimitExceeded, match=r"0\.3 s") as caught:
                await hasty
            assert caught.value.key == "k"
            assert isinstance(caught.value, TimeoutError)
        assert 0.3 <= time.monotonic() - began < 1
        getter.let_go()
        assert await patient == "value 1"
        assert await get(other, "k", caches.of(getter)) == "value 1"
        assert getter.calls == 1

    asyncio.run(body())


def test_a_coroutine_is_cancelled_at_the_limit_and_the_next_waiter_computes(
    url: str, client: redis.Redis
) -> None:
    async def body() -> None:
        caches = Caches("async", url)
        one, other, ended = caches.cache(), caches.cache(), []

        async def endless() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(True)

        first = get(one, "k", endless, execution_limit=0.3)
        await until(lambda: flying(client))
        second = get(other, "k", Getter(open=True).coroutine)
        await until(lambda: waiting(client) == 1)
        with pytest.raises(ExecutionLimitExceeded):
            await first
        assert await second == "value 1"
        assert ended == [True]

    asyncio.run(body())


def test_a_getter_that_hangs_for_ever_loses_its_right_after_five_limits(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        if caches.face == "async":
            return
        one, other, getter = caches.cache(ttl=1), caches.cache(ttl=1), Getter()
        began = time.monotonic()
        first = get(one, "k", caches.of(getter), execution_limit=0.1)
        with pytest.raises(ExecutionLimitExceeded):
            await first
        second = get(other, "k", Getter(open=True).plain)
        assert await second == "value 1"
        assert 1.1 < time.monotonic() - began < 4  # renewed for 0.5 s, and then a ttl
        getter.let_go()
        await until(lambda: one.stats().refused == 1)
        assert json.loads(client.get(VALUE)) == "value 1"

    asyncio.run(body())


def test_without_a_thread_the_getter_runs_in_the_callers(url: str) -> None:
    cache = Caches("sync", url).cache().cache
    assert cache.get("a", threading.get_ident, thread=False, **HOW) == threading.get_ident()
    assert cache.get("b", threading.get_ident, **HOW) != threading.get_ident()


def test_a_getter_sees_the_context_variables_of_its_caller(caches: Caches) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def body() -> None:
        cache = caches.cache()
        variable.set("mine")
        if caches.face == "sync":
            context = contextvars.copy_context()
            found = await in_thread(context.run, cache.cache.get, "k", variable.get, **HOW)
        else:
            found = await cache.get("k", variable.get, **HOW)
        assert found == "mine"

    asyncio.run(body())


@ONE_KIND
def test_a_getter_that_hangs_does_not_hold_up_the_exit_of_the_interpreter(url: str) -> None:
    code = f"""
import time, distlock
cache = distlock.Cache({url!r})
try:
    cache.get("k", lambda: time.sleep(60), expire=1, execution_limit=0.1)
except distlock.ExecutionLimitExceeded:
    print("exceeded")
"""
    began = time.monotonic()
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=50
    )
    assert (said.stdout, said.stderr) == ("exceeded\n", "")
    assert time.monotonic() - began < 20


def test_a_waiter_that_is_cancelled_harms_nobody(url: str, client: redis.Redis) -> None:
    async def body() -> None:
        caches, getter = Caches("async", url), Getter()
        one, other = caches.cache(), caches.cache()
        computes = get(one, "k", getter.coroutine)
        await getter.called()
        leads, joins = get(other, "k", getter.coroutine), get(other, "k", getter.coroutine)
        local = get(one, "k", getter.coroutine)
        await until(lambda: waiting(client) == 1)
        leads.cancel()
        local.cancel()
        await asyncio.gather(leads, local, return_exceptions=True)
        getter.let_go()
        assert await asyncio.gather(computes, joins) == ["value 1", "value 1"]
        assert getter.calls == 1

    asyncio.run(body())


def test_when_the_computing_caller_is_cancelled_the_next_one_computes_at_once(
    url: str, client: redis.Redis
) -> None:
    async def body() -> None:
        caches, getter = Caches("async", url), Getter()
        one, other = caches.cache(ttl=60), caches.cache(ttl=60)
        computes = get(one, "k", getter.coroutine)
        await getter.called()
        waits, joins = get(other, "k", getter.coroutine), get(one, "k", getter.coroutine)
        await until(lambda: waiting(client) == 1)
        computes.cancel()
        with pytest.raises(asyncio.CancelledError):
            await computes
        await getter.called(2)
        getter.let_go()
        assert await asyncio.gather(waits, joins) == ["value 2", "value 2"]

    asyncio.run(body())


def test_a_get_that_is_cancelled_at_any_moment_leaves_no_right_behind(
    url: str, client: redis.Redis
) -> None:
    async def body() -> None:
        cache = Caches("async", url).cache(ttl=60)
        for turns in range(40):
            task = get(cache, "k", Getter().coroutine)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not flying(client))

    asyncio.run(body())


# --- failures ---------------------------------------------------------------------------------


def test_a_failure_goes_to_its_caller_and_as_one_error_to_all_who_wait(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        one, other, getter = caches.cache(), caches.cache(), Getter(fails=True)
        computes = get(one, "k", caches.of(getter))
        await getter.called()
        waits = [get(cache, "k", caches.of(getter)) for cache in (one, other, other)]
        await until(lambda: waiting(client) == 1)
        await until(lambda: one.stats().misses + other.stats().misses == 4)
        getter.let_go()
        with pytest.raises(ValueError, match="failure 1"):
            await computes
        for wait in waits:
            with pytest.raises(GetterFailed, match="'k' failed elsewhere: ValueError: failure 1"):
                await wait
        assert getter.calls == 1
        assert not client.exists(VALUE)
        assert await get(other, "k", Getter(open=True).plain) == "value 1"

    asyncio.run(body())


def test_a_failure_with_a_long_text_is_told_in_short(caches: Caches) -> None:
    async def body() -> None:
        cache = caches.cache()

        def fails() -> None:
            raise ValueError("x" * 1_000_000)

        with pytest.raises(ValueError, match=r"^x{1000000}$"):
            await get(cache, "k", fails, negative_expire=5)
        with pytest.raises(GetterFailed, match="ValueError: xxx") as told:
            await get(cache, "k", fails)
        assert len(str(told.value)) < 2100

    asyncio.run(body())


def test_retries_are_the_flights(caches: Caches) -> None:
    async def body() -> None:
        cache, getter = caches.cache(), Getter(open=True, fails=True)
        with pytest.raises(ValueError, match="failure 3"):
            await get(cache, "k", caches.of(getter), retries=2)
        assert getter.calls == 3

    asyncio.run(body())


def test_a_failure_is_remembered_if_wanted(caches: Caches, client: redis.Redis) -> None:
    async def body() -> None:
        one, other, getter = caches.cache(), caches.cache(), Getter(open=True, fails=True)
        with pytest.raises(ValueError, match="failure 1"):
            await get(one, "k", caches.of(getter), negative_expire=0.3)
        for cache in (one, other):
            with pytest.raises(GetterFailed, match="failure 1"):
                await get(cache, "k", caches.of(getter))
        assert await other.peek("k", "nothing") == "nothing"
        await until(lambda: not client.exists(VALUE))
        with pytest.raises(ValueError, match="failure 2"):
            await get(other, "k", caches.of(getter))

    asyncio.run(body())


def test_a_value_that_cannot_be_coded_is_a_clear_error_and_frees_the_waiters(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        one, other = caches.cache(), caches.cache()
        go = threading.Event()

        def odd() -> object:
            assert go.wait(10)
            return {"a": object()}

        computes = get(one, "k", odd)
        await until(lambda: flying(client))
        waits = get(other, "k", odd)
        await until(lambda: waiting(client) == 1)
        go.set()
        with pytest.raises(CannotEncode, match=r"'k'.*object"):
            await computes
        with pytest.raises(GetterFailed, match=r"'k'.*object"):
            await waits

    asyncio.run(body())


def test_a_getter_that_raises_stop_iteration_harms_nobody(caches: Caches) -> None:
    async def body() -> None:
        with pytest.raises((RuntimeError, StopIteration)):
            await get(caches.cache(), "k", iter(()).__next__)

    asyncio.run(body())


@pytest.mark.parametrize("thread", [True, False])
def test_a_getter_that_exits_hands_the_right_on(
    url: str, client: redis.Redis, thread: bool
) -> None:
    cache = Cache(url)
    with pytest.raises(SystemExit):
        cache.get("k", sys.exit, thread=thread, **HOW)
    assert not flying(client)
    assert cache.get("k", lambda: 1, **HOW) == 1


# --- stale ------------------------------------------------------------------------------------


def test_a_stale_value_is_served_while_one_caller_renews_it(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        one, other, getter = caches.cache(), caches.cache(), Getter()
        await one.set("k", "old", expire=0.05, stale=10)
        await until(lambda: not client.exists("distlock:fresh:{cache:k}"))
        for cache in (one, other, one, other):
            assert await get(cache, "k", caches.of(getter), stale=10) == "old"
        await getter.called()
        assert await other.peek("k", "nothing") == "nothing"
        getter.let_go()
        await until(lambda: b"value 1" in client.get(VALUE))
        assert await get(other, "k", caches.of(getter), stale=10) == "value 1"
        assert getter.calls == 1
        assert one.stats().stale + other.stats().stale == 4

    asyncio.run(body())


def test_who_wants_no_stale_value_gets_none(caches: Caches, client: redis.Redis) -> None:
    async def body() -> None:
        cache, getter = caches.cache(), Getter(open=True)
        await cache.set("k", "old", expire=0.05, stale=10)
        assert await get(cache, "k", caches.of(getter)) == "old"
        await until(lambda: not client.exists("distlock:fresh:{cache:k}"))
        assert await get(cache, "k", caches.of(getter)) == "value 1"

    asyncio.run(body())


def test_the_expire_is_shortened_at_random_if_wanted(caches: Caches, client: redis.Redis) -> None:
    async def body() -> None:
        cache = caches.cache(jitter=0.5)
        lives = []
        for n in range(30):
            await get(cache, f"k{n}", lambda: 1)
            lives.append(client.pttl(f"distlock:value:{{cache:k{n}}}"))
        assert max(lives) <= 10_000
        assert min(lives) > 4_000
        assert max(lives) - min(lives) > 500

    asyncio.run(body())


# --- values -----------------------------------------------------------------------------------


def test_values_above_64_kb_are_read_by_those_who_are_woken(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        one, other, go = caches.cache(), caches.cache(), threading.Event()

        def large() -> str:
            assert go.wait(10)
            return "x" * 100_000

        computes = get(one, "k", large)
        await until(lambda: flying(client))
        waits = get(other, "k", large)
        await until(lambda: waiting(client) == 1)
        with client.monitor() as monitor:
            go.set()
            assert await asyncio.gather(computes, waits) == ["x" * 100_000] * 2
            while True:
                said = monitor.next_command()["command"]
                if said.startswith("PUBLISH"):
                    assert len(said) < 200
                    break
        assert one.stats().computed + other.stats().computed == 1

    asyncio.run(body())


def test_a_large_number_is_a_value(caches: Caches) -> None:
    async def body() -> None:
        one, other = caches.cache(), caches.cache()
        assert await one.get("k", lambda: 7**20_000, **HOW) == 7**20_000
        assert await other.get("k", lambda: 0, **HOW) == 7**20_000

    asyncio.run(body())


@pytest.mark.parametrize("junk", [b"\xff\xfe", b"{", b"#pickle#x", b"#json+zlib#x", b""])
def test_foreign_data_counts_as_a_miss_is_logged_and_is_replaced(
    caches: Caches, client: redis.Redis, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        cache, getter = caches.cache(), Getter(open=True)
        client.set(VALUE, junk)
        with caplog.at_level(logging.WARNING, "distlock"):
            assert await get(cache, "k", caches.of(getter)) == "value 1"
        assert "'k'" in caplog.text
        assert json.loads(client.get(VALUE)) == "value 1"

    asyncio.run(body())


@pytest.mark.parametrize("place", ["value", "flight", "fresh"])
def test_a_key_of_another_type_in_our_place_is_replaced(
    caches: Caches, client: redis.Redis, place: str
) -> None:
    async def body() -> None:
        cache = caches.cache()
        client.rpush(f"distlock:{place}:{{cache:k}}", "x")
        assert await cache.get("k", lambda: 1, **HOW) == 1
        assert await cache.get("k", lambda: 2, **HOW) == 1

    asyncio.run(body())


def test_two_serializers_on_one_key_are_told_apart(
    caches: Caches, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        other = Serializer("other", lambda value: repr(value).encode(), lambda data: eval(data))
        plain, special = caches.cache(), caches.cache(serializer=other, compress_above=10)
        assert await special.get("k", lambda: (1, 2, 3) * 10, **HOW) == (1, 2, 3) * 10
        with caplog.at_level(logging.WARNING, "distlock"):
            assert await plain.get("k", lambda: 1, **HOW) == 1
        assert "'other'" in caplog.text
        assert "'json'" in caplog.text

    asyncio.run(body())


def test_a_value_that_is_too_large_for_a_server_is_refused(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distlock.cache.codec, "LARGEST", 1000)

    async def body() -> None:
        with pytest.raises(CannotEncode, match="1,000"):
            await caches.cache().get("k", lambda: "x" * 1000, **HOW)

    asyncio.run(body())


# --- the decorator ----------------------------------------------------------------------------


def test_a_function_is_cached_by_its_arguments(url: str) -> None:
    cache, calls = Cache(redis.Redis.from_url(url)), []

    @cache.cached(**HOW)
    def add(a: int, b: int = 2, *more: int, **named: int) -> int:
        """Add."""
        calls.append(a)
        return a + b + sum(more) + sum(named.values())

    assert [add(1), add(1, 2), add(a=1), add(b=2, a=1)] == [3] * 4
    assert calls == [1]
    assert add(1, 3) == 4
    assert add(1, 2, 3, c=4) == 10
    assert len(calls) == 3
    assert add.__doc__ == "Add."
    assert cache.delete(add.key_of(1))  # type: ignore[attr-defined]
    assert add(1) == 3
    assert len(calls) == 4


def test_a_coroutine_function_is_cached_by_its_arguments(url: str) -> None:
    async def body() -> None:
        cache, calls = Caches("async", url).cache(), []

        @cache.cached(**HOW)
        async def double(n: int) -> int:
            calls.append(n)
            return 2 * n

        assert await asyncio.gather(double(1), double(n=1), double(2)) == [2, 2, 4]
        assert sorted(calls) == [1, 2]

    asyncio.run(body())


def test_a_method_is_cached_by_what_its_object_is_too(url: str) -> None:
    cache, calls = Cache(redis.Redis.from_url(url)), []

    class Shop:
        def __init__(self, town: str) -> None:
            self.town = town

        @cache.cached(**HOW)
        def price(self, what: str) -> str:
            calls.append(what)
            return f"{self.town}: {what}"

    class Named:
        __cache_key__ = "n"

        def __init__(self) -> None:
            self.lock = threading.Lock()

        @cache.cached(**HOW)
        def price(self, what: str) -> str:
            return what

    assert [Shop("A").price("x"), Shop("A").price("x"), Shop("B").price("x")] == [
        "A: x",
        "A: x",
        "B: x",
    ]
    assert len(calls) == 2
    assert Named().price("y") == "y"


def test_arguments_that_do_not_say_what_they_are_are_refused(url: str) -> None:
    cache = Cache(redis.Redis.from_url(url))

    @cache.cached(**HOW)
    def first(of: Any) -> Any:
        return 1

    for odd in (object(), threading.Lock(), lambda: 1, iter([])):
        with pytest.raises(UsageError, match=r"'of' of .*first.*\(key=.*__cache_key__"):
            first(odd)
    for sane in ({1, 2}, {"a": [1, (2,)]}, b"x", 1.5, None, int, "two words\n"):
        assert first(sane) == 1


def test_a_key_of_ones_own_is_used(url: str) -> None:
    cache = Cache(redis.Redis.from_url(url))

    @cache.cached(key=lambda user: f"user:{user}", **HOW)
    def name(user: int) -> str:
        return f"name {user}"

    assert name(7) == "name 7"
    assert cache.peek("user:7") == "name 7"


# --- bad input --------------------------------------------------------------------------------


@ONE_KIND
@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "5", None, True])
@pytest.mark.parametrize("option", ["expire", "execution_limit"])
def test_11_times_that_are_none_are_refused(
    caches: Caches, client: redis.Redis, option: str, bad: Any
) -> None:
    async def body() -> None:
        with pytest.raises(UsageError, match=option):
            await get(caches.cache(), "k", lambda: 1, **{option: bad})
        assert not client.exists(VALUE, FLIGHT)

    asyncio.run(body())


@ONE_KIND
@pytest.mark.parametrize("key", ["", "a b", "a\nb", "a\x00", "x" * 1_000_000, 5, None, b"k"])
def test_11_keys_that_are_none_are_refused(caches: Caches, client: redis.Redis, key: Any) -> None:
    async def body() -> None:
        cache = caches.cache()
        for call in (
            lambda: cache.get(key, lambda: 1, **HOW),
            lambda: cache.delete(key),
            lambda: cache.peek(key),
            lambda: cache.set(key, 1, expire=1),
            lambda: cache.refresh(key, lambda: 1, **HOW),
            lambda: cache.get_many([key], str, **HOW),
        ):
            with pytest.raises(UsageError, match="key ") as caught:
                await call()
            assert len(str(caught.value)) < 300
        assert not client.exists(VALUE, FLIGHT)

    asyncio.run(body())


@ONE_KIND
def test_11_a_getter_that_cannot_be_called_or_awaited_here_is_refused(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        cache = caches.cache()
        with pytest.raises(UsageError, match="cannot be called"):
            await cache.get("k", 5, **HOW)
        if caches.face == "sync":
            with pytest.raises(UsageError, match="AsyncCache"):
                await cache.get("k", Getter().coroutine, **HOW)
            with pytest.raises(UsageError, match="AsyncCache"):
                await cache.get("l", lambda: Getter().coroutine(), **HOW)
            with pytest.raises(UsageError, match="AsyncCache"):
                cache.cached(**HOW)(Getter().coroutine)
        assert not client.exists(VALUE)

    asyncio.run(body())


@ONE_KIND
def test_a_getter_that_asks_for_its_own_key_is_told_so(caches: Caches) -> None:
    async def body() -> None:
        cache = caches.cache()

        def nested() -> Any:
            if caches.face == "sync":
                return cache.cache.get("k", nested, **HOW)
            return cache.get("k", nested, **HOW)

        began = time.monotonic()
        with pytest.raises(UsageError, match="asks for that key itself"):
            await get(cache, "k", nested)
        assert time.monotonic() - began < 3

        def outer() -> Any:
            if caches.face == "sync":
                return cache.cache.get("inner", lambda: 1, **HOW)
            return cache.get("inner", lambda: 1, **HOW)

        assert await get(cache, "outer", outer) == 1

    asyncio.run(body())


def test_both_faces_have_the_same_verbs_with_the_same_arguments() -> None:
    def verbs(face: type) -> dict[str, list[str]]:
        public = {name: verb for name, verb in vars(face).items() if name[0] != "_"}
        public["__init__"] = face.__init__
        return {name: list(inspect.signature(verb).parameters) for name, verb in public.items()}

    assert verbs(Cache) == verbs(AsyncCache)
