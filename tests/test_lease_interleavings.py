"""Every order in which the requests of two and of three clients can reach the server.

How that is done stands in `faults/stepping.py`; `faults/test_orders.py` has the same for the
pipeline and the cache. After every step promise 3 is checked from the server's state alone, and the
rules of the line with it; at the end all who live go on until everyone was served in the order of
arrival; then copies of all requests arrive once more, as late as can be.

Time is a step, too: `expire` ends the term under way, and whoever waits then looks again. `crash`
takes the client and its subscription away, `freeze` only the client. `leave` cuts an acquire short
wherever it stands, with the request under way sent or not; `brief` is one that has no time to wait.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import pytest
import redis
from redis.exceptions import ResponseError

from distlock.io import Argument, SyncIO, run
from distlock.keys import Keys
from distlock.lease import Lease, LeaseCore
from distlock.lease.core import ACQUIRE, LEAVE, RETENTION
from distlock.lease.holder import READ
from distlock.lease.options import Options
from distlock.lease.term import RELEASE, RENEW, WRITE
from tests.conftest import ONE_KIND
from tests.faults import stepping
from tests.faults.stepping import Call, Cut, Listen, Move, Wait, Wire, schedules
from tests.tools import Clock

KEYS = Keys("t")
THREE = KEYS.pick(["lease", "token", "line"])
TTL, JUMP = 60.0, 61.0
WITHIN = ("leave", "crash", "freeze", "expire")
"""What may happen while the operation before it is still under way."""
OPERATIONS: dict[str, Callable[[LeaseCore, Any], Coroutine[Any, Any, Any]]] = {
    "try": lambda core, io: core._acquire(io, False, None),
    "join": lambda core, io: core._acquire(io, True, None),
    "brief": lambda core, io: core._acquire(io, True, 1e-9),
    "renew": lambda core, io: core._renew(io),
    "write": lambda core, io: core._execute(io, [("INCR", KEYS.stats)]),
    "release": lambda core, io: core._release(io),
}


class State(NamedTuple):
    """What the server says: the owner and its token ("" and 0: free), the line, the last token."""

    owner: str
    token: int
    line: list[str]
    last: int

    @classmethod
    def of(cls, answer: Any) -> State:
        """From the answer of lease_read."""
        _, fields, last, line = answer
        held = dict(zip(fields[::2], fields[1::2], strict=True))
        waiters = [entry.decode().split(" ")[1] for entry in line]
        return cls(held.get(b"owner", b"").decode(), int(held.get(b"token", 0)), waiters, int(last))


class Client(stepping.Client):
    """One client: its core, and what it does one after the other."""

    within = WITHIN

    def __init__(self, name: str, todo: Sequence[str], listens: bool) -> None:
        super().__init__(name, todo)
        self.core = LeaseCore("t", Options(ttl=TTL, who=name), RETENTION)
        if listens:
            self.io.heard.add(self.channel)

    def operation(self, name: str) -> Coroutine[Any, Any, Any]:
        """The core of an operation."""
        return OPERATIONS[name](self.core, self.io)


class World:
    """One schedule from its beginning to its end.

    Args:
        wire: to the server, which has nothing of this lease.
        clock: of all clients.
        programs: what each client does.
        brisk: with fewer steps: all have subscribed before, and what is cut short was sent.
    """

    def __init__(
        self, wire: Wire, clock: Clock, programs: Sequence[Sequence[str]], brisk: bool
    ) -> None:
        self.wire = wire
        self.clock = clock
        self.jumped = 0
        self.brisk = brisk
        self.state = State("", 0, [], 0)
        self.clients = [Client(n, p, brisk) for n, p in zip("abc", programs, strict=False)]
        self.hears = {client.io.address: brisk for client in self.clients}
        self.left: set[str] = set()
        self.known: set[int] = set()
        self.sent: list[Call] = []
        self.inbox: dict[str, list[bytes]] = {}
        wire.ask(*(("SUBSCRIBE", client.channel) for client in self.clients if brisk))
        for client in self.clients:
            client.begin()

    # --- what may happen next -----------------------------------------------------------------

    def moves(self) -> list[Move]:
        """All that may happen next."""
        found = [Move(client, "go") for client in self.clients if self._ready(client)]
        for client in self.clients:
            what = client.todo[0] if client.io.alive and client.todo else ""
            if what == "leave" and (client.doing or client.core.token):
                found.append(Move(client, "leave"))
                if isinstance(client.request, Call) and not self.brisk:
                    found.append(Move(client, "leave unsent"))
            elif what in ("crash", "freeze") or (what == "expire" and self.state.owner):
                found.append(Move(client, what))
        return found

    def _ready(self, client: Client) -> bool:
        request = client.request
        if isinstance(request, Wait):
            return client.due or request.seconds <= 0 or bool(self._messages(client))
        return request is not None

    def _messages(self, client: Client) -> list[bytes]:
        return self.inbox.get(client.core.owner, [])

    # --- what happens ---------------------------------------------------------------------------

    def make(self, move: Move) -> None:
        """Have it happen."""
        client, what = move
        if what == "go":
            assert client.doing
            client.go_on(client.doing.send, self._answer(client))
        else:
            client.todo.pop(0)
            self._happen(client, what)
        self.known.add(client.core.token)
        client.begin()
        self._check_holders()

    def _happen(self, client: Client, what: str) -> None:
        if what == "expire":
            self.expire()
        elif what in ("crash", "freeze"):
            client.end()
            if what == "crash":
                self._deafen([client])
        elif not client.doing:
            client.run(client.core._release(client.io))
        else:
            if what == "leave" and isinstance(client.request, Call):
                self._answer(client)
            client.go_on(client.doing.throw, Cut())

    def expire(self) -> None:
        """Let a ttl pass: it ends the term under way, and the waits."""
        self.clock.now += JUMP
        self.jumped += round(JUMP * 1e6)
        *_, answer = self.wire.ask(("DEL", KEYS.lease), self._read())
        self.state = State.of(answer)
        for client in self.clients:
            client.due = isinstance(client.request, Wait)

    def _deafen(self, clients: Sequence[Client]) -> None:
        self.wire.ask(("UNSUBSCRIBE", *(client.channel for client in clients)))
        self.hears.update({client.io.address: False for client in clients})

    def _answer(self, client: Client) -> Any:
        """Send the request of a client and take the answer."""
        request = client.request
        if isinstance(request, Wait):
            messages = self._messages(client)
            return messages.pop(0) if messages else None
        if isinstance(request, Listen):
            self.hears[client.io.address] = True
            return self.wire.ask(("SUBSCRIBE", request.channel))
        assert request
        return self._send(client, request)

    def _send(self, client: Client, call: Call) -> Any:
        before = self.state
        answer, read = self.wire.ask(call.words(), self._read())
        self.state = State.of(read)
        self.sent.append(call)
        for _, said in self.wire.heard:
            owner, token, began = said.decode().split(" ")
            message = f"{token} {int(began) + self.jumped}".encode()
            self.inbox.setdefault(owner, []).append(message)
        self.wire.heard.clear()
        if call.script is ACQUIRE:
            answer[3] += self.jumped
        if call.script is LEAVE:
            self.left.add(client.core.owner)
        self._check_step(client, call, before)
        self._check_answer(client, call, before, answer)
        return answer

    def _read(self) -> tuple[Argument, ...]:
        return Call(READ, THREE, ()).words()

    # --- what must be true ----------------------------------------------------------------------

    def _living(self, line: list[str]) -> list[str]:
        return [waiter for waiter in line if self.hears[waiter.split("/")[0]]]

    def _check_step(self, client: Client, call: Call, before: State) -> None:
        """Who is the owner now, by which token, and how the line moved."""
        after, mine = self.state, client.core.owner
        living = [w for w in self._living(before.line) if call.script is not LEAVE or w != mine]
        if after.token != before.token:
            heir = living[0] if living else mine if call.script is ACQUIRE else ""
            assert after.owner == heir
        if after.owner and after.token != before.token:
            assert after.token == after.last > before.last
        assert after.last >= before.last
        kept = [waiter for waiter in before.line if waiter in after.line]
        assert after.line[: len(kept)] == kept
        assert after.line[len(kept) :] in ([], [mine])
        assert len(set(after.line)) == len(after.line)
        assert set(living) <= {*after.line, after.owner}
        assert not self.left & {*after.line, after.owner}

    def _check_answer(self, client: Client, call: Call, before: State, answer: Any) -> None:
        """Who holds it is served, everybody else is refused and changes nothing."""
        if call.script in (RENEW, RELEASE, WRITE):
            mine = (before.owner, before.token) == tuple(call.args[:2])
            refused = isinstance(answer, ResponseError) or answer == 0
            assert mine != refused
            assert mine or before == self.state
        if call.script in (RELEASE, LEAVE):
            assert self.state.owner != call.args[0]

    def _check_holders(self) -> None:
        """At most one counts as holder, and it is the server's owner."""
        held = [client.core for client in self.clients if client.core.held]
        assert len(held) <= 1
        for core in held:
            assert (core.owner, core.token) == (self.state.owner, self.state.token)

    # --- how it ends ------------------------------------------------------------------------------

    def finish(self) -> None:
        """All who live go on; whoever waits is served, with no help of the clock but for deaths."""
        for client in self.clients:
            client.todo = [what for what in client.todo if what not in WITHIN]
        while True:
            if moves := self.moves():
                self.make(moves[0])
            elif self.state.owner:
                self._end_term()
            else:
                break
        frozen = {client.core.owner for client in self.clients if not client.io.alive}
        assert set(self._living(self.state.line)) <= frozen
        assert not any(client.doing for client in self.clients)

    def _end_term(self) -> None:
        """The owner releases; if it is dead, or knows nothing of it, the time is over."""
        for client in self.clients:
            core = client.core
            if client.io.alive and core.token == self.state.token:
                assert not client.doing
                client.run(core._release(client.io))
                return
        owners = [c.core.owner for c in self.clients if not c.io.alive]
        given_up = self.state.token in self.known  # its answer came when its time was over
        assert given_up or self.state.owner in owners, "the owner never heard of it"
        self.expire()

    def repeat(self) -> None:
        """Have a copy of every request arrive, when nobody calls its client any more: no change."""
        self._deafen(self.clients)
        copies = [call.words() for call in self.sent if call.script is not WRITE]
        last, entry = self.state.last, f"x x/1 {TTL * 1000:.0f} 0 0 0"
        acquire = Call(ACQUIRE, THREE, (entry, last, 0, 0)).words()
        *answers, taken = self.wire.ask(*copies, acquire)
        release = Call(RELEASE, THREE, ("x/1", taken[0])).words()
        again = self.wire.ask(*copies, release, *copies, self._read())
        released, state = again.pop(len(copies)), State.of(again.pop())
        assert taken[0] > last
        assert released == 1
        assert state == State("", 0, [], taken[0])
        for answer in (*answers, *again):
            assert not (answer[0] if isinstance(answer, list) else answer)

    def close(self) -> None:
        """Leave nothing behind on the server."""
        for client in self.clients:
            client.end()
        self.wire.ask(("UNSUBSCRIBE",), ("DEL", *THREE, KEYS.stats))


LATER = ("try", "join", "renew", "write", "release", *WITHIN)
PAIRS = [
    *(("try", then) for then in LATER),
    *(("join", then) for then in LATER if then not in ("try", "join")),
    *(("brief", then) for then in ("try", "release", "leave", "crash")),
    *(("expire", then) for then in ("try", "join")),
]
FEWER = [
    *(("try", then) for then in ("release", "crash", "expire")),
    *(("join", then) for then in ("release", "leave", "crash")),
]


TWOS = list(itertools.combinations_with_replacement(PAIRS, 2))
THREES = [
    *(
        programs
        for programs in itertools.combinations_with_replacement(FEWER, 3)
        if sum(then in ("leave", "expire") for _, then in programs) < 2
    ),
    (("try", "release"), ("join", "expire"), ("join", "expire")),
]


@ONE_KIND
@pytest.mark.parametrize(("every", "bar"), [(TWOS, 6_000), (THREES, 16_000)], ids=["two", "three"])
def test_3_in_every_order_of_requests_one_holds_and_all_are_served_in_turn(
    url: str,
    every: list[tuple[tuple[str, str], ...]],
    bar: int,
    record_property: Callable[[str, object], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, tried = Clock(monkeypatch), 0
    with closing(Wire(url)) as wire:
        for programs in every:
            for _ in schedules(partial(World, wire, clock, programs, len(programs) > 2)):
                tried += 1
    record_property("schedules", tried)
    print(f"{tried} schedules of {len(every)} sets of programs")
    assert tried >= bar


@ONE_KIND
def test_5_a_copy_of_a_look_that_found_the_lease_held_takes_nothing_later(
    client: redis.Redis,
) -> None:
    sent: list[Any] = []

    class Recording(SyncIO):
        """Remembers what it sent."""

        async def call(self, *call: Any) -> Any:
            sent.append(call)
            return await super().call(*call)

    holder = Lease(SyncIO(client), "t")
    other = Lease(Recording(client), "t")
    assert holder.acquire(blocking=False)
    assert not other.acquire(blocking=False)
    assert not other.acquire(blocking=False)
    assert holder.release()
    run(SyncIO(client).call(*sent[-1]))
    assert not client.exists(KEYS.lease)
