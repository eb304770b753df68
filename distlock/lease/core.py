"""The lease: one owner at a time, with a token that only rises.

                 free, nobody waits                        released: to the first in line
    idle ── acquire ─────────────────────────► held ──────────────────────────────────► idle
      │                                        ▲  │  refused, or the local deadline came
      └── held by another: stand in line ──────┘  └────────────────────────────────────► lost
              │ granted by whoever ends the term, or by one's own look at its end
              └── time is over, cancelled: leave the line ──► idle

Rules:

- Each acquire has an owner id of its own, never that of a process or an object: a request that
  arrives late can never speak for a later term.
- A token is greater than every token before it, over releases, expiries, restarts and FLUSHALL:
  the greater of the last token + 1 and the server's time in microseconds (_grant.lua). Who
  takes a free lease also names the highest token that it knows of: a failover may have lost it.
- Who takes a free lease names the last token whose end it has seen, and is refused if there is a
  newer one: a copy of the request that arrives later changes nothing. Who has not seen the end of
  the last term is told of it, and asks again.
- Only a waiter that listens is granted: it subscribes before it stands in line, at an address that
  is given up when a request had to be sent twice. A copy of it that arrives later calls nobody.
- A waiter looks again when the time left is over, and after one ttl at the latest: nothing else
  tells it that a holder died without a word.
- A term that was granted to a waiter began at the server's time in the call; that time less the one
  in the answer to standing in line is what passed since that request was sent. (When this says
  otherwise than our clock by more than ttl/2, a renewal decides.)
- An acquire that does not end with the lease, whatever ended it, leaves line and lease.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from ..errors import NotAcquired, ServerUnreachable, UsageError
from ..io import IO, Kept
from ..keys import wake_channel
from ..scripts import script
from .holder import Holder
from .leaving import LEAVE, Leaving
from .options import Options
from .term import RENEW, Term
from .watch import Watch

ACQUIRE = script("lease_acquire")
RETENTION = 7 * 24 * 3600 * 1000
"""Milliseconds for which the last token of a library's lease is kept."""
UNDOING = 1.0
"""Seconds for which a server is waited for to undo what was cut short."""
NO_EAR = 0.25
"""Seconds between two tries while the server answers but lets nobody subscribe."""


class _Look(NamedTuple):
    """What a look at a lease that another one holds said.

    Attributes:
        sent: when it was sent, monotonic.
        now: the server's time in microseconds.
        left: seconds until the lease is free, if nobody renews it.
        first: this one is first in line, and watches.
        last: the holder's token.
        connections: the ids of the holder's connections, "" if it has registered none.
    """

    sent: float
    now: int
    left: float
    first: bool
    last: int
    connections: str


class LeaseCore(Term):
    """What both twins share: becoming the owner. See Term for what comes then.

    Args:
        name: of the lease: 1 to 64 characters of `A-Za-z0-9._-`.
        options: see Lease.
        retention: milliseconds for which the last token is kept; 0: for ever.
    """

    _keep: Callable[[Kept], None]
    """Looks after something from now on, such as Hub.keep."""

    def __init__(self, name: str, options: Options, retention: int = RETENTION) -> None:
        super().__init__(name, options)
        self._retention = retention
        self._busy = False
        self._entry = ""

    async def _acquire(self, io: IO, blocking: bool, timeout: float | None) -> bool:
        give_up = math.inf if timeout is None else time.monotonic() + timeout
        if self._busy or self.held:
            raise UsageError(
                f"lease {self.name!r} is held by this object already, or about to be: release it, "
                "or make another object of the same name"
            )
        self._busy = True
        self.token, self.why, self._entry = 0, "", ""
        self._name_owner()
        resent, address = io.resent, io.address
        try:
            waits = blocking and timeout != 0
            got = await (self._take(io, give_up) if waits else self._try(io, give_up))
            if got and self._options.wait_replicas:
                await self._confirm(io)
        except ServerUnreachable:
            self.token = 0
            if self._entry:
                self._keep(Leaving(self._keys, self._entry))
            raise
        except BaseException:
            self.token = 0
            if self._entry:
                await io.undo(self._leave(io))
            raise
        finally:
            self._busy = False
            if io.resent > resent:
                io.deafen(address)
        return got

    def _name_owner(self) -> None:
        self.owner = f"{self.who}/{secrets.token_hex(8)}"

    async def _look(self, io: IO, give_up: float, join: bool) -> _Look:
        """Take the lease if it is free; else, asked to, stand in line."""
        key, options = self._keys[0], self._options
        ttl, delay = round(self.ttl * 1000), round(options.lock_delay * 1000)
        terms = f"{self.owner} {ttl} {delay} {self._retention} {int(options.watch_connection)}"
        self._entry = f"{io.address} {terms}"
        while True:
            began = time.monotonic()
            args = (self._entry, self._seen.get(key, 0), int(join), self._highest)
            patience = None if give_up == math.inf else max(give_up - began, 0.05)
            answer = await io.call(ACQUIRE, self._keys, args, patience)
            token, left, last, now, first, connections = answer
            self._highest = max(self._highest, last, token)
            if token:
                self._begin(token, began + min(left / 1000, self.ttl))
            if not token and not left:
                self._saw_the_end_of(last)
            else:
                return _Look(began, now, left / 1000, bool(first), last, connections.decode())

    def _begin(self, token: int, deadline: float) -> None:
        self.deadline = 0.0
        self._untold = [True]
        self.renewed(deadline - self.ttl)
        if self._options.watch_connection:
            self.due = time.monotonic()  # to register the connections
        self.token = token

    async def _try(self, io: IO, give_up: float) -> bool:
        await self._look(io, give_up, join=False)
        return bool(self.token)

    async def _take(self, io: IO, give_up: float) -> bool:
        """Wait for the turn in this process, then for the lease."""
        async with io.turn(self._keys[0], give_up) as mine:
            if not mine:
                return False
            if not io.listens(wake_channel(io.address)) and await self._try(io, give_up):
                return True
            try:
                return await self._wait_in_line(io, give_up)
            finally:
                io.mute(wake_channel(io.address), f"{self.owner} ")

    async def _wait_in_line(self, io: IO, give_up: float) -> bool:
        watch = Watch(io, self._keys) if self._options.watch_connection else None
        while True:
            address, topic = io.address, f"{self.owner} "
            channel = wake_channel(address)
            if not await io.listen(channel, topic):
                if await self._try(io, give_up):  # waits for the server, with patience
                    return True
                if (left := give_up - time.monotonic()) <= 0:
                    return False
                await io.sleep(min(NO_EAR, left))
                continue
            look = await self._look(io, give_up, join=True)
            if self.token:
                return True
            end = min(time.monotonic() + min(look.left, self.ttl) + 0.001, give_up)
            if watch and look.first:
                said = await watch.until(channel, topic, end, look.last, look.connections)
            else:
                said = await io.wait(channel, end - time.monotonic(), topic)
            if said == b"":
                io.deafen(address)
            elif said and said != b"look" and await self._granted(io, said, look):
                return True
            if time.monotonic() >= give_up:
                await self._leave(io)
                return False

    async def _granted(self, io: IO, said: bytes, look: _Look) -> bool:
        """Begin the term of a call: `token time`, at the server's time in microseconds."""
        token, began = map(int, said.split())
        heard = time.monotonic()
        start = min(look.sent + (began - look.now) / 1e6, heard)
        self._begin(token, start + self.ttl)
        if heard - start <= self.ttl / 2 or await self._still_mine(io):
            return True
        self.token, self.why = 0, ""
        await self._leave(io)  # it may stand in line again: it looked before it heard the call
        self._name_owner()  # that one's term is over
        return False

    async def _confirm(self, io: IO) -> None:
        """Give the lease back unless enough replicas have it."""
        wanted, began = self._options.wait_replicas, time.monotonic()
        args = (self.owner, self.token, "")
        seconds = min(self.ttl / 2, 1.0)
        kept, reached = await io.replicated(RENEW, self._keys[:1], args, wanted, seconds)
        if kept and reached >= wanted:
            self.renewed(began)
            return
        token, self.token = self.token, 0
        raise NotAcquired(
            f"lease {self.name!r} was given back: {reached} of {wanted} replicas confirmed it "
            f"within {seconds:g} s; look at the replicas, or ask for fewer",
            *(self._keys[0], self.owner, token),
        )

    async def _leave(self, io: IO) -> None:
        await io.call(LEAVE, self._keys, (self._entry,), UNDOING)

    def _not_acquired(self, holder: Holder) -> NotAcquired:
        return NotAcquired(
            f"lease {self.name!r} was not free within {self._options.wait:g} s: "
            f"{holder.owner or 'nobody'} holds it (token {holder.token}, {holder.left:.1f} s left, "
            f"{len(holder.waiters)} wait): wait longer, or come back later",
            *(self._keys[0], holder.owner, holder.token),
        )
