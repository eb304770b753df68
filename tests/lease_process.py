"""A process with a lease, told what to do by its arguments; it prints a line for each event.

python -m tests.lease_process URL hold|wait|write|idle [option=value ...]
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from distlock import Lease, LeaseLost


def say(*words: object) -> None:
    """One line, at once."""
    print(*words, flush=True)


def main() -> None:
    """Do it."""
    url, what, *pairs = sys.argv[1:]
    options: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        options[name] = value == "True" if value in ("True", "False") else float(value)
    told = threading.Event()

    def lost(lease: Lease) -> None:
        say("lost", time.monotonic())
        told.set()

    lease = Lease(url, "t", on_lost=lost, **options)
    if what == "wait":
        say("waiting")
    try:
        with lease:
            say("held", lease.token, time.monotonic())
            if what == "write":
                write(lease)
            while what in ("hold", "wait"):
                time.sleep(60)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    except LeaseLost:
        told.wait(5)
        say("gone")


def write(lease: Lease) -> None:
    """Write its token under the lease until that is refused."""
    while True:
        lease.execute("RPUSH", "{t}:writes", lease.token)


if __name__ == "__main__":
    main()
