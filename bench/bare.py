"""The bare limit: the same moves by the smallest scripts that do them, and nothing else.

A message is `id:body`. One script stores the batch in hand (ids and results come from the client,
as they would from a real handler), deletes the temp hash, takes the next batch from the list,
keeps it in the temp hash under its ids and returns it. No names, no fencing, no heartbeat, no
counters, no errors: a batch that is lost or sent twice is lost or stored twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

MOVE = """
if #ARGV > 1 then
  redis.call('HSET', KEYS[3], unpack(ARGV, 2))
  redis.call('DEL', KEYS[2])
end
local batch = redis.call('LPOP', KEYS[1], ARGV[1])
if not batch then return {} end
local fields = {}
for i, message in ipairs(batch) do
  fields[2 * i - 1] = string.match(message, '^%d+')
  fields[2 * i] = message
end
redis.call('HSET', KEYS[2], unpack(fields))
return batch
"""
QUEUE, FINAL = "bare:queue", "bare:final"


def fill(client: redis.Redis, messages: int, body: bytes, size: int = 500) -> None:
    """Make so many messages and push them to the list, `size` at a time."""
    for first in range(1, messages + 1, size):
        last = min(first + size, messages + 1)
        client.rpush(QUEUE, *[b"%d:%b" % (id, body) for id in range(first, last)])


def push(client: redis.Redis, messages: int, body: bytes, size: int = 500) -> float:
    """Push messages that are made already; returns the seconds it took."""
    batch = [b"%d:%b" % (id, body) for id in range(1, size + 1)]
    began = time.perf_counter()
    for _ in range(messages // size):
        client.rpush(QUEUE, *batch)
    return time.perf_counter() - began


class Mover:
    """Moves batches list → temp hash → final hash."""

    def __init__(self, client: redis.Redis, name: str, size: int) -> None:
        self._client = client
        self._sha = client.script_load(MOVE)
        self._keys = (QUEUE, f"bare:temp:{name}", FINAL)
        self._size = size
        self._settled: list[bytes] = []

    def step(self) -> int:
        """Settle the batch in hand and take the next one; returns its length."""
        batch = self._client.evalsha(self._sha, 3, *self._keys, self._size, *self._settled)
        self._settled = []
        for message in batch:
            self._settled += message.split(b":", 1)
        return len(batch)

    def drain(self) -> float:
        """Move everything; returns the seconds it took."""
        began = time.perf_counter()
        while self.step():
            pass
        return time.perf_counter() - began


def generating(url: str, messages: int, body: bytes) -> Callable[[], None]:
    """A member of a crew that pushes everything."""
    client = redis.Redis.from_url(url)
    client.ping()

    def act() -> None:
        fill(client, messages, body)

    return act


def moving(url: str, name: str, messages: int, size: int) -> Callable[[], None]:
    """A member of a crew that moves batches until all messages are in the final hash."""
    client = redis.Redis.from_url(url)
    mover = Mover(client, name, size)

    def act() -> None:
        while True:
            if not mover.step():
                if client.hlen(FINAL) >= messages:
                    return
                time.sleep(0.0005)

    return act


def draining(url: str, name: str, size: int) -> Callable[[], float]:
    """A member of a crew that moves what is there."""
    mover = Mover(redis.Redis.from_url(url), name, size)
    return mover.drain
