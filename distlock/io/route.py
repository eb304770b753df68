"""Where the connections come from: a client of redis-py, whatever server stands behind it.

Rules:

- Connections are our own, made as the client would make them: its pool, which others may have used
  up, is left alone, and its retries are off, for we send again within the caller's patience.
- A client is not held on to: when its owner lets it go, what was made from it goes with it. (A
  cluster's client is: it knows where the slots are.)
- A connection is closed when whoever made it is let go; see `tie`.
- On a cluster a connection goes to the node that has the key's slot. Then a subscription there
  hears what a script publishes there, at any version.
- Whoever asks a cluster anew where its nodes are asks the one last that has just failed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisClusterException
from redis.retry import Retry

from .base import DENIED

DROPPED = ("retry_on_error", "maint_notifications_pool_handler", "cache_config", "cache")
ANSWER = 5.0
"""Seconds after which an answer counts as lost, where the client says nothing else."""
SyncClient = redis.Redis | redis.RedisCluster
AsyncClient = redis.asyncio.Redis | redis.asyncio.RedisCluster


class Route:
    """Makes connections for one key.

    Args:
        client: how to reach the server.
        key: on a cluster, the key whose node is meant.
        node: on a cluster, the name of a node, instead of a key.

    Attributes:
        follows: another server may take the place of the one that is connected to.
    """

    def __init__(self, client: SyncClient, key: str = "", node: str = "") -> None:
        self._cluster: Any = client if isinstance(client, redis.RedisCluster) else None
        self._pool: Any = getattr(client, "connection_pool", None)
        self._key, self._node = key, node
        self._failed: str | None = None
        self.follows = self._cluster is not None or hasattr(self._pool, "sentinel_manager")

    def connection(self, **settings: Any) -> Any:
        """A new connection, with settings that are not the client's; nothing is sent yet."""
        pool = self._pool
        if self._cluster:
            cluster = self._cluster
            with _away():
                node = cluster.get_node(node_name=self._node) if self._node else None
                node = node or cluster.get_node_from_key(self._key)
                self._failed = node.name
                pool = cluster.get_redis_connection(node).connection_pool
        return pool.connection_class(
            **_plain(pool.connection_kwargs, Retry(NoBackoff(), 0), settings)
        )

    def moved(self) -> bool:
        """Ask a cluster where the slot is now; False when there is no cluster to ask."""
        if self._cluster:
            with _away():
                manager = self._cluster.nodes_manager
                manager.initialize(last_failed_node_name=self._failed)
        return self._cluster is not None


class AsyncRoute:
    """The same for redis.asyncio."""

    def __init__(self, client: AsyncClient, key: str = "", node: str = "") -> None:
        self._cluster = client if isinstance(client, redis.asyncio.RedisCluster) else None
        self._pool: Any = getattr(client, "connection_pool", None)
        self._key, self._node = key, node
        self._failed: str | None = None

    async def connection(self, **settings: Any) -> Any:
        """A new connection; see Route."""
        place = self._pool
        if self._cluster:
            with _away():
                await self._cluster.initialize()
                node = self._cluster.get_node(node_name=self._node) if self._node else None
                place = node or self._cluster.get_node_from_key(self._key)
                assert place is not None
                self._failed = place.name
        return place.connection_class(
            **_plain(place.connection_kwargs, AsyncRetry(NoBackoff(), 0), settings)
        )

    async def moved(self) -> bool:
        """See Route."""
        if self._cluster:
            with _away():
                manager = self._cluster.nodes_manager
                await manager.initialize(last_failed_node_name=self._failed)
        return self._cluster is not None


def parts(client: SyncClient) -> list[Route]:
    """A route to each server that has a part of the keys: a Cluster's primaries, or the one."""
    if not isinstance(client, redis.RedisCluster):
        return [Route(client)]
    with _away():
        primaries: list[Any] = client.get_primaries()  # type: ignore[no-untyped-call]
    return [Route(client, node=node.name) for node in primaries]


def tie(connection: Any, owner: object) -> Callable[[], Any]:
    """Close a connection when its owner is let go.

    It would close itself. But when both are in a cycle of references, its socket may be collected
    first, and then Python warns of a socket left open.

    Returns:
        What closes it before that; doing so twice changes nothing.
    """
    close = weakref.finalize(owner, connection.disconnect)
    close.atexit = False
    return close


@contextmanager
def _away() -> Iterator[None]:
    """A cluster of which no node answers, or none has the slot, is away like any server."""
    try:
        yield
    except RedisClusterException as error:
        if isinstance(error.__cause__, DENIED):
            raise error.__cause__ from None
        raise ConnectionError(str(error)) from error


def _plain(kwargs: dict[str, Any], retry: object, settings: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in kwargs.items() if name not in DROPPED}
    for name in ("socket_timeout", "socket_connect_timeout"):
        kept[name] = kept.get(name) or ANSWER
    ours = {"retry": retry, "decode_responses": False, "health_check_interval": 0}
    return kept | ours | {"maint_notifications_config": None} | settings
