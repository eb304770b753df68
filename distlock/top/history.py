"""What one look after another tells: rates, the last minutes, and what happened in between.

Rules:

- Everything comes from the server's own counters and from how they change; whoever looks writes
  nothing. What happened before the first look, or while nobody looked, is not known.
- The rate of one handler is an estimate: the server counts what all store together, and this is
  shared out by how many hands each of them went through, and how large these were.
- A look that fails says that the server is away; the next that does not, that it is back. The
  numbers stay as they were meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..look import Look, counted

KEPT = 600
"""Looks whose numbers are kept, for the sparklines."""
EVENTS = 200
"""Events that are kept."""
SERIES = ("queue", "temp", "stored", "errors")
"""What has a sparkline; of stored and errors it is how many came each second."""


@dataclass(frozen=True)
class Event:
    """Something that happened between two looks.

    Attributes:
        time: seconds since 1970, by the server's clock.
        kind: takeover, lease, free, joined, dead, left, reclaim, error, job, done, away, back.
        text: one line; it may come from the server and is not harmless.
        bad: whether an operator should see it.
    """

    time: float
    kind: str
    text: str
    bad: bool = False


@dataclass(frozen=True)
class Copy:
    """One copy.

    Attributes:
        name: its name.
        role: generator, handler or dead.
        rate: messages a second, generated or (about) handled; None when it is not known.
        hand: messages in its hand.
        age: seconds since its last sign of life.
    """

    name: str
    role: str
    rate: float | None
    hand: int
    age: float


class History:
    """All that was seen of a pipeline.

    Attributes:
        now: the last look that succeeded, if there is one.
        before: the one before, as long as it tells rates.
        away: what the server or the network says, "" while looks succeed.
        away_since: monotonic time of the first look that failed.
        events: what happened, the newest last.
        series: the last numbers of each of SERIES, the newest last.
    """

    def __init__(self) -> None:
        self.now: Look | None = None
        self.before: Look | None = None
        self.away = ""
        self.away_since = 0.0
        self.events: deque[Event] = deque(maxlen=EVENTS)
        self.series: Mapping[str, deque[float]] = {name: deque(maxlen=KEPT) for name in SERIES}
        self._told = 0

    def saw(self, look: Look) -> None:
        """Take in a look."""
        before, self.now = self.now, look
        if self.away:
            seconds = look.at - self.away_since
            text = f"the server is back, about {seconds:.0f} s later"
            self._tell(Event(look.status.now, "back", text))
            self.away = ""
        if before and _job(before) == _job(look) and look.status.now > before.status.now:
            self.before = before
        else:
            self.before = None
        if before:
            for event in _changes(before, look):
                self._tell(event)
        status = look.status
        numbers = {"queue": float(waiting(look)), "temp": float(max(status.temp, 0))}
        numbers |= {"stored": self.rate("stored") or 0.0, "errors": self.rate("errors") or 0.0}
        for name, number in numbers.items():
            if self.before or name in ("queue", "temp"):
                self.series[name].append(number)

    def missed(self, why: str, at: float) -> None:
        """Take in that a look failed.

        Args:
            why: what the server or the network says.
            at: monotonic time.
        """
        if not self.away:
            self.away_since = at
            last = self.now.status.now + at - self.now.at if self.now else 0.0
            self._tell(Event(last, "away", f"the server is away: {why}", bad=True))
        self.away = why

    def news(self) -> list[Event]:
        """The events since this was last asked for."""
        count = min(self._told, len(self.events))
        self._told = 0
        return [*self.events][len(self.events) - count :]

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        self._told += 1

    def rate(self, counter: str) -> float | None:
        """How much one of the counters `stored`, `errors`, `generated` grew in a second."""
        if self.now is None or self.before is None:
            return None
        grown = counted(self.now, counter) - counted(self.before, counter)
        return max(grown, 0) / self._seconds

    def cache_rate(self, name: str, counter: str) -> float:
        """How much a counter of a cache grew in a second."""
        if self.now is None or self.before is None or name not in self.before.caches:
            return 0.0
        grown = self.now.caches[name][counter] - self.before.caches[name][counter]
        return max(grown, 0) / self._seconds

    @property
    def _seconds(self) -> float:
        assert self.now
        assert self.before
        return max(self.now.status.now - self.before.status.now, 0.001)

    def copies(self) -> list[Copy]:
        """All copies, the generator first, then by name."""
        if self.now is None:
            return []
        status, hands = self.now.status, self.now.hands
        ttl = status.job.handler_ttl if status.job else 0.0
        shares = self._shares()
        found = []
        leader = status.owner.split("/")[0]
        if leader:
            hand = hands[leader].messages if leader in hands else 0
            age = max(status.lease_ttl - status.lease_left, 0.0)
            found.append(Copy(leader, "generator", self.rate("generated"), hand, age))
        for name, left in sorted(status.handlers.items()):
            if name != leader:
                hand = hands[name].messages if name in hands else 0
                role = "handler" if left >= 0 else "dead"
                age = max(ttl - left, 0.0)
                found.append(Copy(name, role, shares.get(name), hand, age))
        return found

    def _shares(self) -> dict[str, float]:
        """About how many messages a second each handler is done with."""
        if self.now is None or self.before is None:
            return {}
        weights = {}
        for name, hand in self.now.hands.items():
            earlier = self.before.hands.get(name, hand)
            hands = max(hand.number - earlier.number, 0)
            weights[name] = hands * max(hand.messages + earlier.messages, 1)
        whole = sum(weights.values())
        done = (self.rate("stored") or 0.0) + (self.rate("errors") or 0.0)
        return {name: done * weight / whole if whole else 0.0 for name, weight in weights.items()}


def waiting(look: Look) -> int:
    """Messages that wait for a handler."""
    return look.status.queue + look.status.again + look.status.later


def _job(look: Look) -> str:
    return look.status.job.id if look.status.job else ""


def _changes(before: Look, now: Look) -> Iterator[Event]:
    """What happened between two looks."""
    at, was, status = now.status.now, before.status, now.status
    if _job(before) != _job(now):
        text = f"a new job of {status.job.messages:,} messages" if status.job else "the job is gone"
        yield Event(at, "job", text, bad=not status.job)
        return
    yield from _of_the_lease(before, now)
    yield from _of_the_handlers(before, now)
    more = counted(now, "errors") - counted(before, "errors")
    if more > 0:
        text = f"{more:,} more errors" if more > 1 else "one more error"
        if newest := now.newest:
            text += f"; message {newest.id}: {newest.text}"
        yield Event(at, "error", text, bad=True)
    if status.done and not was.done:
        yield Event(at, "done", f"the job is done: {status.stored:,} stored")


def _of_the_lease(before: Look, now: Look) -> Iterator[Event]:
    at, was, status = now.status.now, before.status, now.status
    leader = status.owner.split("/")[0]
    if count := max(status.takeovers - was.takeovers, 0):
        text = f"{leader or 'somebody'} took over as the generator, token {status.token}"
        text += f"; {count} takeovers since the last look" if count > 1 else ""
        yield Event(at, "takeover", text, bad=True)
    elif status.owner and status.owner != was.owner:
        yield Event(at, "lease", f"{leader} has the lease, token {status.token}")
    elif was.owner and not status.owner and status.generating:
        yield Event(at, "free", "nobody holds the lease", bad=True)


def _of_the_handlers(before: Look, now: Look) -> Iterator[Event]:
    at, was, status = now.status.now, before.status, now.status
    for name, left in status.handlers.items():
        if name not in was.handlers:
            yield Event(at, "joined", f"{name} handles messages")
        if left < 0 <= was.handlers.get(name, 0.0):
            yield Event(at, "dead", f"{name} gives no sign of life", bad=True)
    gone = [name for name in was.handlers if name not in status.handlers]
    more = int(status.stats.get("reclaimed", 0)) - int(was.stats.get("reclaimed", 0))
    dead = [name for name in gone if was.handlers[name] < at - was.now]
    if more > 0:
        whose = f" of {', '.join(dead)}" if dead else ""
        yield Event(at, "reclaim", f"{more:,} messages{whose} were reclaimed", bad=True)
    for name in gone:
        if name not in dead and name != status.owner.split("/")[0]:
            yield Event(at, "left", f"{name} has left")
