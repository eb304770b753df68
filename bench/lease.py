"""The lease beside its peers and bare sockets: `python -m bench.lease`.

All sides (lease_sides.py) take turns on the same server in the same run. The column `peer` has the
figure of the side that the row names; a ratio is the median over the rounds. Trust ratios, never
the absolute numbers of a shared machine.

- alone: acquire and release by one thread, by one object; by the clock, and microseconds of CPU of
  this process and the server together; commands by MONITOR (not those inside scripts). The same
  with a new object in `with`, and by one task of asyncio.
- hand-off: from just before the release in one process to the return of the acquire in another,
  which waits since 2 to 4 ms; bare is an RPUSH to a BLPOP. p50 and p99 of each round.
- crowd: eight processes that want it, hold it 1 ms, think 2 ms or not at all. Jain's index of how
  often each got it. An overtake is an acquire that returned before that of somebody who had called
  acquire earlier, by their clock just before the calls; counted in % of all acquires.
- tasks: a hundred tasks of one event loop, hold 1 ms.
- takeover: from the end of a dead holder's term, PEXPIRETIME of the key, to the return of the
  waiter's acquire; with watch_connection from the SIGKILL on.
- dead waiter: from the release to the return of the second's acquire, the first having been killed.
- idle: what a waiter sends in a ttl, by MONITOR.
- stale, cancelled: see lease_safety.py.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator

from . import lease_alone, lease_deaths, lease_hands, lease_safety
from .command import command
from .servers import Server
from .table import Row

PEERS = ("python-redis-lock", "pottery")


def _sections(server: Server, kind: str, options: Namespace) -> Iterator[tuple[str, Iterable[Row]]]:
    """What is measured, in order; each runs when its rows are asked for."""
    quick = bool(options.quick)
    yield "alone", lease_alone.alone(server, 20 if quick else 150, 100)
    yield "asyncio", lease_alone.alone_async(server, 20 if quick else 150, 100)
    yield "hand-off", lease_hands.hand_off(server, 3 if quick else 20, 150)
    yield "crowd", lease_hands.crowd(server, 2 if quick else 5, 1.0 if quick else 4.0)
    yield "tasks", lease_hands.tasks(server, 1 if quick else 3, 1.0 if quick else 4.0)
    yield "takeover", lease_deaths.takeover(server, 4 if quick else 20)
    yield "dead waiter", lease_deaths.dead_waiter(server, 2 if quick else 10)
    yield "idle", lease_deaths.idle(server, 3 if quick else 10)
    yield "told", lease_safety.told(server, 5 if quick else 20)
    yield "stale", lease_safety.stale(server, 8 if quick else 40)
    yield "cancelled", lease_safety.cancelled(server, 20 if quick else 100)


if __name__ == "__main__":
    sys.exit(command("lease", _sections, PEERS))
