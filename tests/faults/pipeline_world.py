"""The pipeline under every order of its requests: two copies, an operator, and what befalls them.

It begins with a message in each place: stored, in the errors, waiting for its back-off, two in the
queue, one in the hand of a dead handler; two are still to be generated, by the first copy, which
holds the lease. After each step I0 is checked, and for the script that ran what it may change and
whom it must refuse, from what the server had before it.

What befalls a copy, at any instant: `expire` ends the lease, `die` its life as a handler, `crash`
both it and that life, `due` the back-offs; `beat` is its background thread; with `copy` its last
request arrives once more. In the end copies of all requests arrive, the dead are reclaimed, another
copy does what is left, and all arrive again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from distlock.keys import Keys
from distlock.lease import LeaseCore
from distlock.lease.core import ACQUIRE
from distlock.lease.options import Options
from distlock.pipeline import Job, Outcome
from distlock.pipeline.generator import PUBLISH, GeneratorCore
from distlock.pipeline.handler import BEAT, EXCHANGE, RECLAIM, HandlerCore
from distlock.pipeline.job import SHRINK, JobsCore
from distlock.pipeline.records import RETRY, TAKE, RecordsCore
from distlock.scripts import Script
from tests.faults import stepping
from tests.faults.stepping import Call, Move, Read, Wire
from tests.tools import Clock, check_places, settle

KEYS = Keys("t")
TTL, JUMP = 60.0, 61.0
JOB = Job(messages=8, asked=8, attempts=2, handler_ttl=60.0, id="j")
COPIES = "ab"
NAMES = [*COPIES, "y", "z"]
"""The copies, who does what is left, and who is dead from the beginning."""
WITHIN = ("expire", "die", "crash", "due", "beat", "copy")
OPERATIONS = (
    "publish",
    "lead",
    "renew",
    "release",
    "shrink",
    "handle",
    "give",
    "rest",
    "reclaim",
    "clean",
    "take",
    "retry",
)
MORE = [
    (("publish", "release"), ("lead", "shrink")),
    (("give", "release"), ("reclaim", "retry")),
    (("take",), ("clean", "retry")),
]
"""Sets of programs that belong to the pairs: what comes of it when there is a second operation."""
CHOSEN = [
    *((("publish", what), ("lead",)) for what in ("expire", "copy")),
    *((("handle", what), ("reclaim",)) for what in ("die", "copy")),
    (("give", "die"), ("clean",)),
    (("shrink", "expire"), ("lead",)),
    (("release", "copy"), ("lead",)),
    (("retry", "copy"), ("take",)),
]
"""Those of the sets where something befalls a client for which CI has the time."""
LOOK: list[tuple[Any, ...]] = [
    ("GET", KEYS.sequence),
    ("LRANGE", KEYS.queue, 0, -1),
    ("LRANGE", KEYS.again, 0, -1),
    ("ZRANGE", KEYS.later, 0, -1),
    ("HGETALL", KEYS.errors),
    ("SMEMBERS", KEYS.taken),
    ("HGETALL", KEYS.store(0)),
    ("HMGET", KEYS.lease, "owner", "token"),
    ("GET", KEYS.token),
    ("HGET", KEYS.job, "messages"),
    ("ZRANGE", KEYS.handlers, 0, -1, "WITHSCORES"),
    *(("HGETALL", KEYS.temp(name)) for name in NAMES),
]
REPORT = '{"exception":"E","message":"m","traceback":"t","handler":"h"}'
LONG_AGO = 1000
"""What ended before that (in ms since 1970) is the life of a dead handler."""
ALL_KEYS = [
    *KEYS.pick(["job", "lease", "token", "line", "sequence", "queue", "again", "later"]),
    *KEYS.pick(["handlers", "errors", "taken", "bell", "stats"]),
    *(KEYS.temp(name) for name in NAMES),
    KEYS.store(0),
]
BEGIN: list[tuple[Any, ...]] = [
    ("DEL", *ALL_KEYS),
    ("HSET", KEYS.job, *JOB.fields()),
    ("HSET", KEYS.lease, "owner", "a/1", "token", 100, "ttl", 60000, "delay", 0),
    ("PEXPIRE", KEYS.lease, 60000),
    ("SET", KEYS.token, 100),
    ("SET", KEYS.sequence, 6),
    ("HSET", KEYS.store(0), 1, "body 1"),
    ("HSET", KEYS.errors, 2, f"1\n0\n{REPORT}\n2:2:body 2", "#1", 2),
    ("ZADD", KEYS.later, 1 << 45, "3:2:body 3"),
    ("RPUSH", KEYS.queue, "4:1:body 4", "5:1:body 5"),
    ("HSET", KEYS.temp("z"), "#", "9-9/1", 6, "6:1:body 6"),
    ("ZADD", KEYS.handlers, 1, "z"),
    ("HSET", KEYS.stats, "errors", 1, "stored", 1),
]


class State(NamedTuple):
    """What the server says."""

    sequence: int
    queue: list[bytes]
    again: list[bytes]
    later: list[bytes]
    errors: dict[bytes, bytes]
    taken: set[bytes]
    store: dict[bytes, bytes]
    owner: str
    token: int
    last: int
    messages: int
    temps: dict[str, dict[bytes, bytes]]
    handlers: dict[str, float]

    @classmethod
    def of(cls, answers: list[Any]) -> State:
        """From the answers to LOOK."""
        sequence, queue, again, later, errors, taken, store, held = answers[:8]
        last, messages, handlers, *temps = answers[8:]
        return cls(
            int(sequence),
            queue,
            again,
            sorted(later),
            errors,
            set(taken),
            store,
            (held[0] or b"").decode(),
            int(held[1] or 0),
            int(last or 0),
            int(messages),
            dict(zip(NAMES, temps, strict=True)),
            {name.decode(): score for name, score in handlers},
        )

    @property
    def kept(self) -> State:
        """All but how long each handler lives, which a late copy may prolong."""
        return self._replace(handlers={})

    @property
    def moved(self) -> State:
        """All but the lease and the handlers, whose names may change with no message moving."""
        bare = {
            name: {id: said for id, said in temp.items() if id != b"#"}
            for name, temp in self.temps.items()
        }
        return self._replace(owner="", token=0, last=0, handlers={}, temps=bare)

    def waiting(self) -> dict[bytes, tuple[int, bytes]]:
        """Attempt and body of each message that is not stored or taken, by its id."""
        temps = [said for temp in self.temps.values() for id, said in temp.items() if id != b"#"]
        errors = [said.split(b"\n", 3)[3] for id, said in self.errors.items() if id[:1] != b"#"]
        parts = [
            said.split(b":", 2) for said in (*self.queue, *self.again, *self.later, *temps, *errors)
        ]
        return {id: (int(attempt), body) for id, attempt, body in parts}

    def check(self) -> None:
        """I0, and each message as it was generated."""
        ids = [int(said.split(b":")[0]) for said in (*self.queue, *self.again, *self.later)]
        check_places(
            {
                "waiting": ids,
                "temp": [int(id) for temp in self.temps.values() for id in temp if id != b"#"],
                "errors": [int(id) for id in self.errors if id[:1] != b"#"],
                "taken": [int(id) for id in self.taken],
                "store": [int(id) for id in self.store],
            },
            self.sequence,
        )
        for id, (attempt, said) in self.waiting().items():
            assert 1 <= attempt <= JOB.attempts
            assert said == b"body " + id
        assert all(said == b"body " + id for id, said in self.store.items())


class Copy(stepping.Client):
    """One copy, and what it does one after the other: see OPERATIONS."""

    within = WITHIN

    def __init__(self, name: str, todo: Sequence[str], holds: bool = False) -> None:
        super().__init__(name, todo)
        io: Any = self.io
        self.io.heard.add(KEYS.channel(name))  # nobody waits for the bell here
        self.name = name
        self.lease = LeaseCore(KEYS.name, Options(ttl=TTL, who=name), 0)
        self.jobs = JobsCore(io, KEYS)
        self.generator = GeneratorCore(io, KEYS, self.lease, 1000)
        self.handler = HandlerCore(io, KEYS, JOB, name)
        self.records = RecordsCore(io, KEYS)
        self.sequence = 6
        self.sent: list[Call] = []
        if holds:
            self.lease.owner = f"{name}/1"
            self.lease._begin(100, self.lease.ttl)

    def operation(self, name: str) -> Coroutine[Any, Any, Any]:
        """The core of an operation."""
        core: Coroutine[Any, Any, Any] = getattr(self, name)()
        return core

    async def publish(self) -> None:
        """One more message, as the generator that it takes itself for."""
        first = self.sequence + 1
        published = await self.generator._publish(first, [b"body %d" % first], True)
        self.sequence = published.sequence

    async def lead(self) -> None:
        """Try for the lease, and publish."""
        if await self.lease._acquire(self._io, False, None):
            self.sequence, messages = await self.jobs._lead(self.lease, JOB)
            if self.sequence < messages:
                await self.publish()

    async def renew(self) -> None:
        """Renew the lease."""
        await self.lease._renew(self._io)

    async def release(self) -> None:
        """Hand the lease on."""
        if await self.lease._release(self._io):
            await self.generator._ring()

    async def shrink(self) -> None:
        """Say that the source has ended."""
        await self.jobs._shrink(self.lease, self.sequence)

    async def handle(self) -> None:
        """Two hands, and a goodbye: what has an even id fails."""
        await self._hands([2, 1, 0], lambda hand: settle(hand, lambda id: id % 2 == 0))

    async def give(self) -> None:
        """One hand, which is given back."""
        await self._hands([2, 0], _given_back)

    async def _hands(self, wants: list[int], settled: Callable[[Any], Outcome]) -> None:
        outcome = Outcome()
        await self.handler._join()
        for want in wants:
            hand = await self.handler._exchange(outcome, want)
            if hand is None:
                return  # given up for dead
            outcome = settled(hand)

    async def rest(self) -> None:
        """Look whether there is something to do, and leave."""
        await self.handler._join()
        if await self.handler._rest():
            await self.handler._exchange(Outcome(), 0)

    async def reclaim(self) -> None:
        """Take the hands of the other ones, if they are dead."""
        for name in (*COPIES, "z"):
            if name != self.name:
                await self.handler._reclaim(name)

    async def clean(self) -> None:
        """As an operator, put among the errors what the dead have in hand."""
        for name in (*COPIES, "z"):
            await self.handler._reclaim(name, drop=True)

    async def take(self) -> None:
        """Take all errors that there are."""
        _, some = await self.records._read_errors(1, await self.records._last_error())
        if some:
            await self.records._take([error.order for error in some])

    async def retry(self) -> None:
        """Put all errors that there are in the queue."""
        await self.records._retry(1, await self.records._last_error())

    @property
    def _io(self) -> Any:
        return self.io


def _given_back(hand: Any) -> Outcome:
    outcome = Outcome()
    outcome.give_back(hand.messages)
    return outcome


class World:
    """One schedule from its beginning to its end.

    Args:
        wire: to the server.
        clock: of all copies.
        programs: what each copy does.
    """

    def __init__(self, wire: Wire, clock: Clock, programs: Sequence[Sequence[str]]) -> None:
        clock.now = 0.0
        self.wire = wire
        self.clock = clock
        self.copies = [
            Copy(name, program, holds=not n)
            for n, (name, program) in enumerate(zip("abc", programs, strict=False))
        ]
        self.sent: list[Call] = []
        self.deaths = itertools.count(2)
        self.state: State
        self._do(BEGIN)
        for copy in self.copies:
            copy.begin()

    # --- what may happen next -----------------------------------------------------------------

    def moves(self) -> list[Move]:
        """All that may happen next."""
        found = [Move(copy, "go") for copy in self.copies if copy.request]
        for copy in self.copies:
            what = copy.todo[0] if copy.todo else ""
            if what in WITHIN and self._may(copy, what):
                found.append(Move(copy, what))
        return found

    def _may(self, copy: Copy, what: str) -> bool:
        if what == "expire":
            return bool(self.state.owner)
        if what in ("die", "beat"):
            return self.state.handlers.get(copy.name, 0) > LONG_AGO
        if what == "copy":
            return bool(copy.sent)
        return what == "crash" or bool(self.state.later)

    # --- what happens ---------------------------------------------------------------------------

    def make(self, move: Move) -> None:
        """Have it happen."""
        copy, what = move
        if what == "go":
            copy.go_on(copy.doing.send, self._ask(copy, copy.request))
        else:
            copy.todo.pop(0)
            self._happen(copy, what)
        copy.begin()
        self._check_holders()

    def _ask(self, copy: Copy, request: Any) -> Any:
        before = self.state
        answer, *read = self.wire.ask(request.words(), *LOOK)
        self.state = State.of(read)
        self.state.check()
        if isinstance(request, Read):
            assert self.state == before
        else:
            self.sent.append(request)
            copy.sent.append(request)
            self._check_step(request, before, answer)
        return answer

    def _happen(self, copy: Copy, what: str) -> None:
        if what == "copy":
            before = self.state.kept
            self._ask(copy, copy.sent[-1])
            assert self.state.kept == before
        elif what == "beat":
            self._ask(copy, Call(BEAT, [KEYS.handlers], (copy.name, 60000)))
        elif what == "expire":
            self.expire()
        elif what == "due":
            self._do([("ZADD", KEYS.later, "XX", 1, *_between(self.state.later))])
        else:
            if what == "crash":
                copy.end()
            self._do([("ZADD", KEYS.handlers, "XX", next(self.deaths), copy.name)])

    def _do(self, *parts: Sequence[Sequence[Any]]) -> list[State]:
        """Send commands; what the server says after each part of them."""
        answers = self.wire.ask(*(words for part in parts for words in (*part, *LOOK)))
        states, at = [], 0
        for part in parts:
            at += len(part) + len(LOOK)
            states.append(State.of(answers[at - len(LOOK) : at]))
        self.state = states[-1]
        return states

    def expire(self) -> None:
        """Let a ttl pass: it ends the term under way."""
        self.clock.now += JUMP
        self._do([("DEL", KEYS.lease)])

    # --- what must be true ----------------------------------------------------------------------

    def _check_step(self, call: Call, before: State, answer: Any) -> None:
        """What this script may have changed, and that nobody was served who must not be."""
        after = self.state
        assert not isinstance(answer, ResponseError), answer
        assert before.sequence <= after.sequence <= after.messages
        assert before.last <= after.last
        assert after.token in (0, before.token) or before.last < after.token == after.last
        assert before.store.items() <= after.store.items()
        assert before.taken <= after.taken
        if call.script is not RETRY:
            attempts = after.waiting()
            for id, (attempt, _) in before.waiting().items():
                assert id not in attempts or attempts[id][0] >= attempt
        RULES.get(call.script, _moves_nothing)(call, before, after, answer)

    def _check_holders(self) -> None:
        """At most one counts as the generator, and it is the server's owner."""
        held = [copy.lease for copy in self.copies if copy.io.alive and copy.lease.held]
        assert len(held) <= 1
        for lease in held:
            assert (lease.owner, lease.token) == (self.state.owner, self.state.token)

    # --- how it ends ------------------------------------------------------------------------------

    def finish(self) -> None:
        """All who live go on to their ends, and nothing befalls them any more."""
        for copy in self.copies:
            copy.todo = [what for what in copy.todo if what not in WITHIN]
        while moves := self.moves():
            self.make(moves[0])

    def repeat(self) -> None:
        """Copies of all arrive; the dead are reclaimed, the rest is done; and all arrive again."""
        copies = [call.words() for call in self.sent]
        helper, before = Copy("y", []), self.state.kept
        (once,) = self._do(copies)
        assert once.kept == before
        for name, deadline in once.handlers.items():
            if deadline < LONG_AGO:
                self._run(helper.handler._reclaim(name))
        reclaimed, twice = self._do([], copies)
        assert twice.kept == reclaimed.kept
        self._run(self._rest(helper))
        ended, again = self._do([], copies)
        ended.check()
        done = len(ended.store) + len(ended.errors) // 2 + len(ended.taken)
        assert done == ended.sequence == ended.messages
        assert again.kept == ended.kept

    async def _rest(self, helper: Copy) -> None:
        """Do what is left."""
        (state,) = self._do([("DEL", KEYS.lease)])
        if state.sequence < state.messages:
            await helper.lease._acquire(helper._io, False, None)
            await helper.jobs._lead(helper.lease, JOB)
            ids = range(state.sequence + 1, state.messages + 1)
            await helper.generator._publish(ids[0], [b"body %d" % id for id in ids], False)
        await helper.handler._join()
        outcome = Outcome()
        while (hand := await helper.handler._exchange(outcome, 1000)) and hand.messages:
            outcome = settle(hand)
            if state.later:  # what failed is tried again, and then no more
                (state,) = self._do([("ZADD", KEYS.later, "XX", 1, *_between(state.later))])
        await helper.handler._exchange(Outcome(), 0)

    def _run(self, core: Coroutine[Any, Any, Any]) -> None:
        """Run a core to its end, at once."""
        answer: Any = None
        while True:
            try:
                request: Any = core.send(answer)
            except StopIteration:
                return
            answer = self.wire.ask(request.words())[0]

    def close(self) -> None:
        """The next one begins anew."""
        for copy in self.copies:
            copy.end()
        self.wire.heard.clear()


def _between(messages: list[bytes]) -> list[Any]:
    """The members of one ZADD, all with the score 1, after the first score."""
    first, *rest = messages
    return [first, *(part for message in rest for part in (1, message))]


# --- what each script may change, and whom it must refuse ---------------------------------------

Rule = Callable[[Call, State, State, Any], None]


def _moves_nothing(call: Call, before: State, after: State, answer: Any) -> None:
    assert after.moved == before.moved
    if call.script is not ACQUIRE:
        assert after.last == before.last
        assert after.token in (0, before.token)


def _is_owner(call: Call, before: State) -> bool:
    return bool(before.owner) and (before.owner, before.token) == tuple(call.args[:2])


def _publishes(call: Call, before: State, after: State, answer: Any) -> None:
    state = answer[0]
    assert (state == -1) == (not _is_owner(call, before))
    if state != 1:
        assert state != -2  # there are no gaps here
        assert after.kept == before.kept
        return
    assert call.args[2] == before.sequence + 1
    sequence = before.sequence + len(call.args) - 7
    queue = [*before.queue, *call.args[7:]]
    assert after.kept == before._replace(queue=queue, sequence=sequence).kept


def _shrinks(call: Call, before: State, after: State, answer: Any) -> None:
    served = _is_owner(call, before) and call.args[2] == before.sequence
    assert served == bool(answer)
    messages = before.sequence if served else before.messages
    assert after.kept == before._replace(messages=messages).kept


def _exchanges(call: Call, before: State, after: State, answer: Any) -> None:
    name = str(call.args[0])
    there = before.temps[name].get(b"#", b"").decode()
    said = call.args[1].decode() if isinstance(call.args[1], bytes) else call.args[1]
    if there != said:
        assert bool(answer[0]) == there.startswith(f"{call.args[2]}-")
        assert after.kept == before.kept
        return
    assert answer[0]
    hand = {id: said for id, said in after.temps[name].items() if id != b"#"}
    assert answer[4] == sorted(hand.values(), key=answer[4].index)
    assert after.sequence == before.sequence
    assert all(after.temps[other] == before.temps[other] for other in NAMES if other != name)
    attempts = before.waiting()
    for id, attempt, _ in (message.split(b":", 2) for message in after.later):
        assert int(attempt) > attempts[id][0] or id not in before.temps[name]
    settled = set(before.temps[name]) - {b"#"}
    assert set(after.store) - set(before.store) <= settled
    assert not settled & {message.split(b":")[0] for message in after.again}


def _reclaims(call: Call, before: State, after: State, answer: Any) -> None:
    name = str(call.args[0])
    deadline = before.handlers.get(name, 0)
    served = 0 < deadline < LONG_AGO and deadline == call.args[5]
    assert answer != -1 or not served
    if not served:  # the last request that was served is answered again
        assert after.kept == before.kept
        return
    assert answer == len(set(before.temps[name]) - {b"#"})
    assert not after.temps[name]
    assert name not in after.handlers
    assert after.store == before.store
    assert after.queue == before.queue


def _moves_errors(call: Call, before: State, after: State, answer: Any) -> None:
    bare = {"errors": {}, "queue": [], "taken": set()}
    assert after._replace(**bare) == before._replace(**bare)
    gone = set(before.errors) - set(after.errors)
    come = set(after.errors) - set(before.errors)
    assert not come
    back = {message.split(b":")[0] for message in after.queue if message not in before.queue}
    assert {id for id in gone if id[:1] != b"#"} == back | (after.taken - before.taken)


RULES: dict[Script, Rule] = {
    PUBLISH: _publishes,
    SHRINK: _shrinks,
    EXCHANGE: _exchanges,
    RECLAIM: _reclaims,
    TAKE: _moves_errors,
    RETRY: _moves_errors,
}
