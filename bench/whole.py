"""Rows about the whole job: its time with and without append-only file, memory on both sides."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from distlock.source import FileSource
from distlock.worker import Settings

from . import bare, ours
from .crew import Crew
from .servers import Server
from .table import Row, beside, compared, judged

HAND = 500


class Ran(NamedTuple):
    """One run: seconds, bytes the server has in use for it, and the most a copy had resident."""

    seconds: float
    kept: int
    resident: float


def _bare(kind: str, unix: bool, aof: bool, messages: int) -> Ran:
    with Server(kind, unix, aof) as server:
        before = server.memory()
        movers = [(bare.moving, (server.url, name, messages, HAND)) for name in "ab"]
        crew = Crew((bare.generating, (server.url, messages, ours.BODY)), *movers)
        took = crew.start().join().seconds
        assert server.client.hlen(bare.FINAL) == messages
        return Ran(took, server.memory() - before, 0.0)


def _ours(kind: str, unix: bool, aof: bool, messages: int) -> Ran:
    with Server(kind, unix, aof) as server:
        before = server.memory()
        settings = Settings(messages=messages)
        crew = Crew(*((ours.running, (server.url, name, settings)) for name in "abc"))
        values, took = crew.start().join()
        stored = int(server.client.hget(ours.KEYS.stats, "stored") or 0)
        assert stored == messages
        return Ran(took, server.memory() - before, max(value[1] for value in values))


def job(kind: str, unix: bool, rounds: int, messages: int) -> Iterator[Row]:
    """Generator and two handlers against one bare RPUSH and two bare movers, in three processes."""
    runs: dict[tuple[str, bool], list[Ran]] = {}
    for _ in range(rounds):
        for aof in (False, True):
            runs.setdefault(("bare", aof), []).append(_bare(kind, unix, aof, messages))
            runs.setdefault(("ours", aof), []).append(_ours(kind, unix, aof, messages))
    took = {key: [ran.seconds for ran in rans] for key, rans in runs.items()}
    what = f"{messages:,} messages, 3 processes: seconds"
    its, its_aof, mine, mine_aof = (took[n, aof] for n in ("bare", "ours") for aof in (False, True))
    yield compared(what, its, mine, "<=", 1.5, ".2f")
    yield compared("the same with append-only file", its_aof, mine_aof, "<=", 1.2, ".2f")
    yield compared("ours: with append-only file against without (as bare)", mine, mine_aof,
                   "<=", 1.7, ".2f")  # fmt: skip
    yield beside("for comparison: bare with against bare without", its, its_aof, ".2f")[0]
    yield from _memory(runs["bare", False], runs["ours", False], messages)


def _memory(its: list[Ran], mine: list[Ran], messages: int) -> Iterator[Row]:
    kept, ours_kept = ([ran.kept / messages for ran in rans] for rans in (its, mine))
    what = "server bytes a stored message of 90"
    yield compared(what, kept, ours_kept, "<=", 1.1, ".1f")
    most = max(ran.resident for ran in mine)
    yield judged(f"resident MB of a copy after {messages:,}, at most", most, "<=", 60, ".0f")


def queued(kind: str, unix: bool, messages: int) -> Iterator[Row]:
    """Bytes of server memory for one queued message, above its body."""
    above = []
    for fill in (_fill_bare, _fill_ours):
        with Server(kind, unix) as server:
            fill(server, 1_000)  # scripts and buffers are there before
            server.empty()
            before = server.memory()
            fill(server, messages)
            above.append((server.memory() - before) / messages - len(ours.BODY))
    what = "server bytes a queued message, above its body"
    yield judged(what, above[1], "<=", 20, ".1f", f"{above[0]:.1f}")


def _fill_bare(server: Server, messages: int) -> None:
    bare.fill(server.client, messages, ours.BODY)


def _fill_ours(server: Server, messages: int) -> None:
    ours.fill(server.url, messages)


def wide(server: Server, number: int) -> Iterator[Row]:
    """Resident megabytes of copies whose messages are lines of 1 MB, and of 16 MB."""
    for megabytes, lines in ((1, number), (16, number // 5)):
        server.empty()
        with tempfile.NamedTemporaryFile(delete=False) as file:
            for _ in range(lines):
                file.write(b"x" * (megabytes * 2**20 - 1) + b"\n")
        try:
            members = [(_wide, (server.url, name, file.name)) for name in "ab"]
            values = Crew(*members).start().join().values
        finally:
            os.unlink(file.name)
        now, most = (max(value[i] for value in values) for i in (0, 1))
        what = f"resident MB of a copy after {lines} lines of {megabytes} MB, at most"
        yield judged(what, most, "<=", 60, ".0f", "")
        yield Row("the same at the end", "", f"{now:.0f}")


def _wide(url: str, name: str, path: str) -> ours.Running:
    return ours.running(url, name, Settings(), partial(_file, path))


def _file(path: str, seed: int) -> FileSource:
    return FileSource(path, 16 * 2**20)
