"""Running every order in which the requests of several clients can reach a server.

The real cores run over an IO that stops before every request; a scheduler picks whose request goes
next. Each script is atomic, so an order of requests is all there is to an interleaving: a
*schedule*. What a client may do next is a `Move`; a world says which moves there are, makes one,
and checks what must be true after it. `schedules` runs them all, each from the beginning.

Time is a move, too: nothing here takes any.
"""

from __future__ import annotations

import contextvars
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import asynccontextmanager
from types import coroutine
from typing import Any, NamedTuple, Protocol

import hiredis
from redis.exceptions import ResponseError

from distlock import scripts
from distlock.errors import LeaseError, UsageError
from distlock.io import Argument
from distlock.keys import wake_channel
from distlock.scripts import Script


class Call(NamedTuple):
    """A script that is about to be sent."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Argument]

    def words(self) -> tuple[Argument, ...]:
        """As a command."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)


class Read(NamedTuple):
    """A command that is about to be sent, and only reads."""

    command: tuple[Argument, ...]

    def words(self) -> tuple[Argument, ...]:
        """As a command."""
        return self.command


class Listen(NamedTuple):
    """A subscription that is about to be asked for."""

    channel: str


class Wait(NamedTuple):
    """A wait that is about to begin, or under way."""

    topic: str
    seconds: float


class Work(NamedTuple):
    """A user's function under way; `what` says which."""

    what: Any


Request = Call | Read | Listen | Wait | Work


@coroutine
def stop(request: Request) -> Generator[Request, Any, Any]:
    """Leave it to the scheduler; returns the answer."""
    return (yield request)


class Cut(BaseException):
    """Cuts an operation short, like CancelledError or KeyboardInterrupt."""


class SteppingIO:
    """The IO of one client: stops before every request."""

    resent = 0
    patience = 0.0

    def __init__(self, address: str) -> None:
        self.address = address
        self.alive = True
        self.heard: set[str] = set()

    async def call(self, *call: Any) -> Any:
        """See IO."""
        return await stop(Call(*call[:3]))

    async def attempt(self, *call: Any) -> Any:
        """See IO."""
        return await stop(Call(*call[:3]))

    async def command(self, *words: Argument) -> Any:
        """See IO."""
        return await stop(Read(words))

    async def ask(self, words: Sequence[Argument], *seconds: float) -> Any:
        """See IO."""
        return await stop(Read(tuple(words)))

    async def listen(self, channel: str, topic: str = "", seconds: float = 5.0) -> bool:
        """See IO."""
        if channel not in self.heard:
            await stop(Listen(channel))
            self.heard.add(channel)
        return True

    def listens(self, channel: str) -> bool:
        """See IO."""
        return channel in self.heard

    async def wait(self, channel: str, seconds: float, topic: str = "") -> Any:
        """See IO."""
        return await stop(Wait(topic, seconds))

    async def sleep(self, seconds: float) -> None:
        """See IO."""
        await stop(Wait("", seconds))

    def mute(self, channel: str, topic: str) -> None:
        """See IO."""

    async def undo(self, core: Coroutine[Any, Any, Any]) -> None:
        """See IO; the dead undo nothing."""
        if self.alive:
            await core
        core.close()

    @asynccontextmanager
    async def turn(self, key: str, deadline: float) -> AsyncIterator[bool]:
        """See IO; a client here is alone in its process."""
        yield True


class Wire:
    """One connection over which all clients speak and hear, so that nothing depends on timing.

    It speaks RESP3, where a wake-up comes among the answers, in the order of things. What is sent
    at once is one instant: nobody else speaks to the server.

    Attributes:
        heard: channel and message of each wake-up that nobody has looked at yet.
    """

    def __init__(self, url: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(url.removeprefix("unix://"))
        self._reader = hiredis.Reader(replyError=ResponseError, notEnoughData=self)
        self.heard: list[tuple[bytes, bytes]] = []
        self.ask(("HELLO", 3))
        self.ask(*(("SCRIPT", "LOAD", scripts.script(name).text) for name in scripts.names()))

    def ask(self, *commands: Sequence[Argument]) -> list[Any]:
        """Send commands at once; their answers. What is heard meanwhile is kept in `heard`."""
        self._socket.sendall(b"".join(hiredis.pack_command(tuple(words)) for words in commands))
        answers: list[Any] = []
        due = sum(words[0] not in ("SUBSCRIBE", "UNSUBSCRIBE") for words in commands)
        while len(answers) < due:
            answer = self._reader.gets()
            if answer is self:
                self._reader.feed(self._socket.recv(65536))
            elif not isinstance(answer, hiredis.PushNotification):
                answers.append(answer)
            elif answer[0] == b"message":
                self.heard.append((answer[1], answer[2]))
        return answers

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class Client:
    """One client: what it does one after the other.

    Attributes:
        todo: operations, and what happens to it, that have not begun.
        doing: the operation under way, None between two.
        request: what it stopped at.
        due: it waits, and the time it waits for is over.
        answer: what the last operation returned.
        error: what it raised, None if it did not.
    """

    within: Sequence[str] = ()
    """What may happen while the operation before it is still under way."""
    expected: tuple[type[BaseException], ...] = (LeaseError, UsageError, Cut)
    """What an operation may raise."""

    def __init__(self, name: str, todo: Sequence[str]) -> None:
        self.io = SteppingIO(name)
        self.channel = wake_channel(name)
        self.todo = [what for what in todo if what]
        self.doing: Coroutine[Any, Any, Any] | None = None
        self.request: Request | None = None
        self.due = False
        self.answer: Any = None
        self.error: BaseException | None = None
        self._context = contextvars.copy_context()

    def operation(self, name: str) -> Coroutine[Any, Any, Any]:
        """The core of an operation."""
        raise NotImplementedError

    def begin(self) -> None:
        """Begin what can begin, up to its first request."""
        while self.io.alive and not self.doing and self.todo and self.todo[0] not in self.within:
            self.run(self.operation(self.todo.pop(0)))

    def run(self, doing: Coroutine[Any, Any, Any]) -> None:
        """Begin an operation."""
        self.doing = doing
        self.go_on(doing.send, None)

    def go_on(self, how: Callable[[Any], Request], answer: Any) -> None:
        """Run to the next request."""
        self.due = False
        self.answer = self.error = None
        try:
            self.request = self._context.run(how, answer)
        except StopIteration as end:
            self.answer = end.value
            self.doing = self.request = None
        except self.expected as error:
            self.error = error
            self.doing = self.request = None

    def end(self) -> None:
        """Vanish: nothing more is sent."""
        self.io.alive = False
        if self.doing:
            self._context.run(self.doing.close)
        self.doing = self.request = None


class Move(NamedTuple):
    """What may happen next: a client's request, or what its program has within it."""

    client: Any
    what: str

    def __str__(self) -> str:
        return f"{self.client.io.address} {self.what}"


class World(Protocol):
    """One schedule from its beginning to its end."""

    def moves(self) -> list[Move]:
        """All that may happen next; none: the schedule is over."""

    def make(self, move: Move) -> None:
        """Have it happen, and check what must be true then."""

    def finish(self) -> None:
        """Have all who live go on to their ends."""

    def repeat(self) -> None:
        """Have a copy of every request arrive once more, as late as can be."""

    def close(self) -> None:
        """Leave nothing behind."""


def schedules(begin: Callable[[], World]) -> Iterator[str]:
    """Run every schedule, and say which; a violation has the schedule in its notes."""
    path: list[int] = []
    while True:
        world, widths, said = begin(), [], []
        try:
            while moves := world.moves():
                if len(widths) == len(path):
                    path.append(0)
                move = moves[path[len(widths)]]
                widths.append(len(moves))
                said.append(str(move))
                world.make(move)
            world.finish()
            world.repeat()
        except AssertionError as error:
            error.add_note(f"schedule: {', '.join(said)}")
            raise
        finally:
            world.close()
        yield ", ".join(said)
        while path and path[-1] + 1 == widths[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1
