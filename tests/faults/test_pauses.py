"""Processes that are stopped at each of their requests until another one has taken over.

`python -m tests.faults.pauses` does the same on both kinds of server, and one point alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.crew import Worker, crew
from tests.faults.pauses import LANES, RUNS, try_all


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Worker]]:
    """Servers with a zygote each."""
    with crew("valkey", LANES) as made:
        yield made


@pytest.mark.parametrize("name", RUNS)
def test_3_4_and_10_who_was_stopped_at_any_request_has_nothing_accepted_and_says_so(
    workers: list[Worker], name: str, record_property: Callable[[str, object], None]
) -> None:
    tried = try_all(workers, name)
    record_property("points", tried.points)
    print(f"{tried.points} points")
    assert not tried.violations, "\n".join(tried.violations)
    assert tried.points >= 10
