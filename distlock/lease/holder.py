"""Who holds a lease, and who waits for it: read at one instant, changing nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..io import IO
from ..keys import lease_keys, lease_name
from ..scripts import script

READ = script("lease_read")


class Holder(NamedTuple):
    """A lease as it stands on the server.

    Attributes:
        name: of the lease.
        owner: the owner id, "" when it is free.
        token: the owner's token, or the last one given out.
        since: when the term began, the server's seconds since 1970, which is what its token says
            (less true while the server's clock was set back); 0 when it is free.
        left: seconds that the term has left.
        waiters: the owner ids of those in line, the first first; at most 1,000.
    """

    name: str
    owner: str
    token: int
    since: float
    left: float
    waiters: list[str]


async def read(io: IO, name: str) -> Holder:
    """Read one lease."""
    left, fields, last, line = await io.call(READ, lease_keys(name), ())
    held = {key.decode(): value.decode() for key, value in zip(*[iter(fields)] * 2, strict=True)}
    return Holder(
        name=name,
        owner=held.get("owner", ""),
        token=int(held.get("token", last)),
        since=int(held.get("token", 0)) / 1e6,
        left=max(left - int(held.get("delay", 0)), 0) / 1000,
        waiters=[entry.split(b" ")[1].decode() for entry in line if entry.count(b" ") == 5],
    )


async def read_all(io: IO) -> Sequence[Holder]:
    """Read every lease of this server that is held or waited for, by name."""
    names: set[str] = set()
    cursor = b"0"
    while True:
        words = ("SCAN", cursor, "MATCH", "distlock:{*}:l*", "COUNT", 1000)
        cursor, some = await io.command(*words)
        names.update(map(lease_name, some))
        if cursor == b"0":
            return [await read(io, name) for name in sorted(names - {""})]
