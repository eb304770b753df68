"""One worker of the cache's demo: asks for factorials in turn, and says what becomes of it.

Rules:

- On stdin `g` lets it go, `q` ends it after the call under way. When stdin ends, the demo itself
  was killed: the worker ends its servers and deletes its folder, so that nothing lives on.
- On stdout there is one JSON object a line for each thing that happens, in one write, with the
  time of the monotonic clock that all processes of the machine share.
- Its connections bear its name, so that whoever looks at a node knows who computes.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache import Cache, Node
from ..connect import connect
from ..errors import DistlockError
from ..io import SyncIO
from ..server import Embedded
from ..work import factorial

NAME = "factorials"
"""Of the cache."""
PAUSE = 0.2
"""Seconds between two calls."""
PATIENCE = 2.0
"""Seconds after which a node that is silent is left out. The nodes of the demo die, they are never
silent; but ten workers may keep the machine busy for longer than the default of 0.25 s."""
TTL = 5.0
"""Seconds of silence after which who computes is taken for dead, for the same reason."""


@dataclass(frozen=True)
class Plan:
    """What the demo is to show; times are seconds.

    Attributes:
        nodes: how many there are.
        workers: how many there are.
        first: the first number whose factorial is computed.
        count: how many numbers.
        expire: of each value.
        execution_limit: of each call.
        work: imitated work of each getter, on top.
        windows: lives of each value that are to be seen.
        store_value: keep the factorial itself, not only its number of bits.
    """

    nodes: int
    workers: int
    first: int
    count: int
    expire: float
    execution_limit: float
    work: float
    windows: int
    store_value: bool

    @property
    def keys(self) -> list[str]:
        """The keys: the numbers."""
        return [str(number) for number in range(self.first, self.first + self.count)]


def node_name(number: int) -> str:
    """The name of a node, counted from 1."""
    return f"node-{number}"


def worker_name(number: int) -> str:
    """The name of a worker's connections."""
    return f"worker-{number}"


def nodes_in(folder: Path, count: int) -> dict[str, Embedded]:
    """The nodes of a demo, by their names."""
    names = [node_name(number) for number in range(1, count + 1)]
    return {name: Embedded(folder / name) for name in names}


class Told(Cache):
    """A cache that knows on which node it computes.

    Attributes:
        node: where the right to compute was taken last.
    """

    node = ""

    async def _compute(self, call: Any, member: Any, own: bool, flight: Any) -> Any:
        self.node = member.name if member else ""
        return await super()._compute(call, member, own, flight)


class Worker:
    """One worker.

    Args:
        number: its own.
        plan: the demo's.
        folder: the demo's.
    """

    def __init__(self, number: int, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._chance = random.Random(number)
        self._embedded = nodes_in(folder, plan.nodes)
        urls = [f"{node.url}?client_name={worker_name(number)}" for node in self._embedded.values()]
        self._cache = Told(
            *[Node(url, name=name) for url, name in zip(urls, self._embedded, strict=True)],
            name=NAME,
            ttl=TTL,
            node_timeout=PATIENCE,
            gutter_expire=plan.expire,
        )
        self._io = SyncIO(connect(urls[0]), patience=0)

    def run(self) -> None:
        """Work until told to end."""
        word: bytes | None = os.read(0, 1)
        os.set_blocking(0, False)
        for key in self._turns():
            if word in (b"q", b""):
                break
            self._ask(key)
            self._io.sleep_now(PAUSE)
            word = _heard()
        if not word:
            self._clean_up()

    def _turns(self) -> Iterator[str]:
        """All keys again and again, each time in another order."""
        while True:
            yield from self._chance.sample(self._plan.keys, self._plan.count)

    def _ask(self, key: str) -> None:
        """Ask for one value."""
        before = self._cache.stats()
        say("asks", key=key)
        try:
            value = self._cache.get(
                key,
                lambda: self._compute(key),
                expire=self._plan.expire,
                execution_limit=self._plan.execution_limit,
            )
        except DistlockError as error:
            say("failed", key=key, text=str(error))
            return
        now = self._cache.stats()
        how = "waited" if now.misses > before.misses else "hit"
        say(
            "got",
            key=key,
            how="computed" if now.computed > before.computed else how,
            value=hash(value),
        )

    def _compute(self, key: str) -> int:
        """The getter."""
        say("computes", key=key, node=self._cache.node)
        value = factorial(int(key), self._plan.work)
        if not self._plan.store_value:
            value = value.bit_length()
        say("ends", key=key)
        return value

    def _clean_up(self) -> None:
        """The demo was killed: end what it has left."""
        for node in self._embedded.values():
            node.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _heard() -> bytes | None:
    """What the demo says: b"" when it is no longer there, None when it says nothing."""
    try:
        return os.read(0, 1)
    except BlockingIOError:
        return None


def say(what: str, **more: Any) -> None:
    """Tell the demo of something that happens now."""
    line = json.dumps({"what": what, "at": time.monotonic(), **more}) + "\n"
    os.write(1, line.encode())


class Telling(logging.Handler):
    """Passes on what the library logs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one line on."""
        say("log", text=record.getMessage())


def main() -> None:
    """Be the worker that the first argument describes."""
    said = json.loads(sys.argv[1])
    logging.getLogger("distlock").addHandler(Telling(logging.WARNING))
    Worker(said["number"], Plan(**said["plan"]), Path(said["folder"])).run()


if __name__ == "__main__":
    main()
