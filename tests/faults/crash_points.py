"""Breaks every request of every run in every way, and says what came of it.

python -m tests.faults.crash_points [--server valkey] [--run handler] [--point 17] [--fault half]

Without a point all are tried: each request that the run sends, with each fault (see the injector).
A violation is printed with the command that shows it again. The exit code is 1 when there is one.
"""

from __future__ import annotations

import itertools
import os
import platform
import sys
import threading
import time
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.conftest import BINARIES
from tests.faults.crew import Worker, crew
from tests.faults.injector.sitecustomize import FAULTS
from tests.faults.runs import RUNS, Run, same

KILLED = -9
WORKERS = 2


@dataclass
class Result:
    """What came of a run's points.

    Attributes:
        run: its name.
        requests: that it sends when nothing is broken.
        points: requests that were broken, times faults.
        missed: points that the run did not come to.
        violations: a text for each.
        seconds: that it took.
    """

    run: str
    requests: int = 0
    points: int = 0
    missed: int = 0
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def line(self) -> str:
        """A line of the table."""
        numbers = f"{self.requests:8d} {self.points:7d} {self.missed:7d} {len(self.violations):11d}"
        return f"{self.run:20s} {numbers} {self.seconds:8.1f}"


HEAD = f"{'run':20s} requests  points  missed  violations  seconds"


def count(worker: Worker, kind: type[Run]) -> int:
    """How many requests a run sends at least when nothing is broken, which is checked, too."""
    attempt(worker, kind, "")  # the server learns the scripts
    sent = [attempt(worker, kind, "") or 0 for _ in range(2)]
    return min(sent)  # who waits for long looks now and then


def attempt(worker: Worker, kind: type[Run], fault: str) -> int | None:
    """One run with one fault; raises AssertionError when a promise is broken.

    Returns:
        The number of requests it sent, None when it was killed.
    """
    run = kind(worker, fault.partition(":")[2])
    try:
        end = worker.run(run.program, run.arguments(), fault, run.meanwhile)
        if end.code != KILLED:
            same("it ended with", end.code, 0) if end.code == 0 else _fail(end.code, end.errors)
        run.look(end)
        run.recover(end)
        run.check(end)
        return end.sent
    finally:
        run.close()


def _fail(code: int, errors: str) -> None:
    raise AssertionError(f"it ended with {code}: {errors[-800:]}")


def try_points(
    workers: Sequence[Worker], kind: type[Run], points: Iterable[int], faults: Sequence[str]
) -> Result:
    """Break a run at some points, with all workers; see Result."""
    result, began = Result(kind.name), time.monotonic()
    try:
        result.requests = count(workers[0], kind)
        for worker in workers[1:]:
            attempt(worker, kind, "")
    except Exception as error:
        result.violations.append(f"with nothing broken: {_what(error, workers[0], kind)}")
        return result
    wanted = list(points) or range(1, result.requests + 1)
    todo = itertools.product(wanted, faults)
    mutex = threading.Lock()

    def work(worker: Worker) -> None:
        while True:
            with mutex:
                point, fault = next(todo, (0, ""))
            if not point:
                return
            said = _try(worker, kind, point, fault)
            with mutex:
                result.points += said != "missed"
                result.missed += said == "missed"
                if said not in ("", "missed"):
                    result.violations.append(said)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.seconds = time.monotonic() - began
    return result


def _try(worker: Worker, kind: type[Run], point: int, fault: str) -> str:
    """Break one point; what is wrong then, "" or "missed"."""
    try:
        sent = attempt(worker, kind, f"{point}:{fault}")
    except Exception as error:
        return f"{_what(error, worker, kind)} --point {point} --fault {fault}"
    reached = sent is None or (fault == "lost" and sent >= point)
    return "" if reached else "missed"


def _what(error: Exception, worker: Worker, kind: type[Run]) -> str:
    """What is wrong, where it showed, and the command that shows it again."""
    where = traceback.extract_tb(error.__traceback__)[-2:]
    places = ", ".join(f"{frame.name}:{frame.lineno}" for frame in where)
    return (
        f"{type(error).__name__}: {error} ({places}); again: python -m tests.faults.crash_points "
        f"--server {worker.kind} --run {kind.name}"
    )


def _options() -> Namespace:
    parser = ArgumentParser(prog="python -m tests.faults.crash_points")
    parser.add_argument("--server", choices=[*BINARIES, "both"], default="both")
    parser.add_argument("--run", choices=list(RUNS), help="all, if none is named")
    parser.add_argument("--point", type=int, help="the number of a request; all, if none is named")
    parser.add_argument("--fault", choices=FAULTS, help="all, if none is named")
    parser.add_argument("--workers", type=int, default=WORKERS, metavar="N")
    return parser.parse_args()


def main() -> int:
    """See the module."""
    options = _options()
    kinds = list(BINARIES) if options.server == "both" else [options.server]
    runs = [RUNS[options.run]] if options.run else list(RUNS.values())
    points = [options.point] if options.point else []
    faults = [options.fault] if options.fault else list(FAULTS)
    print(f"$ python -m tests.faults.crash_points {' '.join(sys.argv[1:])}".rstrip())
    print(
        f"{time.strftime('%Y-%m-%d %H:%M')}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores; faults: {', '.join(faults)}"
    )
    total = Result("all")
    for kind in kinds:
        with crew(kind, options.workers) as workers:
            info = workers[0].client.info("server")
            version = info.get("valkey_version") or info["redis_version"]
            print(f"\n{kind} {version}\n{HEAD}", flush=True)
            for run in runs:
                result = try_points(workers, run, points, faults)
                print(result.line(), flush=True)
                for text in result.violations:
                    print(f"  {text}", flush=True)
                total.points += result.points
                total.missed += result.missed
                total.violations += result.violations
                total.seconds += result.seconds
    print(
        f"\n{total.points} points tried, {len(total.violations)} violations, {total.missed} not "
        f"reached, in {total.seconds:.0f} s"
    )
    return 1 if total.violations else 0


if __name__ == "__main__":
    sys.exit(main())
