"""A Cluster under load whose primary is killed, or of which a slot moves to another node.

    python -m tests.faults.clusters            both, three times, on both servers
    python -m tests.faults.clusters --runs 1 --kind valkey

The load: in the shard that fails and in another one, each, a pipeline with a generator and a
handler, a lease that is taken and given back, and a cache that is written and read, all without a
pause.
Exit code 1 when a promise is broken.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import pairwise
from typing import NamedTuple

import click
import redis

from distlock import Cache
from distlock.keys import Keys
from tests.conftest import BINARIES
from tests.faults.load import Copies, Ticks, copies
from tests.nodes import Cluster
from tests.tools import partition, wait_until

LOAD = ("--messages", "100000000", "--interval", "0.0005")
BACK = 2.5
"""Seconds after a shard is back in which all that is in it goes on."""


class Values:
    """Sets a value in a cache and reads it back, again and again, in a thread.

    Args:
        url: of the Cluster.
        name: of the cache.
        key: of the value.

    Attributes:
        times: of each that was kept and read back.
        wrong: what was read although another value had been kept before.
    """

    def __init__(self, url: str, name: str, key: str) -> None:
        self.times: list[float] = []
        self.wrong: list[str] = []
        self._cache, self._key = Cache(url, name=name), key
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._ended:
            number += 1
            if not self._cache.set(self._key, number, expire=60):
                time.sleep(0.001)  # its node is left out
                continue
            read = self._cache.peek(self._key, number)
            if read != number:
                self.wrong.append(f"read {read} after {number} was set")
            self.times.append(time.monotonic())

    def longest_pause(self, since: float) -> float:
        """Seconds between two values, at most; of those after some (monotonic) time."""
        times = [at for at in self.times if at >= since]
        return max((b - a for a, b in pairwise(times)), default=0.0)

    def end(self) -> None:
        """End it."""
        self._ended = True
        self._thread.join()


class Fault(NamedTuple):
    """What one fault did; times are seconds.

    Attributes:
        away: until its shard was back, or the slots had moved.
        resumed: from then until all that is in it went on.
        usual: for which the other shard's lease or cache stood still before, at most.
        pause: for which they stood still from the fault on, at most.
        wrong: broken promises, in words.
    """

    away: float
    resumed: float
    usual: float
    pause: float
    wrong: list[str]


class Load:
    """The load in one shard.

    Args:
        cluster: the Cluster.
        name: of its pipeline.
        key: of its value in the cache.
        load: the copies of its pipeline.
    """

    def __init__(self, cluster: Cluster, name: str, key: str, load: Copies) -> None:
        self.keys = Keys(name)
        self.copies = load
        self.ticks = Ticks(cluster.url, self.keys.name + ".ticks", patience=30)
        self.values = Values(cluster.url, "cache", key)

    def numbers(self, client: redis.Redis) -> tuple[int, ...]:
        """What grows while all goes on: messages, results, tokens, values."""
        generated = stored = 0
        with suppress(redis.RedisError):  # it goes on in a moment
            generated = int(client.get(self.keys.sequence) or 0)
            stored = int(client.hget(self.keys.stats, "stored") or 0)
        return generated, stored, len(self.ticks.tokens), len(self.values.times)

    def goes_on(self, client: redis.Redis) -> None:
        """Wait until each of them has grown."""
        before = now = self.numbers(client)
        deadline = time.monotonic() + 30
        while not all(a > b for a, b in zip(now, before, strict=True)):
            assert time.monotonic() < deadline, f"stands still: from {before} to {now}"
            time.sleep(0.005)
            now = self.numbers(client)

    def longest_pause(self, since: float) -> float:
        """Seconds for which lease or cache stood still."""
        return max(self.ticks.longest_pause(since), self.values.longest_pause(since))

    def usual_pause(self) -> float:
        """The same while nothing fails, in a second."""
        time.sleep(1)
        return self.longest_pause(time.monotonic() - 1)

    def end(self, client: redis.Redis) -> list[str]:
        """End all of it; returns what promises were broken."""
        summaries = self.copies.end()
        self.ticks.end()
        self.values.end()
        wrong = list(self.values.wrong)
        wrong += (f"exit code {one['code']}" for one in summaries if one["code"])
        wrong += ["a token was repeated, or went back"] if self.ticks.repeated() else []
        try:
            partition(client, self.keys)
        except AssertionError as error:
            wrong.append(f"an id is not in exactly one place: {str(error)[:200]}")
        return wrong


def name_in(cluster: Cluster, shard: int, prefix: str = "p") -> str:
    """A name whose keys one shard has, and so the lease of that name with `.ticks` at its end."""

    def has(name: str) -> bool:
        slot = int(cluster.clients[0].cluster("KEYSLOT", name))
        return min(slot // 5461, 2) == shard

    return next(name for n in range(10_000) if has(name := f"{prefix}{n}") and has(f"{name}.ticks"))


@contextmanager
def loads(cluster: Cluster, number: int, *shards: int) -> Iterator[list[Load]]:
    """Load in some shards; each is at work when the block begins. Its names depend on a number."""
    with ExitStack() as stack:
        made = []
        for shard in shards:
            name = name_in(cluster, shard, f"load{number}-")
            load = stack.enter_context(copies(cluster.url, name, 2, *LOAD))
            key = cluster.keys(shard, number + 1)[number]
            made.append(Load(cluster, name, key, load))
        for shard, load in zip(shards, made, strict=True):
            load.goes_on(cluster.clients[shard])
        yield made


def kill(cluster: Cluster) -> Fault:
    """Kill the primary of shard 0; its replica is node 3."""
    with loads(cluster, 1, 0, 1) as (its, other):
        heir = cluster.clients[3]
        usual, began = other.usual_pause(), time.monotonic()
        cluster.servers[0].kill()
        wait_until(lambda: heir.info("replication")["role"] == "master", 30)
        back = time.monotonic()
        its.goes_on(heir)
        resumed = time.monotonic() - back
        time.sleep(0.5)
        pause = other.longest_pause(began - 0.1)
        wrong = its.end(heir) + other.end(cluster.clients[1])
    if resumed > BACK:
        wrong.append(f"went on {resumed:.1f} s after the shard was back")
    return Fault(back - began, resumed, usual, pause, wrong)


def reshard(cluster: Cluster) -> Fault:
    """Move the slots of the load in shard 0 to node 1, key by key, one after the other."""
    old, new = cluster.clients[:2]
    with loads(cluster, 0, 0, 2) as (its, other):
        usual, began = other.usual_pause(), time.monotonic()
        names = (its.keys.name, f"{its.keys.name}.ticks", f"cache:{cluster.keys(0, 1)[0]}")
        moved = sum(move(cluster, int(old.cluster("KEYSLOT", name))) for name in names)
        back = time.monotonic()
        its.goes_on(new)
        resumed = time.monotonic() - back
        time.sleep(0.5)
        pause = other.longest_pause(began - 0.1)
        wrong = its.end(new) + other.end(cluster.clients[2])
    if not moved:
        wrong.append("no key was moved")
    return Fault(back - began, resumed, usual, pause, wrong)


def move(cluster: Cluster, slot: int) -> int:
    """Move a slot from node 0 to node 1, a few keys at a time; returns how many keys there were."""
    (old, new), (source, target) = cluster.clients[:2], cluster.ids[:2]
    new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source)
    old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
    count = 0
    while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 3):
        where = ("127.0.0.1", cluster.ports[1], "", 0, 5000, "KEYS")
        old.execute_command("MIGRATE", *where, *keys)
        count += len(keys)
        time.sleep(0.01)  # so that others meet a slot of which a part has moved
    for client in (new, old, *cluster.clients[2:3]):
        client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target)
    return count


def made(kind: str) -> Cluster:
    """Three primaries with a replica each; on a busy machine nobody is taken for dead too soon.

    Without the option here all shards refuse while one is away, by Redis's default.
    """
    options = ("--cluster-require-full-coverage", "no")
    return Cluster(replicas=3, spread=True, kind=kind, timeout=2000, options=options)


WHAT = {"kill": kill, "reshard": reshard}
HEAD = (
    "server  what     runs  away, s: max  went on after, s: p50    max"
    "  others' pause, ms  before  wrong"
)


@click.command(help=__doc__)
@click.option("--runs", default=3, show_default=True)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(["valkey", "redis"]))
@click.option("--what", "whats", multiple=True, type=click.Choice(list(WHAT)))
def main(runs: int, kinds: tuple[str, ...], whats: tuple[str, ...]) -> None:
    """Run all that is asked for and print the table."""
    print("python -m tests.faults.clusters", *sys.argv[1:])
    print(HEAD, flush=True)
    wrong: list[str] = []
    for kind in kinds or tuple(kind for kind, binary in BINARIES.items() if binary):
        for what in whats or tuple(WHAT):
            done = []
            for _ in range(runs):
                with closing(made(kind)) as cluster:
                    done.append(WHAT[what](cluster))
            times = sorted(one.resumed for one in done)
            away = max(one.away for one in done)
            usual, pause = (max(one[n] for one in done) * 1000 for n in (2, 3))
            said = [text for one in done for text in one.wrong]
            print(
                f"{kind:7} {what:8} {runs:>4}  {away:>12.2f}  {times[len(times) // 2]:>21.2f} "
                f"{times[-1]:>6.2f}  {pause:>16.1f}  {usual:>7.1f}  {len(said):>5}",
                flush=True,
            )
            wrong += (f"{kind}, {what}: {text}" for text in said)
    for text in wrong:
        print(f"wrong: {text}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
