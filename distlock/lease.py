"""The lease: one owner at a time, with a token that only rises.

Rules:

- Each acquire has an owner id of its own, never that of a process or an object: a request that
  arrives late can never speak for a later term.
- A token is greater than every token before it, over releases, expiries, restarts and FLUSHALL:
  the greater of the last token + 1 and the server's time in microseconds (lease_acquire.lua).
- An acquire names the last token its caller has seen and is refused if there is a newer one, so a
  copy of it that arrives later changes nothing. Who has seen none asks first: one more trip.
- The owner trusts its term until `deadline`, on this process's monotonic clock, counted from
  *before* the last renewal was sent: when the server is silent, the term ends here no later than
  there.
- A renewal sets the time left, never adds to it, and never brings back an expired lease.
"""

from __future__ import annotations

import secrets
import time

from .errors import LeaseLost
from .io import IO, run
from .scripts import script

ACQUIRE, RENEW, RELEASE = script("lease_acquire"), script("lease_renew"), script("lease_release")


class LeaseCore:
    """What both twins share: the state of one copy's lease, and each verb as a coroutine.

    Args:
        io: the connection to the server.
        key: the key of the lease.
        token_key: the key that keeps the last token.
        ttl: seconds for which a term lasts without renewal.
        copy: who asks; the owner ids begin with it.

    Attributes:
        owner: the owner id of the last term, fresh for each.
        token: its fencing token, 0 when released.
        deadline: monotonic time until which the term may be trusted.
    """

    def __init__(self, io: IO, key: str, token_key: str, ttl: float, copy: str) -> None:
        self._io = io
        self._keys = [key, token_key]
        self.ttl = ttl
        self.copy = copy
        self.owner = ""
        self.token = 0
        self.deadline = 0.0
        self._seen = 0
        self._lost = False

    @property
    def held(self) -> bool:
        """Whether the lease is held, as far as this process can know without asking."""
        return bool(self.token) and not self._lost and time.monotonic() < self.deadline

    def renewed(self, began: float) -> None:
        """Note a renewal that another request carried and that was sent at `began` (monotonic)."""
        self.deadline = max(self.deadline, began + self.ttl)

    def lose(self) -> None:
        """Note the server's word that the lease has gone on."""
        self._lost = True

    def check(self) -> None:
        """Raise LeaseLost unless the lease is held."""
        if not self.held:
            raise LeaseLost(
                f"lease {self._keys[0]} (owner {self.owner}, token {self.token}) has gone on: "
                "stop what needs it and acquire it again"
            )

    async def _acquire(self) -> bool:
        for _ in range(3):  # the token seen last may be old by now
            owner, began = f"{self.copy}/{secrets.token_hex(4)}", time.monotonic()
            args = (owner, round(self.ttl * 1000), self._seen)
            token, left, self._seen = await self._io.call(ACQUIRE, self._keys, args)
            if token:
                self.owner, self.token, self._lost = owner, token, False
                self.deadline = began + self.ttl
            if token or left:
                break
        return self.held

    async def _renew(self, io: IO | None = None) -> bool:
        token, began = self.token, time.monotonic()
        kept = await (io or self._io).call(RENEW, self._keys[:1], (self.owner, token))
        if token == self.token:  # another thread may have ended this term meanwhile
            self.renewed(began) if kept else self.lose()
        return bool(kept)

    async def _keep(self, io: IO) -> None:
        if self.held and self.deadline - time.monotonic() < self.ttl * 2 / 3:
            await self._renew(io)

    async def _release(self) -> bool:
        token, self.token = self.token, 0
        return bool(await self._io.call(RELEASE, self._keys[:1], (self.owner, token)))


class Lease(LeaseCore):
    """One copy's lease, for synchronous code."""

    def acquire(self) -> bool:
        """Try once, without waiting; False when somebody else is the owner."""
        return run(self._acquire())

    def renew(self) -> bool:
        """Set the time left to the ttl again; False when the lease has gone on."""
        return run(self._renew())

    def keep(self, io: IO) -> None:
        """Renew over another connection if a third of the ttl has passed since the last time."""
        return run(self._keep(io))

    def release(self) -> bool:
        """Give the lease back; False when it had gone on before."""
        return run(self._release())
