"""Asking for the right to compute, and waiting for whoever has it.

Rules:

- The miss and the right are one step: a claim names the flight that the caller saw, and is refused,
  with what is there now, unless nothing has changed. So a late copy of it changes nothing either.
- Only who listens waits: a waiter is subscribed before it puts itself down, and at the latest it
  looks again when the right would end.
- A claim that is cut short is undone.
"""

from __future__ import annotations

import logging
import time
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from ..errors import Corrupt, GetterFailed
from ..io import IO
from ..scripts import script
from .codec import Value
from .computing import AGAIN, LAND, Call, Computing
from .flight import Flight, Outcome
from .member import Member, MemberDown
from .near import Question
from .waiting import DEAD, Waiting

CLAIM = script("cache_claim")
CHANGED, TAKEN = 0, 1
"""What a claim answers; else: wait."""
log = logging.getLogger("distlock")


class Look(NamedTuple):
    """What was seen of a key on its node.

    Attributes:
        data: the value, None if there is none.
        flight: the words of its flight.
        fresh: whether the value is no stale one, where it may be.
        until: monotonic time until which it may be kept near.
        question: what a near cache wants to see then; None: it is not kept.
    """

    data: bytes | None
    flight: str
    fresh: bool
    until: float = 0.0
    question: Question | None = None

    @property
    def flying(self) -> str:
        """The right of the flight that is under way, "" if there is none."""
        right = self.flight.partition(" ")[0]
        return "" if right.startswith("-") else right


def seen(answer: list[Any]) -> Look:
    """What an answer of a node says: value, flight, fresh."""
    data, flight, fresh = answer[:3]
    return Look(data, (flight or b"").decode("utf-8", "replace"), bool(fresh))


class Claiming(Computing):
    """How one caller of a process becomes the one who computes, or waits for the others."""

    def _judge(self, key: str, data: bytes | None) -> Value | None:
        """What the bytes say; None when there are none, or they are not this cache's."""
        if data is None:
            return None
        try:
            return self._codec.decode(data)
        except Corrupt as error:
            log.warning("cache %s: key %r holds %s: computed anew", self._keys.name, key, error)
            return None

    def _given(self, key: str, found: Value) -> Any:
        if found.failure is None:
            return found.value
        raise GetterFailed(f"the getter of key {key!r} failed elsewhere: {found.failure}", key)

    def _waited(self, call: Call, outcome: Outcome | None) -> Any:
        """What another one's flight ended with."""
        if outcome is None or not outcome.data:
            return AGAIN
        found = self._judge(call.key, outcome.data)
        if found is None:
            return AGAIN
        self._counters.waited += 1
        return self._given(call.key, found)

    async def _lead(
        self,
        call: Call,
        member: Member,
        own: bool,
        flight: Flight,
        look: Look,
        refresh: bool = False,
    ) -> Any:
        """Ask for the right on behalf of this process, then compute, or wait for who does."""
        taken = False
        try:
            taken = await self._claim(call, member, flight, look, refresh)
        finally:
            if not (taken or flight.landed):
                self._land_here(call.key, flight, Outcome(b""))
        if not taken:
            return self._waited(call, flight.latch.value)
        return await self._compute(call, member, own, flight)

    async def _claim(
        self, call: Call, member: Member, flight: Flight, look: Look, refresh: bool = False
    ) -> bool:
        """Take the right; False when the flight has landed otherwise, or time is over."""
        hub = member.hub
        io, waiting = hub.take(), Waiting(member, self._options.node_timeout)
        try:
            force = 2 if refresh else 0
            while call.left > 0:
                if look.flying and not force:
                    await waiting.listen(io, look.flying, flight.right, call.left)
                began = time.monotonic()
                answer = await self._ask(io, call, member, flight, look, force)
                if answer[0] == TAKEN:
                    flight.took_off(began, self._options.ttl, call.terms.execution_limit)
                    hub.keep(flight)
                    return True
                if answer[0] == CHANGED:
                    look = seen(answer[1:])
                    if not refresh and self._lands(call.key, flight, look):
                        return False
                    flight.seen = look.flight
                    continue
                end = min(began + answer[1] / 1000 + 0.002, call.deadline)
                said = await waiting.hear(io, look.flight, end, bool(answer[2]))
                force = int(said is DEAD)
                if isinstance(said, bytes) and said:
                    self._land_here(call.key, flight, Outcome(said))
                    return False
            return False
        finally:
            waiting.end(io)
            hub.give(io)

    async def _ask(
        self, io: IO, call: Call, member: Member, flight: Flight, look: Look, force: int
    ) -> Any:
        """Send one claim; one that is cut short is undone."""
        try:
            patience = min(self._options.node_timeout, max(call.left, 0.01))
            connections = await member.hub.presence(patience)
        except RedisError:
            connections = ""
        ttl = round(self._options.ttl * 1000)
        args = (flight.right, ttl, connections, look.flight, force, io.address)
        try:
            return await member.run(io, CLAIM, call.keys, args, call.deadline)
        except (MemberDown, RedisError):
            raise
        except BaseException:
            await io.undo(io.call(LAND, call.keys[:4], (flight.right, "", 0, 0), 1.0))
            raise

    def _lands(self, key: str, flight: Flight, look: Look) -> bool:
        """End the flight here if there is a value by now."""
        found = self._judge(key, look.data)
        if not found or (found.stale and not look.fresh):
            return False
        self._land_here(key, flight, Outcome(look.data or b""))
        return True

    def _renew_aside(self, call: Call, member: Member, own: bool, look: Look) -> None:
        """Have one caller of the whole system renew a stale value."""
        flight = Flight(self._crew.latch(), call.keys, look.flight)
        if look.flying or self._flights.setdefault(call.key, flight) is not flight:
            return
        self._crew.aside(lambda: self._renew(call, member, own, flight, look))

    async def _renew(
        self, call: Call, member: Member, own: bool, flight: Flight, look: Look
    ) -> None:
        taken, io = False, member.hub.take()
        began = time.monotonic()
        try:
            taken = (await self._ask(io, call, member, flight, look, 0))[0] == TAKEN
        except (MemberDown, RedisError) as error:
            log.debug("key %r was not renewed: %s", call.key, error)
        finally:
            member.hub.give(io)
            if not taken:
                self._land_here(call.key, flight, Outcome(b""))
        if taken:
            flight.took_off(began, self._options.ttl, call.terms.execution_limit)
            member.hub.keep(flight)
            await self._fly(call, member, own, flight)
