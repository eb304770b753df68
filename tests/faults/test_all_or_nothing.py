"""A script that is refused has done nothing: whichever right is missing, whichever key is foreign.

Each operation below runs on a pipeline, a lease or a cache that is busy in every way. Before each
script that it sends, the same request is sent by a user who lacks one of the script's commands,
once for each of them, and with something foreign in the place of one of its keys, once for each.
Either the server refuses and no key has changed, or the script did not need what was missing; the
ids are in one place each in any case. Then it is sent for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from distlock import scripts
from distlock.io import SyncIO, run
from distlock.io.base import Argument
from distlock.keys import CacheKeys
from distlock.lease import Lease
from distlock.pipeline import Job, Outcome, Verifier
from distlock.scripts import Script, script
from tests.conftest import BINARIES, Server
from tests.tools import Pipe, partition, settle

WHO = "narrow"


class Siege(SyncIO):
    """An IO that tries each script with everything missing before it sends it, when armed.

    Args:
        server: where; the IO's own user is the one that lacks a right.

    Attributes:
        armed: whether it tries.
        tried: by the name of each script, how many requests were refused.
        after: called after each request: fails when an id is lost.
    """

    def __init__(self, server: Server) -> None:
        self.admin = redis.Redis.from_url(server.url)
        self.admin.flushall()
        self._acl("reset", "on", ">secret", "~*", "&*", "+@all")
        narrow = server.url.replace("unix://", f"unix://{WHO}:secret@")
        super().__init__(redis.Redis.from_url(narrow), patience=0)
        self._may = bool(self.admin.eval("return redis.acl_check_cmd and 1 or 0", 0))
        self.armed = False
        self.tried: dict[str, int] = {}
        self.after: Callable[[], object] = lambda: None

    def _acl(self, *rights: str) -> None:
        execute: Callable[..., Any] = self.admin.execute_command
        execute("ACL", "SETUSER", WHO, *rights)

    async def call(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        patience: float | None = None,
    ) -> Any:
        """Try it in vain in every way, then send it."""
        if self.armed:
            self.tried.setdefault(script.name, 0)
            if self._may:  # Redis 6.2 cannot ask
                for command in sorted(scripts.sent(script.name)):
                    await self._without(command, script, keys, args)
            for key in dict.fromkeys(keys):
                await self._with_foreign(key, script, keys, args)
        answer = await super().call(script, keys, args, patience)
        self.after()
        return answer

    async def _without(self, command: str, script: Script, keys: Any, args: Any) -> None:
        before = self._digest()
        self._acl(f"-{command}")
        with pytest.raises(redis.exceptions.NoPermissionError, match=f"(?i)'{command}"):
            await super().call(script, keys, args)
        self._acl(f"+{command}")
        assert self._digest() == before, f"{script.name} without {command} has written"
        self.tried[script.name] += 1

    async def _with_foreign(self, key: str, script: Script, keys: Any, args: Any) -> None:
        kept = self._dump()
        if self.admin.type(key) == b"string":
            self.admin.delete(key)
            self.admin.rpush(key, "foreign")
        else:
            self.admin.set(key, "foreign")
        before, foreign = self._digest(), self.admin.dump(key)
        try:
            await super().call(script, keys, args)
        except redis.ResponseError:
            assert self._digest() == before, f"{script.name} with a foreign {key} has written"
            self.tried[script.name] += 1
        else:
            if not script.name.startswith(("cache_", "job_reset")):  # they replace, and delete
                assert self.admin.dump(key) == foreign, f"{script.name} has overwritten {key}"
        self._restore(kept)
        assert self._digest() != before

    def _digest(self) -> bytes:
        """All keys, what they hold, and whether they expire."""
        execute: Callable[..., bytes] = self.admin.execute_command
        return execute("DEBUG", "DIGEST")

    def _dump(self) -> list[tuple[bytes, int, bytes]]:
        found: list[bytes] = sorted(self.admin.scan_iter(count=1000))
        with self.admin.pipeline(transaction=True) as instant:
            for key in found:
                instant.pttl(key)
                instant.dump(key)
            read = instant.execute()
        return list(zip(found, read[::2], read[1::2], strict=True))

    def _restore(self, kept: list[tuple[bytes, int, bytes]]) -> None:
        with self.admin.pipeline(transaction=True) as instant:
            instant.flushall()
            for key, left, data in kept:
                instant.restore(key, max(left, 0), data)
            instant.execute()


@pytest.fixture(scope="module", params=["valkey", "redis"])
def besieged(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that says what all of its keys come to."""
    if not BINARIES[request.param]:
        pytest.skip(f"{request.param}-server is not installed")
    server = Server(request.param, "--enable-debug-command", "yes")
    yield server
    server.close()


@pytest.fixture
def siege(besieged: Server) -> Iterator[Siege]:
    """An IO that tries everything in vain first."""
    siege = Siege(besieged)
    yield siege
    siege.close()
    siege.admin.close()  # and what listens over it


def busy(siege: Siege) -> Pipe:
    """A pipeline in which every key holds something: a dead hand, retries, errors, a waiter."""
    pipe = Pipe(siege, messages=1000, max_queue=10, attempts=2, ttl=60, handler_ttl=60)
    siege.after = lambda: partition(siege.admin, pipe.keys)
    listening = siege.admin.pubsub()
    listening.subscribe("distlock:wake:far")
    listening.subscribe(pipe.keys.channel("resting"))
    siege.listening = listening  # type: ignore[attr-defined]
    siege.admin.rpush(pipe.keys.line, "far another/1 60000 0 0 1")
    siege.admin.rpush(pipe.keys.line, "far another/2 60000 0 0 1")
    pipe.generator.publish(1, [b"body"] * 60)
    one = pipe.handler("one")
    hand = one.exchange(Outcome(), 2)
    for want in (8, 8, 20):  # 1 and 2 are stored, the next fail, and fail again
        hand = one.exchange(settle(hand, lambda id: id > 2), want)
    siege.admin.zadd(pipe.keys.later, dict.fromkeys(siege.admin.zrange(pipe.keys.later, 0, 4), 1))
    for _ in range(2):
        hand = one.exchange(settle(hand, lambda id: id > 2), 6)
    pipe.records.take([1])
    dead = pipe.handler("dead")
    dead.exchange(Outcome(), 3)
    pipe.die("dead")
    one.reclaim("dead")
    alone, more = pipe.handler("alone"), pipe.handler("more")
    alone.exchange(Outcome(), 1)
    more.exchange(Outcome(), 2)
    siege.admin.zadd(pipe.keys.bell, {"resting": 5})
    siege.admin.hset(pipe.keys.stats, "wide", 1)
    pipe.one, pipe.hand = one, hand  # type: ignore[attr-defined]
    for place in ("queue", "again", "later", "errors", "taken", "bell", "line", "stats"):
        assert siege.admin.exists(pipe.keys.prefix + place), place
    siege.armed = True
    return pipe


def publish(pipe: Pipe) -> None:
    """Publish beyond the bound of the queue, renewing; then lead, shrink, and ring."""
    pipe.generator.publish(61, [b"more"] * 3)
    pipe.jobs.lead(pipe.lease, pipe.job)
    pipe.jobs.shrink(pipe.lease, 63)
    pipe.generator.ring()


def exchange(pipe: Any) -> None:
    """Settle a hand in which something is stored, fails, fails for good and is given back."""
    messages = pipe.hand.messages
    outcome = settle(pipe.hand._replace(messages=messages[1:3]), lambda id: True)
    outcome.store(messages[3].split(b":")[0], 0, b"result")
    outcome.give_back([messages[0], *messages[4:]])
    hand = pipe.one.exchange(outcome, 9)
    while hand.messages:
        hand = pipe.one.exchange(settle(hand), 500)
    pipe.one.rest()
    pipe.one.exchange(Outcome(), 0)


def live(pipe: Pipe) -> None:
    """Join, rest, say that one is alive."""
    handler = pipe.handler("new")
    handler.exchange(Outcome(), 0)
    handler.join()
    handler.rest()
    handler._contact -= 100
    handler.keep(pipe.io)


def reclaim(pipe: Any) -> None:
    """Take the hands of the dead: one of many messages, one alone, and one to the errors."""
    for name, drop in (("more", False), ("alone", False), ("one", True)):
        pipe.die(name)
        assert pipe.handler("boss").reclaim(name, drop) > 0


def errors(pipe: Pipe) -> None:
    """Read, take and retry errors."""
    pipe.records.read_errors(1, 10)
    pipe.records.take([2, 3])
    pipe.records.retry(1, 100)
    pipe.records.status()


def verify(pipe: Pipe) -> None:
    """Prove it."""
    assert Verifier(pipe.io, pipe.keys).verify().good


def lease(pipe: Pipe) -> None:
    """Renew, look, stand in line and leave, release to the next, bury it, acquire."""
    other = Lease(pipe.io, pipe.keys.name, ttl=60, watch_connection=True)
    pipe.lease.renew()
    other.holder()
    assert not other.acquire(timeout=0.01)
    pipe.lease.release()
    assert other.holder().owner == "another/1"
    keys = pipe.keys.pick(["lease", "token", "line"])
    pipe.io.client.hset(keys[0], "connections", "1 2")
    token = pipe.io.client.hget(keys[0], "token")
    run(pipe.io.call(script("lease_bury"), keys, (token, "1 2")))
    assert other.holder().owner == "another/2"
    entry = "far another/3 60000 5 0 1"
    run(pipe.io.call(script("lease_acquire"), keys, (entry, 0, 1, 0)))
    run(pipe.io.call(script("lease_leave"), keys, (entry,)))
    run(pipe.io.call(script("lease_leave"), keys, ("far another/2 60000 0 0 1",)))
    assert other.acquire(blocking=False)
    other.renew()
    other.release()


def reset(pipe: Pipe) -> None:
    """Delete it, and begin anew."""
    pipe.io.client.delete(pipe.keys.lease, pipe.keys.handlers, pipe.keys.line)
    pipe.io.after = lambda: None  # type: ignore[attr-defined]
    pipe.jobs.reset()
    assert pipe.lease.lost or pipe.lease.release() is False
    lease = pipe.new_lease("second")
    assert lease.acquire(blocking=False)
    pipe.jobs.open(lease, Job(messages=5, asked=5))


def cached(pipe: Pipe) -> None:
    """A flight from its claim to its end, a late one, and what is set, deleted and counted."""
    keys, admin = CacheKeys("cache"), pipe.io.admin  # type: ignore[attr-defined]
    at, put = keys.all("k"), keys.put("k")
    waiter = "a" * 16

    def send(name: str, keys: list[str], *args: str | int) -> Any:
        return run(pipe.io.call(script(name), keys, args))

    assert send("cache_claim", at, "r1", 60000, "1 2", "", 0, waiter)[0] == 1
    words = admin.get(at[1]).decode()
    admin.pexpire(at[1], 7_200_000)  # as a clock that was set back would have it
    assert send("cache_claim", at, "r2", 60000, "1 2", words, 0, waiter)[0] == 2
    assert send("cache_claim", at, "r3", 60000, "1 2", words, 1, waiter) == [1]
    admin.sadd(at[3], f"{waiter} r3", f"{waiter} r9")
    assert send("cache_renew", at[:2], "r3", 60000) == 1
    assert send("cache_land", at[:4], "r3", "value", 60000, 1000) == 1
    admin.sadd(at[3], f"{waiter} r4")
    send("cache_land", at[:4], "r4", "late", 60000, 0)
    send("cache_read", at[:3])
    assert send("cache_put", put, "id1", "new", 60000, 1000) == 1
    assert send("cache_put", put, "id2", "", 0, 0) == 1
    assert send("cache_count", [keys.counters, keys.counted("p")], 1, "hits", 2, "misses", 3) == 1


OPERATIONS: dict[Callable[[Any], None], str] = {
    publish: "pipeline_publish job_lead job_shrink pipeline_ring",
    exchange: "handler_exchange handler_rest",
    live: "handler_exchange handler_join handler_rest handler_beat",
    reclaim: "handler_join handler_reclaim",
    errors: "errors_read errors_take errors_retry status_read",
    verify: "verify_page",
    lease: "lease_renew lease_read lease_acquire lease_leave lease_release lease_bury",
    reset: "job_reset job_open lease_acquire",
    cached: "cache_claim cache_renew cache_land cache_read cache_put cache_count",
}
LEFT_OUT = {"server_check", "verify_ask", "hands_read", "handler_read", "lease_write"}
"""They only read; and the last one runs commands of the user's own."""


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.__name__)
def test_a_request_that_is_refused_has_changed_nothing(
    siege: Siege, operation: Callable[[Any], None]
) -> None:
    operation(busy(siege))
    assert set(siege.tried) >= set(OPERATIONS[operation].split())
    assert all(siege.tried.values())


def test_every_script_is_tried() -> None:
    assert LEFT_OUT.union(*map(str.split, OPERATIONS.values())) == set(scripts.names())
