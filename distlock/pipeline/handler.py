"""A handler's side of the pipeline: one hand after another.

Rules:

- The server keeps one hand per handler, under a name: a number from the handler's request, the
  server's time, the number of messages. `exchange` settles the whole hand, claims the next and
  renames it, only if the hand is the one the handler means; so whoever was given up for dead
  cannot store.
- A name that begins with the number just sent is this handler's own lost answer: the exchange was
  done, and its second arrival is answered with what the first one claimed. A goodbye leaves no
  name: sent twice within the handler's life it was done, for nobody else may take the hand then.
- A handler with nothing to do stands in line for the bell and waits; the answer to `rest` says how
  long nothing can happen. It wakes by itself after that, so a lost wake-up costs a second at most.
- A failover may set a hand back to an earlier one. The number in its name says which exchanges are
  forgotten, though they were answered; that hand is given back.
- A message above 1 MB comes as `id:attempt@bytes` and is read in parts, into its place: a process
  needs no more memory than for its body, and a little.
- A handler is alive for `handler_ttl` after each exchange, rest or beat. After that anybody may
  reclaim its hand; a handler that comes back joins anew.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from io import BytesIO
from typing import NamedTuple

from ..io import IO, Argument, run
from ..keys import Keys, lease_keys
from ..lease import Watch
from ..scripts import script
from .job import Job, job_gone

JOIN, EXCHANGE, REST = script("handler_join"), script("handler_exchange"), script("handler_rest")
BEAT, RECLAIM = script("handler_beat"), script("handler_reclaim")
READ = script("handler_read")
PART = 1 << 20
"""Bytes of a long message that are read at once."""
LONGEST_REST = 1.0
"""Seconds after which a resting handler looks anew, in case a wake-up was lost."""
LOOK = 0.05
"""Seconds between two looks of a busy handler at the lease and at the other handlers."""
REMEMBERED = 10_000
"""Exchanges of which a handler remembers how many results they kept."""


@dataclass
class Outcome:
    """What became of the messages of one hand: each is stored, failed or given back."""

    stored: dict[int, list[bytes]] = field(default_factory=dict)
    failed: list[str | bytes] = field(default_factory=list)
    returned: list[bytes] = field(default_factory=list)

    def store(self, id: bytes, bucket: int, result: bytes) -> None:
        """The message is done: keep its result."""
        pairs = self.stored.get(bucket)
        if pairs is None:
            self.stored[bucket] = [id, result]
        else:
            pairs += (id, result)

    def fail(self, id: bytes, report: bytes) -> None:
        """The message failed: it is tried again later, or ends in the errors."""
        self.failed += (id, report)

    @property
    def results(self) -> int:
        """How many messages are done."""
        return sum(map(len, self.stored.values())) // 2

    def give_back(self, messages: list[bytes]) -> None:
        """The messages were not touched: they go to the front of the queue."""
        self.returned += (message.split(b":", 1)[0] for message in messages)


class Hand(NamedTuple):
    """What an exchange answered.

    Attributes:
        messages: the next hand, as `id:attempt:body` each, or `id:attempt@bytes`; see `whole`.
        lease_left: seconds the generator's lease has left, 0 when nobody holds it; None when this
            exchange did not look, which it does 20 times a second at most.
        dead: a handler whose life is over, or "".
        queue: messages left in the queue.
    """

    messages: list[bytes]
    lease_left: float | None
    dead: str
    queue: int


class Rest(NamedTuple):
    """What `rest` answered.

    Attributes:
        work: there is something to claim: do not wait.
        done: all K messages are stored, in the errors or taken.
        seconds: how long nothing can happen but what rings the bell.
        lease_left: seconds the lease has left, None when all messages are generated.
        dead: a handler whose life is over, or "".
        token, connections: of the generator, when this handler is the one to watch it; else "".
    """

    work: bool
    done: bool
    seconds: float
    lease_left: float | None
    dead: str
    token: int
    connections: str


class HandlerCore:
    """One handler of a job, over any IO.

    Args:
        io: the connection to the server.
        keys: the pipeline's keys.
        job: the job that the handler works on.
        name: the handler's own name, unique in the pipeline.
    """

    def __init__(self, io: IO, keys: Keys, job: Job, name: str) -> None:
        self._io = io
        self._all = keys
        self.job = job
        self.name = name
        self.joined = False
        self._hand: bytes = b""
        self._number = secrets.randbits(40)  # no other handler of this name has the same
        self._seen = 0
        self._contact = 0.0
        self._looked = 0.0
        self._ttl = round(job.handler_ttl * 1000)
        self._answered: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)
        self._channel = keys.channel(name)
        self._keys = [
            keys.temp(name),
            *keys.pick(["handlers", "queue", "again", "later", "bell", "stats", "errors", "lease"]),
        ]
        resting = "handlers queue again later bell stats errors lease sequence job taken"
        self._rest_keys = keys.pick(resting.split())
        self._watch = Watch(io, lease_keys(keys.name))

    async def _join(self) -> None:
        keys = [self._all.job, self._keys[0], self._all.handlers, self._all.stats]
        await self._io.listen(self._channel)
        state = 0
        while state in (0, -2):
            if state == -2:
                await self._return_hand()
            self._number += 1
            began = time.monotonic()
            args = (self.name, self.job.id, self._number, self._ttl, self._seen)
            state, self._hand, self._seen = await self._io.call(JOIN, keys, args)
        if state == -1:
            raise job_gone(self._all)
        self.joined, self._contact = True, began

    async def _return_hand(self) -> None:
        """Give back a hand of this handler's that it does not know: a failover brought it back."""
        self._hand = await self._io.command("HGET", self._keys[0], "#") or b""
        if not self._hand:  # reclaimed by another one just now
            return
        ids = await self._io.command("HKEYS", self._keys[0])
        await self._exchange(Outcome(returned=[id for id in ids if id != b"#"]), 0)

    async def _forgotten(self) -> int | None:
        name = await self._io.command("HGET", self._keys[0], "#")
        if not name:
            return None
        last, forgotten = int(name.split(b"-")[0]), 0
        while self._answered and self._answered[-1][0] > last:
            forgotten += self._answered.pop()[1]
        return forgotten

    async def _exchange(self, outcome: Outcome, want: int) -> Hand | None:
        self._number += 1
        began = time.monotonic()
        look = began - self._looked > LOOK
        keys, failed, returned = self._keys, outcome.failed, outcome.returned
        args: list[Argument] = [self.name, self._hand, self._number, want, self._ttl]
        args += (self.job.attempts, int(look), len(failed) // 2, len(returned))
        args += failed
        args += returned
        for bucket, pairs in outcome.stored.items():
            keys = [*keys, self._all.store(bucket)]
            args.append(len(pairs))
            args += pairs
        resent = self._io.resent
        self._hand, left, dead, queue, messages = await self._io.call(EXCHANGE, keys, args)
        alive = time.monotonic() - self._contact < self.job.handler_ttl
        self._contact, self._looked = began, began if look else self._looked
        self.joined = bool(self._hand) and want > 0
        # a goodbye that was sent twice finds no hand: the first one settled it, for nobody else may
        if not self._hand and not (want == 0 and alive and self._io.resent > resent):
            return None
        if outcome.stored:
            self._answered.append((self._number, outcome.results))
        return Hand(messages, left / 1000 if left >= 0 else None, dead.decode(), queue)

    async def _whole(self, message: bytes) -> list[bytes]:
        id, attempt, size = message.replace(b"@", b":").split(b":")
        last = int(size)
        at = len(id) + len(attempt) + 2
        body = BytesIO(bytes(last - at))  # all of its place at once: growing, it would be moved
        while at < last:
            args = (self._hand, id, at + 1, min(at + PART, last))
            if not (part := await self._io.call(READ, self._keys[:1], args)):
                return []
            body.write(part)
            at += len(part)
        return [id, attempt, body.getvalue()]

    async def _rest(self) -> Rest | None:
        began = time.monotonic()
        args = (self.name, self._ttl, round(LONGEST_REST * 1000), self.job.id)
        state, wait, left, dead, *watch = await self._io.call(REST, self._rest_keys, args)
        if state == -2:
            raise job_gone(self._all)
        if state == -1:
            self.joined = False
            return None
        self._contact = began
        lease_left = None if left < 0 else left / 1000
        token, connections = watch
        seconds, work, done = wait / 1000, state == 1, state == 2
        return Rest(work, done, seconds, lease_left, dead.decode(), token, connections.decode())

    async def _wait(self, rest: Rest) -> bool:
        if not rest.connections:
            return await self._io.wait(self._channel, rest.seconds) is not None
        end = time.monotonic() + rest.seconds
        said = await self._watch.until(self._channel, "", end, rest.token, rest.connections)
        return said is not None

    async def _keep(self, io: IO) -> None:
        if self.joined and time.monotonic() - self._contact > self.job.handler_ttl / 2:
            began = time.monotonic()
            if await io.call(BEAT, [self._all.handlers], (self.name, self._ttl)):
                self._contact = began

    async def _reclaim(self, handler: str, drop: bool = False) -> int:
        keys = self._all.pick(["handlers", "again", "stats", "errors", "bell"])
        said = f"handler {handler} died with this message in its hand"
        died = {"exception": "HandlerDied", "message": said, "traceback": "", "handler": handler}
        if (deadline := await self._io.command("ZSCORE", self._all.handlers, handler)) is None:
            return -1
        request, end = secrets.token_hex(8), int(float(deadline))
        args = (handler, self.job.attempts, json.dumps(died), int(drop), request, end)
        return int(await self._io.call(RECLAIM, [self._all.temp(handler), *keys], args))


class Handler(HandlerCore):
    """One handler of a job, for synchronous code."""

    def join(self) -> None:
        """Enter among the living, with an empty hand; raises JobGone."""
        return run(self._join())

    def exchange(self, outcome: Outcome, want: int) -> Hand | None:
        """Settle the hand and claim the next.

        Args:
            outcome: what became of every message of the hand.
            want: how many messages to claim at most, 1 to 1,000; 0 is a goodbye.

        Returns:
            The next hand (empty when there is nothing to do), or None when this handler was given
            up for dead: nothing was stored, its messages are with others; it must join anew.
        """
        return run(self._exchange(outcome, want))

    def whole(self, message: bytes) -> list[bytes]:
        """Read what `exchange` told as `id:attempt@bytes`; returns id, attempt and body.

        Nothing when this handler was given up for dead, as the next exchange will say.
        """
        return run(self._whole(message))

    def forgotten(self) -> int | None:
        """How many results were kept that the server does not know of any more.

        None when that cannot be told, for this handler's hand is with others.
        """
        return run(self._forgotten())

    def rest(self) -> Rest | None:
        """Ask how long nothing can happen, and stand in line for the bell.

        Returns None when this handler was given up for dead; raises JobGone.
        """
        return run(self._rest())

    def wait(self, rest: Rest) -> bool:
        """Wait for the bell, as long as the answer to `rest` said; True when it rang.

        One handler at a time also watches the generator: when that one's connections are gone, its
        lease is ended, and this wait.
        """
        return run(self._wait(rest))

    def keep(self, io: IO) -> None:
        """Say over another connection that this handler is alive, if it has long been silent."""
        return run(self._keep(io))

    def reclaim(self, handler: str, drop: bool = False) -> int:
        """Take the hand of a dead handler; returns its messages, -1 if it is not dead.

        Args:
            handler: the dead handler's name.
            drop: put the messages among the errors, not back in line.
        """
        return run(self._reclaim(handler, drop))
