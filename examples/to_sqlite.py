"""Move the results of a job on into SQLite, as often and from as many machines as you like.

Three things make it safe. The upsert is idempotent: the same result written twice is one row. What
is complete is not read again, so a run that was killed goes on where it ended. And each transaction
carries the token of the lease: a mover that was frozen while another took over finds a higher token
in the database, and writes nothing. For the job `shop`, while its copies run or afterwards:

    python to_sqlite.py shop results.db
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterable
from typing import Any

import redis

from distlock import Lease, StaleToken
from distlock.keys import BUCKET, Keys
from distlock.place import find

SCHEMA = """
CREATE TABLE IF NOT EXISTS result (id INTEGER PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS mover (one INTEGER PRIMARY KEY CHECK (one = 1), token INTEGER NOT NULL);
INSERT OR IGNORE INTO mover VALUES (1, 0);
"""
FENCE = "UPDATE mover SET token = :token WHERE token <= :token"
UPSERT = """
INSERT INTO result VALUES (?, ?)
ON CONFLICT (id) DO UPDATE SET value = excluded.value WHERE value <> excluded.value
"""
COUNT = "SELECT count(*) FROM result WHERE id >= ? AND id < ?"


def write(base: sqlite3.Connection, token: int, rows: Iterable[tuple[Any, Any]]) -> None:
    """Write some results in one transaction, all or none.

    Raises:
        StaleToken: somebody with a newer lease has written before.
    """
    with base:
        if base.execute(FENCE, {"token": token}).rowcount != 1:
            raise StaleToken(f"token {token} is too old: another mover has taken over")
        base.executemany(UPSERT, ((int(id), value) for id, value in rows))


def move(client: redis.Redis, keys: Keys, base: sqlite3.Connection, lease: Lease) -> int:
    """Move each bucket of which the database has less; returns how many results were read."""
    last, moved = int(client.get(keys.sequence) or 0), 0
    for bucket in range(last // BUCKET + 1):
        key, first = keys.store(bucket), bucket * BUCKET
        (there,) = base.execute(COUNT, (first, first + BUCKET)).fetchone()
        if there < client.hlen(key):
            rows = client.hgetall(key)
            write(base, lease.token, rows.items())
            moved += len(rows)
    return moved


def main(job: str, file: str) -> None:
    """Move what there is, as the only mover."""
    url = find(os.environ.get("REDIS_URL")).url
    base = sqlite3.connect(file)
    base.executescript(SCHEMA)
    with Lease(url, f"{job}.to-sqlite", ttl=10) as lease, redis.Redis.from_url(url) as client:
        print(f"{move(client, Keys(job), base, lease):,} results moved to {file}")
    base.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python to_sqlite.py JOB FILE")
    main(sys.argv[1], sys.argv[2])
