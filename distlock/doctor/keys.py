"""What lies under the pipeline's names: the job of another version, keys of somebody else.

Scripts of older versions need no care: each version sends its own, by the hash of their text, and
those that are no longer sent do nothing. (distlock keeps no functions on a server.)
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from ..io import SyncIO, run
from ..keys import TYPES, Keys
from ..pipeline.job import FORMAT
from .finding import BAD, NOTE, OK, Finding

SECONDS = 5.0
"""For which a server with many keys is looked through."""
SHOWN = 5
"""Keys that are named."""
OURS = re.compile(r"store:\d+|temp:[A-Za-z0-9._-]+|counters(:[0-9a-f]+)?")
"""What there may be besides TYPES; the counters are those of a cache of the same name."""


def look(io: SyncIO, keys: Keys) -> Iterator[Finding]:
    """All of it."""
    yield _job(io, keys)
    yield from _foreign(io, keys)


def _job(io: SyncIO, keys: Keys) -> Finding:
    if run(io.command("TYPE", keys.job)) not in (b"hash", b"none"):
        return Finding(NOTE, "job", "not looked at: its key holds something else")
    found = run(io.command("HGET", keys.job, "format"))
    if found is None:
        there = run(io.command("EXISTS", *keys.pick(["job", "sequence", "stats"])))
        if there:
            text = f"job {keys.name!r} has no record: a reset was cut short"
            return Finding(BAD, "job", text, "repeat it: --reset")
        return Finding(OK, "job", f"none named {keys.name!r} yet")
    if found.decode(errors="replace") != FORMAT:
        text = f"job {keys.name!r} has format {found.decode(errors='replace')}, this is {FORMAT}"
        remedy = "use the version of distlock that began it, or --reset"
        return Finding(BAD, "job", text, remedy)
    return Finding(OK, "job", f"{keys.name!r} is there, in this version's format")


def _foreign(io: SyncIO, keys: Keys) -> Iterator[Finding]:
    """Keys under our prefix that no version of ours has made."""
    until, cursor, found = time.monotonic() + SECONDS, b"0", set[str]()
    while True:
        words = ("SCAN", cursor, "MATCH", f"{keys.prefix}*", "COUNT", 1000)
        cursor, some = run(io.command(*words))
        names = (key.decode(errors="backslashreplace")[len(keys.prefix) :] for key in some)
        found.update(name for name in names if name not in TYPES and not OURS.fullmatch(name))
        if cursor == b"0" or time.monotonic() > until:
            break
    if found:
        shown = ", ".join(keys.prefix + name for name in sorted(found)[:SHOWN])
        more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
        text = f"{len(found):,} unknown under our name: {shown}{more}"
        yield Finding(BAD, "keys", text, "take another --name, or delete them if nobody needs them")
    elif cursor != b"0":
        text = f"none seen that is not ours; not all were looked at in {SECONDS:g} s"
        yield Finding(NOTE, "keys", text)
    else:
        yield Finding(OK, "keys", "none under our name that is not ours")
