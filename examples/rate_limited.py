"""Answer from the cache what a rate-limited API gives, however many processes ask.

The API is asked once a minute for each town, by one process in the whole system; all others wait
and are woken with the answer. When it answers 429, that one process sleeps as long as `Retry-After`
says; nobody else knocks meanwhile. For ten minutes more the old answer is served at once, while
one process renews it. Start it as often as you like:

    python rate_limited.py Oslo Rome Oslo

`API` in the environment names the service: it answers GET /weather/<town> with JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

from distlock import Cache

API = os.environ.get("API", "http://localhost:8000")
cache = Cache(os.environ.get("REDIS_URL", "redis://localhost"), name="weather")


@cache.cached(expire=60, execution_limit=30, stale=600, key=lambda town: f"weather:{town.lower()}")
def weather(town: str) -> Any:
    """What the API says of a town."""
    while True:
        try:
            with urlopen(f"{API}/weather/{quote(town)}", timeout=10) as answer:
                return json.load(answer)
        except HTTPError as refused:
            if refused.code != 429:
                raise
            time.sleep(float(refused.headers.get("Retry-After", 1)))


if __name__ == "__main__":
    for town in sys.argv[1:]:
        print(town, json.dumps(weather(town)))
