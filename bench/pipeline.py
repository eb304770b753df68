"""The pipeline's speed and memory beside its bare limit: `python -m bench.pipeline`.

Each number of ours stands beside the same moves by bare scripts (bare.py) on the same server in
the same run, the two sides taking turns; a ratio is the median over the rounds. Trust ratios,
never the absolute numbers of a shared machine. All messages have bodies of 90 bytes.

- drain: messages a second of one handler (a copy's own processing with names, fencing, heartbeat
  thread, counters and errors) that empties a full queue with hands of a fixed size.
- commands a message: INFO commandstats over a drain, so commands inside scripts count;
  server us a message: the time of EVALSHA there. commands sent for each hand: by MONITOR.
- two handlers: two processes against one, started together when both are ready; the column `bare`
  holds the one.
- generate: a copy's own loop, publishes of 500, each fenced and renewing, bodies ready; bare is
  RPUSH of 500.
- the whole job: three copies as `app_start.py` runs them (roles elected, hands growing, bounded
  queue), from the signal to the end of the last; bare is one RPUSH of 500 after another and two
  movers of 500.
- wake-up: start of a publish to the call of a resting handler's function, in another process;
  bare is RPUSH to a BLPOP.
- idle: what one resting handler sends while a generator elsewhere waits, by MONITOR.
- memory: used_memory of the server, VmHWM of a copy.
- reclaim: a dead handler's hand of 1,000 moved by one script.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator

from . import moving, waiting, whole
from .command import command
from .servers import Server
from .table import Row


def _sections(server: Server, kind: str, options: Namespace) -> Iterator[tuple[str, Iterable[Row]]]:
    """What is measured, in order; each runs when its rows are asked for."""
    quick = bool(options.quick)
    sizes = moving.QUICK if quick else moving.FULL
    yield "drain", moving.draining(server, sizes)
    yield "sent", moving.sent(server)
    yield "pair", moving.pair(server, sizes)
    yield "generate", moving.generating(server, sizes)
    yield "job", whole.job(kind, options.unix, sizes.rounds, 100_000 if quick else 1_000_000)
    yield "queued", whole.queued(kind, options.unix, 20_000 if quick else 200_000)
    yield "wide", whole.wide(server, 20 if quick else 100)
    yield "wake", waiting.wake_up(server, 100 if quick else 1000)
    yield "idle", waiting.idle(server, 5 if quick else 15)
    yield "reclaim", waiting.reclaim(server, sizes.rounds)


if __name__ == "__main__":
    sys.exit(command("pipeline", _sections))
