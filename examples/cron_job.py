"""A cron job that must run once a day, on one of many machines.

A lease alone is not enough: when the job is quick, a machine whose clock is a second behind asks
after it was released, and does it all again. So the day that is done is written down, under the
lease. The others wait meanwhile: when the machine at work dies, the next one does the job at once
(or 10 s later, when the server cannot see that it is gone). In the crontab of every machine:

    python cron_job.py
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import redis

from distlock import Lease, LeaseLost, NotAcquired

URL = os.environ.get("REDIS_URL", "redis://localhost")
DONE = "{backup}:done"
"""The last day that is done. The braces are the lease's name: on a cluster both lie together."""
WAIT = 3600.0
"""Seconds to stand by for the machine at work; longer than the job takes."""


def back_up(lease: Lease) -> None:
    """The job itself; here it takes half a second and leaves a file."""
    for _ in range(5):
        lease.check()  # raises LeaseLost when another machine has gone on
        time.sleep(0.1)
    with Path("backup.log").open("a") as log:
        log.write(f"backed up under token {lease.token}\n")


def main() -> int:
    """Do the job, or see that it is done; returns the exit code."""
    today = datetime.now(UTC).date().isoformat()
    try:
        with Lease(URL, "backup", ttl=10, wait=WAIT, watch_connection=True) as lease:
            with redis.Redis.from_url(URL, decode_responses=True) as client:
                if client.get(DONE) == today:
                    print(f"{today} is done already")
                    return 0
            back_up(lease)
            lease.execute("SET", DONE, today)  # refused if the lease has gone on
            print(f"{today} is done")
            return 0
    except (NotAcquired, LeaseLost) as error:
        print(f"not done here: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
