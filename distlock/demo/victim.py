"""Who computes right now, as a node knows it; and killing that worker in the middle of it.

Rules:

- The flight of a key names the right to compute and two connections; the node's list of clients has
  the name that the worker gave to these. One that waits for it watches them: then it shows how soon
  a death is seen.
- The worker is stopped first, and killed only if the flight is still under way then: else it has
  just ended, and the kill would show nothing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import redis

from ..io import SyncClient
from ..keys import CacheKeys


class Computing(NamedTuple):
    """A computation that is under way.

    Attributes:
        node: on which the right was taken.
        key: what for.
        worker: the name that the connections of its process bear.
        flight: the words of its flight.
    """

    node: str
    key: str
    worker: str
    flight: bytes


def computing(
    clients: Mapping[str, SyncClient], cache: str, keys: Sequence[str]
) -> Iterator[Computing]:
    """What is being computed now while others wait for it, on the nodes that answer.

    Args:
        clients: of the nodes, by their names.
        cache: its name.
        keys: to look at.
    """
    places = [CacheKeys(cache).all(key) for key in keys]
    for node, client in clients.items():
        with suppress(redis.RedisError):
            flights: list[Any] = client.mget([its[1] for its in places])
            watched: list[Any] = client.mget([its[4] for its in places])
            for key, flight, watcher in zip(keys, flights, watched, strict=True):
                if flight and watcher and flight.split()[0] == watcher.split()[0]:
                    yield Computing(node, key, _name(client, flight), flight)


def _name(client: SyncClient, flight: bytes) -> str:
    """The name of whoever leads a flight, "" if nobody does."""
    connections = [int(id) for id in flight.split()[2:4]]
    listed = client.client_list(client_id=[*connections]) if connections else []
    return next((found["name"] for found in listed), "")


def kill_in_flight(pid: int, lands: Callable[[], bool]) -> float | None:
    """Kill a process unless what it computes has landed.

    Returns:
        The monotonic time at which it stood still, to be killed; None when it goes on.
    """
    os.kill(pid, signal.SIGSTOP)
    if lands():
        os.kill(pid, signal.SIGCONT)
        return None
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return at
