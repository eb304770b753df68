"""The cache under every order of its requests: processes that get, delete, set and refresh one key.

The end of a getter is a move, too. What befalls a process, at any instant: `crash`, `cut` (its call
is cancelled, the request under way sent or not), `late` (the time it waits is over), `renew` (by
its keeper), `lapse` (the right under way ends, as after its ttl), `gone` (the value ends, as after
its expire), `copy` (its last request arrives once more).

After each step: the right is taken from nobody but by a refresh, or by who saw its death; a value
is kept only by the right under which its getter began; a get that began after a delete or a set
had returned got nothing older; a getter runs once, but for what explains another call. In the end
nobody waits who is not waiting for a dead one, the next who gets has a value, and copies of all
requests change nothing. (A right that has lapsed leaves nothing behind: a late copy of an earlier
claim may take it once more, for one ttl. So those are left out where the last right has lapsed.)
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from distlock.cache.claiming import CLAIM
from distlock.cache.computing import LAND
from distlock.cache.core import PUT, CacheCore
from distlock.cache.nodes import Node, Reach
from distlock.cache.options import Options, Terms
from distlock.errors import GetterFailed
from distlock.keys import CacheKeys
from tests.faults import stepping
from tests.faults.stepping import Call, Cut, Listen, Move, Read, Wait, Wire, Work, stop

KEYS = CacheKeys("cache")
FIVE = KEYS.all("k")
ALL_KEYS = [*FIVE, KEYS.put("k")[3]]
TERMS = Terms(expire=1000.0, execution_limit=1000.0, thread=False)
WITHIN = ("crash", "cut", "late", "renew", "lapse", "gone", "copy")
OPERATIONS = ("get", "fail", "refresh", "delete", "set")
MORE = [((a,), (b, "get")) for a in ("get", "refresh") for b in ("delete", "set")]
"""Sets of programs that belong to the pairs: what is asked for after a delete has returned."""
CHOSEN = [(("get", what), (b,)) for what in WITHIN for b in ("get", "delete")]
"""Those of the sets where something befalls a client for which CI has the time."""
LOOK: list[tuple[Any, ...]] = [("MGET", *FIVE[:3]), ("SMEMBERS", FIVE[3])]


class Failure(Exception):
    """What a getter raises."""


class Latch:
    """A process has one thread here: it never waits for itself."""

    def __init__(self) -> None:
        self.value: Any = None

    def set(self, value: Any) -> None:
        """See io.Latch."""
        self.value = value

    async def wait(self, seconds: float) -> Any:
        """See io.Latch."""
        assert self.value is not None
        return self.value


class Crew:
    """The one thread of a process; its getter ends when the scheduler says so."""

    latch = Latch

    def reset(self) -> None:
        """See io.Crew."""

    async def call(self, function: Callable[[], Any], thread: bool) -> Any:
        """See io.Crew."""
        ends = function()
        await stop(Work(ends))
        return ends()


class Hub:
    """What a process shares on its node: one IO. Nobody sees its connections, so a death is seen
    by the end of its right alone; its keeper keeps when the scheduler says so."""

    def __init__(self, io: stepping.SteppingIO) -> None:
        self._io = io
        self.kept: list[Any] = []

    def take(self) -> Any:
        """See io.Hub."""
        return self._io

    def give(self, io: Any) -> None:
        """See io.Hub."""

    async def presence(self, seconds: float) -> str:
        """See io.Hub."""
        return ""

    def keep(self, kept: Any) -> None:
        """See io.Hub."""
        self.kept.append(kept)


class State(NamedTuple):
    """What the server says of the key: the value's bytes, the flight's words, who waits."""

    value: bytes | None
    flight: str
    fresh: bytes | None
    waiters: frozenset[bytes]

    @classmethod
    def of(cls, answers: list[Any]) -> State:
        """From the answers to LOOK."""
        (value, flight, fresh), waiters = answers
        return cls(value, (flight or b"").decode(), fresh, frozenset(waiters))

    @property
    def right(self) -> str:
        """The right that somebody has, "" if nobody has it."""
        right = self.flight.partition(" ")[0]
        return "" if right.startswith("-") else right


class Process(stepping.Client):
    """One process, and what it does one after the other.

    Attributes:
        began: the step at which the first request of its operation was sent.
        what: the operation under way, or the last one.
    """

    within = WITHIN
    expected = (Failure, GetterFailed, Cut)

    def __init__(self, name: str, todo: Sequence[str], world: World) -> None:
        super().__init__(name, todo)
        io: Any = self.io
        self.hub = Hub(io)
        crew: Any = Crew()
        reach = Reach(lambda url: None, lambda *_: self.hub)
        node = Node("redis://nowhere", name="n")
        self.cache = CacheCore("cache", [node], Options(ttl=60.0), crew, reach)
        self.world = world
        self.what = ""
        self.began = 0
        self.sent: list[Call] = []

    def operation(self, name: str) -> Coroutine[Any, Any, Any]:
        """The core of an operation."""
        self.what, self.began = name, 0
        if name == "delete":
            return self.cache._put("k", b"", 0.0, 0.0, False)
        if name == "set":
            return self.cache._set("k", self.world.new_value(), 1000.0, 0.0, False)
        call = self.cache._begin("k", lambda: self.world.compute(name == "fail"), TERMS)
        return self.cache._get(call, refresh=name == "refresh")

    @property
    def right(self) -> Any:
        """The flight whose right its keeper would renew, if there is one."""
        flights = [kept for kept in self.hub.kept if hasattr(kept, "right") and kept.kept]
        return flights[-1] if flights else None


class World:
    """One schedule from its beginning to its end.

    Args:
        wire: to the server.
        programs: what each process does.
    """

    def __init__(self, wire: Wire, programs: Sequence[Sequence[str]]) -> None:
        self.wire = wire
        self.step = 0
        self.calls = 0
        self.excuses = 0
        self.fails = any("fail" in program for program in programs)
        self.voids = [0]
        self.born: dict[str, int] = {}
        self.sent: list[Call] = []
        self.inbox: dict[str, list[bytes]] = {}
        self.processes = [Process(n, p, self) for n, p in zip("abc", programs, strict=False)]
        self.state = State.of(wire.ask(("DEL", *ALL_KEYS), *LOOK)[1:])
        for process in self.processes:
            process.begin()

    def new_value(self) -> str:
        """A value that there was not before."""
        return f"value {len(self.born) + self.calls} {self.step}"

    def compute(self, fails: bool) -> Callable[[], str]:
        """A call of the getter begins; returns what ends it."""
        self.calls += 1
        value = self.new_value()
        self.born[value] = self.step

        def ends() -> str:
            if fails:
                raise Failure
            return value

        return ends

    # --- what may happen next -----------------------------------------------------------------

    def moves(self) -> list[Move]:
        """All that may happen next."""
        found = [Move(process, "go") for process in self.processes if self._ready(process)]
        for process in self.processes:
            what = process.todo[0] if process.todo else ""
            if what in WITHIN and process.io.alive and self._may(process, what):
                found.append(Move(process, what))
                if what == "cut" and isinstance(process.request, Call):
                    found.append(Move(process, "cut unsent"))
        return found

    def _ready(self, process: Process) -> bool:
        request = process.request
        if isinstance(request, Wait):
            return process.due or bool(self._said(process, request))
        return request is not None

    def _said(self, process: Process, wait: Wait) -> list[bytes]:
        word = wait.topic.partition(" ")[0].encode() + b" "
        said = self.inbox.get(process.channel, [])
        return [message[len(word) :] for message in said if message.startswith(word)]

    def _may(self, process: Process, what: str) -> bool:
        return {
            "crash": True,
            "cut": process.doing is not None and process.what not in ("delete", "set"),
            "late": isinstance(process.request, Wait),
            "renew": process.right is not None,
            "lapse": bool(self.state.right),
            "gone": self.state.value is not None,
            "copy": bool(process.sent),
        }[what]

    # --- what happens ---------------------------------------------------------------------------

    def make(self, move: Move) -> None:
        """Have it happen."""
        process, what = move
        self.step += 1
        process.began = process.began or self.step
        if what == "go":
            answer = self._ask(process, process.request)
            process.go_on(process.doing.send, answer)
        else:
            process.todo.pop(0)
            self._happen(process, what)
        self._check_end(process)
        process.begin()

    def _ask(self, process: Process, request: Any) -> Any:
        if isinstance(request, Work):
            return None
        if isinstance(request, Wait):
            said = self._said(process, request)
            self.inbox[process.channel] = []
            return said[0] if said else None
        if isinstance(request, Listen):
            return self.wire.ask(("SUBSCRIBE", request.channel))
        return self._send(process, request)

    def _send(self, process: Process, request: Call | Read) -> Any:
        before = self.state
        answer, *read = self.wire.ask(request.words(), *LOOK)
        self._see(read)
        if isinstance(request, Call):
            self.sent.append(request)
            process.sent.append(request)
            self._check_step(request, before, answer)
        if isinstance(request, Call) and request.script is PUT:
            self._put(process, request)
        return answer

    def _put(self, process: Process, call: Call) -> None:
        """A delete or a set was done: everything older is void."""
        self.excuses += 1
        self.voids.append(self.step)
        if call.args[1]:
            value = process.cache._codec.decode(call.args[1]).value
            self.born[value] = self.step

    def _see(self, read: list[Any]) -> None:
        self.state = State.of(read)
        for channel, said in self.wire.heard:
            self.inbox.setdefault(channel.decode(), []).append(said)
        self.wire.heard.clear()

    def _do(self, *commands: Sequence[Any]) -> None:
        self._see(self.wire.ask(*commands, *LOOK)[len(commands) :])

    def _happen(self, process: Process, what: str) -> None:
        if what == "late":
            process.due = True
        elif what == "renew":
            self._renew(process)
        elif what == "copy":
            self._copy(process.sent[-1])
        else:
            self.excuses += 1
            if what == "lapse":
                self.lapse()
            elif what == "gone":
                self._do(("DEL", FIVE[0], FIVE[2]))
            elif what == "crash":
                process.end()
            else:
                if what == "cut" and isinstance(process.request, Call):
                    self._send(process, process.request)
                process.go_on(process.doing.throw, Cut())

    def lapse(self) -> None:
        """Let a ttl pass without a renewal: the right ends, and so do the waits."""
        self._do(("DEL", FIVE[1], FIVE[4]))
        for process in self.processes:
            process.due = isinstance(process.request, Wait)

    def _renew(self, process: Process) -> None:
        core = process.right.keep(process.io, float("inf"))
        try:
            core.send(self._send(process, core.send(None)))
        except StopIteration:
            return
        raise AssertionError("a renewal is one request")

    def _copy(self, call: Call) -> None:
        """A copy of a request arrives; one of a claim may take a right that has lapsed again."""
        before = self.state
        self._do(call.words())
        assert (self.state.value, self.state.fresh) == (before.value, before.fresh)
        assert self.state.flight == before.flight or not before.flight

    # --- what must be true ----------------------------------------------------------------------

    def _check_step(self, call: Call, before: State, answer: Any) -> None:
        """Whose right it is, who took it from whom, and what is kept."""
        after, mine = self.state, call.args[0] if call.args else ""
        assert not isinstance(answer, ResponseError), answer
        if call.script is CLAIM:
            if after.right != before.right:
                assert answer == [1]
                assert after.right == mine
                assert not before.right or call.args[4] != 0
            assert (answer[0] == 1) == (after.right == mine)
        kept = (before.value, before.fresh) != (after.value, after.fresh)
        if call.script is LAND:
            assert not kept or before.right == mine
        elif call.script is not PUT:
            assert not kept
        if after.value is not None:
            found = self.processes[0].cache._codec.decode(after.value)
            if call.script is not PUT:
                assert self.born[found.value] >= self.voids[-1]

    def _check_end(self, process: Process) -> None:
        """What a call ended with, and how often the getter ran."""
        if process.what in ("refresh", "fail"):
            self.excuses += process.began == self.step
        assert self.calls <= 1 + self.excuses
        if process.doing or process.what in ("delete", "set", "") or not process.io.alive:
            return
        if process.answer is None:
            assert isinstance(process.error, Cut) or self.fails
        else:
            void = max(step for step in self.voids if step < process.began or not step)
            assert self.born[process.answer] >= void
        process.what = ""

    # --- how it ends ------------------------------------------------------------------------------

    def finish(self) -> None:
        """All who live go on to their ends; only who waits for a dead one needs the time."""
        for process in self.processes:
            process.todo = [what for what in process.todo if what not in WITHIN]
        while True:
            if moves := self.moves():
                self.make(moves[0])
            elif any(process.doing for process in self.processes):
                assert any(not process.io.alive for process in self.processes), "waits for ever"
                self.excuses += 1
                self.lapse()
            else:
                return

    def repeat(self) -> None:
        """Copies of all arrive; the next who gets has a value; and all arrive again."""
        if self.state.right:  # of a dead one
            assert any(not process.io.alive for process in self.processes)
            self.lapse()
            self.excuses += 1
        last = Process("z", ["get"], self)
        last.begin()
        self.processes.append(last)
        while last.doing:
            assert not isinstance(last.request, Wait)
            self.make(Move(last, "go"))
        assert last.answer
        copies = [call.words() for call in self.sent]
        if not self.state.flight:  # where a right has lapsed, nothing says that a claim is old
            copies = [call.words() for call in self.sent if call.script is not CLAIM]
        before = self.state
        self._do(*copies, *copies)
        assert self.state._replace(waiters=before.waiters) == before

    def close(self) -> None:
        """The next one begins anew."""
        for process in self.processes:
            process.end()
        self.wire.ask(("UNSUBSCRIBE",))
        self.wire.heard.clear()
