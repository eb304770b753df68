"""The lease against a model of it: owner, line and time left, under random histories.

One machine runs on fakeredis and on a real server. Nothing in it takes time: `time_passes` shortens
the key on the server and moves the clock of the clients. The real core runs over the real
synchronous IO, that only gives up control where it would wait.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from types import coroutine
from typing import Any, ClassVar

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.exceptions import ResponseError

from distlock.errors import LeaseLost
from distlock.io import SyncIO, run
from distlock.keys import Keys, wake_channel
from distlock.lease import LeaseCore
from distlock.lease.core import ACQUIRE, RETENTION
from distlock.lease.holder import READ
from distlock.lease.options import Options
from distlock.lease.term import RELEASE, RENEW, WRITE
from distlock.scripts import Script
from tests.conftest import ONE_KIND
from tests.tools import Clock, wait_until

TTL = 60.0
KEYS = Keys("t")
THREE = KEYS.pick(["lease", "token", "line"])
NAMES = "abc"
WHICH = st.integers(0, len(NAMES) - 1)
"""Which of those for whom a rule is."""
PASSES = st.sampled_from([7.0, 22.0, 61.0])
"""Seconds that pass; no sum of them is a ttl or half of one."""


class Cut(BaseException):
    """Cuts an acquire short, like KeyboardInterrupt."""


@coroutine
def stop(seconds: float) -> Generator[float, Any, Any]:
    """Leave the wait to the machine; returns what was heard."""
    return (yield seconds)


class StoppingIO(SyncIO):
    """The synchronous IO, but a wait is left to the machine."""

    jumped = 0
    alive = True

    async def call(self, script: Any, keys: Any, args: Any, patience: Any = None) -> Any:
        """See IO; the server's clock moves as ours does."""
        answer = await super().call(script, keys, args)
        if script is ACQUIRE:
            answer[3] += self.jumped
        return answer

    async def wait(self, channel: str, seconds: float, topic: str = "") -> Any:
        """See IO."""
        return await stop(seconds)

    async def undo(self, core: Coroutine[Any, Any, Any]) -> None:
        """See IO; the dead undo nothing."""
        if self.alive:
            await super().undo(core)
        core.close()

    def hear(self, topic: str, jumped: int) -> bytes:
        """What was published on this topic; it was `jumped` then."""
        said = run(super().wait(wake_channel(self.address), 5.0, f"{topic} "))
        assert said, "the waiter was never called"
        token, began = said.split()
        return b"%d %d" % (int(token), int(began) + jumped)


class Client:
    """One client; `waiting` is its acquire when it stands in line, until `looks`."""

    def __init__(self, name: str, server: redis.Redis, jumped: int) -> None:
        self.io = StoppingIO(server, patience=0)
        self.io.jumped = jumped
        self.core = LeaseCore("t", Options(ttl=TTL, who=name), RETENTION)
        self.waiting: Coroutine[Any, Any, Any] | None = None
        self.looks = 0.0
        self.calls: list[tuple[int, int]] = []

    def end(self) -> None:
        """Vanish."""
        self.io.alive = False
        if self.waiting:
            self.waiting.close()
        self.io.close()

    def idle(self) -> bool:
        """Whether it may acquire."""
        return not self.waiting and not self.core.held


class Model:
    """What the server should say.

    Attributes:
        owner: "" when it is free.
        left: seconds.
        line: owner ids in order.
        living: those among all owner ids that listen.
        called: those who were called, and have not been told so yet.
    """

    def __init__(self) -> None:
        self.owner = ""
        self.left = 0.0
        self.line: list[str] = []
        self.living: set[str] = set()
        self.called: list[str] = []

    def begin(self, owner: str) -> None:
        """Begin a term."""
        self.owner, self.left = owner, TTL

    def look(self, mine: str, join: bool) -> bool:
        """An acquire: whether the lease is mine now."""
        self.left = min(self.left, TTL)
        if not self.owner:
            self.hand_on(mine)
        if not self.owner:
            self.begin(mine)
        if self.owner != mine and join and mine not in self.line:
            self.line.append(mine)
        return self.owner == mine

    def hand_on(self, mine: str = "") -> None:
        """End the term; the first who listens is next."""
        self.owner = ""
        while self.line and not self.owner:
            first = self.line.pop(0)
            if first == mine or first in self.living:
                self.begin(first)
                self.called += [first] if first != mine else []

    def leave(self, mine: str) -> None:
        """Leave the line, or the lease."""
        self.line = [waiter for waiter in self.line if waiter != mine]
        if self.owner == mine:
            self.hand_on()

    def renew(self, mine: str) -> bool:
        """Whether it is mine, which renews it."""
        if self.owner == mine:
            self.left = TTL
        elif self.owner:
            self.left = min(self.left, TTL)
        return self.owner == mine

    def wait_out(self, seconds: float) -> None:
        """Time passes."""
        self.left -= seconds
        if self.left <= 0:
            self.owner = ""


def some(eligible: Callable[[Client], Any]) -> Callable[..., Any]:
    """Makes a rule for one of those clients for whom it can be said."""

    def decorate(method: Callable[[Any, Client], None]) -> Any:
        def one(self: LeaseMachine, which: int) -> None:
            clients = [client for client in self.clients.values() if eligible(client)]
            method(self, clients[which % len(clients)])

        one.__name__ = method.__name__
        is_any = precondition(lambda self: any(map(eligible, self.clients.values())))
        return is_any(rule(which=WHICH)(one))

    return decorate


class LeaseMachine(RuleBasedStateMachine):
    """The rules: what clients, their deaths, the clock and an operator can do."""

    server: ClassVar[redis.Redis]
    clock: ClassVar[Clock]

    def __init__(self) -> None:
        super().__init__()
        self.server.flushall()
        self.operator = SyncIO(self.server, patience=0)
        self.jumped = 0
        self.model = Model()
        self.clients = {name: Client(name, self.server, 0) for name in NAMES}
        self.past: set[tuple[str, int]] = set()
        self.flushed: set[int] = set()
        self.highest = 0
        self.writes = 0

    # --- clients --------------------------------------------------------------------------------

    @some(lambda client: client.idle())
    def acquire(self, client: Client) -> None:
        """Without waiting."""
        got = run(client.core._acquire(client.io, False, None))
        assert got == self.model.look(client.core.owner, join=False)

    @some(lambda client: client.idle())
    def stand_in_line(self, client: Client) -> None:
        """Acquire, and wait."""
        client.calls.clear()
        client.waiting = client.core._acquire(client.io, True, None)
        self._go_on(client, None)

    def _go_on(self, client: Client, said: bytes | None) -> None:
        """Run to the next wait, which follows a look, or to the end."""
        assert client.waiting
        got = False
        try:
            client.looks = self.jumped + client.waiting.send(said) * 1e6
        except StopIteration:
            client.waiting, got = None, True
        self.model.living.add(client.core.owner)
        assert got == self.model.look(client.core.owner, join=True)

    @some(lambda client: client.waiting and client.calls)
    def hear(self, client: Client) -> None:
        """A waiter that was called goes on, in time or late."""
        assert client.waiting
        owner, (token, jumped) = client.core.owner, client.calls.pop(0)
        said = client.io.hear(owner, jumped)
        assert int(said.split()[0]) == token
        late = self.jumped - jumped > TTL / 2 * 1e6
        if not late or self.model.renew(owner if token == self.highest else ""):
            with pytest.raises(StopIteration):
                client.waiting.send(said)
            client.waiting = None
            assert client.core.token == token
            return
        self.model.leave(owner)
        client.calls.clear()
        self._go_on(client, said)

    @some(lambda client: client.waiting and client.looks <= client.io.jumped)
    def look_again(self, client: Client) -> None:
        """A waiter whose time is over goes on, although it may have been called."""
        self._go_on(client, None)

    @some(lambda client: client.waiting)
    def leave(self, client: Client) -> None:
        """A waiter is cut short, before or after it was called."""
        assert client.waiting
        with suppress(Cut):
            client.waiting.throw(Cut())
        client.waiting = None
        self.model.leave(client.core.owner)

    @some(lambda client: client.core.kept)
    def renew(self, client: Client) -> None:
        """By the owner, or by an old one."""
        kept = run(client.core._renew(client.io))
        assert kept == self.model.renew(client.core.owner) == client.core.held

    @some(lambda client: client.core.token)
    def release(self, client: Client) -> None:
        """By the owner, or by an old one."""
        mine = self.model.owner == client.core.owner
        in_time = client.core.held
        assert run(client.core._release(client.io)) == (mine and in_time)
        if mine:
            self.model.hand_on()

    @some(lambda client: client.core.token)
    def write(self, client: Client) -> None:
        """Under the lease, by the owner or by an old one."""
        mine = client.core.held and self.model.owner == client.core.owner
        try:
            run(client.core._execute(client.io, [("INCR", KEYS.stats)]))
            assert mine
            self.writes += 1
        except LeaseLost:
            assert not mine

    @rule(data=st.data(), verb=st.sampled_from(["renew", "release", "write"]))
    def speak_for_an_old_term(self, data: st.DataObject, verb: str) -> None:
        """A request of a term that has gone on arrives now."""
        old = sorted(term for term in self.past if term[0] != self.model.owner)
        if not old:
            return
        term = data.draw(st.sampled_from(old))
        if verb == "write":
            with pytest.raises(ResponseError, match="LEASELOST"):
                self._send(WRITE, [KEYS.lease], (*term, 2, "INCR", KEYS.stats))
        elif verb == "release":
            assert self._send(RELEASE, THREE, term) == 0
        else:
            assert self._send(RENEW, [KEYS.lease], (*term, "")) == 0
            self.model.renew("")

    def _send(self, script: Script, keys: list[str], args: tuple[str | int, ...]) -> Any:
        return run(self.operator.call(script, keys, args))

    @some(lambda client: True)
    def die(self, client: Client) -> None:
        """A process is killed, whatever it is at; another one takes its name."""
        channel = wake_channel(client.io.address)
        self.model.living.discard(client.core.owner)
        client.end()
        wait_until(lambda: self.server.pubsub_numsub(channel)[0][1] == 0)
        self.clients[client.core.who] = Client(client.core.who, self.server, self.jumped)

    # --- the clock and the operator -----------------------------------------------------------

    @rule(seconds=PASSES)
    def time_passes(self, seconds: float) -> None:
        """For the clients and the server alike."""
        self.clock.now += seconds
        self.jumped += round(seconds * 1e6)
        for client in self.clients.values():
            client.io.jumped = self.jumped
        left = self.server.pttl(KEYS.lease)
        if left > 0:
            self.server.pexpire(KEYS.lease, max(round(left - seconds * 1000), 0))
        self.model.wait_out(seconds)

    @precondition(lambda self: self.model.owner)
    @rule()
    def clock_is_set_back(self) -> None:
        """The server's, by an hour: the term would end an hour too late."""
        self.server.pexpire(KEYS.lease, round((self.model.left + 3600) * 1000))
        self.model.left += 3600

    @rule()
    def token_is_lost(self) -> None:
        """The counter is gone, as after its retention."""
        self.server.delete(KEYS.token)

    @rule()
    def flushall(self) -> None:
        """Everything is gone; whoever held it is not told."""
        self.server.flushall()
        self.flushed.add(self.highest)
        self.model.owner, self.model.line, self.writes = "", [], 0

    # --- what must be true ----------------------------------------------------------------------

    @invariant()
    def server_says_what_the_model_says(self) -> None:
        """Owner, line, time left, writes; a new token is higher than all before."""
        left, fields, _, line = self._send(READ, THREE, ())
        held = dict(zip(fields[::2], fields[1::2], strict=True))
        assert held.get(b"owner", b"").decode() == self.model.owner
        assert [entry.decode().split(" ")[1] for entry in line] == self.model.line
        assert int(self.server.get(KEYS.stats) or 0) == self.writes
        if self.model.owner:
            assert self.model.left - 5 < left / 1000 <= self.model.left
            token = int(held[b"token"])
            assert (self.model.owner, token) in self.past or token > self.highest
            self.highest = max(self.highest, token)
            self.past.add((self.model.owner, token))
        for owner in self.model.called:
            self.clients[owner[0]].calls.append((token, self.jumped))
        self.model.called.clear()
        self._one_at_most_counts_as_holder()

    def _one_at_most_counts_as_holder(self) -> None:
        """It is the server's owner, and it stops trusting its term before the server does."""
        cores = [client.core for client in self.clients.values() if client.core.held]
        held = [core for core in cores if core.token not in self.flushed]
        assert len(held) <= 1
        for core in held:
            assert (core.owner, core.token) == (self.model.owner, self.highest)
            assert core.deadline - self.clock.now < self.model.left + 1  # the real time that passed

    def teardown(self) -> None:
        """Close all connections."""
        self.operator.close()
        for client in self.clients.values():
            client.end()


def machine(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> type[LeaseMachine]:
    """The machine on a server."""
    return type("Machine", (LeaseMachine,), {"server": server, "clock": Clock(monkeypatch)})


def check(kind: type[LeaseMachine], examples: int) -> None:
    """Run the machine."""
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    chosen = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=slow,
    )
    run_state_machine_as_test(kind, settings=chosen)


def test_3_a_lease_does_what_the_model_says_on_fakeredis(monkeypatch: pytest.MonkeyPatch) -> None:
    with fakeredis.FakeRedis() as server:
        check(machine(server, monkeypatch), 200)


@ONE_KIND
def test_3_a_lease_does_what_the_model_says_on_a_real_server(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(machine(client, monkeypatch), 300)


@ONE_KIND
def test_8_a_waiter_that_slept_through_its_term_stands_in_line_once(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = machine(client, monkeypatch)()
    steps: list[Callable[[], None]] = [
        lambda: state.acquire(which=0),
        lambda: state.stand_in_line(which=0),  # of those who do not hold it
        lambda: state.release(which=0),  # the waiter is called, and sleeps
        lambda: state.time_passes(seconds=61.0),
        lambda: state.acquire(which=0),
        lambda: state.look_again(which=0),
        lambda: state.hear(which=0),  # of a term that is over
    ]
    for step in steps:
        step()
        state.server_says_what_the_model_says()
    state.teardown()
