"""Rows about a handler that waits, and about one that died."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from statistics import median, quantiles

import redis

from distlock.io import Background, run
from distlock.pipeline import Message, Outcome
from distlock.scripts import script

from . import bare, ours
from .crew import Crew
from .servers import Monitor, Server
from .table import Row, judged

# --- wake-up: from the start of a publish to the call of the handler's function -----------------


def wake_up(server: Server, samples: int) -> Iterator[Row]:
    """Milliseconds from the start of a publish to the call of a resting handler's function."""
    its, mine = _bare_wake_ups(server, samples), _wake_ups(server, samples)
    for what, at in (("p50", 49), ("p99", 98)):
        bare_ms, ms = (quantiles(some, n=100)[at] * 1000 for some in (its, mine))
        row = judged(f"idle handler: wake-up ms, {what}", ms, "<=", 2.0, ".2f", f"{bare_ms:.2f}")
        yield row if what == "p99" else row._replace(bar="", ok=None)


def _bare_wake_ups(server: Server, samples: int) -> list[float]:
    server.empty()
    crew = Crew((_popping, (server.url, samples))).start()
    for _ in range(samples):
        while not _blocked(server.client):
            time.sleep(0.001)
        time.sleep(random.uniform(0.002, 0.010))
        server.client.rpush(bare.QUEUE, repr(time.monotonic()))
    found: list[float] = crew.join().values[0]
    return found


def _blocked(client: redis.Redis) -> int:
    return int(client.info("clients")["blocked_clients"])


def _popping(url: str, samples: int) -> Callable[[], list[float]]:
    client = redis.Redis.from_url(url, socket_timeout=None)
    client.ping()

    def pop() -> float:
        popped = client.blpop([bare.QUEUE])
        now = time.monotonic()
        assert popped is not None
        return now - float(popped[1])

    def act() -> list[float]:
        return [pop() for _ in range(samples)]

    return act


def _wake_ups(server: Server, samples: int) -> list[float]:
    leader = ours.lead(server.url, samples)
    crew = Crew((_woken, (server.url,))).start()
    for id in range(1, samples + 1):
        while not server.client.zcard(ours.KEYS.bell):
            time.sleep(0.001)
        time.sleep(random.uniform(0.002, 0.010))
        leader.generator.publish(id, [repr(time.monotonic()).encode()])
    found: list[float] = crew.join().values[0]
    return found


def _woken(url: str) -> Callable[[], list[float]]:
    found: list[float] = []

    def handle(message: Message) -> None:
        found.append(time.monotonic() - float(message.body))

    copy = ours.make_copy(url, "woken", function=handle)

    def act() -> list[float]:
        copy.run()
        return found

    return act


# --- idle: what a handler with nothing to do sends ----------------------------------------------


def idle(server: Server, seconds: float) -> Iterator[Row]:
    """Commands a second of one idle handler, while a generator elsewhere waits."""
    leader = ours.lead(server.url, 10, ttl=5.0)
    crew = Crew((_idling, (server.url,))).start()
    with Background(lambda: run(leader.lease.keep(leader.io)), 5 / 6):
        time.sleep(2)
        monitor = Monitor(server.client)
        time.sleep(seconds)
        monitor.stop()
    crew.kill()
    renewals = monitor.sent.count(f"EVALSHA {script('lease_renew').sha}")
    rate = (len(monitor.sent) - renewals) / seconds
    yield judged("idle handler: commands a second", rate, "<=", 1.2, ".2f")


def _idling(url: str) -> Callable[[], None]:
    copy = ours.make_copy(url, "idling")

    def act() -> None:
        copy.run()

    return act


# --- reclaim: the hand of a handler that died ---------------------------------------------------


def reclaim(server: Server, rounds: int, messages: int = 1000) -> Iterator[Row]:
    """A dead handler's whole hand, taken back in one script, then handled by another."""
    runs = [_reclaimed(server, messages) for _ in range(max(rounds, 5))]
    moved, stored = (median(run[i] * 1000 for run in runs) for i in (0, 1))
    what = f"reclaim {messages:,} messages of a dead handler: ms"
    yield judged(what, moved, "<=", 100, ".1f")
    yield Row("the same until another has stored them all: ms", "", f"{stored:.1f}")


def _reclaimed(server: Server, messages: int) -> tuple[float, float]:
    """Seconds for the script, and from its start until all messages are stored."""
    ours.fill(server.url, messages)
    dead, other = ours.Drainer(server.url, "dead", messages), ours.Drainer(server.url, "b", 500)
    hand = dead.handler.exchange(Outcome(), messages)
    assert hand is not None
    assert len(hand.messages) == messages
    server.client.zadd(ours.KEYS.handlers, {"dead": 1})
    began = time.perf_counter()
    assert other.handler.reclaim("dead") == messages
    moved = time.perf_counter() - began
    assert other.drain().messages == messages
    return moved, time.perf_counter() - began
