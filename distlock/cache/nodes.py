"""The nodes of a cache: who has a key, who is left out, and when they are used again.

Rules:

- A node is a server (also behind Sentinel), or a Cluster. Names decide who has which keys, so all
  processes give their nodes the same names: host:port/db, or the name that the user gives.
- The part of a node that is left out goes to the others by the ring's order; values live there for
  `gutter_expire` at most.
- A Cluster is one node in the ring; each of its shards is left out and tried alone. It has no
  substitute for a shard but another node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakMethod

import redis
import redis.asyncio
from redis.exceptions import RedisClusterException, RedisError

from ..connect import checked
from ..errors import NodesUnreachable, UsageError
from ..io import AsyncClient, SyncClient
from ..ring import Ring
from ..topology import parse
from .member import Hubs, Member, Owed, Shard

MOST = 50
"""Times that one call is sent elsewhere, before all nodes are taken to be unreachable: a slot that
does not end to move."""


@dataclass(frozen=True)
class Node:
    """A node of a cache.

    Attributes:
        server: a URL (`redis://`, `rediss://`, `unix://`, `redis+sentinel://`, `redis+cluster://`),
            or a client of redis-py: redis.Redis, also one from Sentinel, redis.RedisCluster, or the
            same of redis.asyncio.
        weight: its share of the keys, relative to the others'.
        name: by which all processes know it; by default where it is: host:port/db or a path.

    Raises:
        UsageError: one of them cannot be used.
    """

    server: str | SyncClient | AsyncClient
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        weight = self.weight
        good = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not good or not 0.01 <= weight <= 1000:
            raise UsageError(f"weight {weight!r} of a node cannot be used: take 0.01 to 1000")
        if not isinstance(self.name, str):
            raise UsageError(f"name {self.name!r} of a node is no text: give a str")
        if isinstance(self.server, str):
            checked(self.server)  # redis-py's own error may quote a part of the password
        object.__setattr__(self, "name", self.name or where(self.server))


class Reach(NamedTuple):
    """How a cache of one face comes to its nodes.

    Attributes:
        client: the client for a URL.
        hub: what this process shares on a client's server, or on a Cluster's shard: its third.
    """

    client: Callable[[str], Any]
    hub: Callable[[Any, str, str], Hubs]


def where(server: Any) -> str:
    """A server's name, without user and password."""
    if isinstance(server, str):
        if there := parse(server):
            return f"{there.service}/{there.options.get('db', 0)}" if there.service else "cluster"
        return where(redis.ConnectionPool.from_url(server))
    if isinstance(server, redis.RedisCluster | redis.asyncio.RedisCluster):
        return "cluster"
    pool = getattr(server, "connection_pool", server)
    kwargs = getattr(pool, "connection_kwargs", {})
    place = getattr(pool, "service_name", None) or kwargs.get("path")
    place = place or f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}"
    return f"{place}/{kwargs.get('db') or 0}"


class Nodes:
    """All nodes of a cache.

    Args:
        nodes: as the user gave them.
        reach: how to come to them.
        timeout: seconds for an answer.
        on_death: called when a member is left out.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        reach: Reach,
        timeout: float,
        on_death: WeakMethod[Callable[[], None]],
    ) -> None:
        names = [node.name for node in nodes]
        if not nodes:
            raise UsageError("a cache needs a node: give a URL or a client")
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(f"node {twice.pop()!r} is given twice: leave one out, or name them")
        self._nodes = nodes
        self._reach = reach
        self._timeout = timeout
        self._on_death = on_death
        self._ring = Ring(names, [node.weight for node in nodes])
        self.reset()

    def reset(self) -> None:
        """Begin anew, as a process that was forked does."""
        self._servers: dict[int, tuple[Any, bool]] = {}
        self._members: dict[tuple[int, str], Member] = {}
        self._owed: dict[int, Owed] = {}

    async def of(self, key: str, place: str, downs: int = 0) -> tuple[Member, bool]:
        """Who serves a key, and whether it is its owner.

        Args:
            key: the user's.
            place: the value's key on a node.
            downs: how often a member that was named did not serve.

        Raises:
            NodesUnreachable: all are left out.
            MemberDown: look again.
        """
        owner = await self.owner(key, place)
        if not owner.down and downs <= MOST:
            if owner.owed:
                await owner.settle(place)
            return owner, True
        for index in self._ring.order(key)[1:]:
            member = await self._member(index, place)
            if not member.down and downs <= 2 * MOST:
                return member, False
        raise NodesUnreachable(
            f"no node of the cache answers for key {key!r}: start one of "
            f"{', '.join(node.name for node in self._nodes)}",
            key,
        )

    async def owner(self, key: str, place: str) -> Member:
        """Who has a key when all nodes serve."""
        return await self._member(self._ring.owner(key), place)

    async def _member(self, index: int, place: str) -> Member:
        server, cluster = self._server(index)
        shard = await _shard(server, place) if cluster else ""
        try:
            return self._members[index, shard]
        except KeyError:
            return self._make(index, shard, place)

    def _server(self, index: int) -> tuple[Any, bool]:
        """The client for a node, and whether it is one of a Cluster."""
        if index not in self._servers:
            server: Any = self._nodes[index].server
            server = self._reach.client(server) if isinstance(server, str) else server
            cluster = isinstance(server, redis.RedisCluster | redis.asyncio.RedisCluster)
            self._servers[index] = server, cluster
        return self._servers[index]

    def _make(self, index: int, shard: str, place: str) -> Member:
        node, (server, cluster) = self._nodes[index], self._server(index)
        of_cluster = None
        if cluster:
            owed = self._owed.setdefault(index, {})
            of_cluster = Shard(owed, lambda: not shard or shard in _primaries(server))
        name = f"{node.name} {shard}".strip()
        hub = self._reach.hub(server, "", shard)
        made = Member(name, hub, self._timeout, self._on_death, place, of_cluster)
        return self._members.setdefault((index, shard), made)


async def _shard(cluster: Any, place: str) -> str:
    """The name of the shard that has a key; "" when none is known: whoever is asked will say."""
    try:
        if isinstance(cluster, redis.asyncio.RedisCluster):
            await cluster.initialize()
        name: str = cluster.get_node_from_key(place).name
    except (RedisClusterException, RedisError, OSError):
        return ""
    return name


def _primaries(cluster: Any) -> set[str]:
    return {node.name for node in cluster.get_primaries()}
