"""The embedded server is killed again and again; `server_kills.py` measures what that costs."""

from __future__ import annotations

from tests.faults.server_kills import KILLS, run, server


def test_1_seven_kills_of_the_embedded_server_lose_nothing_and_store_nothing_twice() -> None:
    with server() as embedded:
        ran = run(embedded, messages=6000, kills=KILLS, sleep=0.001)
    assert ran.good
    assert ran.stored == 6000
    assert ran.kills == KILLS
    assert 0 < ran.restarts <= KILLS  # one start may go on through a second kill
