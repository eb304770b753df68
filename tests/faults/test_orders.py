"""The pipeline and the cache under every order of the requests of every pair of operations.

`python -m tests.faults.schedules` runs more of them, on both kinds of server.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest

from tests.conftest import ONE_KIND
from tests.faults import cache_world, pipeline_world
from tests.faults.schedules import Programs, cache, pairs, pipeline, tried
from tests.faults.stepping import Wire
from tests.tools import Clock


@pytest.fixture
def run(
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> Callable[..., int]:
    """Runs the schedules of sets of programs, and says how many there were."""

    def run(what: Callable[..., object], every: list[Programs]) -> int:
        clock = Clock(monkeypatch)
        with closing(Wire(url)) as wire:
            count = tried(partial(what, wire, clock), every)
        record_property("schedules", count)
        print(f"{count} schedules of {len(every)} sets of programs")
        return count

    return run


@ONE_KIND
def test_1_in_every_order_of_two_operations_each_message_is_in_one_place(
    run: Callable[..., int],
) -> None:
    assert run(pipeline, pairs(pipeline_world)) >= 1_700


@ONE_KIND
def test_4_whatever_befalls_a_copy_at_any_step_nothing_that_is_old_is_accepted(
    run: Callable[..., int],
) -> None:
    assert run(pipeline, pipeline_world.CHOSEN) >= 500


@ONE_KIND
def test_10_in_every_order_of_two_operations_a_getter_runs_once_and_a_delete_is_final(
    run: Callable[..., int],
) -> None:
    assert run(cache, pairs(cache_world)) >= 700


@ONE_KIND
def test_10_whatever_befalls_a_process_at_any_step_nobody_waits_for_ever(
    run: Callable[..., int],
) -> None:
    assert run(cache, cache_world.CHOSEN) >= 1_000


def test_1_every_order_of_two_hands_of_two_handlers_and_a_takeover(run: Callable[..., int]) -> None:
    every: list[Programs] = [(("handle",), ("handle",)), (("publish",), ("lead",))]
    every.append((("handle",), ("reclaim",)))
    assert run(pipeline, every) >= 100
