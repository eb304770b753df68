"""Calling a getter under the right to do so, and what becomes of its value.

Rules:

- A plain function runs in a thread that nothing can end: it keeps its right, and its value is kept
  when it comes, though its caller has left at the limit. A coroutine is cancelled then.
- A caller that is cancelled while it computes hands the right on at once.
- A failure is one for all who wait, after the retries; it is kept only for `negative_expire`.
- Whatever happens, the flight ends, here and on the node.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar
from weakref import WeakMethod, WeakSet

from redis.exceptions import RedisError

from ..checks import seconds
from ..io import Crew, is_async, is_due
from ..keys import CacheKeys, check_name
from ..scripts import script
from .codec import Codec
from .counters import Adding, Counters
from .flight import Abandoned, Flight, Outcome
from .member import Member, MemberDown
from .near import Follower, Near
from .nodes import Node, Nodes, Reach
from .options import SHORTEST, Expires, Options, Terms, milliseconds

LAND = script("cache_land")
LONGEST = 2000
"""Characters that those who wait are told of a failure."""
AGAIN = object()
"""The answer of a step that came to nothing: look again."""
log = logging.getLogger("distlock")
within: ContextVar[frozenset[str]] = ContextVar("distlock_getters", default=frozenset())
"""The keys whose getters are running in this context."""


class Call:
    """One call of `get` or `refresh` that is under way.

    Attributes:
        key: the user's.
        keys: of it, on a node.
        deadline: monotonic time of the execution limit.
        missed: it has been counted as a miss.
    """

    __slots__ = ("deadline", "getter", "key", "keys", "missed", "terms")

    def __init__(self, key: str, keys: list[str], getter: Callable[[], Any], terms: Terms) -> None:
        self.key = key
        self.keys = keys
        self.getter = getter
        self.terms = terms
        self.deadline = time.monotonic() + terms.execution_limit
        self.missed = False

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.deadline - time.monotonic()


class Computing:
    """How a flight is flown.

    Args:
        name: of the cache.
        nodes: of it.
        options: see Cache.
        crew: threads or tasks.
        reach: how to come to the nodes.
    """

    _all: ClassVar[WeakSet[Computing]] = WeakSet()

    def __init__(
        self,
        name: str,
        nodes: Sequence[Node],
        options: Options,
        crew: Crew,
        reach: Reach,
    ) -> None:
        self.name = check_name(name)
        self._keys = CacheKeys(name)
        self._options = options
        self._crew = crew
        self._codec = Codec(options.serializer, options.compress_above)
        died = WeakMethod(self._count_death)
        self._nodes = Nodes(nodes, reach, options.node_timeout, died)
        self._near: Near | None = None
        if options.near:
            self._near = Near(
                options.near, options.near_bytes, self._decode if options.copy else None
            )
        self._begin_anew()
        self._all.add(self)

    def _begin_anew(self) -> None:
        """Begin with nothing, as a process that was forked does, too."""
        self._counters = Counters()
        self._adding: dict[Member, Adding] = {}
        self._flights: dict[str, Flight] = {}
        self._followers: dict[Member, Follower] = {}
        self._nodes.reset()
        self._crew.reset()
        if self._near:
            self._near.reset()

    def _decode(self, data: bytes) -> Any:
        return self._codec.decode(data).value

    def _count_death(self) -> None:
        """A node is left out: others may change its values elsewhere, where nothing is heard."""
        self._counters.node_deaths += 1
        if self._near:
            self._near.drop_all()

    async def _compute(self, call: Call, member: Member | None, own: bool, flight: Flight) -> Any:
        """Have the getter called, and wait for it until the caller's limit."""
        if call.terms.thread or is_async(call.getter):
            flight.end = self._crew.aside(lambda: self._fly(call, member, own, flight))
        else:
            await self._fly(call, member, own, flight)
        outcome: Outcome | None = None
        try:
            outcome = await flight.latch.wait(call.left)
        finally:
            if outcome is None:
                flight.abandon()
        if outcome is None:
            return AGAIN
        if outcome.error:
            raise outcome.error
        return outcome.value

    async def _fly(self, call: Call, member: Member | None, own: bool, flight: Flight) -> None:
        """Call the getter and tell everybody; never raises."""
        outcome = Outcome(b"")
        try:
            outcome = await self._outcome_of(call, own, flight)
            if member:
                await self._land(call, member, own, flight, outcome)
        except BaseException as error:
            outcome = Outcome(b"", error=error)
            if member:
                await self._give_up(member, flight)
        finally:
            flight.give_up()
            self._land_here(call.key, flight, outcome)

    async def _give_up(self, member: Member, flight: Flight) -> None:
        """Have the next one compute at once."""
        io = member.hub.take()
        try:
            await io.undo(io.call(LAND, flight.keys[:4], (flight.right, "", 0, 0), 1.0))
        finally:
            member.hub.give(io)

    async def _outcome_of(self, call: Call, own: bool, flight: Flight) -> Outcome:
        """What the getter makes of it; its value, or after all retries its failure."""
        token = within.set(within.get() | {call.keys[0]})
        try:
            for left in range(call.terms.retries, -1, -1):
                try:
                    return await self._value(call, own, flight)
                except Exception as error:
                    if left == 0:
                        self._counters.failures += 1
                        text = f"{type(error).__name__}: {error}"[:LONGEST]
                        data = self._codec.encode_failure(text)
                        return Outcome(data, None, error, call.terms.negative_expire)
            raise AssertionError
        finally:
            within.reset(token)

    async def _value(self, call: Call, own: bool, flight: Flight) -> Outcome:
        self._counters.computed += 1
        value = await self._crew.call(call.getter, call.terms.thread)
        if is_due(value):
            value = await self._await(flight, value)
        expire = call.terms.expire
        if isinstance(value, Expires):
            expire = seconds("the seconds of Expires", value.seconds, SHORTEST)
            value = value.value
        stale = bool(own and call.terms.stale)
        return Outcome(self._codec.encode(value, key=call.key, stale=stale), value, None, expire)

    async def _await(self, flight: Flight, value: Any) -> Any:
        """The end of what has to be awaited."""
        flight.endable = True
        if flight.abandoned:
            value.close()
            raise Abandoned
        return await value

    async def _land(
        self, call: Call, member: Member, own: bool, flight: Flight, outcome: Outcome
    ) -> None:
        """Keep the outcome on the node, if the right is still there, and wake those who wait."""
        expire, stale = outcome.expire, call.terms.stale if own and not outcome.error else 0.0
        if self._options.jitter:
            expire *= 1 - self._options.jitter * random.random()
        if not own:
            expire = min(expire, self._options.gutter_expire)
        args = (flight.right, outcome.data, milliseconds(expire), milliseconds(stale))
        io, size = member.hub.take(), len(outcome.data)
        kept = 0
        try:
            kept = await member.run(io, LAND, call.keys[:4], args, size=size)
        except (MemberDown, RedisError) as error:
            log.warning("cache %s: key %r was not kept: %s", self._keys.name, call.key, error)
        finally:
            member.hub.give(io)
        if not kept:
            self._counters.refused += 1

    def _land_here(self, key: str, flight: Flight, outcome: Outcome) -> None:
        """End the flight in this process."""
        if self._near:
            self._near.drop(key)
        if not flight.landed:
            flight.latch.set(outcome)
        if self._flights.get(key) is flight:
            self._flights.pop(key, None)


def _after_fork() -> None:
    for cache in list(Computing._all):
        cache._begin_anew()


os.register_at_fork(after_in_child=_after_fork)
