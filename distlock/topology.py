"""Servers that fail over: the URLs of Sentinel and of a Cluster, and the clients for them.

    redis+sentinel://[user:password@]host:port,host:port/service[/db][?sentinel_password=...]
    redis+cluster://[user:password@]host:port,host:port

Rules:

- `rediss+...` means TLS, to the sentinels, too. User, password and the options of the query are
  those of redis-py's own URLs, and are for the servers; `sentinel_username` and `sentinel_password`
  are for the sentinels.
- A client that is made here has asked nobody yet. It asks where the servers are when a connection
  is made, and again after each that broke.
- A client of redis.asyncio is one event loop's. Between two questions it keeps no connection open,
  and no client keeps one to a sentinel.
- What the sentinels say, or that none answers, is one short line without the addresses' details.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.connection
import redis.sentinel
from redis import exceptions as said
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.retry import Retry

from .errors import UsageError
from .io import AsyncClient, Mutex, SyncClient
from .text import mask

_read_url: Any = redis.connection.parse_url
_node: Any = redis.cluster.ClusterNode
_async_node: Any = redis.asyncio.cluster.ClusterNode
PORTS = {"sentinel": 26379, "cluster": 6379}
REFUSED = "the sentinels refuse user or password"
ASKING = 0.5
"""Seconds for which a sentinel may be silent: there are others."""


@dataclass(frozen=True)
class Topology:
    """What a URL of Sentinel or of a Cluster says.

    Attributes:
        kind: sentinel or cluster.
        hosts: where to ask, host and port each.
        service: the service's name, "" for a Cluster.
        options: for the connections to the servers.
        asking: for those to the sentinels.
    """

    kind: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any]
    asking: dict[str, Any]

    def client(self, timeout: float, connect_timeout: float) -> SyncClient:
        """A client; nothing is sent yet. See connect.connect."""
        times = {"socket_timeout": timeout, "socket_connect_timeout": connect_timeout}
        how = times | self.options
        if self.kind == "cluster":
            nodes = [_node(*host) for host in self.hosts]
            return _Cluster(startup_nodes=nodes, **how)
        sentinels: Any = _Sentinels(self.hosts, sentinel_kwargs=self.asking)  # type: ignore[no-untyped-call]
        made: redis.Redis = sentinels.master_for(self.service, retry=_never(), **how)
        return made

    def async_client(self, timeout: float, connect_timeout: float) -> AsyncClient:
        """A client of redis.asyncio, for one event loop."""
        times = {"socket_timeout": timeout, "socket_connect_timeout": connect_timeout}
        how = times | self.options
        if self.kind == "cluster":
            nodes = [_async_node(*host) for host in self.hosts]
            return _AsyncCluster(startup_nodes=nodes, require_full_coverage=False, **how)
        sentinels: Any = _AsyncSentinels(  # type: ignore[no-untyped-call]
            self.hosts, sentinel_kwargs=self.asking
        )
        made: redis.asyncio.Redis = sentinels.master_for(self.service, **how)
        return made


def parse(url: str) -> Topology | None:
    """What a URL of Sentinel or of a Cluster says; None for a URL of one server.

    Raises:
        UsageError: it cannot be used.
    """
    scheme = re.match(r"(rediss?)\+(sentinel|cluster)://", url)
    if scheme is None:
        return None
    plain, kind = scheme.groups()
    try:
        parts = urlsplit(url)
        user, at, named = parts.netloc.rpartition("@")
        hosts = tuple(_host(text, PORTS[kind]) for text in named.split(","))
        service, db = _path(kind, parts.path)
        options = _options(f"{plain}://{user}{at}host/{db}?{parts.query}")
        return _checked(kind, hosts, service, options)
    except (ValueError, TypeError, said.RedisError) as error:
        told = str(error) if isinstance(error, _Wrong) else SPECIAL
        raise UsageError(f"{mask(url)!r} cannot be used: {told}") from None


SPECIAL = (
    "hosts are written host:port,host:port with ports from 1 to 65535, and in a password special "
    "characters like %2F for /"
)


class _Wrong(ValueError):
    """What is wrong with a URL, fit to be shown."""


def _host(text: str, port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+)(?::(\d{1,5}))?", text)
    number = int(found[2] or port) if found else 0
    if not found or not 0 < number < 65536:
        raise ValueError(text)
    return unquote(found[1].strip("[]")), number


def _path(kind: str, path: str) -> tuple[str, str]:
    """The service and the database's number."""
    words = [unquote(word) for word in path.split("/")[1:]]
    service = words.pop(0) if kind == "sentinel" and words else ""
    if kind == "sentinel" and not service:
        raise _Wrong("the service's name stands after the hosts: host:26379/mymaster")
    db = words[0] if words else ""
    if len(words) > 1 or not re.fullmatch(r"\d*", db):
        raise _Wrong("the database after / is a number")
    return service, db


def _options(url: str) -> dict[str, Any]:
    """What redis-py reads from a URL of one server."""
    try:
        return dict(_read_url(url))
    except ValueError as error:
        raise _Wrong(str(error)) from error


def _checked(
    kind: str, hosts: tuple[tuple[str, int], ...], service: str, options: dict[str, Any]
) -> Topology:
    """All of it, if connections can be made of that."""
    for unused in ("host", "port", "max_connections"):
        options.pop(unused, None)
    secure = options.pop("connection_class", None) is SSLConnection
    asking = {
        name: options.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in options
    }
    if kind == "cluster" and asking:
        raise _Wrong("sentinel_username and sentinel_password belong to redis+sentinel://")
    if kind == "cluster" and options.pop("db", 0):
        raise _Wrong("a Cluster has database 0 only: leave the number out")
    try:
        (SSLConnection if secure else Connection)(**options)
    except (ValueError, TypeError, said.RedisError) as error:
        raise _Wrong(f"{error}; see --help") from error
    if options.get("decode_responses"):
        raise _Wrong("decode_responses would change bytes: leave it out")
    if secure:
        options["ssl"] = True
        asking |= {name: value for name, value in options.items() if name.startswith("ssl")}
    times = {"socket_timeout": ASKING, "socket_connect_timeout": ASKING}
    return Topology(kind, hosts, service, options, asking | times | {"retry": _never()})


def _never() -> Retry:
    return Retry(NoBackoff(), 0)


# --- clients ---------------------------------------------------------------------------------


def _shortly(error: Exception, service: str, sentinels: int) -> Exception:
    """What the sentinels said, in short."""
    text = str(error)
    if re.search(r"AuthenticationError|NOAUTH|WRONGPASS|NOPERM", f"{type(error)} {text}"):
        return said.AuthenticationError(REFUSED)
    if len(re.findall(r" - \S*Error", text)) >= sentinels:
        return said.ConnectionError("no sentinel answers")
    return said.ConnectionError(f"the sentinels know no living primary of service {service!r}")


_LOST = (said.ConnectionError, said.ResponseError)


class _Sentinels(redis.sentinel.Sentinel):
    """Asks over connections that are closed afterwards: nobody else knows them."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the primary."""
        try:
            found: Any = super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except _LOST as error:
            raise _shortly(error, service_name, len(self.sentinels)) from None
        finally:
            for sentinel in self.sentinels:
                sentinel.connection_pool.disconnect(inuse_connections=False)
        return found[0], found[1]


class _AsyncSentinels(redis.asyncio.sentinel.Sentinel):
    """Asks over connections that are closed afterwards: a loop that ends leaves none."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the primary."""
        try:
            found: tuple[str, int] = await super().discover_master(service_name)
        except _LOST as error:
            raise _shortly(error, service_name, len(self.sentinels)) from None
        finally:
            for sentinel in self.sentinels:
                await sentinel.connection_pool.disconnect(inuse_connections=False)
        return found


class _Cluster(redis.RedisCluster):
    """Asks where the nodes are when it is first used, and again until somebody answers."""

    def __init__(self, *, startup_nodes: list[Any], **how: Any) -> None:
        self._startup_nodes = startup_nodes
        self._how = how
        self._beginning = Mutex()

    def __getattr__(self, name: str) -> Any:
        if name not in ("nodes_manager", "encoder"):  # what its methods need first
            raise AttributeError(name)
        with self._beginning:
            if name not in self.__dict__:
                try:
                    super().__init__(startup_nodes=self._startup_nodes, **self._how)
                except BaseException:
                    self._disconnect()  # nobody else knows them
                    raise
        return self.__dict__[name]

    def _disconnect(self) -> None:
        for node in self._startup_nodes:
            if node.redis_connection:
                node.redis_connection.close()

    def close(self) -> None:
        """Close its connections, if there are any."""
        if "nodes_manager" in self.__dict__:
            super().close()


class _Nodes(redis.asyncio.cluster.NodesManager):
    """Asks over connections that are closed afterwards: a loop that ends leaves none."""

    __slots__ = ()

    async def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Ask where the nodes are."""
        try:
            await super().initialize(*args, **kwargs)
        finally:
            for node in [*self.nodes_cache.values(), *self.startup_nodes.values()]:
                await node.disconnect()


class _AsyncCluster(redis.asyncio.RedisCluster):
    """Of the commands that the servers know it asks nothing, and it leaves nothing to be closed."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.nodes_manager.__class__ = _Nodes

    def __del__(self, *args: Any) -> None:
        """Say nothing: no connection is open."""

    async def initialize(self, *args: Any, **kwargs: Any) -> _AsyncCluster:
        """Ask where the nodes are, the first time."""
        if not self.nodes_manager.slots_cache:
            await self.nodes_manager.initialize()
        return self
