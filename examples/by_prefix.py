"""Delete all keys of a prefix at once, by a version in the key.

Keys of a cache cannot be listed by prefix: they lie on several nodes, and a scan of millions would
miss what is being computed just then. Instead each shop's keys carry the shop's version, a random
word that is a cached value, too. Deleting the version deletes them all, whatever their number, and
also what is computed meanwhile: it is kept under the old version, where nobody looks, until it
expires. The version is random, not a counter, so a lost one never brings old values back.

    python by_prefix.py
"""

from __future__ import annotations

import os
from secrets import token_hex

from distlock import Cache

cache = Cache(os.environ.get("REDIS_URL", "redis://localhost"), name="shops")
DAY = 86_400.0


def version(shop: str) -> str:
    """The version in all keys of a shop; a new one if there is none."""
    made = cache.get(f"{shop}:version", lambda: token_hex(8), expire=30 * DAY, execution_limit=10)
    return str(made)


def forget(shop: str) -> None:
    """Delete everything that is cached for a shop, with one request."""
    cache.delete(f"{shop}:version", strict=True)


def price(shop: str, article: str) -> str:
    """A price, computed once an hour unless the shop is forgotten before."""

    def look_up() -> str:
        print(f"looking up {article} of {shop}")
        return f"{article} of {shop}: 5"

    key = f"{shop}:{version(shop)}:{article}"
    return str(cache.get(key, look_up, expire=DAY / 24, execution_limit=10))


if __name__ == "__main__":
    for _ in range(2):
        print(price("Oslo", "tea"), "|", price("Oslo", "cake"), "|", price("Rome", "tea"))
    print("forgetting Oslo")
    forget("Oslo")
    print(price("Oslo", "tea"), "|", price("Oslo", "cake"), "|", price("Rome", "tea"))
