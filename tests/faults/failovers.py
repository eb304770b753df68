"""Failovers of a service behind Sentinel, under load: what is lost, and how long it takes.

    python -m tests.faults.failovers            each kind of failover three times, on both servers
    python -m tests.faults.failovers --runs 1 --kind valkey --how kill

Kinds: the primary is killed; it is frozen for 4 s; its replicas are cut off 0.5 s or 3 s before it
is killed. Each without and with `--wait-replicas 1`. Under load: a generator and two handlers, and
a lease that is taken and given back all the time. Exit code 1 when a promise is broken.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import click
import redis

from distlock.keys import Keys
from tests.conftest import BINARIES
from tests.faults.load import TTL, Copies, Ticks, copies
from tests.faults.service import Service, followers, service
from tests.tools import partition, wait_until

KEYS = Keys("test")
HOW = {"kill": 0.0, "freeze": 0.0, "cut 0.5 s": 0.5, "cut 3 s": 3.0}
"""The kinds of failover; seconds for which the replicas were cut off before."""
TILT = 90.0
"""Seconds to wait for a failover: sentinels of a machine that is too busy do nothing for 30 s."""
FROZEN = 4.0
"""Seconds for which a frozen primary is frozen."""
LOAD = ("--messages", "100000000", "--interval", "0.0005", "--patience", "300")


@dataclass
class Failover:
    """What one failover did.

    Attributes:
        kind, how, replicas: which server, which failover, `--wait-replicas`.
        outage: seconds from the fault until there was a primary again, with the replicas that are
            waited for.
        resumed: seconds from the fault until messages were generated and stored again.
        ticks: tokens that were acknowledged; forgotten: of those, how many the new primary did not
            know of; repeated: how many were not above all before them.
        messages, results: that the copies say they cannot vouch for.
        stored: how many results there were at the end.
        wrong: broken promises, in words.
    """

    kind: str
    how: str
    replicas: int
    outage: float = 0.0
    resumed: float = 0.0
    ticks: int = 0
    forgotten: int = 0
    repeated: int = 0
    messages: int = 0
    results: int = 0
    stored: int = 0
    wrong: list[str] = field(default_factory=list)


def run(kind: str, how: str, replicas: int) -> Failover:
    """One failover under load, and what came of it."""
    told = Failover(kind, how, replicas)
    with service(kind) as servers:
        asked = ("--wait-replicas", str(replicas))
        with copies(servers.url, KEYS.name, 3, *LOAD, *asked) as load:
            ticks = Ticks(servers.url, "ticks", replicas)
            primary = servers.primary()
            with servers.client(primary) as client:
                wait_until(lambda: client.zcard(KEYS.handlers) == 2, 60)
                wait_until(lambda: int(client.hget(KEYS.stats, "stored") or 0) > 1000, 60)
            _fail(servers, primary, how)
            _follow(told, servers, primary, load, ticks)
    return told


def _fail(servers: Service, primary: int, how: str) -> None:
    if cut := HOW[how]:
        servers.cut(primary)
        time.sleep(cut)
    if how == "freeze":
        servers.freeze(primary)
    else:
        servers.servers[primary].kill()


def _follow(told: Failover, servers: Service, primary: int, load: Copies, ticks: Ticks) -> None:
    began = time.monotonic()
    try:
        now = wait_until(lambda: servers.successor(primary), TILT)
    except AssertionError:
        told.wrong.append(f"the sentinels did nothing:\n{servers.log()}")
        return
    with servers.client(now) as client:
        wait_until(ticks.stopped)
        told.forgotten = ticks.forgotten(client)
        if HOW[told.how]:
            servers.mend()
        wait_until(lambda: followers(client) >= told.replicas, TILT)
        told.outage = time.monotonic() - began
        ticks.go_on()
        _resumed(client)
        told.resumed = time.monotonic() - began
        if told.how == "freeze":
            time.sleep(max(FROZEN - told.resumed, 0))
            servers.thaw(primary)
            _resumed(client)
        _found(client)
        summaries = load.end()
        ticks.end()
        told.ticks, told.repeated = len(ticks.tokens), ticks.repeated()
        _judge(told, client, summaries)


def _resumed(client: redis.Redis) -> None:
    """Wait until messages are generated and stored, more than those that wait to be confirmed."""

    def numbers() -> tuple[int, int]:
        return int(client.get(KEYS.sequence) or 0), int(client.hget(KEYS.stats, "stored") or 0)

    before = numbers()
    wait_until(lambda: all(a > b + 20 for a, b in zip(numbers(), before, strict=True)), TILT)


def _found(client: redis.Redis) -> None:
    """Wait until each handler has had another hand, or its life has ended as it generates now.

    Who is told to end before it has found the new primary leaves what it has behind, and counts
    nothing.
    """

    def hand(handler: bytes) -> Any:
        return client.hget(KEYS.temp(handler.decode()), "#")

    wait_until(lambda: client.zcard(KEYS.handlers) > 1, TILT)
    hands = {handler: hand(handler) for handler in client.zrange(KEYS.handlers, 0, -1)}
    wait_until(lambda: all(hand(handler) != before for handler, before in hands.items()), TILT)


def _judge(told: Failover, client: redis.Redis, summaries: list[dict[str, Any]]) -> None:
    states = [summary["copy"] for summary in summaries if "copy" in summary]
    told.messages = sum(state["forgotten_messages"] for state in states)
    told.results = sum(state["forgotten_results"] for state in states)
    if len(states) < len(summaries):
        told.wrong.append("a copy could not end as it should")
    try:
        told.stored = len(partition(client, KEYS)["store"])
    except AssertionError as error:
        told.wrong.append(f"an id is not in exactly one place: {str(error)[:200]}")
    events = [event for summary in summaries for event in summary["events"]]
    begun = [event for event in events if event["event"] == "generator"]
    terms = sorted((event["time"], event["token"]) for event in begun)
    tokens = [token for _, token in terms]
    if tokens != sorted(set(tokens)) or told.repeated:
        told.wrong.append("a token was repeated, or went back")
    if told.replicas and (told.forgotten or told.messages or told.results):
        told.wrong.append("what replicas had confirmed was lost")
    if told.resumed > told.outage + 1 + TTL:
        told.wrong.append(f"resumed {told.resumed - told.outage:.1f} s after the outage")
    if codes := [summary["code"] for summary in summaries if summary["code"]]:
        told.wrong.append(f"copies ended with {codes}")


def line(all: list[Failover]) -> str:
    """One line of the table: failovers of one kind."""
    first, times = all[0], sorted(one.resumed for one in all)
    late = [one.resumed - one.outage for one in all]
    sums = [
        sum(getattr(one, name) for one in all)
        for name in ("ticks", "forgotten", "repeated", "messages", "results")
    ]
    numbers = "".join(f"{number:>10,}" for number in sums)
    return (
        f"{first.kind:7} {first.how:10} {first.replicas:>4} {len(all):>5}{numbers} "
        f"{times[len(times) // 2]:>8.2f}{times[-1]:>7.2f}{max(late):>9.2f} "
        f"{sum(len(one.wrong) for one in all):>6}"
    )


HEAD = (
    "                          ----- tokens of the lease ----  -- forgotten, the  "
    "-- resumed, seconds --\n"
    "server  failover   wait  runs acknowl.  forgotten repeated  messages   results"
    "      p50    max after it  wrong"
)


@click.command(help=__doc__)
@click.option("--runs", default=3, show_default=True)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(["valkey", "redis"]))
@click.option("--how", "hows", multiple=True, type=click.Choice(list(HOW)))
def main(runs: int, kinds: tuple[str, ...], hows: tuple[str, ...]) -> None:
    """Run all that is asked for and print the table."""
    print("python -m tests.faults.failovers", *sys.argv[1:])
    print(HEAD, flush=True)
    wrong: list[str] = []
    for kind in kinds or tuple(kind for kind, binary in BINARIES.items() if binary):
        for how in hows or tuple(HOW):
            for replicas in (0, 1):
                done = [run(kind, how, replicas) for _ in range(runs)]
                print(line(done), flush=True)
                wrong += (
                    f"{kind}, {how}, {replicas}: {what}" for one in done for what in one.wrong
                )
    for what in wrong:
        print(f"wrong: {what}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
