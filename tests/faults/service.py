"""A service behind Sentinel: one primary, two replicas, three sentinels, each a real process."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.conftest import BINARIES, Server
from tests.nodes import free_port
from tests.tools import wait_until

NAME = "svc"
DOWN_AFTER = 1000
"""Milliseconds of silence after which a sentinel takes a server for dead."""
PASSWORDS = {"servers": "of-the-servers", "sentinels": "of-the-sentinels"}


class Service:
    """One service; see the module.

    Args:
        kind: valkey or redis.
        locked: servers and sentinels want passwords, each another one.

    Attributes:
        servers: all three by their ports.
        url: the service's, for a pipeline.
    """

    def __init__(self, kind: str, locked: bool = False) -> None:
        self.kind = kind
        self._password = PASSWORDS["servers"] if locked else ""
        self._asked = PASSWORDS["sentinels"] if locked else ""
        ports = [free_port() for _ in range(6)]
        self._ports = ports[3:]
        self._folder = Path(tempfile.mkdtemp(prefix="dl-", dir="/tmp"))
        self.servers = {port: self._server(port, ports[0]) for port in ports[:3]}
        self._sentinels = [self._sentinel(port, ports[0]) for port in self._ports]
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        self.url = f"redis+sentinel://{hosts}/{NAME}"
        if locked:
            self.url = f"redis+sentinel://:{self._password}@{hosts}/{NAME}"
            self.url += f"?sentinel_password={self._asked}"

    def _server(self, port: int, primary: int) -> Server:
        options = ["--port", str(port), "--repl-diskless-sync-delay", "0"]
        options += ["--repl-ping-replica-period", "1", "--repl-backlog-size", "64mb"]
        if self._password:
            options += ["--masterauth", self._password]
        if port != primary:
            options += ["--replicaof", f"127.0.0.1 {primary}"]
        server = Server(self.kind, *options)
        if self._password:
            with redis.Redis(port=port) as client:
                client.config_set("requirepass", self._password)
        return server

    def _sentinel(self, port: int, primary: int) -> subprocess.Popen[bytes]:
        lines = [f"port {port}", f"dir {self._folder}", f"logfile {self._folder}/{port}.log"]
        lines.append(f"sentinel monitor {NAME} 127.0.0.1 {primary} 2")
        lines.append(f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER}")
        lines.append(f"sentinel failover-timeout {NAME} 3000")
        if self._password:
            lines.append(f"sentinel auth-pass {NAME} {self._password}")
            lines.append(f"requirepass {self._asked}")
        conf = self._folder / f"{port}.conf"
        conf.write_text("\n".join(lines) + "\n")
        command = [BINARIES[self.kind], str(conf), "--sentinel"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def client(self, port: int) -> redis.Redis:
        """A client of one server."""
        never = Retry(NoBackoff(), 0)
        return redis.Redis(
            port=port, password=self._password or None, socket_timeout=2, retry=never
        )

    def is_whole(self) -> bool:
        """Whether two replicas follow the primary, and all sentinels know that and each other."""
        with suppress(redis.RedisError):
            states = [self._state(port) for port in self._ports]
            with self.client(self.primary()) as client:
                following = followers(client)
            return following == 2 and all(
                state.get("num-other-sentinels") == "2"
                and state.get("num-slaves") == "2"
                and state.get("flags") == "master"
                for state in states
            )
        return False

    def asked(self) -> int:
        """How many connections there are to the sentinels; those of other sentinels have a name."""
        count = 0
        for port in self._ports:
            with redis.Redis(port=port, password=self._asked or None) as sentinel:
                count += sum(not one["name"] for one in sentinel.client_list()) - 1
        return count

    def _state(self, port: int) -> dict[str, str]:
        """What a sentinel knows of the service."""
        sentinel = redis.connection.Connection(port=port, password=self._asked or None, protocol=2)
        try:
            sentinel.connect()
            sentinel.send_command("SENTINEL", "MASTER", NAME)
            words = [word.decode() for word in sentinel.read_response()]
        finally:
            sentinel.disconnect()
        return dict(zip(words[::2], words[1::2], strict=True))

    def log(self) -> str:
        """The end of what each sentinel has said."""
        files = sorted(self._folder.glob("*.log"))
        return "\n".join(line for file in files for line in file.read_text().splitlines()[-15:])

    def primary(self) -> int:
        """The port of the primary, as the first sentinel has it."""
        return int(self._state(self._ports[0])["port"])

    def freeze(self, port: int) -> None:
        """Have a server fall silent, with all that it has."""
        self.servers[port].process.send_signal(signal.SIGSTOP)

    def thaw(self, port: int) -> None:
        """Have it speak again."""
        self.servers[port].process.send_signal(signal.SIGCONT)

    def cut(self, primary: int) -> None:
        """Cut the replicas off from the primary; they cannot connect to it again."""
        for port in self.servers:
            if port != primary:
                with self.client(port) as client:
                    client.config_set("masteruser", "nobody")
                    client.config_set("masterauth", "nothing")
        with self.client(primary) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")

    def mend(self) -> None:
        """Let replicas connect again."""
        for port in self.servers:
            with suppress(redis.RedisError), self.client(port) as client:
                client.config_set("masteruser", "")
                client.config_set("masterauth", self._password)

    def successor(self, before: int) -> int:
        """The port of another primary than the one before, which takes writes; 0 if none is."""
        for port in self.servers.keys() - {before}:
            with suppress(redis.RedisError), self.client(port) as client:
                if client.info("replication")["role"] == "master":
                    return port
        return 0

    def close(self) -> None:
        """End all of them."""
        for sentinel in self._sentinels:
            sentinel.kill()
            sentinel.wait()
        for server in self.servers.values():
            server.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def followers(primary: redis.Redis) -> int:
    """How many replicas follow a primary and have all that it had."""
    info = primary.info("replication")
    return sum(info.get(f"slave{n}", {}).get("state") == "online" for n in range(2))


@contextmanager
def service(kind: str, locked: bool = False) -> Iterator[Service]:
    """A service, ready; see Service."""
    made = Service(kind, locked)
    try:
        wait_until(made.is_whole, 90)
        yield made
    finally:
        made.close()
