"""Processes that get ready, start together on a signal, and report what came of it.

The start of an interpreter and its imports never count: a member is ready when it has connected.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

Prepare = Callable[..., Callable[[], Any]]
"""Run in the member's process until it is ready; returns what to do at the signal."""


class Result(NamedTuple):
    """What the members returned, and the seconds from the signal to the end of the last one."""

    values: list[Any]
    seconds: float


def _member(pipe: Connection, prepare: Prepare, args: tuple[Any, ...]) -> None:
    act = prepare(*args)
    pipe.send("ready")
    pipe.recv()
    value = act()
    pipe.send((value, time.monotonic()))


class Crew:
    """Members at work; each is a Prepare and its arguments."""

    def __init__(self, *members: tuple[Prepare, tuple[Any, ...]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for prepare, args in members:
            mine, its = context.Pipe()
            process = context.Process(target=_member, args=(its, prepare, args), daemon=True)
            process.start()
            its.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def start(self) -> Crew:
        """Wait until all are ready, and give the signal."""
        for pipe in self._pipes:
            pipe.recv()
        self._began = time.monotonic()
        for pipe in self._pipes:
            pipe.send("go")
        return self

    def join(self, killed: bool = False) -> Result:
        """Wait for the end of all; where some are killed, the values of the others."""
        ends = [end for pipe in self._pipes if (end := _end(pipe, killed))]
        for process in self._processes:
            process.join()
        return Result([end[0] for end in ends], max(end[1] for end in ends) - self._began)

    def kill(self) -> None:
        """End all of them now."""
        for process in self._processes:
            process.kill()
            process.join()


def _end(pipe: Connection, killed: bool) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        if not killed:
            raise
        return None


def resident() -> tuple[float, float]:
    """Megabytes of this process in memory: now, and at most so far."""
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    now, most = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most
