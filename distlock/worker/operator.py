"""What an operator asks for: empty the hands of the dead."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import DistlockError
from ..io import SyncIO
from ..keys import Keys
from ..pipeline import Handler, Records


def clean_temp(
    io: SyncIO,
    keys: Keys,
    drop: bool,
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> dict[str, int]:
    """Empty the temp of every dead handler; returns how many messages of whose.

    Args:
        drop: put the messages among the errors, not back in the queue.
        progress: told how many of the dead handlers are done, of how many.

    Raises:
        DistlockError: there is no job.
    """
    status = Records(io, keys).status()
    if status.job is None:
        raise DistlockError(f"there is no job {keys.name!r}: nothing to clean")
    handler = Handler(io, keys, status.job, "operator")
    dead = [name for name, left in status.handlers.items() if left < 0]
    counts = {}
    for done, name in enumerate(dead):
        progress(done, len(dead))
        counts[name] = handler.reclaim(name, drop)
    return {name: count for name, count in counts.items() if count >= 0}
