"""Servers with a zygote each, and the orders that are given to them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import redis

from tests.conftest import ROOT, Server

ANSWER = 30
"""Seconds for an answer: a machine that stands still for some seconds is another fault."""
INJECTOR = ROOT / "tests" / "faults" / "injector"


@dataclass(frozen=True)
class End:
    """How a child ended.

    Attributes:
        code: its exit code; negative: the signal that killed it.
        sent: requests it sent, None if it was killed.
        said: what it printed.
        errors: what it printed to stderr.
    """

    code: int
    sent: int | None
    said: str
    errors: str

    def told(self, word: str) -> list[str]:
        """What it said behind a word, each time."""
        lines = [line.split(" ", 1) for line in self.said.splitlines()]
        return [line[-1] for line in lines if line[0] == word]


class Worker:
    """One server, and a zygote whose children use it.

    Attributes:
        url: of the server.
        client: of it.
        folder: for files.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._server = Server(kind)
        self.url = f"{self._server.url}?socket_timeout={ANSWER}&socket_connect_timeout={ANSWER}"
        self.client = redis.Redis.from_url(self.url)
        self.folder = Path(tempfile.mkdtemp(prefix="dl-", dir="/tmp"))
        path = os.pathsep.join((str(INJECTOR), str(ROOT)))
        server = urlsplit(self.url).path
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            env={**os.environ, "PYTHONPATH": path, "DISTLOCK_FAULT_SERVER": server},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )

    def run(
        self,
        program: str,
        arguments: Sequence[str],
        fault: str = "",
        meanwhile: Callable[[], None] = lambda: None,
    ) -> End:
        """Run a program to its end in a child.

        Args:
            program: see programs.py.
            arguments: of it.
            fault: such as `17:half`; see the injector.
            meanwhile: called again and again until it has ended.
        """
        out = self.folder / "out"
        order = {"program": program, "arguments": arguments, "fault": fault, "out": str(out)}
        order["environment"] = {"REDIS_URL": self.url}
        assert self._zygote.stdin
        assert self._zygote.stdout
        self._zygote.stdin.write(json.dumps(order) + "\n")
        self._zygote.stdin.flush()
        while not select.select([self._zygote.stdout], [], [], 0.002)[0]:
            meanwhile()
        code, sent = json.loads(self._zygote.stdout.readline())
        return End(code, sent, out.read_text(), Path(f"{out}.err").read_text())

    def close(self) -> None:
        """End both."""
        assert self._zygote.stdin
        self._zygote.stdin.close()
        self._zygote.wait(40)
        assert self._zygote.stdout
        self._zygote.stdout.close()
        self.client.close()
        self._server.close()
        for file in self.folder.iterdir():
            file.unlink()
        self.folder.rmdir()


@contextmanager
def crew(kind: str, count: int) -> Iterator[list[Worker]]:
    """Some workers with a kind of server."""
    workers: list[Worker] = []
    try:
        for _ in range(count):
            workers.append(Worker(kind))
        yield workers
    finally:
        for worker in workers:
            worker.close()
