"""Rows about cold stampedes: how often the getter is called, how late waiters have the value, what
is sent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from statistics import median, quantiles
from typing import Any

from .cache_sides import ASYNC, LARGE, SMALL, TITLES, Plan, make, make_async
from .crew import Crew
from .peers import present
from .servers import Monitor, Server
from .storm import Seen, Stampede, Storm, call, call_async, storm
from .table import Row, beside, compared, judged

OURS = ("ours", "ours async")
PEERS = present("dogpile", "cashews", "aiocache")
Delays = dict[str, list[float]]
GETTER = 0.237
NOTE = "bench:note"

# --- how often the getter is called -------------------------------------------------------------


def calls(server: Server, number: int) -> Iterator[Row]:
    """Calls of the getter in a cold stampede, the fewest and the most; callers with an error."""
    for processes, callers in ((16, 1), (8, 8)):
        for kind in (*OURS, *PEERS):
            mine = kind in OURS
            plan = Plan(0.05)
            seen = storm(server, kind, processes, callers, plan, number if mine else 5)
            yield _counted(f"{processes} x {callers}: calls of the getter", kind, seen, 1)
    slow = Plan(1.0, ttl=0.4)
    for kind in (*OURS, *PEERS):
        seen = storm(server, kind, 8, 1, slow, max(number // 10, 2) if kind in OURS else 2)
        yield _counted("8 x 1, getter takes 2.5 x the ttl: calls", kind, seen, 1)
    failing = Plan(0.1, fails=True)
    for kind in (*OURS, *PEERS):
        seen = storm(server, kind, 8, 1, failing, max(number // 10, 2) if kind in OURS else 2)
        yield _counted("8 x 1, getter fails: calls", kind, seen, 1, errors=8)


def _counted(
    what: str, kind: str, seen: Sequence[Stampede], bar: int, errors: int | None = None
) -> Row:
    """A row with the fewest and the most calls; `errors`: how many callers are to get one."""
    counts, wrong = [one.calls for one in seen], [one.errors for one in seen]
    shown = str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"
    what = f"{what}, {TITLES[kind]}, {len(seen)} stampedes"
    if errors is None and any(wrong):
        what += f" (errors in {sum(wrong)} callers)"
    if kind not in OURS:
        return Row(what, shown)
    ok = {*counts} == {bar} and {*wrong} == {errors or 0}
    return Row(what, "", shown, "", f"= {bar}", ok)


# --- whoever computes is killed -----------------------------------------------------------------


def killed(server: Server, number: int) -> Iterator[Row]:
    """Calls of the getter when the process of the first one is killed, and the time until then."""
    for kind in (*OURS, *present("dogpile", "cashews")):
        rounds = number if kind in OURS else 1
        counts, delays = zip(*[_killed(server, kind) for _ in range(rounds)], strict=True)
        stampedes = [Stampede(count, 0, []) for count in counts]
        yield _counted("8 x 1, whoever computes is killed: calls", kind, stampedes, 2)
        late = max(delays) * 1000
        what = "  ms from the SIGKILL to the next call, at most"
        if kind in OURS:
            yield judged(what, late, "<=", 300, ".0f")
        else:
            yield Row(what, f"{late:.0f}")


def _killed(server: Server, kind: str) -> tuple[int, float]:
    """Calls of the getter, and seconds from the death to the second one."""
    server.empty()
    member = _waiting_async if kind in ASYNC else _waiting
    plan = Plan(1.0, note=NOTE)
    crew = Crew(*[(member, (server.url, kind, plan))] * 8).start()
    while not (first := server.client.lrange(NOTE, 0, 0)):
        time.sleep(0.005)
    time.sleep(0.3)
    os.kill(int(first[0].split()[0]), signal.SIGKILL)
    died = time.monotonic()
    crew.join(killed=True)
    noted = [entry.split() for entry in server.client.lrange(NOTE, 0, -1)]
    return len(noted), float(noted[1][1]) - died


def _waiting(url: str, kind: str, plan: Plan) -> Callable[[], Seen]:
    get = make(kind, url, plan)
    return lambda: call(get, plan, "key")


def _waiting_async(url: str, kind: str, plan: Plan) -> Callable[[], Seen]:
    loop = asyncio.new_event_loop()
    get = loop.run_until_complete(make_async(kind, url, plan))
    return lambda: loop.run_until_complete(call_async(get, plan, "key"))


# --- how late the waiters are -------------------------------------------------------------------


def delays(server: Server, rounds: int, number: int) -> Iterator[Row]:
    """Milliseconds from the end of the getter to the value in the waiters' hands, 16 x 1."""
    for value, name in ((SMALL, "210 B"), (LARGE, "10 kB")):
        plan = Plan(GETTER, value=value)
        p50: Delays = defaultdict(list)
        p99: Delays = defaultdict(list)
        for at in range(rounds):
            for kind in ("bare", "bare async", *OURS, *present("dogpile", "cashews")):
                peer = kind in PEERS
                if (peer and at) or (value is LARGE and kind in (*PEERS, "bare async")):
                    continue
                found = storm(server, kind, 16, 1, plan, 6 if peer else number + 2)[2:]
                late = quantiles([delay for one in found for delay in one.delays], n=100)
                p50[kind].append(late[49] * 1000)
                p99[kind].append(late[98] * 1000)
        yield from _late(f"16 x 1, {name}: ms to the waiters, p50", p50, (1.3, 1.5))
        yield from _late(f"16 x 1, {name}: ms to the waiters, p99", p99, (1.2, 1.2))


def _late(what: str, late: Delays, bars: tuple[float, float]) -> Iterator[Row]:
    for kind, bar in zip(OURS, bars, strict=True):
        named = f"{what}, {TITLES[kind]} beside bare pub/sub"
        yield compared(named, late["bare"], late[kind], "<=", bar, ".2f")
    if its := late.get("bare async"):
        yield beside(f"  AsyncCache beside {TITLES['bare async']}", its, late["ours async"], ".2f")[
            0
        ]
    for kind in PEERS:
        if its := late.get(kind):
            ratio = median(late["ours"]) / median(its)
            shown = (f"{median(its):.0f}", f"{median(late['ours']):.2f}", f"{ratio:.3f}")
            yield Row(f"  Cache beside {TITLES[kind]}", *shown)


# --- what is sent -------------------------------------------------------------------------------


def sent(server: Server, number: int) -> Iterator[Row]:
    """Commands that the clients send for one stampede, by MONITOR, with warm connections."""
    for processes, callers in ((16, 1), (8, 8)):
        all_callers = processes * callers
        for kind in (*OURS, *PEERS):
            many = number if kind in OURS else 2
            counts = _sent(server, kind, processes, callers, many)
            what = f"{processes} x {callers}: commands sent for a stampede, {TITLES[kind]}"
            if kind not in OURS:
                yield Row(what, f"{median(counts):.0f}")
                continue
            bar = 4 * all_callers if callers == 1 else 130
            yield judged(f"{what}, at most", max(counts), "<=", bar, ".0f")


def _sent(server: Server, kind: str, processes: int, callers: int, number: int) -> list[int]:
    warm, counts = (10, []) if kind in OURS else (3, [])
    made: Any = Storm(server, kind, processes, callers, Plan(GETTER), warm + number)
    for at in range(warm + number):
        server.client.config_resetstat()
        monitor = Monitor(server.client)
        with made.once():
            pass
        monitor.stop(all=True)
        looks = server.client.info("commandstats").get("cmdstat_client|list", {"calls": 0})
        if at >= warm:
            counts.append(len(monitor.sent) + int(looks["calls"]))
    made.end()
    return counts
