"""A term of a lease: what its owner knows, renewing it, its end, and writes that need it.

Rules:

- The owner trusts its term until `deadline`, on this process's monotonic clock, counted from
  *before* the request that began or renewed it was sent. Whatever the server does, and however long
  the process was frozen: after that the lease is not held.
- A renewal sets the time left, never adds to it, and never brings back an expired lease. One that
  fails is tried again, while there is time.
- Who loses it is told once: by the server's refusal, or at the deadline.
- A write under the lease is one script that checks and writes. It is sent once, for what it does
  may not bear repeating. (Where a Cluster's node says that it has done nothing, for another one has
  the keys, it is sent there.)
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis.exceptions import RedisError, ResponseError

from ..errors import LeaseLost, ServerUnreachable, UsageError
from ..io import ELSEWHERE, IO, Argument, is_away
from ..keys import lease_keys
from ..scripts import Script, script, under
from .options import Options

RENEW, RELEASE, WRITE = script("lease_renew"), script("lease_release"), script("lease_write")
MOST_SEEN = 10_000
"""Leases of which a process remembers the last token."""
MOST_WORDS = 7000
"""Words of a write at most; Lua's unpack ends near 8,000."""
MOVING = 0.02
"""Seconds after which to send again what a Cluster's node did not do."""
REFUSED = "the server says that it has gone on"
LATE = "it was not renewed in time"
log = logging.getLogger("distlock")


class Term:
    """The last term of a lease, and each verb about it as a coroutine.

    Args:
        name: of the lease: 1 to 64 characters of `A-Za-z0-9._-`.
        options: see Lease.

    Attributes:
        name: of the lease.
        ttl: seconds for which a term lasts without renewal.
        who: what the owner ids begin with.
        owner: the owner id of the term, fresh for each.
        token: its fencing token, 0 when there is no term (any more).
        deadline: monotonic time until which the term may be trusted.
        why: why it was lost, "" if it was not.
        hooks: called when it is lost, before `on_lost`.
    """

    def __init__(self, name: str, options: Options) -> None:
        self._keys = lease_keys(name)
        self._options = options
        self.name = name
        self.ttl = options.ttl
        self.who = options.who
        self.owner = ""
        self.token = 0
        self.deadline = 0.0
        self.why = ""
        self.due = 0.0
        self.scheduled = math.inf
        self.hooks: list[Callable[[], Any]] = []
        self._seen: dict[str, int] = {}
        self._highest = 0  # of all tokens that this object knows of
        self._untold = [True]

    @property
    def options(self) -> dict[str, Any]:
        """The options that it was made with."""
        return dict(vars(self._options))

    @property
    def held(self) -> bool:
        """Whether the lease is held, as far as this process can know without asking."""
        return bool(self.token) and not self.why and time.monotonic() < self.deadline

    @property
    def lost(self) -> bool:
        """Whether the last term was lost: it ended without a release."""
        return bool(self.token) and not self.held

    @property
    def kept(self) -> bool:
        """Whether there is a term to look after; see io.Kept."""
        return bool(self.token) and not self.why

    def renewed(self, began: float) -> None:
        """Note a renewal that was sent at `began` (monotonic), by whatever request."""
        self.deadline = max(self.deadline, began + self.ttl)
        self.due = began + self.ttl / 3 if self._options.auto_renew else self.deadline

    def lose(self, why: str = REFUSED) -> None:
        """Note that the lease has gone on."""
        self.why = self.why or why

    def check(self) -> None:
        """Raise LeaseLost unless the lease is held."""
        if not self.held:
            raise self._lost_error()

    def _lost_error(self) -> LeaseLost:
        if not self.token:
            return LeaseLost(
                f"lease {self.name!r} is not held: acquire it first", self._keys[0], self.owner
            )
        why = self.why or LATE
        return LeaseLost(
            f"lease {self.name!r} (owner {self.owner}, token {self.token}) was lost: {why}; stop "
            "what needs it and acquire it again",
            *(self._keys[0], self.owner, self.token),
        )

    async def _renew(self, io: IO) -> bool:
        if not self.token:
            raise self._lost_error()
        if self.why:
            return False
        token, kept = self.token, await self._still_mine(io)
        if token == self.token and not kept:  # another thread may have ended this term meanwhile
            self._note_loss(io, REFUSED)
        return kept

    async def _still_mine(self, io: IO) -> bool:
        """Renew, without a word if it cannot be."""
        token, began = self.token, time.monotonic()
        patience = max(self.deadline - began, 0.05)
        args = (self.owner, token, "")
        kept = bool(await io.call(RENEW, self._keys[:1], args, patience))
        if kept and token == self.token:
            self.renewed(began)
        return kept

    async def keep(self, io: IO, until: float = math.inf) -> None:
        """Do what is due: renew, or note that it is too late; see io.Kept."""
        token, began = self.token, time.monotonic()
        if not self.kept or began < self.due:
            return
        if began >= self.deadline:
            self._note_loss(io, LATE)
            return
        seconds = max(min(self.ttl / 6, self.deadline - began, until - began), 0.02)
        try:
            watched = await io.connections(seconds) if self._options.watch_connection else ""
            args = (self.owner, token, watched)
            kept = await io.attempt(RENEW, self._keys[:1], args, seconds)
        except (RedisError, OSError, ServerUnreachable) as error:
            log.info("lease %s: a renewal failed: %s", self.name, error)
            await io.moved()
            self.due = min(time.monotonic() + self.ttl / 20, self.deadline)
            return
        if token == self.token and kept:
            self.renewed(began)
        elif token == self.token:
            self._note_loss(io, REFUSED)

    def _note_loss(self, io: IO, why: str) -> None:
        self.lose(why)
        try:
            self._untold.pop()  # of two threads that notice it at once, one tells
        except IndexError:
            return
        term = {"owner": self.owner, "token": self.token}
        log.warning("lease %s, token %d: lost, %s", self.name, self.token, why, extra=term)
        for hook in self.hooks:
            hook()
        if self._options.on_lost:
            io.spawn(partial(self._options.on_lost, self))

    async def _release(self, io: IO) -> bool:
        if self.lost and not self.why:  # nobody has noticed yet
            self._note_loss(io, LATE)
        token, self.token = self.token, 0
        if not token:
            raise LeaseLost(
                f"lease {self.name!r} is not held: there is nothing to release",
                *(self._keys[0], self.owner),
            )
        left, was_lost, resent = self.deadline - time.monotonic(), bool(self.why), io.resent
        self.why = ""
        gone = await io.call(RELEASE, self._keys, (self.owner, token), max(left, 0.05))
        if gone:
            self._saw_the_end_of(token)
        # sent twice, the second one finds what the first one has left
        return not was_lost and bool(gone or (left > 0 and io.resent > resent))

    def _saw_the_end_of(self, token: int) -> None:
        """Remember, for the next acquire, that the term with this token is over."""
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen[self._keys[0]] = token

    async def _execute(self, io: IO, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        args: list[Argument] = []
        for words in commands:
            args += [len(words), *words]
        answers: list[Any] = await self._guarded(io, WRITE, (), args)
        return answers

    async def _eval(self, io: IO, text: str, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        return await self._guarded(io, under("_guard", text), keys, args)

    async def _attempt(
        self, io: IO, text: Script, keys: Sequence[str], words: Sequence[Argument]
    ) -> Any:
        """Send a write, once; but again where a Cluster's node says that it has done nothing."""
        while True:
            try:
                return await io.attempt(text, keys, words, 5.0)
            except ELSEWHERE:
                await io.moved()
                await io.sleep(MOVING)
                self.check()

    async def _guarded(
        self, io: IO, text: Script, keys: Sequence[str], args: Sequence[Argument]
    ) -> Any:
        if len(args) + len(keys) > MOST_WORDS:
            raise UsageError("more than 7,000 words at once: split them into several writes")
        self.check()
        token = self.token
        words = (self.owner, token, *args)
        try:
            return await self._attempt(io, text, [self._keys[0], *keys], words)
        except ResponseError as error:
            if "LEASELOST" not in str(error):
                raise
            if token == self.token:
                self._note_loss(io, "the server refused a write under it")
            raise self._lost_error() from error
        except RedisError as error:
            if not is_away(error):
                raise
            raise ServerUnreachable(
                f"no answer to a write under lease {self.name!r} ({error}): it may have been done "
                "or not, look before you repeat it"
            ) from error
