"""The cache: a value is computed once in the whole system, and everyone else is woken with it.

    look ── a value ─────────────────────────────────────────────────► hit
      │
      └─ none ── somebody of this process asks already ── wait for it ──► its outcome
             └─ claim ── taken ── compute, renewing the right ── land ──► computed
                  │  └── changed meanwhile: judge what is there now
                  └── another one computes: wait, woken with the value ──► waited
                         └── dead, given up, or its time is over: claim again

Rules:

- The miss and the right are one step: a claim names the flight that the caller saw, and is refused,
  with what is there now, unless nothing has changed. So a late copy of it changes nothing either.
- A value is kept only by the right under which its getter began. `set`, `delete` and `refresh` void
  it; what comes then goes to those who waited for it already, and nobody else: who looks afterwards
  sees another flight.
- Only who listens waits: a waiter is subscribed before it puts itself down, at the latest it looks
  again when the right would end. The first of them watches the connections of whoever computes.
- A caller never waits beyond its own limit, whatever it waits for. Whoever leads the wait of a
  process and leaves first has the others look again.
- What a node cannot do is done by the next one; when there is none, by this process alone.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ..checks import seconds
from ..errors import ExecutionLimitExceeded, NodesUnreachable, UsageError
from ..io import IO
from ..keys import check_cache_key
from ..scripts import script
from .claiming import Claiming, Look, seen
from .computing import AGAIN, Call, within
from .counters import Adding, Stats
from .flight import Flight
from .member import Member, MemberDown
from .near import Follower, Near
from .options import SHORTEST, Terms, checked_getter, milliseconds

PUT = script("cache_put")
READ = script("cache_read")
PEEK = Terms(1.0, 1.0)
OUTAGE = "outage"
"""The words of a flight that no node knows of."""
log = logging.getLogger("distlock")


def _no_getter() -> None:
    """Nothing is computed."""


class CacheCore(Claiming):
    """What both twins share: each verb as a coroutine."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._terms: dict[tuple[Any, ...], Terms] = {}

    def _make_terms(self, given: tuple[Any, ...]) -> Terms:
        """Check what a call was told, once for all that are told the same."""
        terms = Terms(*given)
        if len(self._terms) > 1000:
            self._terms.clear()
        self._terms[given] = terms
        return terms

    def stats(self) -> Stats:
        """What this process has counted."""
        return self._counters.now()

    def _begin(self, key: str, getter: Callable[..., Any], terms: Terms) -> Call:
        return Call(key, self._keys.all(check_cache_key(key)), checked_getter(getter), terms)

    async def _get(self, call: Call, refresh: bool = False) -> Any:
        downs = 0
        while True:
            try:
                member, own = await self._nodes.of(call.key, call.keys[0], downs)
                if refresh:
                    found = await self._anew(call, member, own)
                else:
                    found = await self._once(call, member, own)
            except NodesUnreachable:
                if self._options.on_outage == "raise":
                    raise
                found = await self._alone(call)
            except MemberDown:
                found, downs = AGAIN, downs + 1
            if found is not AGAIN:
                return found
            if call.left <= 0:
                raise self._late(call)

    async def _once(self, call: Call, member: Member, own: bool) -> Any:
        """Look once, and do what follows from it; AGAIN when that came to nothing."""
        look = await self._look(call, member)
        found = self._judge(call.key, look.data)
        if found and (look.fresh or not found.stale):
            self._counters.hits += 1
            if look.question and own and self._near and found.failure is None:
                self._near.keep(call.key, look.question, look.data or b"", found.value, look.until)
            return self._given(call.key, found)
        if found and call.terms.stale:
            self._counters.stale += 1
            self._renew_aside(call, member, own, look)
            return found.value
        self._check_miss(call)
        mine = Flight(self._crew.latch(), call.keys, look.flight)
        flight = self._flights.setdefault(call.key, mine)
        if flight is not mine and not flight.landed and flight.is_that_of(look.flight):
            return self._waited(call, await flight.latch.wait(call.left))
        self._flights[call.key] = mine
        return await self._lead(call, member, own, mine, look)

    def _check_miss(self, call: Call) -> None:
        if not call.missed:
            call.missed = True
            self._counters.misses += 1
        self._check_recursion(call)

    def _check_recursion(self, call: Call) -> None:
        if call.keys[0] in within.get():
            raise UsageError(
                f"the getter of key {call.key!r} asks for that key itself: it would wait for "
                "itself; let it compute the value without the cache, or peek()"
            )

    async def _look(self, call: Call, member: Member) -> Look:
        hub = member.hub
        adding = self._counters.adding
        if adding is None or adding.scheduled == math.inf:
            await self._count()
        io = hub.take()
        try:
            if self._near:
                return await self._look_near(self._near, io, call, member)
            return seen(await member.ask(io, ("MGET", *call.keys[:3]), call.deadline))
        finally:
            hub.give(io)

    async def _count(self) -> None:
        """Have a keeper add what is counted to the hash on the node that has that."""
        place = self._keys.counters
        with suppress(NodesUnreachable, MemberDown):
            member, _ = await self._nodes.of(place, place)
            if member not in self._adding:
                self._adding[member] = Adding(self, self._counters, self._keys)
            adding = self._counters.adding = self._adding[member]
            adding.begin()
            member.hub.keep(adding)

    async def _look_near(self, near: Near, io: IO, call: Call, member: Member) -> Look:
        """Look in such a way that the value may be kept in this process."""
        follower = self._followers.get(member)
        if follower is None:
            made = Follower(near, self._keys.values)
            follower = self._followers.setdefault(member, made)
            if follower is made:  # and not that of another thread
                member.hub.track(self._keys.values, follower.hear, follower.stand)
        question = near.ask(call.key) if follower.standing else None
        began = time.monotonic()
        answer = await member.run(io, READ, call.keys[:3], (), call.deadline)
        look = seen(answer)
        left = min(left for left in answer[3:] if left > 0) if max(answer[3:]) > 0 else 0
        return look._replace(until=began + left / 1000, question=question)

    def _late(self, call: Call) -> ExecutionLimitExceeded:
        return ExecutionLimitExceeded(
            f"no value for key {call.key!r} within {call.terms.execution_limit:g} s: give it more "
            "time, or make the getter faster; a getter that still runs is not ended",
            call.key,
        )

    async def _alone(self, call: Call) -> Any:
        """No node answers: compute once in this process."""
        self._check_miss(call)
        mine = Flight(self._crew.latch(), call.keys, OUTAGE)
        flight = self._flights.setdefault(call.key, mine)
        if flight is not mine and not flight.landed and flight.seen == OUTAGE:
            return self._waited(call, await flight.latch.wait(call.left))
        self._flights[call.key] = mine
        self._counters.outages += 1
        log.warning("cache %s: no node answers; key %r is computed here", self._keys.name, call.key)
        return await self._compute(call, None, False, mine)

    async def _put(self, key: str, data: bytes, expire: float, stale: float, strict: bool) -> bool:
        """Set a value, or delete it (expire 0); whether its owner did so."""
        keys, id, downs = self._keys.put(check_cache_key(key)), secrets.token_hex(8), 0
        while True:
            owner = await self._nodes.owner(key, keys[0])
            try:
                member, own = await self._nodes.of(key, keys[0], downs)
                kept = expire if own else min(expire, self._options.gutter_expire)
                args = (id, data, milliseconds(kept), milliseconds(stale if own else 0))
                await self._tell(member, keys, args)
            except NodesUnreachable:
                own = False
            except MemberDown:
                downs += 1
                continue
            if own or owner.owe(keys, id):
                break
        if self._near:
            self._near.drop(key)
        if strict and not own:
            raise NodesUnreachable(
                f"the node of key {key!r}, {owner.name}, does not answer: what it has will be "
                "deleted before this process uses it again; try again when it is back",
                key,
            )
        return own

    async def _tell(self, member: Member, keys: list[str], args: tuple[Any, ...]) -> None:
        io = member.hub.take()
        try:
            await member.run(io, PUT, keys, args, size=len(args[1]))
        finally:
            member.hub.give(io)

    async def _set(self, key: str, value: Any, expire: float, stale: float, strict: bool) -> bool:
        seconds("expire", expire, SHORTEST)
        seconds("stale", stale, 0.0)
        check_cache_key(key)
        data = self._codec.encode(value, key=key, stale=bool(stale))
        return await self._put(key, data, expire, stale, strict)

    async def _anew(self, call: Call, member: Member, own: bool) -> Any:
        """Compute now, whatever is there."""
        self._check_recursion(call)
        look = await self._look(call, member)
        flight = self._flights[call.key] = Flight(self._crew.latch(), call.keys, look.flight)
        return await self._lead(call, member, own, flight, look, refresh=True)

    async def _peek(self, key: str, default: Any) -> Any:
        """The value that is there, or the default; nothing is computed."""
        call, downs = self._begin(key, _no_getter, PEEK), 0
        while call.left > 0:
            try:
                member, _ = await self._nodes.of(key, call.keys[0], downs)
                look = await self._look(call, member)
            except MemberDown:
                downs += 1
                continue
            except NodesUnreachable:
                if self._options.on_outage == "raise":
                    raise
                break
            found = self._judge(key, look.data)
            good = found and found.failure is None and (look.fresh or not found.stale)
            return found.value if found and good else default
        return default

    async def _get_many(
        self, keys: Sequence[str], getter: Callable[[str], Any], terms: Terms
    ) -> dict[str, Any]:
        """Those that are there at one glance a node, then each of the others as `get` does."""
        calls = [self._begin(key, partial(getter, key), terms) for key in dict.fromkeys(keys)]
        found = await self._glance(calls)
        missing = [call for call in calls if call.key not in found]
        made = await self._crew.each([partial(self._get, call) for call in missing])
        found.update((call.key, value) for call, value in zip(missing, made, strict=True))
        return {key: found[key] for key in keys}

    async def _glance(self, calls: list[Call]) -> dict[str, Any]:
        """The values that are there and say for themselves that they are good."""
        found: dict[str, Any] = {}
        parts: dict[Member, list[Call]] = {}
        for call in calls:
            with suppress(NodesUnreachable, MemberDown):
                member, _ = await self._nodes.of(call.key, call.keys[0])
                parts.setdefault(member, []).append(call)
        for member, part in parts.items():
            if not member.cluster:  # which answers for one slot at a time
                with suppress(MemberDown):
                    await self._glance_at(member, part, found)
        return found

    async def _glance_at(self, member: Member, part: list[Call], found: dict[str, Any]) -> None:
        io = member.hub.take()
        try:
            words = ("MGET", *[call.keys[0] for call in part])
            values = await member.ask(io, words, part[0].deadline)
        finally:
            member.hub.give(io)
        for call, data in zip(part, values, strict=True):
            value = self._judge(call.key, data)
            if value and not value.stale and value.failure is None:
                self._counters.hits += 1
                found[call.key] = value.value
