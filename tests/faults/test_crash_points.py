"""Every request of every run is broken, once before it, in it, after it, and with its answer lost.

`python -m tests.faults.crash_points` does it with each kind of server and prints a table; see there
and runs.py. Here time is dear: on Redis only the two faults after which the server knows more than
its client does. (To be killed before a request is, for the server, to be killed after the one
before it.)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import pytest
import redis

from tests.conftest import BINARIES, ROOT
from tests.faults.crash_points import WORKERS, try_points
from tests.faults.crew import INJECTOR, Worker, crew
from tests.faults.injector.sitecustomize import FAULTS
from tests.faults.runs import KEYS, RUNS
from tests.tools import partition


@pytest.fixture(scope="module", params=list(BINARIES))
def workers(request: pytest.FixtureRequest) -> Iterator[Sequence[Worker]]:
    """Workers with each kind of server, once for all runs."""
    if not BINARIES[request.param]:
        if os.environ.get("CI"):
            pytest.fail(f"{request.param} is not installed")
        pytest.skip(f"{request.param}-server is not installed")
    with crew(request.param, WORKERS) as workers:
        yield workers


@pytest.mark.parametrize("run", list(RUNS))
def test_1_and_5_every_promise_holds_whichever_request_is_broken_in_whatever_way(
    workers: Sequence[Worker], run: str
) -> None:
    faults = FAULTS if workers[0].kind == "valkey" else ("lost",)
    result = try_points(workers, RUNS[run], [], faults)
    print(result.line())
    assert not result.violations, "\n".join(result.violations)
    assert result.points >= 7 * len(faults)  # no run has fewer requests
    assert result.missed <= result.points / 20


def test_the_injector_breaks_a_program_that_knows_nothing_of_it(url: str) -> None:
    command = [sys.executable, "app_start.py", "--name", "test", "--messages", "5"]
    with redis.Redis.from_url(url) as client:
        for fault, code, generated in (
            ("22:before", -signal.SIGKILL, None),
            ("22:lost", 0, 5),
        ):
            environment = {
                **os.environ,
                "REDIS_URL": url,
                "PYTHONPATH": str(INJECTOR),
                "DISTLOCK_FAULT_SERVER": urlsplit(url).path,
                "DISTLOCK_FAULT": fault,
            }
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
            assert done.returncode == code, done.stderr
            found = partition(client, KEYS)
            assert generated is None or len(found["store"]) == generated
            client.flushall()
