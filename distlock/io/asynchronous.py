"""The asyncio IO: one connection that all tasks of an event loop share, and one that listens.

The same rules as for the synchronous IO. Nothing here is for another event loop than the one that
made it; what belongs to a loop ends with it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from redis.exceptions import ConnectionError, RedisError, TimeoutError

from ..errors import ServerUnreachable
from ..keys import wake_channel
from ..scripts import Script
from .base import AWAY, Argument
from .link import Link
from .mailbox import Mailbox
from .pulse import running
from .route import ANSWER, AsyncRoute
from .sending import Sending
from .turns import AsyncTurns
from .wire import patiently, tie

UNDOING = 1.0
"""Seconds for which a server is waited for to undo what was cut short."""


class AsyncIO(Sending):
    """The IO of one event loop.

    Args:
        route: where connections come from.
        patience: seconds for which a silent server is waited for.
    """

    def __init__(self, route: AsyncRoute, patience: float) -> None:
        super().__init__(patience)
        self.address = secrets.token_hex(8)
        self._route = route
        self._turns = AsyncTurns()
        self._link: Link | None = None
        self._server = ""
        self._lives = 0
        self._known = (0, "")
        self._mailboxes: dict[str, Mailbox] = {}
        self._opening: asyncio.Task[Link] | None = None
        self._subscribing: dict[str, asyncio.Task[Mailbox]] = {}
        self._running: set[asyncio.Task[Any]] = set()

    async def _execute(
        self, *words: Argument, seconds: float = ANSWER, most: float | None = None
    ) -> Any:
        link = self._link
        try:
            if link is None or link.broken:
                link = await self._connect(seconds, most)
            return await link.ask(words, seconds, most)
        except OSError as error:
            raise ConnectionError(str(error)) from error

    async def _connect(self, seconds: float, most: float | None = None) -> Link:
        """The connection of all tasks; one of them opens it for all, in some seconds."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(patiently(self._open(), seconds))
            self._opening.add_done_callback(_look_at)
        opening = self._opening
        await asyncio.wait({opening}, timeout=2 * seconds if most is None else most)
        if not opening.done():
            raise TimeoutError("no connection in time")
        return opening.result()

    async def _open(self) -> Link:
        if self._link is None or self._link.broken:
            connection = await self._route.connection(socket_timeout=None)
            self._link = await Link.open(connection)
            tie(self._link, self)
            self._lives += 1
            self._note_server(connection)
        return self._link

    def _note_server(self, connection: Any) -> None:
        """Listen no more at a server that is not the one any more."""
        server = f"{connection.host}:{connection.port}" if hasattr(connection, "port") else ""
        if server != self._server and self._server:
            self.deafen()
        self._server = server

    async def _send(
        self, words: Sequence[Argument], seconds: float | None, most: float | None = None
    ) -> Any:
        return await self._execute(
            *words, seconds=ANSWER if seconds is None else seconds, most=most
        )

    async def _before_again(self, error: Exception, away: float, pause: float) -> None:
        await asyncio.sleep(pause)
        await self.moved()

    async def moved(self) -> None:
        """Ask a Cluster anew where its nodes are; see IO."""
        with suppress(RedisError):  # then the next try says what is wrong
            if await self._route.moved() and self._link:
                self._link.close()

    async def replicated(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        replicas: int,
        seconds: float,
    ) -> tuple[Any, int]:
        """Run a script once and wait for replicas, over a connection of its own; see IO."""
        connection = await self._route.connection(socket_timeout=None)
        async with asyncio.timeout(seconds + ANSWER):
            link = await Link.open(connection)
            try:
                answer = await link.ask(("EVAL", script.text, len(keys), *keys, *args), ANSWER)
                wait = ("WAIT", replicas, max(round(seconds * 1000), 1))
                return answer, await link.ask(wait, seconds + ANSWER)
            finally:
                link.close()

    async def listen(self, channel: str, topic: str = "", seconds: float = ANSWER) -> bool:
        """Subscribe, so that no wake-up after this call is missed by `wait`; see IO."""
        mailbox = self._mailboxes.get(channel)
        if mailbox is None or mailbox.broken:
            task = self._subscribing.get(channel)
            if task is None or task.done():
                opening = patiently(self._subscribe(channel), seconds)
                task = self._subscribing[channel] = asyncio.create_task(opening)
                task.add_done_callback(_look_at)
            try:
                mailbox = await asyncio.shield(task)
            except (*AWAY, OSError):
                return False
            finally:
                if task.done():
                    self._subscribing.pop(channel, None)
        mailbox.expect(topic)
        return True

    async def _subscribe(self, channel: str) -> Mailbox:
        connection = await self._route.connection(protocol=2, socket_timeout=None)
        mailbox = Mailbox(connection)
        await mailbox.open(channel)
        self._mailboxes[channel] = mailbox
        tie(mailbox, self)
        return mailbox

    async def wait(self, channel: str, seconds: float, topic: str = "") -> bytes | None:
        """Wait until something is published on the channel; see IO."""
        mailbox = self._mailboxes.get(channel)
        return await mailbox.hear(topic, seconds) if mailbox else b""

    def listens(self, channel: str) -> bool:
        """Whether it is subscribed, as far as is known."""
        mailbox = self._mailboxes.get(channel)
        return mailbox is not None and not mailbox.broken

    def mute(self, channel: str, topic: str) -> None:
        """Take nothing more of this topic."""
        if mailbox := self._mailboxes.get(channel):
            mailbox.mute(topic)

    def deafen(self, address: str = "") -> None:
        """Close the connections that wait, if the address is still the one; see IO."""
        if address in ("", self.address):
            self.address = secrets.token_hex(8)
            while self._mailboxes:
                self._mailboxes.popitem()[1].close()

    async def connections(self, seconds: float) -> str:
        """The ids of two connections that live as long as this IO does; see IO."""
        mailbox = self._mailboxes.get(wake_channel(self.address))
        if mailbox and mailbox.broken:
            self.deafen()
        channel = wake_channel(self.address)
        if not await self.listen(channel, "", seconds) or not self._mailboxes[channel].id:
            return ""
        own = await self._execute("CLIENT", "ID", seconds=seconds)
        mailbox = self._mailboxes.get(channel)  # gone, when another server has taken over just now
        return f"{own} {mailbox.id}" if mailbox else ""

    async def presence(self, seconds: float) -> str:
        """The same and the server's id, without asking again while both are seen to stand."""
        mailbox = self._mailboxes.get(wake_channel(self.address))
        standing = mailbox and not mailbox.broken and self._link and not self._link.broken
        if not standing or self._known[0] != self._lives:
            ids = await self.connections(seconds)
            self._known = (self._lives, ids and f"{ids} {await running(self, seconds)}")
        return self._known[1]

    async def standing(self) -> int:
        """A number that is another one once the connection broke."""
        if self._link is None or self._link.broken:
            await self._connect(ANSWER)
        return self._lives

    def close(self) -> None:
        """Close all connections."""
        self.deafen()
        if self._link:
            self._link.close()

    async def sleep(self, seconds: float) -> None:
        """Do nothing for some seconds."""
        await asyncio.sleep(seconds)

    async def undo(self, core: Coroutine[Any, Any, Any]) -> None:
        """Run a core to its end although the caller was cancelled; what fails in it is left."""

        async def bounded() -> None:
            with suppress(RedisError, ServerUnreachable, OSError):
                async with asyncio.timeout(UNDOING):
                    await core

        task = asyncio.create_task(bounded())
        while not task.done():
            with suppress(asyncio.CancelledError):  # the caller raises its own when this is done
                await asyncio.shield(task)
        core.close()  # it may have been cancelled before it began

    def turn(self, key: str, deadline: float) -> AbstractAsyncContextManager[bool]:
        """Wait, in order, until nobody else of this event loop has the key."""
        return self._turns.turn(key, deadline)

    def spawn(self, function: Callable[[], Any]) -> None:
        """Run a user's function, plain or async, in a task of its own."""

        async def call() -> None:
            answer = function()
            if asyncio.iscoroutine(answer):
                await answer

        task = asyncio.create_task(call())
        self._running.add(task)
        task.add_done_callback(self._running.discard)


def _look_at(task: asyncio.Task[Any]) -> None:
    """See what a task raised, so that nobody complains when none who waited is there any more."""
    if not task.cancelled():
        task.exception()
