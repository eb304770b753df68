"""The cache beside its peers and bare limits: `python -m bench.cache`.

All sides (cache_sides.py) take turns on the same server in the same run. The column `peer` has the
figure of the side that the row names, or of the peer whose row it is; a ratio is the median over
the rounds. Trust ratios, never the absolute numbers of a shared machine.

- calls: cold stampedes (storm.py) of 16 processes with one caller each, and of 8 with 8 threads (or
  tasks); how often the getter was called, the fewest and the most of all stampedes. Then a getter
  that takes longer than the ttl, one that fails, and one whose process is killed.
- delays: from the end of a getter of 237 ms to the value in each waiter's hand.
- sent: what the clients send for such a stampede, by MONITOR (not what scripts run): everything
  from just before the first call to just after the last return, also CLIENT LIST of the one who
  watches (MONITOR passes it over, INFO commandstats has it), the counters that happen to be due,
  and what a thread sends that never led a wait before. Ten stampedes come before (peers: three).
- hits: a value that is there, read again and again by one thread, or one task.
- nodes: three nodes, one of which is killed and started again under load; hits from eight processes
  on three nodes, and on one key. See cache_nodes.py.
- tasks: connections while 2,000 tasks wait for 2,000 keys that another process computes.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator

from . import cache_hits, cache_nodes, cache_storms, cache_tasks
from .command import command
from .servers import Server
from .table import Row

PEERS = ("dogpile.cache", "cashews", "aiocache")


def _sections(server: Server, kind: str, options: Namespace) -> Iterator[tuple[str, Iterable[Row]]]:
    """What is measured, in order; each runs when its rows are asked for."""
    quick = bool(options.quick)
    yield "calls", cache_storms.calls(server, 10 if quick else 100)
    yield "killed", cache_storms.killed(server, 1 if quick else 5)
    yield "delays", cache_storms.delays(server, 1 if quick else 7, 5 if quick else 10)
    yield "sent", cache_storms.sent(server, 2 if quick else 5)
    yield "hits", cache_hits.hits(server, 5 if quick else 40, 200)
    yield "near", cache_hits.near(server, 3 if quick else 9, 20_000 if quick else 100_000)
    yield "ring", cache_hits.ring(3 if quick else 9)
    yield "outage", cache_nodes.outage(kind, 1 if quick else 2)
    yield "crowd", cache_nodes.crowd(kind, 1.0 if quick else 5.0)
    yield "tasks", cache_tasks.tasks(server, 200 if quick else 2000)


if __name__ == "__main__":
    sys.exit(command("cache", _sections, PEERS))
