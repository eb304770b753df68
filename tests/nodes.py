"""Servers for the tests of the cache: three nodes, a Cluster, one that says one thing."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import redis
import redis.asyncio

from distlock import AsyncCache, Cache, Node
from distlock.ring import Ring
from tests.caches import Threaded
from tests.conftest import BINARIES, Server
from tests.tools import wait_until

NAMES = ["n0", "n1", "n2"]


def free_port() -> int:
    """A TCP port that nobody listens on.

    Neither it nor the one that is 10,000 above, a Cluster's, is one that connections are given.
    """
    while True:
        port = 10_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


async def close(client: Any) -> None:
    """Close a client of either face, whose server may be dead."""
    with suppress(redis.RedisError, OSError):
        if hasattr(client, "aclose"):
            await client.aclose()
        else:
            client.close()


class Trio:
    """Three nodes and the caches on them.

    Args:
        face: sync or async.
        servers: the nodes.
    """

    def __init__(self, face: str, servers: list[Server]) -> None:
        self.face = face
        self.servers = servers
        self.urls = [server.url for server in servers]
        self.clients = [redis.Redis.from_url(url) for url in self.urls]

    def cache(self, *urls: str, **options: Any) -> Any:
        """A cache on all of them, or on other URLs, as one more process would make it."""
        urls = urls or tuple(self.urls)
        make: Any = redis.Redis if self.face == "sync" else redis.asyncio.Redis
        nodes = [Node(make.from_url(url), name=name) for name, url in zip(NAMES, urls, strict=True)]
        if self.face == "sync":
            return Threaded(Cache(*nodes, **options))
        return AsyncCache(*nodes, **options)

    def keys(self, owner: int, count: int) -> list[str]:
        """Keys of one node."""
        ring = Ring(NAMES, [1.0] * 3)
        keys = (f"k{n}" for n in range(100_000))
        return list(islice((key for key in keys if ring.owner(key) == owner), count))

    def heir(self, key: str) -> int:
        """The node that has a key while its own is away."""
        return Ring(NAMES, [1.0] * 3).order(key)[1]

    def value(self, node: int, key: str) -> Any:
        """What lies under a key on a node."""
        return self.clients[node].get(f"distlock:value:{{cache:{key}}}")

    def freeze(self, node: int) -> None:
        """Have one fall silent, with all that it has."""
        self.servers[node].process.send_signal(signal.SIGSTOP)

    def thaw(self, node: int) -> None:
        """Have it speak again."""
        self.servers[node].process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End all of them."""
        for client in self.clients:
            client.close()
        for server in self.servers:
            server.close()


class Cluster:
    """A Cluster of three shards, and replicas of the first.

    Args:
        replicas: how many the first shard has; or there are in all, the shards by turns.
        spread: whether all shards have replicas.
        kind: valkey or redis.
        timeout: milliseconds of silence after which a node counts as failed.
        options: of each node.
    """

    def __init__(
        self,
        replicas: int = 0,
        spread: bool = False,
        kind: str = "valkey",
        timeout: int = 1000,
        options: Sequence[str] = (),
    ) -> None:
        self.ports = [free_port() for _ in range(3 + replicas)]
        self._made: list[Any] = []
        self.servers = []
        for port in self.ports:
            words = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout), *options)
            self.servers.append(
                Server(kind, "--port", str(port), "--repl-diskless-sync-delay", "0", *words)
            )
        self.clients = [redis.Redis(port=port) for port in self.ports]
        self.ids = [client.cluster("MYID").decode() for client in self.clients]
        for n, slots in enumerate(((0, 5460), (5461, 10922), (10923, 16383))):
            self.clients[n].execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
        for client in self.clients[1:]:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.ports[0])
        wait_until(
            lambda: all(len(client.cluster("NODES")) >= len(self.ports) for client in self.clients)
        )
        for n, client in enumerate(self.clients[3:]):
            shard = self.ids[n % 3 if spread else 0]
            wait_until(lambda client=client, shard=shard: self._follows(client, shard))
        wait_until(self.is_whole)

    @property
    def url(self) -> str:
        """Of the Cluster; it names two nodes."""
        return f"redis+cluster://127.0.0.1:{self.ports[1]},127.0.0.1:{self.ports[2]}"

    def _follows(self, client: redis.Redis, shard: str) -> bool:
        with suppress(redis.ResponseError):
            client.execute_command("CLUSTER", "REPLICATE", shard)
        return client.info("replication").get("master_link_status") == "up"

    def is_whole(self) -> bool:
        """Whether all nodes say that all slots are served."""
        return all(client.cluster("INFO")["cluster_state"] == "ok" for client in self.clients)

    def cache(self, face: str, **options: Any) -> Any:
        """A cache of one face on it, as one more process would make it."""
        kind: Any = redis.RedisCluster if face == "sync" else redis.asyncio.RedisCluster
        self._made.append(kind(host="127.0.0.1", port=self.ports[1]))
        if face == "sync":
            return Threaded(Cache(self._made[-1], **options))
        return AsyncCache(self._made[-1], **options)

    def run(self, body: Coroutine[Any, Any, None]) -> None:
        """Run a test's body, and close what it has made in its event loop."""

        async def whole() -> None:
            try:
                await asyncio.wait_for(body, 40)
            finally:
                for client in self._made:
                    await close(client)

        asyncio.run(whole())

    def slot(self, key: str) -> int:
        """The slot of a user's key."""
        return int(self.clients[0].cluster("KEYSLOT", f"{{cache:{key}}}"))

    def keys(self, shard: int, count: int) -> list[str]:
        """Keys that one shard has at the beginning."""
        found = []
        for n in range(100_000):
            if min(self.slot(f"k{n}") // 5461, 2) == shard:
                found.append(f"k{n}")
            if len(found) == count:
                break
        return found

    def close(self) -> None:
        """End all of them."""
        for client in self.clients:
            client.close()
        for server in self.servers:
            server.close()


class Watched:
    """A primary and its replica that a sentinel watches, as the service `svc`.

    Attributes:
        port: of the sentinel.
        primary: the server.
        asked: a client of the sentinel.
        other: a client of the replica.
    """

    def __init__(self) -> None:
        main, second, self.port = (free_port() for _ in range(3))
        self.primary = Server("valkey", "--port", str(main))
        follow = ("--replicaof", f"127.0.0.1 {main}")
        self._replica = Server("valkey", "--port", str(second), *follow)
        conf = self.primary.folder / "sentinel.conf"
        conf.write_text(
            f"port {self.port}\ndir {self.primary.folder}\n"
            f"sentinel monitor svc 127.0.0.1 {main} 1\n"
            "sentinel down-after-milliseconds svc 500\nsentinel failover-timeout svc 2000\n"
        )
        command = [BINARIES["valkey"], str(conf), "--sentinel"]
        self._sentinel = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.asked = redis.Redis(port=self.port)
        self.other = redis.Redis.from_url(self._replica.url)

    def _knows_both(self) -> bool:
        try:
            return bool(self.asked.sentinel_master("svc")["num-slaves"])
        except redis.RedisError:
            return False

    def wait(self) -> None:
        """Wait until the replica follows and the sentinel knows of it."""
        wait_until(lambda: self.other.info("replication")["master_link_status"] == "up")
        wait_until(self._knows_both)

    def close(self) -> None:
        """End all three."""
        self.asked.close()
        self.other.close()
        self._sentinel.kill()
        self._sentinel.wait()
        self.primary.close()
        self._replica.close()


@contextmanager
def watched() -> Iterator[Watched]:
    """See Watched; ready."""
    service = Watched()
    try:
        service.wait()
        yield service
    finally:
        service.close()


class Saying:
    """A server that gives one answer to everything.

    Attributes:
        url: of it.
        answer: what it says.
        accepted: how many connections were made.
    """

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while self.answer and (said := connection.recv(65536)):
                connection.sendall(
                    self.answer * max(said.count(b"\r\n*") + said.startswith(b"*"), 1)
                )

    def close(self) -> None:
        """Accept no more."""
        self._listener.close()


@contextmanager
def saying(answer: bytes) -> Iterator[Saying]:
    """A server that gives one answer to everything; b"": it hangs up."""
    made = Saying(answer)
    try:
        yield made
    finally:
        made.close()
