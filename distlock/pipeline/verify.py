"""The proof of promise 1 from the server alone: each id 1..sequence is in exactly one place.

Rules:

- Places are read against the flow (store, errors, taken, temp, later, again, queue): a message
  that moves on meanwhile is missed, hardly ever seen twice.
- An id that looks wrong is asked again, with all its places in one script, before anything is
  claimed; so the verdict is right while copies run, and exact when none does.
- All keys of the pipeline's prefix are looked through, too: a bucket beyond the sequence and a temp
  of no handler are places where no id may be.
- One byte an id and one page at a time is held, 1 MB for a million messages; and what is foreign.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from ..errors import DistlockError
from ..io import IO, run
from ..keys import BUCKET, Keys
from ..scripts import script

PAGE, ASK = script("verify_page"), script("verify_ask")
PLACES = ("store", "errors", "taken", "temp", "later", "again", "queue")
"""Where an id can be, in the order of reading."""
SHOWN = 20
"""Examples of each kind that a verdict names."""


@dataclass
class Verdict:
    """What `verify` found.

    Attributes:
        sequence: the last generated id; all ids up to it were looked for.
        places: how many ids each place held.
        lost, twice, foreign: how many ids are nowhere, in two places, or not ours.
        examples: the first of each kind, as text with their places.
        seconds: how long it took.
    """

    sequence: int = 0
    places: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    twice: int = 0
    foreign: int = 0
    examples: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether promise 1 holds."""
        return not (self.lost or self.twice or self.foreign)

    def note(self, kind: str, text: str) -> None:
        """Count one wrong id of a kind (lost, twice, foreign)."""
        count = getattr(self, kind) + 1
        setattr(self, kind, count)
        if count <= SHOWN:
            self.examples.append(text)


class VerifierCore:
    """Verifies one pipeline, over any IO.

    Args:
        io: the connection to the server.
        keys: the pipeline's keys.
    """

    def __init__(self, io: IO, keys: Keys) -> None:
        self._io = io
        self._keys = keys

    async def _verify(self, progress: Callable[[int, int], None]) -> Verdict:
        began = time.monotonic()
        verdict = Verdict(await self._sequence(), dict.fromkeys(PLACES, 0))
        seen = bytearray(verdict.sequence + 1)
        odd: set[tuple[bytes, str]] = set()  # what is no id, or in the wrong bucket, and where
        strays = await self._strays(verdict)
        async for place, ids in self._places(verdict.sequence):
            verdict.places[place] += len(ids)
            _tick(seen, ids, odd, place)
            progress(sum(verdict.places.values()), verdict.sequence)
        for name in strays:
            ids = await self._io.command("HKEYS", self._keys.prefix + name)
            if name.startswith("store:"):
                ids = _in_bucket(ids, _bucket(name.encode()), name)
            # counted twice, so that each is asked for again
            _tick(seen, [id for id in ids if id != b"#"] * 2, odd, name)
        now = await self._sequence()
        for text, place in sorted(odd):
            if not (_is_id(text) and int(text) <= now):  # else it was generated since
                verdict.note("foreign", f"{text[:60]!r}: in {place}, not an id of this job")
        await self._judge(seen, strays, verdict)
        verdict.seconds = time.monotonic() - began
        return verdict

    async def _sequence(self) -> int:
        return int(await self._io.command("GET", self._keys.sequence) or 0)

    async def _handlers(self) -> list[str]:
        members = await self._io.command("ZRANGE", self._keys.handlers, 0, -1)
        return [member.decode() for member in members]

    async def _places(self, sequence: int) -> AsyncIterator[tuple[str, list[bytes]]]:
        keys = self._keys
        for bucket in range(sequence // BUCKET + 1):
            ids = await self._io.command("HKEYS", keys.store(bucket))
            yield "store", _in_bucket(ids, bucket, f"store:{bucket}")
        async for ids in self._error_ids():
            yield "errors", ids
        async for ids in self._taken_ids():
            yield "taken", ids
        for handler in await self._handlers():
            ids = await self._io.command("HKEYS", keys.temp(handler))
            yield "temp", [id for id in ids if id != b"#"]
        for place in PLACES[4:]:
            async for ids in self._pages(keys.prefix + place):
                yield place, ids

    async def _names(self) -> AsyncIterator[bytes]:
        """Whatever has the name of a bucket or a temp, without the prefix; some come twice."""
        prefix, cursor = self._keys.prefix.encode(), b""
        while cursor != b"0":
            words = ("SCAN", cursor or b"0", "MATCH", prefix + b"*", "COUNT", 1000)
            cursor, keys = await self._io.command(*words)
            for name in (key.removeprefix(prefix) for key in keys):
                if name.startswith((b"store:", b"temp:")):
                    yield name

    async def _strays(self, verdict: Verdict) -> list[str]:
        """The names of buckets beyond the sequence and temps of no handler.

        Some are in order by the time they are read: a copy has begun a bucket, or joined.
        """
        last, strays = verdict.sequence // BUCKET, []
        known = {b"temp:" + handler.encode() for handler in await self._handlers()}
        found = {name async for name in self._names() if not 0 <= _bucket(name) <= last}
        for name in sorted(found - known):
            kind = await self._io.command("TYPE", self._keys.prefix.encode() + name)
            text = name.decode(errors="backslashreplace")
            if kind == b"hash" and text.encode() == name:
                strays.append(text)
            elif kind != b"none":
                verdict.note("foreign", f"{text}: a {kind.decode()} that is no place of this job")
        return strays

    async def _pages(self, key: str) -> AsyncIterator[list[bytes]]:
        """The ids of a list; what moves on meanwhile leaves at the front and is missed."""
        first = 0
        while page := await self._io.call(PAGE, [key], (first, first + 999)):
            yield page
            first += 1000

    async def _error_ids(self) -> AsyncIterator[list[bytes]]:
        last = int(await self._io.command("HGET", self._keys.stats, "errors") or 0)
        for first in range(1, last + 1, 1000):
            orders = [f"#{order}" for order in range(first, first + 1000)]
            ids = await self._io.command("HMGET", self._keys.errors, *orders)
            yield [id for id in ids if id]

    async def _taken_ids(self) -> AsyncIterator[list[bytes]]:
        cursor = -1
        while cursor:
            answer = await self._io.command(
                "SSCAN", self._keys.taken, max(cursor, 0), "COUNT", 1000
            )
            cursor = int(answer[0])
            yield list(answer[1])

    async def _judge(self, seen: bytearray, strays: list[str], verdict: Verdict) -> None:
        """Ask again for every id that was not seen exactly once."""
        seen[0] = 1
        for first in range(0, len(seen), BUCKET):
            part = seen[first : first + BUCKET]
            if part.count(1) != len(part):
                wrong = [first + at for at, times in enumerate(part) if times != 1]
                for at in range(0, len(wrong), 1000):
                    await self._ask(wrong[at : at + 1000], seen, strays, verdict)

    async def _ask(
        self, ids: list[int], seen: bytearray, strays: list[str], verdict: Verdict
    ) -> None:
        """Ask for ids of one bucket; read the lists through only for what is not found else."""
        unclear = []
        for id, places in zip(ids, await self._where(ids, strays, through=False), strict=True):
            if len(places) > 1 or not places or seen[id] > 1:
                unclear.append(id)
        if not unclear:
            return
        found = await self._where(unclear, strays, through=True)
        for id, places in zip(unclear, found, strict=True):
            if not places:
                verdict.note("lost", f"{id}: nowhere")
            elif len(places) > 1:
                verdict.note("twice", f"{id}: in {' and '.join(places)}")
            elif places[0].startswith("temp:"):
                verdict.note("foreign", f"{id}: in {places[0]}, which is no handler's")

    async def _where(self, ids: list[int], strays: list[str], through: bool) -> list[list[str]]:
        keys = self._keys
        fixed = ["sequence", "handlers", "errors", "taken", "queue", "again", "later"]
        for _ in range(100):  # a handler may join between the two requests
            handlers = await self._handlers()
            asked = [*keys.pick(fixed), keys.store(ids[0] // BUCKET)]
            temps = [keys.temp(handler) for handler in handlers]
            asked += temps
            asked += (key for key in keys.pick(strays) if key not in temps)
            answer = await self._io.call(ASK, asked, (int(through), len(handlers), *handlers, *ids))
            if answer != 0:
                return [[place.decode() for place in places] for places in answer[1]]
        raise DistlockError("handlers come and go too fast to verify: try again")


def _bucket(name: bytes) -> int:
    """The number of a bucket as the scripts write it, or -1."""
    number = name.removeprefix(b"store:")
    return int(number) if number == b"0" or _is_id(number) else -1


def _in_bucket(ids: list[bytes], bucket: int, name: str) -> list[bytes]:
    """The ids, with a text that is none for each that belongs to another bucket."""
    return [
        b"%b in %b" % (id, name.encode()) if id.isdigit() and int(id) // BUCKET != bucket else id
        for id in ids
    ]


def _is_id(text: bytes) -> bool:
    """Whether a text is a number from 1 on, as a script writes it."""
    return text.isdigit() and text[:1] != b"0" and len(text) < 16


def _tick(seen: bytearray, ids: Iterable[bytes], odd: set[tuple[bytes, str]], place: str) -> None:
    """Count each id; keep what is none, with its place."""
    for id in ids:
        if _is_id(id) and int(id) < len(seen):
            seen[int(id)] = min(seen[int(id)] + 1, 2)
        else:
            odd.add((bytes(id), place))


class Verifier(VerifierCore):
    """Verifies one pipeline, for synchronous code."""

    def verify(self, progress: Callable[[int, int], None] = lambda done, all: None) -> Verdict:
        """Look for every id; see Verdict.

        Args:
            progress: told now and then how many ids were seen, of how many.
        """
        return run(self._verify(progress))
