"""Rows about one process at full speed: draining, commands and server time, generating."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from distlock.source import RandomSource

from . import bare, ours
from .crew import Crew
from .servers import Monitor, Server, Spent
from .table import Row, beside, compared, judged


class Sizes(NamedTuple):
    """How much is measured."""

    rounds: int
    messages: dict[int, int]
    """Messages in one drain, by the size of a hand."""
    generated: int


FULL = Sizes(5, {1: 12_000, 100: 200_000, 1000: 300_000}, 400_000)
QUICK = Sizes(3, {1: 3_000, 100: 40_000, 1000: 60_000}, 100_000)

BARS = {1: 0.7, 100: 0.75, 1000: 0.8}


class Drain(NamedTuple):
    """One drain: messages a second, a CPU second; commands and server microseconds a message."""

    rate: float
    per_cpu: float
    commands: float
    usec: float


def _drain(messages: int, seconds: float, spent: Spent) -> Drain:
    calls, usec = spent.calls / messages, spent.script_usec / messages
    return Drain(messages / seconds, messages / spent.cpu, calls, usec)


def _bare_drain(server: Server, messages: int, size: int) -> Drain:
    server.empty()
    bare.fill(server.client, messages, ours.BODY)
    mover = bare.Mover(server.client, "a", size)
    spent = Spent(server.client)
    seconds = mover.drain()
    return _drain(messages, seconds, spent.stop())


def _our_drain(server: Server, messages: int, size: int, error_rate: float = 0.0) -> Drain:
    ours.fill(server.url, messages, attempts=1 if error_rate else 3)
    drainer = ours.Drainer(server.url, "a", size, error_rate)
    spent = Spent(server.client)
    drained = drainer.drain()
    assert drained.messages == messages
    return _drain(messages, drained.seconds, spent.stop())


def draining(server: Server, sizes: Sizes) -> Iterator[Row]:
    """One handler against the bare limit, for hands of 1, 100 and 1000."""
    for size, bar in BARS.items():
        messages = sizes.messages[size]
        its, mine, failing = [], [], []
        for _ in range(sizes.rounds):
            its.append(_bare_drain(server, messages, size))
            mine.append(_our_drain(server, messages, size))
            if size == 100:
                failing.append(_our_drain(server, messages, size, error_rate=0.05))
        yield from _rates(f"drain, hands of {size}", its, mine, bar)
        if failing:
            yield from _rates("drain, hands of 100, 5 % fail", its, failing, 0.6)
        if size > 1:
            yield from _cost(size, mine)


def _rates(what: str, its: list[Drain], mine: list[Drain], bar: float) -> Iterator[Row]:
    rates, per_cpu = ([[drain[i] for drain in drains] for drains in (its, mine)] for i in (0, 1))
    yield compared(f"{what}: messages/s", rates[0], rates[1], ">=", bar, ",.0f")
    yield beside("  messages a CPU second of both sides", per_cpu[0], per_cpu[1], ",.0f")[0]


def _cost(size: int, drains: list[Drain]) -> Iterator[Row]:
    commands = median(drain.commands for drain in drains)
    usec = median(drain.usec for drain in drains)
    bar = {100: 0.2, 1000: 0.03}[size]
    yield judged("  commands a message, with those inside", commands, "<=", bar, ".3f")
    yield judged("  server us a message", usec, "<=", 4.0, ".2f")


def sent(server: Server) -> Iterator[Row]:
    """Commands that a handler sends for each hand; the one that finds nothing is a hand, too."""
    for _ in range(2):  # the first run may have to load the scripts
        ours.fill(server.url, 5_000)
        drainer = ours.Drainer(server.url, "a", 100)
        monitor = Monitor(server.client)
        hands = drainer.drain().hands + 2  # one found nothing, one was the goodbye
        monitor.stop()
    yield judged("commands sent for each hand", len(monitor.sent) / hands, "<=", 1.0, ".2f")


def pair(server: Server, sizes: Sizes) -> Iterator[Row]:
    """Two processes against one: the figure of one stands where that of bare stands elsewhere."""
    for size in (100, 1000):
        messages = sizes.messages[size]
        rates: dict[tuple[str, str], list[float]] = {}
        for _ in range(sizes.rounds):
            for names in ("a", "ab"):
                ran = (
                    _processes(server, messages, size, names),
                    _movers(server, messages, size, names),
                )
                rates.setdefault(("ours", names), []).append(messages / ran[0])
                rates.setdefault(("bare", names), []).append(messages / ran[1])
        what = f"two handlers against one, hands of {size}: messages/s"
        one, two = rates["ours", "a"], rates["ours", "ab"]
        if size == 100:
            yield compared(what, one, two, ">=", 1.4, ",.0f")
        else:
            yield beside(what, one, two, ",.0f")[0]
        what = "  for comparison: two bare movers against one"
        yield beside(what, rates["bare", "a"], rates["bare", "ab"], ",.0f")[0]


def _processes(server: Server, messages: int, size: int, names: str) -> float:
    ours.fill(server.url, messages)
    members = [(ours.draining, (server.url, name, size)) for name in names]
    return Crew(*members).start().join().seconds


def _movers(server: Server, messages: int, size: int, names: str) -> float:
    server.empty()
    bare.fill(server.client, messages, ours.BODY)
    members = [(bare.draining, (server.url, name, size)) for name in names]
    return Crew(*members).start().join().seconds


def generating(server: Server, sizes: Sizes) -> Iterator[Row]:
    """A copy's own loop, 500 a script, against a bare RPUSH of 500 ready messages."""
    number, its, mine, random = sizes.generated, [], [], []
    for _ in range(sizes.rounds):
        server.empty()
        its.append(number / bare.push(server.client, number, ours.BODY))
        mine.append(number / ours.generate(server.url, number, ours.Ready()))
        random.append(number / ours.generate(server.url, number, RandomSource(0)))
    shown, rate = f"{median(its):,.0f}", median(mine)
    yield judged("generate, 500 a script: messages/s", rate, ">=", 800_000, ",.0f", shown)
    yield compared("the same as a ratio (0.38 = 800k of 2.1M)", its, mine, ">=", 0.38, ",.0f")
    yield beside("the same with random text", its, random, ",.0f")[0]
