"""The generator's side of the pipeline: publish messages under the lease.

Rules:

- Every publish carries owner, token and the first id. It is refused whole when the lease has gone
  on, changes nothing when it arrives a second time, and answers "gap" when the server has lost
  messages that were published before (a failover): the generator then resumes at sequence + 1.
- A message is one string, `id:attempt:body`. The body is bytes that nobody here parses.
- A publish renews the lease when it is asked to, in the same script.
- While the server works on one publish, the next is made; it is sent when that one is answered.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import LeaseLost
from ..io import IO, Argument, Request, SyncIO, run
from ..keys import Keys
from ..lease import LeaseCore
from ..scripts import script

PUBLISH, RING = script("pipeline_publish"), script("pipeline_ring")
WIDE = 1024
"""Bytes of a body from which on it counts as wide: then hands are counted in bytes, too."""


class Published(NamedTuple):
    """What a publish answered.

    Attributes:
        gap: the ids did not follow; nothing was published.
        sequence: the last generated id.
        queue: messages in the queue, and those that wait for a retry.
        handlers: living handlers, counted only when the queue is full.
    """

    gap: bool
    sequence: int
    queue: int
    handlers: int


class GeneratorCore:
    """Publishes under a lease, over any IO.

    Args:
        io: the connection to the server.
        keys: the pipeline's keys.
        lease: the lease, held by this process.
        max_queue: messages in the queue and in later from which on the generator waits.
    """

    def __init__(self, io: IO, keys: Keys, lease: LeaseCore, max_queue: int) -> None:
        self._io = io
        self._lease = lease
        self._max_queue = max_queue
        self._keys = keys.pick(["lease", "sequence", "queue", "bell", "handlers", "stats", "later"])
        self._channel = keys.channel(lease.who)

    async def _publish(self, first: int, bodies: Sequence[bytes], renew: bool) -> Published:
        began = time.monotonic()
        return await self._published(self._words(first, bodies, renew), first, renew, began)

    def _words(self, first: int, bodies: Sequence[bytes], renew: bool) -> list[Argument]:
        lease, messages = self._lease, bodies
        wide = bool(bodies) and max(map(len, bodies)) > WIDE
        if not wide:
            messages = [b"%d:1:%b" % message for message in enumerate(bodies, first)]
        head = (lease.owner, lease.token, first, int(renew), self._max_queue, int(wide), lease.who)
        return [*head, *messages]

    async def _published(
        self, words: list[Argument], first: int, renew: bool, began: float
    ) -> Published:
        lease = self._lease
        state, sequence, queue, handlers = await self._io.call(PUBLISH, self._keys, words)
        if state == -1:
            lease.lose()
            raise LeaseLost(
                f"publish from {first} on was refused: the lease (token {lease.token}) has gone on"
            )
        if renew and state != -2:  # a gap is refused, and renews nothing
            lease.renewed(began)
        return Published(state == -2, sequence, queue, handlers)

    async def _wait(self, seconds: float) -> None:
        await self._io.wait(self._channel, seconds)

    async def _deserted(self) -> bool:
        return not await self._io.command("ZCARD", self._keys[4])

    async def _ring(self) -> None:
        await self._io.call(RING, self._keys[3:4], ())


class Generator(GeneratorCore):
    """Publishes under a lease, for synchronous code; arguments as of the core."""

    def __init__(self, io: SyncIO, keys: Keys, lease: LeaseCore, max_queue: int) -> None:
        super().__init__(io, keys, lease, max_queue)
        self._io: SyncIO = io

    def publish(self, first: int, bodies: Sequence[bytes], renew: bool = True) -> Published:
        """Publish bodies under the ids `first`, `first` + 1, …; none at all is only a look.

        Args:
            first: id of the first message.
            bodies: at most 1,000.
            renew: whether to renew the lease, too.

        Raises:
            LeaseLost: the lease has gone on; nothing was published.
        """
        return run(self._publish(first, bodies, renew))

    def prepare(self, first: int, bodies: Sequence[bytes], renew: bool = True) -> Publish:
        """Make a publish that is sent later; arguments as of `publish`."""
        return Publish(self, first, bodies, renew)

    def wait(self, seconds: float) -> None:
        """Wait until the full queue has room again, for some seconds at most."""
        return run(self._wait(seconds))

    def deserted(self) -> bool:
        """Whether there is no handler, not even a dead one that was not reclaimed yet."""
        return run(self._deserted())

    def ring(self) -> None:
        """Wake one handler that waits, such as after the lease was released."""
        return run(self._ring())


class Publish:
    """A publish that is made, sent and answered, each when it is time; see `Generator`."""

    def __init__(
        self, generator: Generator, first: int, bodies: Sequence[bytes], renew: bool
    ) -> None:
        self._generator = generator
        self._words = generator._words(first, bodies, renew)
        self._request = Request.of(PUBLISH, generator._keys, self._words)
        self._first = first
        self._renew = renew
        self._began = 0.0
        self.count = len(bodies)

    def send(self) -> None:
        """Send it, and go on."""
        self._began = time.monotonic()
        self._generator._io.begin(self._request)

    def answer(self) -> Published:
        """Wait for the answer; returns and raises as `Generator.publish`."""
        core = self._generator._published(self._words, self._first, self._renew, self._began)
        return run(core)
