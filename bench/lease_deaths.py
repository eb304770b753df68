"""Rows about processes that die by SIGKILL, holding it or waiting for it, and about idle waiters.

Nobody is killed before the server shows what is wanted: that one holds it, that others stand in
line, that the watcher has seen the holder's connections.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from distlock.scripts import script

from .crew import Crew
from .lease_sides import KEYS, NAME, make, waits
from .peers import present
from .servers import Monitor, Server
from .table import Row, judged

KEY = {"ours": KEYS.lease, "redis-py": NAME, "redis-lock": f"lock:{NAME}", "pottery": NAME}


class Got(NamedTuple):
    """When an acquire returned: by the clock of the day, which is the server's, and monotonic."""

    wall: float
    monotonic: float


def _holding(url: str, kind: str, ttl: float, options: dict[str, Any]) -> Callable[[], None]:
    """A member that is ready when it holds it, and keeps it."""
    side = make(kind, url, ttl, **options)
    side.acquire()

    def act() -> None:
        signal.pause()
        side.release()

    return act


def _waiting(url: str, kind: str, ttl: float, options: dict[str, Any]) -> Callable[[], Got]:
    """A member that wants it."""
    side = make(kind, url, ttl, **options)

    def act() -> Got:
        side.acquire()
        got = Got(time.time(), time.monotonic())
        side.release()
        return got

    return act


def _until(true: Callable[[], object]) -> None:
    while not true():
        time.sleep(0.001)


# --- the holder dies ----------------------------------------------------------------------------


def takeover(server: Server, number: int) -> Iterator[Row]:
    """Milliseconds from the end of a dead holder's term to the return of a waiter's acquire."""
    late: dict[str, list[float]] = {}
    for kind in present("redis-py", "redis-lock", "ours"):
        ttl = 0.5 if kind == "ours" else 2.0
        times = number if kind == "ours" else max(number // 4, 3)
        late[kind] = [_taken_over(server, kind, ttl) for _ in range(times)]
    shown = f"{median(late['redis-py']):.1f}"
    what = "takeover after SIGKILL: ms after the ttl's end, p50, beside redis-py's Lock"
    yield judged(what, median(late["ours"]), "<=", 5.0, ".1f", shown)
    yield judged("  at most", max(late["ours"]), "<=", 15.0, ".1f", f"{max(late['redis-py']):.1f}")
    yield judged("  at least (never before the end)", min(late["ours"]), ">=", 0.0, ".1f")
    if its := late.get("redis-lock"):
        yield Row("  python-redis-lock's p50", f"{median(its):.1f}")
    early = [_taken_early(server) for _ in range(number)]
    what = "takeover with watch_connection: ms after the SIGKILL, ttl 10 s, "
    yield Row(what + "p50", "", f"{median(early):.0f}")
    yield judged("  at most", max(early), "<=", 100, ".0f")


def _taken_over(server: Server, kind: str, ttl: float) -> float:
    _reset(server)
    holder = Crew((_holding, (server.url, kind, ttl, {}))).start()
    waiter = Crew((_waiting, (server.url, kind, ttl, {}))).start()
    _until(lambda: waits(kind, server.client))
    if kind == "ours":  # which renews itself: any moment is as good as another
        time.sleep(random.uniform(0, ttl))
    holder.kill()
    end = server.client.execute_command("PEXPIRETIME", KEY[kind])  # type: ignore[no-untyped-call]
    got: Got = waiter.join().values[0]
    assert end > 0, "it was over before it was looked at"
    return got.wall * 1000 - float(end)


def _reset(server: Server) -> None:
    server.empty()
    server.client.config_resetstat()


def _taken_early(server: Server) -> float:
    _reset(server)
    args = (server.url, "ours", 10.0, {"watch_connection": True})
    holder = Crew((_holding, args)).start()
    _until(lambda: server.client.hexists(KEYS.lease, "connections"))
    waiter = Crew((_waiting, args)).start()
    _until(lambda: "cmdstat_client|list" in server.client.info("commandstats"))
    time.sleep(random.uniform(0, 0.1))
    killed = time.monotonic()
    holder.kill()
    got: Got = waiter.join().values[0]
    return (got.monotonic - killed) * 1000


# --- the first in line dies ---------------------------------------------------------------------


def dead_waiter(server: Server, number: int) -> Iterator[Row]:
    """Milliseconds from the release to the return of the second's acquire, the first being dead."""
    took = {
        kind: [_passed_over(server, kind) for _ in range(number)]
        for kind in present("redis-lock", "ours")
    }
    what = "first in line killed: ms of the hand-off to the next, at most, beside python-redis-lock"
    shown = f"{max(took['redis-lock']):.1f}" if "redis-lock" in took else ""
    yield judged(what, max(took["ours"]), "<=", 20, ".1f", shown)


def _passed_over(server: Server, kind: str) -> float:
    _reset(server)
    side = make(kind, server.url)
    side.acquire()
    waiters = []
    for number in (1, 2):
        waiters.append(Crew((_waiting, (server.url, kind, 10.0, {}))).start())
        _until(partial(waits, kind, server.client, number))
    waiters[0].kill()
    released = time.monotonic()
    side.release()
    got: Got = waiters[1].join().values[0]
    return (got.monotonic - released) * 1000


# --- nobody does anything -----------------------------------------------------------------------


def idle(server: Server, ttls: int) -> Iterator[Row]:
    """Commands that one waiter sends in a ttl while the holder, who renews itself, goes on."""
    sent = {kind: _idle(server, kind, ttls) for kind in present("redis-py", "redis-lock", "ours")}
    what = "idle waiter: commands a ttl of 1 s, beside redis-py's Lock"
    yield judged(what, sent["ours"], "<=", 2.0, ".2f", f"{sent['redis-py']:.2f}")
    if "redis-lock" in sent:
        yield Row("  python-redis-lock's", f"{sent['redis-lock']:.2f}")


def _idle(server: Server, kind: str, ttls: int) -> float:
    _reset(server)
    holder = Crew((_holding, (server.url, kind, 1.0 if kind == "ours" else 600.0, {}))).start()
    waiter = Crew((_waiting, (server.url, kind, 1.0, {}))).start()
    _until(lambda: waits(kind, server.client))
    monitor = Monitor(server.client)
    time.sleep(ttls)
    monitor.stop()
    waiter.kill()
    holder.kill()
    renewals = monitor.sent.count(f"EVALSHA {script('lease_renew').sha}")
    return (len(monitor.sent) - renewals) / ttls
