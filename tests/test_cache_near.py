"""The near cache: what a process keeps for itself, and how it hears that it has changed."""

from __future__ import annotations

import asyncio
import gc
import logging
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from distlock import Cache
from distlock.cache.member import Member
from distlock.cache.near import MISSING, Follower, Near
from distlock.errors import UsageError
from tests.caches import Caches
from tests.conftest import ONE_KIND
from tests.leases import in_thread, until
from tests.proxy import Proxy, proxy
from tests.tools import wait_until

HOW: dict[str, Any] = {"expire": 30.0, "execution_limit": 5.0}
VALUE = "distlock:value:{cache:k}"


@pytest.fixture(params=["sync", "async"])
def caches(request: pytest.FixtureRequest, url: str) -> Caches:
    """Makes caches of one face."""
    return Caches(request.param, url)


@pytest.fixture
def wire(url: str) -> Iterator[Proxy]:
    """A proxy before the server."""
    with proxy(url) as made:
        yield made


async def warm(cache: Any, key: str = "k", value: Any = "v", **how: Any) -> Any:
    """Ask for a value until it comes from this process."""
    async with asyncio.timeout(10):
        while True:
            before = cache.stats().near_hits
            found = await cache.get(key, lambda: value, **{**HOW, **how})
            if cache.stats().near_hits > before:
                return found
            await asyncio.sleep(0.005)


async def settles(
    cache: Any, wanted: Any, key: str = "k", made: Any = None, seconds: float = 3.0
) -> float:
    """Ask until a value is another one; the seconds that it took. `made` is what a getter makes."""
    began = time.monotonic()
    while await cache.get(key, lambda: made, **HOW) != wanted:
        assert time.monotonic() - began < seconds, f"not {wanted!r} within {seconds} s"
        await asyncio.sleep(0.001)
    return time.monotonic() - began


def trackers(client: redis.Redis, others: Sequence[int] = ()) -> list[int]:
    """The connections that hear of keys that change, but for others from before."""
    found = [int(one["id"]) for one in client.client_list() if "t" in one["flags"]]
    return [id for id in found if id not in others]


# --- hits -------------------------------------------------------------------------------------


def test_a_near_hit_asks_no_server(caches: Caches, wire: Proxy) -> None:
    async def body() -> None:
        cache = caches.cache(wire.url, near=10)
        await warm(cache)
        wire.deaf = True
        assert await cache.get("k", lambda: "other", **HOW) == "v"
        assert cache.stats().node_deaths == 0

    asyncio.run(body())


def test_all_callers_get_the_same_object_unless_copies_are_asked_for(caches: Caches) -> None:
    async def body() -> None:
        shared, copying = caches.cache(near=10), caches.cache(near=10, copy=True)
        for cache, same in ((shared, True), (copying, False)):
            one = await warm(cache, value=[1, [2]])
            other = await warm(cache)
            assert one == other == [1, [2]]
            assert (one is other) is same
            assert (one[1] is other[1]) is same

    asyncio.run(body())


def test_what_is_near_is_counted_apart(caches: Caches) -> None:
    async def body() -> None:
        cache = caches.cache(near=10)
        await warm(cache)
        before = cache.stats()
        for _ in range(5):
            await cache.get("k", lambda: "v", **HOW)
        after = cache.stats()
        assert (after.near_hits, after.hits) == (before.near_hits + 5, before.hits)

    asyncio.run(body())


def test_without_the_option_nothing_is_near_and_nothing_is_tracked(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        cache, others = caches.cache(), trackers(client)
        for _ in range(3):
            await cache.get("k", lambda: "v", **HOW)
        assert cache.stats().near_hits == 0
        assert trackers(client, others) == []

    asyncio.run(body())


def test_bad_keys_are_refused_near_as_elsewhere(caches: Caches) -> None:
    async def body() -> None:
        cache = caches.cache(near=10)
        for key in (["k"], {}, 5, "a b"):
            with pytest.raises(UsageError, match="key"):
                await cache.get(key, lambda: 1, **HOW)

    asyncio.run(body())


def test_a_failure_that_is_remembered_is_not_kept_near(caches: Caches) -> None:
    async def body() -> None:
        cache, other = caches.cache(near=10), caches.cache()

        def fail() -> None:
            raise ValueError("no")

        await warm(cache, "other")  # it is tracking
        for _ in range(4):
            with pytest.raises(Exception, match="no"):
                await cache.get("k", fail, negative_expire=30, **HOW)
        await other.set("k", "good", expire=30)
        await settles(cache, "good")
        assert (await cache.get("k", fail, **HOW)) == "good"

    asyncio.run(body())


def test_a_stale_value_is_not_kept_near(caches: Caches, client: redis.Redis) -> None:
    async def body() -> None:
        cache = caches.cache(near=10)
        await warm(cache, "other")
        await caches.cache().set("k", "old", expire=0.05, stale=30)
        await until(lambda: not client.exists("distlock:fresh:{cache:k}"))
        how = {"expire": 30.0, "execution_limit": 5.0, "stale": 30.0}
        before = cache.stats().near_hits
        assert await cache.get("k", lambda: "new", **how) == "old"
        async with asyncio.timeout(5):
            while await cache.get("k", lambda: "new", **how) != "new":
                await asyncio.sleep(0.005)
        assert cache.stats().near_hits == before

    asyncio.run(body())


# --- changes ----------------------------------------------------------------------------------


def test_what_another_process_sets_or_deletes_is_seen_at_once(caches: Caches) -> None:
    async def body() -> None:
        cache, other = caches.cache(near=10), caches.cache()
        delays = []
        for turn in range(20):
            await warm(cache, value=turn)
            await other.set("k", f"set {turn}", expire=30)
            delays.append(await settles(cache, f"set {turn}"))
            await warm(cache)
            await other.delete("k")
            delays.append(await settles(cache, None))
            await other.delete("k")
            await settles(cache, turn + 1, made=turn + 1)
        assert statistics.median(delays) < 0.1

    asyncio.run(body())


def test_what_this_process_changes_is_seen_by_its_next_call(caches: Caches) -> None:
    async def body() -> None:
        cache = caches.cache(near=10)
        for turn in range(20):
            await warm(cache, value="v")
            await cache.set("k", turn, expire=30)
            assert await cache.get("k", lambda: None, **HOW) == turn
            await warm(cache)
            assert await cache.refresh("k", lambda n=turn: [n], **HOW) == [turn]
            assert await cache.get("k", lambda: None, **HOW) == [turn]
            await warm(cache)
            await cache.delete("k")
            assert await cache.get("k", lambda: "v", **HOW) == "v"

    asyncio.run(body())


def test_flushall_empties_it(caches: Caches, client: redis.Redis) -> None:
    async def body() -> None:
        cache = caches.cache(near=10)
        await warm(cache)
        client.flushall()
        await settles(cache, None)

    asyncio.run(body())


def test_it_is_never_older_than_its_expire_though_nothing_is_heard(
    caches: Caches, wire: Proxy
) -> None:
    async def body() -> None:
        cache = caches.cache(wire.url, near=10)
        await warm(cache, "other")
        made = time.monotonic()
        await warm(cache, expire=1.0)
        wire.deaf = True  # no word of its end comes through
        while (found := await cache.get("k", lambda: "alone", **HOW)) == "v":
            assert time.monotonic() - made < 3
            await asyncio.sleep(0.01)
        assert found == "alone"

    asyncio.run(body())


def test_of_two_values_read_the_one_that_lives_shorter_ends_first(client: redis.Redis) -> None:
    cache = Cache(client, near=10)
    how = {**HOW, "expire": 1.0, "stale": 30.0}
    wait_until(lambda: cache.get("k", lambda: "v", **how) and cache.stats().near_hits)
    wait_until(lambda: not client.exists("distlock:fresh:{cache:k}"), 5)
    assert client.exists(VALUE)
    before = cache.stats().near_hits
    assert cache.get("k", lambda: "new", **how) == "v"  # it is a stale one now
    assert cache.stats().near_hits == before


# --- the connection that hears -----------------------------------------------------------------


def test_it_is_emptied_when_the_connection_that_hears_is_lost_and_used_again_later(
    caches: Caches, client: redis.Redis
) -> None:
    async def body() -> None:
        others = trackers(client)
        cache, other = caches.cache(near=10), caches.cache()
        await warm(cache)
        for turn in range(3):
            (id,) = trackers(client, others)
            client.client_kill_filter(_id=id)
            await other.set("k", turn, expire=30)  # nobody hears of it
            await settles(cache, turn)
            await warm(cache)

    asyncio.run(body())


def test_nothing_is_kept_while_nothing_would_be_heard(caches: Caches, wire: Proxy) -> None:
    async def body() -> None:
        cache = caches.cache(wire.url, near=10)
        follower = Follower.stand
        try:
            Follower.stand = lambda self, stands: follower(self, False)  # type: ignore[method-assign]
            for _ in range(50):
                await cache.get("k", lambda: "v", **HOW)
            assert cache.stats().near_hits == 0
        finally:
            Follower.stand = follower  # type: ignore[method-assign]

    asyncio.run(body())


@ONE_KIND
def test_it_is_emptied_when_the_server_falls_silent(
    caches: Caches, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distlock.io.tracking.SILENCE", 0.2)

    async def body() -> None:
        cache = caches.cache(wire.url, near=10)
        await warm(cache)
        wire.deaf = True
        await settles(cache, None)

    asyncio.run(body())


@ONE_KIND
def test_a_connection_that_hears_nothing_for_long_is_not_taken_for_lost(
    caches: Caches, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distlock.io.tracking.SILENCE", 0.1)

    async def body() -> None:
        others = trackers(client)
        cache = caches.cache(near=10)
        await warm(cache)
        before, asked = trackers(client, others), client.info("commandstats").get("cmdstat_ping")
        await until(lambda: client.info("commandstats").get("cmdstat_ping") != asked)
        for _ in range(50):
            assert await cache.get("k", lambda: None, **HOW) == "v"
            await asyncio.sleep(0.01)
        assert trackers(client, others) == before

    asyncio.run(body())


def test_a_process_has_one_such_connection_for_a_node(caches: Caches, client: redis.Redis) -> None:
    async def body() -> None:
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(10):
                others = trackers(client)
                cache = caches.cache(near=100)
                await asyncio.gather(
                    *[cache.get(f"k{n}", lambda: "v", **HOW) for n in range(16)],
                )
                await warm(cache)
                assert len(trackers(client, others)) == 1
        finally:
            sys.setswitchinterval(0.005)

    asyncio.run(body())


@ONE_KIND
def test_the_connection_ends_with_the_cache(
    url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distlock.io.tracking.SILENCE", 0.1)
    others = trackers(client)
    before = {thread.ident for thread in threading.enumerate()}

    async def body(face: str) -> None:
        cache = Caches(face, url).cache(near=10)
        await warm(cache)
        assert len(trackers(client, others)) == 1
        del cache
        gc.collect()
        await until(lambda: not trackers(client, others))

    asyncio.run(body("sync"))
    asyncio.run(body("async"))
    wait_until(
        lambda: (
            not [
                thread
                for thread in threading.enumerate()
                if thread.name == "distlock-tracker" and thread.ident not in before
            ]
        )
    )


def test_a_user_who_may_not_track_is_told_once_and_served_by_the_node(
    caches: Caches, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.execute_command(
        *("ACL", "SETUSER", "deaf", "reset", "on", ">pw", "~*", "&*", "+@all", "-client|tracking")
    )

    async def body() -> None:
        cache = caches.cache(caches.url.replace("unix://", "unix://deaf:pw@"), near=10)
        rejected = "cmdstat_client|tracking"

        def refusals() -> int:
            stats = client.info("commandstats").get(rejected, {})
            return int(stats.get("rejected_calls", 0))

        before = refusals()
        for _ in range(3):
            assert await cache.get("k", lambda: "v", **HOW) == "v"
        await until(lambda: refusals() >= before + 2)
        assert cache.stats().hits == 2
        told = [record for record in caplog.records if "tracking" in record.getMessage()]
        assert [record.levelno for record in told] == [logging.WARNING]

    try:
        asyncio.run(body())
    finally:
        client.execute_command("ACL", "DELUSER", "deaf")


def test_two_caches_of_one_name_in_one_process_both_hear(caches: Caches) -> None:
    async def body() -> None:
        one, two, other = caches.cache(near=10), caches.cache(near=10), caches.cache()
        await warm(one)
        await warm(two)
        await other.set("k", "new", expire=30)
        await settles(one, "new")
        await settles(two, "new")

    asyncio.run(body())


def test_caches_of_other_names_do_not_disturb(caches: Caches) -> None:
    async def body() -> None:
        cache, other = caches.cache(near=10), caches.cache(name="cache2")
        await warm(cache)
        before = cache.stats()
        for turn in range(20):
            await other.set("k", turn, expire=30)
            assert await cache.get("k", lambda: None, **HOW) == "v"
        assert cache.stats().near_hits == before.near_hits + 20

    asyncio.run(body())


# --- between question and answer ---------------------------------------------------------------


def test_a_value_that_changes_between_question_and_answer_is_not_kept(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, hear, heard = Member.run, Follower.hear, threading.Event()

    async def body() -> None:
        def heard_of(self: Follower, keys: list[bytes] | None) -> None:
            hear(self, keys)
            heard.set()

        async def run(self: Member, io: Any, script: Any, *args: Any, **kwargs: Any) -> Any:
            answer = await ask(self, io, script, *args, **kwargs)
            if script.name == "cache_read" and answer[0] and b"old" in answer[0]:
                heard.clear()
                with redis.Redis.from_url(caches.url) as client:
                    client.set(VALUE, '"new"', px=30000)
                if caches.face == "sync":
                    wait_until(heard.is_set)
                else:
                    await until(heard.is_set)
            return answer

        monkeypatch.setattr(Follower, "hear", heard_of)
        cache, other = caches.cache(near=10), caches.cache()
        await warm(cache, "other")
        await other.set("k", "old", expire=30)
        monkeypatch.setattr(Member, "run", run)
        assert await cache.get("k", lambda: None, **HOW) == "old"
        assert await cache.get("k", lambda: None, **HOW) == "new"

    asyncio.run(body())


def test_a_reader_never_goes_back_and_ends_with_the_last_value(caches: Caches) -> None:
    async def body() -> None:
        cache, last = caches.cache(near=10), 1500
        await warm(cache, value=0)
        seen = [0]

        def write() -> None:
            with redis.Redis.from_url(caches.url) as client:
                for number in range(1, last + 1):
                    client.set(VALUE, str(number), px=30000)

        writing = asyncio.create_task(in_thread(write))
        while not writing.done() or seen[-1] != last:
            seen.append(await cache.get("k", lambda: None, **HOW))
            assert seen[-1] >= seen[-2]
            await asyncio.sleep(0)
        await writing
        assert cache.stats().near_hits > 1

    asyncio.run(asyncio.wait_for(body(), 30))


@pytest.mark.parametrize(
    "between",
    [
        lambda near, follower: follower.hear([b"distlock:value:{cache:k}"]),
        lambda near, follower: follower.hear([b"x", b"distlock:value:{cache:k}"]),
        lambda near, follower: follower.hear(None),
        lambda near, follower: follower.stand(False),
        lambda near, follower: near.drop("k"),
        lambda near, follower: near.drop_all(),
        lambda near, follower: near.reset(),
    ],
)
def test_a_question_is_void_when_anything_is_said_of_its_key(
    between: Callable[[Near, Follower], None],
) -> None:
    near = Near(10, 1000)
    follower = Follower(near, "distlock:value:{cache:")
    follower.stand(True)
    question = near.ask("k")
    between(near, follower)
    near.keep("k", question, b"1", 1, time.monotonic() + 60)
    assert near.get("k") is MISSING
    follower.stand(True)
    near.keep("k", near.ask("k"), b"1", 1, time.monotonic() + 60)
    assert near.get("k") == 1
    between(near, follower)
    assert near.get("k") is MISSING


def test_a_word_about_other_keys_voids_nothing() -> None:
    near = Near(10, 1000)
    follower = Follower(near, "distlock:value:{cache:")
    follower.stand(True)
    question = near.ask("k")
    follower.hear([b"distlock:value:{cache:kk}", b"distlock:value:{cache:}"])
    near.keep("k", question, b"1", 1, time.monotonic() + 60)
    assert near.get("k") == 1


def test_keys_beyond_ascii_are_heard_of(caches: Caches) -> None:
    async def body() -> None:
        cache, other = caches.cache(near=10), caches.cache()
        await warm(cache, "schlüssel}🔑")
        await other.set("schlüssel}🔑", "new", expire=30)
        await settles(cache, "new", "schlüssel}🔑")

    asyncio.run(body())


def test_a_question_that_nobody_answers_leaves_nothing_behind(caches: Caches) -> None:
    async def body() -> None:
        cache = caches.cache(near=10)
        await warm(cache)
        for n in range(100):
            await cache.peek(f"k{n}")
        near = (cache.cache if caches.face == "sync" else cache)._near
        await until(lambda: gc.collect() >= 0 and not near._asked)

    asyncio.run(body())


# --- bounds -----------------------------------------------------------------------------------


def filled(near: Near, *keys: str, size: int = 1) -> None:
    """Keep values under some keys."""
    for key in keys:
        near.keep(key, near.ask(key), b"x" * size, key, time.monotonic() + 60)


def kept(near: Near, keys: str) -> str:
    """Which of some keys are kept. (Asking for all of them leaves their order as it is.)"""
    return "".join(key for key in keys if near.get(key) is not MISSING)


def test_of_too_many_values_the_one_asked_for_the_longest_ago_goes() -> None:
    near = Near(3, 1000)
    filled(near, "a", "b", "c")
    assert near.get("a") == "a"
    filled(near, "d")
    assert kept(near, "abcd") == "acd"
    filled(near, "e", "f")
    assert kept(near, "abcdef") == "def"


def test_of_too_large_values_as_many_go_as_must() -> None:
    near = Near(100, 10)
    filled(near, "a", "b", "c", size=3)
    filled(near, "d", size=3)
    assert kept(near, "abcd") == "bcd"
    filled(near, "e", size=7)
    assert kept(near, "abcde") == "de"
    filled(near, "d", size=2)  # in place of its old one
    filled(near, "f", size=1)
    assert kept(near, "abcdef") == "def"
    near.drop("e")
    filled(near, "g", size=7)
    assert kept(near, "defg") == "dfg"


def test_a_value_larger_than_the_bound_is_not_kept_and_drives_out_nothing() -> None:
    near = Near(100, 10)
    filled(near, "a", "b", size=5)
    filled(near, "c", size=11)
    assert kept(near, "abc") == "ab"
    filled(near, "b", size=11)  # what was there is an old value now
    assert kept(near, "abc") == "a"


def test_both_bounds_are_options(caches: Caches) -> None:
    async def body() -> None:
        few, small = caches.cache(near=2), caches.cache(near=100, near_bytes=250)
        for cache in (few, small):
            for key in ("a", "b", "c"):
                await warm(cache, key, "x" * 100)
            before = cache.stats()
            await cache.get("c", lambda: None, **HOW)
            await cache.get("b", lambda: None, **HOW)
            await cache.get("a", lambda: None, **HOW)
            after = cache.stats()
            assert after.near_hits == before.near_hits + 2
            assert after.hits == before.hits + 1

    asyncio.run(body())


@pytest.mark.parametrize("options", [{"near": -1}, {"near": 1.5}, {"near": 1, "near_bytes": 0}])
def test_bounds_that_are_none_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="near"):
        Cache("redis://a", **options)


def test_many_threads_at_once_leave_its_size_right() -> None:
    near = Near(5, 40)
    follower = Follower(near, "")
    ended = threading.Event()

    def work(seed: int) -> None:
        number = seed
        while not ended.is_set():
            number = (number * 1103515245 + 12345) % 2**31
            key = "abcdefghij"[number % 10]
            if number % 7 == 0:
                follower.hear([key.encode() + b"}"])
            else:
                near.keep(key, near.ask(key), b"x" * (number % 9), key, time.monotonic() + 60)
            near.get(key)

    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    try:
        for thread in threads:
            thread.start()
        ended.wait(1)
    finally:
        ended.set()
        sys.setswitchinterval(0.005)
        for thread in threads:
            thread.join()
    assert near._size == sum(size for _, _, size in near._entries.values()) <= 40
    assert len(near._entries) <= 5
