"""The short runs in which each request is broken, and what must be true after each break.

A run prepares a server, says which program is broken on it, looks at the server between the crash
and the recovery (I0: each id is in exactly one place; a lease has one owner under the last token),
recovers as a user would, and checks every promise. Time is not waited for: `pass_time` ends the
terms and the lives of the dead, and makes every retry due.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import pytest
import redis

from distlock import Cache, Lease
from distlock.io import SyncIO, run
from distlock.keys import CacheKeys, Keys, wake_channel
from distlock.lease.term import RELEASE, RENEW, WRITE
from distlock.pipeline import Records, Verifier
from distlock.source import RandomSource
from tests.faults import programs
from tests.faults.crew import End, Worker
from tests.tools import Pipe, partition, settle, wait_until

KEYS = Keys("test")
LEASE = Keys("t")
FACES = ("sync", "async")
COPY = ("--ttl", str(programs.TTL))
"""The options of a copy."""
BODIES = list(islice(RandomSource(0).bodies(1), programs.LAST))


def same(what: str, found: object, wanted: object) -> None:
    """Raise AssertionError unless both are the same."""
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, and not {wanted!r}")


def pass_time(client: redis.Redis, keys: Keys) -> None:
    """Let all time be over: the lease's, the handlers', that before a retry."""
    client.delete(keys.lease)
    for key in (keys.handlers, keys.later):
        if members := client.zrange(key, 0, -1):
            client.zadd(key, dict.fromkeys(members, 1))


class Run:
    """One short run.

    Args:
        worker: its server and zygote.
        fault: what is done to it, "" for nothing.

    Attributes:
        name: of the run.
        program: what is broken; see programs.py.
    """

    name = ""
    program = "app"

    def __init__(self, worker: Worker, fault: str) -> None:
        self.worker = worker
        self.client = worker.client
        self.lost = fault in ("", "lost")
        self.client.flushall()

    def arguments(self) -> list[str]:
        """Of the program."""
        raise NotImplementedError

    def meanwhile(self) -> None:
        """Called again and again while the program runs."""

    def look(self, end: End) -> None:
        """Check the server between the crash and the recovery."""
        raise NotImplementedError

    def recover(self, end: End) -> None:
        """Do what a user, or time, would do then."""
        raise NotImplementedError

    def check(self, end: End) -> None:
        """Check every promise at the end."""
        raise NotImplementedError

    def close(self) -> None:
        """End what it has begun."""


# --- the application ------------------------------------------------------------------------------


class Application(Run):
    """A run of the application on the pipeline `test`.

    Attributes:
        messages: K.
        after: the commands of the recovery.
    """

    messages = 6
    after: Sequence[Sequence[str]] = (COPY,)

    def __init__(self, worker: Worker, fault: str) -> None:
        super().__init__(worker, fault)
        self.io = SyncIO(self.client, patience=0)
        self.prepare()
        self.token = int(self.client.get(KEYS.token) or 0)

    def prepare(self) -> None:
        """Bring the pipeline into the state in which the program finds it."""

    def command(self) -> list[str]:
        """The arguments beside the pipeline's name."""
        return []

    def arguments(self) -> list[str]:
        return ["--name", "test", *self.command()]

    def begin(self, attempts: int = 2) -> Pipe:
        """A pipeline with all messages generated and nobody at work."""
        ttl = programs.TTL
        pipe = Pipe(self.io, self.messages, attempts=attempts, ttl=ttl, handler_ttl=ttl)
        pipe.generator.publish(1, [self.body(id) for id in range(1, self.messages + 1)])
        pipe.lease.release()
        return pipe

    def body(self, id: int) -> bytes:
        """What a message says, and its result, too."""
        return BODIES[id - 1]

    def die(self, pipe: Pipe, name: str, count: int) -> None:
        """Have a handler die with a hand of so many messages."""
        hand = pipe.handler(name).exchange(settle(None), count)
        assert hand
        assert len(hand.messages) == count
        pipe.die(name)

    def look(self, end: End) -> None:
        found = partition(self.client, KEYS)
        if self.lost:
            assert "given up for dead" not in end.errors, end.errors
            self.check_said(end, found)
        token = int(self.client.get(KEYS.token) or 0)
        assert token >= self.token, "the token went back"
        held = self.client.hget(KEYS.lease, "token")
        assert held is None or int(held) == token, "the lease is not under the last token"
        self.token = token

    def check_said(self, end: End, found: dict[str, list[int]]) -> None:
        """What the program told its user, although an answer was lost."""

    def recover(self, end: End) -> None:
        for command in self.after:
            pass_time(self.client, KEYS)
            done = self.worker.run("app", ["--name", "test", *command])
            same(f"the recovery {command} ended with", (done.code, done.errors[-500:]), (0, ANY))
            partition(self.client, KEYS)

    def check(self, end: End) -> None:
        found = partition(self.client, KEYS)
        self.check_places(found)
        stored = {
            int(id): body
            for bucket in range(self.messages // 4096 + 1)
            for id, body in self.client.hgetall(KEYS.store(bucket)).items()
        }
        same("the results", stored, {id: self.body(id) for id in found["store"]})
        status = Records(self.io, KEYS).status()
        same("stored, as counted", status.stored, len(found["store"]))
        same(
            "K and the sequence",
            (status.job and status.job.messages, status.sequence),
            (
                self.messages,
                self.messages,
            ),
        )
        assert Verifier(self.io, KEYS).verify().good, "verify finds something wrong"
        fresh = Lease(self.io, "test", ttl=5.0)
        assert fresh.acquire(blocking=False), "the lease is not free"
        assert fresh.token > max(self.token, status.token), "the token did not rise"
        same("the line", self.client.llen(KEYS.line), 0)

    def check_places(self, found: dict[str, list[int]]) -> None:
        """Where the ids must be: here, all in the store."""
        same("the store", sorted(found["store"]), list(range(1, self.messages + 1)))


class _Any:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


ANY = _Any()


class Generator(Application):
    """A copy alone: it begins the job, generates, shrinks it, handles, rests, and is done."""

    name = "generator"
    messages = 10
    source = ("--generate", "tests.work_for_tests:ten", "--handler-ttl", str(programs.TTL), *COPY)
    after = (source,)

    def command(self) -> list[str]:
        return list(self.source)

    def body(self, id: int) -> bytes:
        return b"body %d" % id

    def check_said(self, end: End, found: dict[str, list[int]]) -> None:
        wanted = "done: 10 messages, 10 stored, 0 errors; this copy generated 10 and stored 10 "
        same("it said", end.said[: len(wanted)], wanted)


class Handler(Application):
    """A handler: a retry that is due, a dead one's hand, successes, failures, told to end."""

    name = "handler"
    messages = programs.LAST

    def prepare(self) -> None:
        pipe = self.begin()
        past = pipe.handler("past")
        outcome = settle(past.exchange(settle(None), 4), fail=lambda id: id == 4)
        assert past.exchange(outcome, 3)
        pipe.die("past")
        self.client.zadd(KEYS.later, dict.fromkeys(self.client.zrange(KEYS.later, 0, -1), 1))

    def command(self) -> list[str]:
        return ["--handle", "tests.faults.programs:fourth_fails_thirteenth_ends", *COPY]

    def check_said(self, end: End, found: dict[str, list[int]]) -> None:
        if "others take over what I held" in end.errors:
            return  # told to end, it does not ask again for an answer that is lost just then
        wanted = f"stopped: this copy generated 0 and stored {len(found['store']) - 3} messages"
        same("it said", end.said[: len(wanted)], wanted)

    def check_places(self, found: dict[str, list[int]]) -> None:
        errors = found["errors"]
        assert errors in ([], [4]), f"errors: {errors}"
        if self.lost:
            same("the errors", errors, [4])
        wanted = [id for id in range(1, self.messages + 1) if id not in errors]
        same("the store", sorted(found["store"]), wanted)


class CleanTemp(Application):
    """`--cleanTemp`, with two dead handlers."""

    name = "cleanTemp"
    place = "queue"
    mode: Sequence[str] = ("--cleanTemp",)
    after = (mode, COPY)

    def prepare(self) -> None:
        pipe = self.begin()
        self.die(pipe, "one", 3)
        self.die(pipe, "two", 1)

    def command(self) -> list[str]:
        return list(self.mode)

    def check_said(self, end: End, found: dict[str, list[int]]) -> None:
        wanted = f"4 messages of 2 dead handlers: to the {self.place}"
        same("it said at last", end.said.splitlines()[-1:], [wanted])


class CleanTempDrop(CleanTemp):
    """`--cleanTemp drop`: to the errors."""

    name = "cleanTemp-drop"
    place = "errors"
    mode = ("--cleanTemp", "drop")
    after = (mode, COPY)

    def check_places(self, found: dict[str, list[int]]) -> None:
        same("the errors", sorted(found["errors"]), [1, 2, 3, 4])
        same("the store", sorted(found["store"]), [5, 6])


class RetryErrors(Application):
    """`--retryErrors`, with three errors."""

    name = "retryErrors"
    mode: Sequence[str] = ("--retryErrors",)
    after = (mode, COPY)

    def prepare(self) -> None:
        pipe = self.begin(attempts=1)
        handler = pipe.handler("past")
        hand = handler.exchange(settle(None), 6)
        handler.exchange(settle(hand, fail=lambda id: id % 2 == 0), 0)

    def command(self) -> list[str]:
        return list(self.mode)

    def check_said(self, end: End, found: dict[str, list[int]]) -> None:
        same("it said", end.said, "3 errors are back in the queue\n")


class TakeErrors(RetryErrors):
    """`--getErrors take`: each error is printed before it is removed."""

    name = "getErrors-take"
    mode = ("--getErrors", "take")
    after = (mode, COPY)

    def printed(self, end: End) -> set[int]:
        """The ids of the errors that stand there whole."""
        whole = end.said[: end.said.rfind("\n") + 1]
        return {json.loads(line)["id"] for line in whole.splitlines()}

    def check_said(self, end: End, found: dict[str, list[int]]) -> None:
        same("the errors that are taken", sorted(found["taken"]), [2, 4, 6])

    def look(self, end: End) -> None:
        super().look(end)
        taken = set(partition(self.client, KEYS)["taken"])
        assert taken <= self.printed(end), f"taken and never printed: {taken - self.printed(end)}"

    def check_places(self, found: dict[str, list[int]]) -> None:
        same("the errors that are taken", sorted(found["taken"]), [2, 4, 6])
        same("the store", sorted(found["store"]), [1, 3, 5])


# --- a lease --------------------------------------------------------------------------------------


class OfLease(Run):
    """A run of a program with the lease `t`."""

    face = ""

    def __init__(self, worker: Worker, fault: str) -> None:
        super().__init__(worker, fault)
        self.known = 0
        self.prepare()

    def prepare(self) -> None:
        """Bring the lease into the state in which the program finds it."""

    def arguments(self) -> list[str]:
        return [self.face, self.worker.url]

    def lease(self, who: str) -> Lease:
        """A lease of another process."""
        return Lease(self.client, "t", ttl=programs.TTL, who=who)

    def look(self, end: End) -> None:
        if self.lost:
            same("it said at last", end.said.splitlines()[-1:], ["done"])
        held, last = self.client.hgetall(LEASE.lease), int(self.client.get(LEASE.token) or 0)
        tokens = [int(token) for token in end.told("token")]
        same("the tokens", tokens, sorted(set(tokens)))
        self.known = max(self.known, last, *tokens)
        same("the last token", last, self.known)
        if held:
            same("the lease's token", int(held[b"token"]), last)
        self.held = held
        writes = [int(token) for token in self.client.lrange(programs.WRITES, 0, -1)]
        same("what was written", writes, sorted(set(writes)))
        assert set(writes) <= {*tokens, last}, f"written under no token: {writes}"

    def recover(self, end: End) -> None:
        pass_time(self.client, LEASE)
        self.heir = self.lease("heir")
        assert self.heir.acquire(timeout=10), "nobody can have it"

    def check(self, end: End) -> None:
        assert self.heir.token > self.known, "the token did not rise"
        if self.held:
            self.check_deposed(self.held[b"owner"], self.held[b"token"])
        before = self.client.lrange(programs.WRITES, 0, -1)
        self.heir.execute("RPUSH", programs.WRITES, self.heir.token)
        after = self.client.lrange(programs.WRITES, 0, -1)
        same("what was written", after, [*before, str(self.heir.token).encode()])
        assert self.heir.release(), "it was not the heir's"
        same("what is left", self.client.exists(LEASE.lease, LEASE.line), 0)

    def check_deposed(self, owner: bytes, token: bytes) -> None:
        """Nothing that the dead one may have sent is accepted any more."""
        io, before = SyncIO(self.client), self.client.hgetall(LEASE.lease)
        same("a late renewal", run(io.call(RENEW, [LEASE.lease], (owner, token, ""))), 0)
        same(
            "a late release",
            run(
                io.call(
                    RELEASE,
                    LEASE.pick(["lease", "token", "line"]),
                    (
                        owner,
                        token,
                    ),
                )
            ),
            0,
        )
        write = (owner, token, 3, "RPUSH", programs.WRITES, "late")
        with pytest.raises(redis.ResponseError, match="LEASELOST"):
            run(io.call(WRITE, [LEASE.lease], write))
        same("the lease", self.client.hgetall(LEASE.lease), before)
        io.close()


class LeaseAlone(OfLease):
    """Nobody else wants it."""

    program = "lease_alone"


class LeaseAgain(OfLease):
    """Taken twice, which is two terms."""

    program = "lease_again"

    def look(self, end: End) -> None:
        super().look(end)
        if self.lost:
            same("the terms", len(end.told("token")), 2)


class LeaseFrom(OfLease):
    """It stands in line, and is handed the lease."""

    program = "lease_from"

    def prepare(self) -> None:
        self.holder = self.lease("holder")
        assert self.holder.acquire(blocking=False)
        self.known = self.holder.token

    def meanwhile(self) -> None:
        if self.holder.token and self.client.llen(LEASE.line):
            assert self.holder.release(), "the holder's term ended"

    def recover(self, end: End) -> None:
        if self.holder.token:
            assert self.holder.release(), "the holder's term ended"
        super().recover(end)


class LeaseTo(OfLease):
    """Somebody waits for it, to whom it is handed on."""

    program = "lease_to"

    def prepare(self) -> None:
        self.waits = self.worker.folder / "waits"
        self.waits.unlink(missing_ok=True)
        self.heir = self.lease("heir")
        self.thread = threading.Thread(target=self.heir.acquire, kwargs={"timeout": 20})

    def arguments(self) -> list[str]:
        return [*super().arguments(), str(self.waits)]

    def meanwhile(self) -> None:
        if not self.thread.ident and self.client.exists(LEASE.lease):
            self.thread.start()
        if self.client.llen(LEASE.line):
            self.waits.touch()

    def look(self, end: End) -> None:
        if self.client.hget(LEASE.lease, "owner") != self.heir.owner.encode():
            super().look(end)
            return
        self.known = max(int(token) for token in end.told("token"))
        self.held = {}

    def recover(self, end: End) -> None:
        if not self.thread.ident:
            self.thread.start()
        wait_until(self._is_taken)
        self.thread.join()

    def _is_taken(self) -> bool:
        """Whether the heir has it; if not, have the dead one's time be over, and the heir look."""
        owner = self.client.hget(LEASE.lease, "owner") or b""
        if owner and not owner.startswith(b"heir/"):
            self.client.delete(LEASE.lease)
        for entry in self.client.lrange(LEASE.line, 0, -1):
            address, waiter = entry.decode().split(" ")[:2]
            self.client.publish(wake_channel(address), f"{waiter} look")
        return not self.thread.is_alive()

    def close(self) -> None:
        self.waits.unlink(missing_ok=True)


# --- a cache --------------------------------------------------------------------------------------


class OfCache(Run):
    """A run of a program that gets the value of `k` twice from the cache."""

    face = ""
    program = "cache_get"
    places = CacheKeys("cache").all("k")

    def __init__(self, worker: Worker, fault: str) -> None:
        super().__init__(worker, fault)
        self.calls = 0
        self.prepare()

    def prepare(self) -> None:
        """Bring the cache into the state in which the program finds it."""

    def arguments(self) -> list[str]:
        return [self.face, self.worker.url]

    def getter(self) -> str:
        """That of another process."""
        self.calls += 1
        return "value"

    def get(self, getter: Callable[[], Any]) -> Any:
        """What another process gets."""
        cache = Cache(self.client, ttl=programs.TTL, node_timeout=programs.TTL)
        return cache.get("k", getter, expire=60, execution_limit=2 * programs.TTL)

    def look(self, end: End) -> None:
        value, flight = self.client.mget(self.places[:2])
        self.kept = value is not None
        if self.kept:
            same("the value", json.loads(value), "value")
            assert flight is None or flight.startswith(b"-"), f"a flight beside a value: {flight!r}"
        if self.lost:
            same("it got", end.told("got"), ["value"] * 2)
            assert self.kept, "the value was not kept"

    def recover(self, end: End) -> None:
        before = self.calls
        same("another process got", self.get(self.getter), "value")
        same("more calls", self.calls - before, 0 if self.kept else 1)

    def check(self, end: End) -> None:
        calls = len(end.told("called"))
        same("calls of the getter", calls + self.calls <= (1 if self.lost else 2), True)
        same("a third process got", self.get(self.never), "value")
        value, flight = self.client.mget(self.places[:2])
        same("the value", json.loads(value), "value")
        assert flight is None or flight.startswith(b"-"), f"a flight that does not end: {flight!r}"

    def never(self) -> Any:
        """A getter that must not be called."""
        raise AssertionError("the getter is called although the value is there")


class CacheFrom(OfCache):
    """Another process computes; it waits for that."""

    def prepare(self) -> None:
        self.gate = threading.Event()
        self.thread = threading.Thread(target=self.get, args=(self.gated,))
        self.thread.start()
        wait_until(lambda: self.calls)

    def gated(self) -> str:
        """A getter that waits until somebody waits for it."""
        self.calls += 1
        assert self.gate.wait(20)
        return "value"

    def meanwhile(self) -> None:
        if self.client.scard(self.places[3]):
            self.gate.set()

    def look(self, end: End) -> None:
        self.gate.set()
        self.thread.join()
        super().look(end)
        same("its own calls of the getter", end.told("called"), [])

    def check(self, end: End) -> None:
        super().check(end)
        same("calls of the getter", self.calls, 1)

    def close(self) -> None:
        self.gate.set()
        self.thread.join()


def _of_face(kind: type[Run], face: str, name: str) -> type[Run]:
    return type(f"{kind.__name__}_{face}", (kind,), {"face": face, "name": f"{name}-{face}"})


_APPLICATION: list[type[Run]] = [
    *(Generator, Handler, CleanTemp, CleanTempDrop, RetryErrors, TakeErrors),
]
_LIBRARY: list[tuple[type[Run], str]] = [
    (LeaseAlone, "lease"),
    (LeaseAgain, "lease-again"),
    (LeaseFrom, "lease-from"),
    (LeaseTo, "lease-to"),
    (OfCache, "cache"),
    (CacheFrom, "cache-from"),
]
RUNS: dict[str, type[Run]] = {kind.name: kind for kind in _APPLICATION}
RUNS |= {f"{name}-{face}": _of_face(kind, face, name) for kind, name in _LIBRARY for face in FACES}
