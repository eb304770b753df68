"""Parse a web server's access log with three copies, and sum up what they stored.

Each line of the log is a message, `parse` handles it, and the store keeps what it returns. A line
that is no line of an access log fails, and can be read with `--getErrors`. Kill a copy on the way:
each line is still counted once. In each of three terminals, in this folder:

    distlock --name access --input access.log --handle access_log:parse

When they are done:

    python access_log.py
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import redis

from distlock import Message
from distlock.keys import BUCKET, Keys
from distlock.place import find

LINE = re.compile(
    rb'(?P<host>\S+) \S+ \S+ \[[^]]+\] "(?P<method>[A-Z]+) (?P<path>\S+)[^"]*" '
    rb"(?P<status>\d{3}) (?P<bytes>\d+|-)"
)
"""The common log format, which Apache and nginx write; what follows is left out."""


def parse(message: Message) -> dict[str, Any]:
    """Handle one line: its path, status and bytes."""
    found = LINE.match(message.body)
    if found is None:
        raise ValueError("not a line of an access log")
    sent = found["bytes"]
    return {
        "path": found["path"].decode(errors="replace"),
        "status": int(found["status"]),
        "bytes": 0 if sent == b"-" else int(sent),
    }


def stored(client: redis.Redis, keys: Keys) -> Iterator[dict[str, Any]]:
    """Each result that the job has stored, a bucket at a time."""
    last = int(client.get(keys.sequence) or 0)
    for bucket in range(last // BUCKET + 1):
        yield from map(json.loads, client.hvals(keys.store(bucket)))


def main() -> None:
    """Print the lines and bytes of each status, and the most wanted paths."""
    lines, sizes, paths = Counter[int](), Counter[int](), Counter[str]()
    with redis.Redis.from_url(find(os.environ.get("REDIS_URL")).url) as client:
        for result in stored(client, Keys("access")):
            lines[result["status"]] += 1
            sizes[result["status"]] += result["bytes"]
            paths[result["path"]] += 1
    for status, count in sorted(lines.items()):
        print(f"{status}  {count:>9,} lines  {sizes[status]:>15,} bytes")
    for path, count in paths.most_common(5):
        print(f"{count:>14,}  {path}")


if __name__ == "__main__":
    main()
