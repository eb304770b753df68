"""`distlock top`: what it makes of the numbers, and how it behaves on terminals and pipes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis

from distlock import Cache
from distlock.glyphs import bar, column, sparkline
from distlock.io import SyncIO
from distlock.look import Failed, Look, Looker
from distlock.pipeline import InHand, Job, Outcome, Status
from distlock.top.frame import Pose, frame
from distlock.top.history import Event, History
from tests.conftest import ONE_KIND, Done, Server
from tests.test_bad_input import snapshot
from tests.test_cli import objects, on_terminal
from tests.tools import Pipe, settle, wait_until

Run = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]
HOSTILE = "h\x1b[2J\u202e[/bold]\n"
JOB = Job(messages=1000, asked=1000, id="one")
START = Status(
    now=1000.0,
    job=JOB,
    owner="a/1",
    token=7,
    lease_left=4.0,
    lease_ttl=5.0,
    sequence=100,
    queue=50,
    again=0,
    later=0,
    errors=0,
    taken=0,
    stats={"stored": "40", "terms": "1"},
    handlers={"b": 4.5, "c": 4.0},
)


def look(status: Status, **more: Any) -> Look:
    """A look at the moment that the status names."""
    return Look(status.now, status, **more)


def later(seconds: float = 1.0, **changes: Any) -> Status:
    """The status some seconds later."""
    stats = START.stats | changes.pop("stats", {})
    return replace(START, now=START.now + seconds, stats=stats, **changes)


def happened(now: Look) -> list[tuple[str, str]]:
    """Kind and text of what happens between START and then."""
    history = History()
    history.saw(look(START))
    history.saw(now)
    return [(event.kind, event.text) for event in history.events]


# --- events and rates --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"owner": "c/2", "token": 9, "stats": {"terms": "2"}}, "takeover", "c took over"),
        ({"owner": "a/3", "token": 9}, "lease", "a has the lease, token 9"),
        ({"owner": ""}, "free", "nobody holds the lease"),
        ({"handlers": {"b": 4.5, "c": 4.0, "d": 5.0}}, "joined", "d handles messages"),
        ({"handlers": {"b": 4.5, "c": -0.1}}, "dead", "c gives no sign of life"),
        ({"handlers": {"b": 4.5}}, "left", "c has left"),
        ({"stats": {"errors": "3"}, "errors": 3}, "error", "3 more errors"),
        ({"job": replace(JOB, id="two")}, "job", "a new job of 1,000 messages"),
        ({"job": None}, "job", "the job is gone"),
        ({"sequence": 1000, "stats": {"stored": "1000"}}, "done", "the job is done: 1,000 stored"),
    ],
)
def test_what_changed_between_two_looks_is_told(
    changes: dict[str, Any], kind: str, text: str
) -> None:
    [event] = happened(look(later(**changes)))
    assert event[0] == kind
    assert text in event[1]


def test_nothing_is_told_when_only_the_counters_of_work_went_on() -> None:
    assert happened(look(later(sequence=200, stats={"stored": "140"}))) == []


def test_the_messages_of_a_dead_handler_are_told_with_its_name() -> None:
    history = History()
    history.saw(look(replace(START, handlers={"b": 4.5, "c": 0.3})))
    history.saw(look(later(handlers={"b": 4.5}, stats={"reclaimed": "12"})))
    [event] = history.events
    assert (event.kind, event.text) == ("reclaim", "12 messages of c were reclaimed")


def test_a_new_error_is_told_with_the_newest_message() -> None:
    newest = Failed(1000.5, 77, 3, "ValueError: no")
    [(_, text)] = happened(look(later(stats={"errors": "1"}), newest=newest))
    assert text == "one more error; message 77: ValueError: no"


def test_a_server_that_goes_away_and_comes_back_is_told_once_each() -> None:
    history = History()
    history.saw(look(START))
    history.missed("refused", START.now + 1)
    history.missed("refused", START.now + 2)
    assert history.away == "refused"
    history.saw(look(later(3)))
    assert history.away == ""
    assert [event.kind for event in history.events] == ["away", "back"]
    assert history.rate("stored") == 0  # over all that time


def test_rates_come_from_the_counters_of_two_looks() -> None:
    history = History()
    history.saw(look(START, hands={"b": InHand(5, 10), "c": InHand(1, 10)}))
    assert history.rate("stored") is None
    stats = {"stored": "140", "errors": "20"}
    hands = {"b": InHand(8, 10), "c": InHand(2, 10)}
    history.saw(look(later(2.0, sequence=300, stats=stats), hands=hands))
    assert history.rate("stored") == 50
    assert history.rate("errors") == 10
    rows = {copy.name: copy for copy in history.copies()}
    assert (rows["a"].role, rows["a"].rate) == ("generator", 100)
    assert (rows["b"].rate, rows["c"].rate) == (45, 15)  # three hands and one
    assert rows["c"].age == pytest.approx(1.0)  # of a handler ttl of 5 s, 4 are left


def test_counters_that_begin_anew_give_no_rate_below_zero() -> None:
    history = History()
    history.saw(look(START))
    history.saw(look(later(job=replace(JOB, id="two"), stats={"stored": "0"})))
    assert history.rate("stored") is None
    history.saw(look(later(2.0, job=replace(JOB, id="two"), stats={"stored": "0"})))
    assert history.rate("stored") == 0


# --- drawing -----------------------------------------------------------------------------------


def full_history(copies: int = 30) -> History:
    """One that has something of everything, all of it hostile."""
    history = History()
    handlers = {f"{HOSTILE}{number}": 3.0 for number in range(copies)} | {"x": -2.0}
    status = replace(START, owner=HOSTILE + "/1", handlers=handlers, errors=3)
    caches = {"cache": {"hits": 5, "near_hits": 0, "misses": 1}}
    for number in range(20):
        stats = START.stats | {"stored": str(40 + number * 7), "errors": str(number)}
        newest = Failed(1000.0, 1, 3, HOSTILE)
        now = replace(status, now=1000.0 + number, stats=stats)
        history.saw(look(now, caches=caches, newest=newest))
    return history


@pytest.mark.parametrize("size", [(80, 24), (200, 50), (40, 8), (20, 3), (5, 1), (1, 1)])
@pytest.mark.parametrize("errors", [False, True])
def test_a_frame_fits_into_every_terminal(size: tuple[int, int], errors: bool) -> None:
    width, height = size
    pose = Pose(width=width, height=height, keys=True, now=1020.0)
    if errors:
        pose.errors = [Failed(1000.0, number, 3, HOSTILE * 20) for number in range(50)]
    for first in (0, 20, 999):
        pose.first = first
        lines = frame(full_history(), pose)
        assert len(lines) == height
        assert all(line.cell_len <= width for line in lines)


@pytest.mark.parametrize("fancy", [True, False])
def test_a_frame_is_harmless_and_plain_where_the_terminal_knows_only_ascii(fancy: bool) -> None:
    history = full_history()
    history.missed(HOSTILE, 1020.0)
    pose = Pose(width=150, fancy=fancy, now=1021.0)
    texts = [line.plain for line in frame(history, pose)]
    pose.errors = [Failed(1000.0, 1, 3, HOSTILE)]
    texts += [line.plain for line in frame(history, pose)]
    assert all(text.isprintable() for text in texts)
    assert fancy or all(text.isascii() for text in texts)
    assert any("[/bold]" in text for text in texts)


def test_the_rows_scroll_and_say_how_many_more_there_are() -> None:
    pose = Pose(width=80, height=24, now=1020.0)
    top = [line.plain for line in frame(full_history(), pose)]
    assert any(line.startswith("... ") and line.endswith(" more") for line in top)
    pose.first = 999
    bottom = [line.plain for line in frame(full_history(), pose)]
    assert any(line.startswith("x ") and " dead " in line for line in bottom)


def test_of_errors_in_a_row_only_the_last_is_drawn() -> None:
    history = History()
    history.saw(look(START))
    for kind in ("error", "error", "takeover", "error"):
        history.events.append(Event(1000.0, kind, kind))
    lines = [line.plain for line in frame(history, Pose(now=1000.0))]
    assert [line.split()[1] for line in lines[lines.index("WHAT HAPPENED") + 1 :]] == [
        "error",
        "takeover",
        "error",
    ]


def test_characters_show_the_largest_as_full_and_what_is_there_at_all() -> None:
    assert sparkline([0, 1, 1000, 500], 4, True) == " ▁█▄"
    assert sparkline([1, 2], 4, False) == "  =@"
    assert sparkline([1, 2], 0, True) == ""
    assert column([4, 8], 2, True) == [" █", "██"]
    assert column([], 2, True) == ["", ""]
    assert bar(0.5, 4, True) == "██░░"
    assert bar(7.0, 2, False) == "##"


# --- against a server --------------------------------------------------------------------------


def test_a_look_reads_a_pipeline_in_few_requests_and_writes_nothing(
    io: SyncIO, client: redis.Redis
) -> None:
    pipe = Pipe(io, attempts=1)
    pipe.generator.publish(1, [b"x"] * 9)
    looker = Looker(client, pipe.keys, ["cache"])
    looker.look()
    handler = pipe.handler("b")
    handler.exchange(settle(handler.exchange(Outcome(), 4), lambda id: id == 2), 3)
    before, sent = snapshot(client), calls(client)
    found = looker.look()
    assert snapshot(client) == before
    assert calls(client) - sent == 4  # two scripts (hmget of theirs is none) and the newest error
    assert found.hands["b"].messages == 3
    assert found.newest
    assert (found.newest.id, found.newest.text) == (2, "E: m")
    assert found.status.lease_ttl == 5.0
    assert [failed.id for failed in looker.errors()] == [2]


def calls(client: redis.Redis) -> int:
    """How many requests of a look the server has run."""
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "hmget"))


@ONE_KIND
def test_once_prints_one_frame_and_ends(program: Run, io: SyncIO, url: str) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 9)
    handler = pipe.handler("worker-b")
    handler.exchange(Outcome(), 4)
    cache = Cache(url)
    cache.get("key", lambda: 1, expire=10, execution_limit=5)
    wait_until(lambda: io.client.hlen("distlock:{cache}:counters"))
    done = program("top", "--once", "--name", "test", REDIS_URL=url)
    assert done.code == 0, done
    shown = " ".join(done.out.split())
    for text in ("0% of 100", "queue 5 ", "temp 4 ", "worker-b handler", "first generator",
                 "token", "cache cache", "1 misses"):  # fmt: skip
        assert text in shown
    assert all(len(line) <= 80 for line in done.out.splitlines())
    said = program("top", "--once", "--name", "test", "--json", REDIS_URL=url)
    [numbers] = objects(said.out)
    assert (numbers["away"], numbers["queue"], numbers["caches"]["cache"]["misses"]) == (None, 5, 1)
    assert [copy["name"] for copy in numbers["copies"]] == ["first", "worker-b"]


@ONE_KIND
def test_in_a_pipe_an_object_a_second_says_what_happens_until_nobody_reads(start: Start) -> None:
    server = Server("valkey", "--appendonly", "yes")
    try:
        with redis.Redis.from_url(server.url) as client:
            pipe = Pipe(SyncIO(client, patience=0), ttl=300.0, handler_ttl=300.0)
            process = start("top", "--json", "--name", "test", REDIS_URL=server.url)
            first = until(process, lambda said: said["away"] is None)
            pipe.handler("b")
            joined = until(process, lambda said: said["events"])
        assert [event["kind"] for event in joined["events"]] == ["joined"]
        assert 0.5 < joined["time"] - first["time"] < 10
        server.kill()
        away = until(process, lambda said: said["away"])
        assert [event["kind"] for event in away["events"]] == ["away"]
        server.start()
        back = until(process, lambda said: not said["away"])
        assert back["events"][0]["kind"] == "back"
        assert back["copies"][-1]["name"] == "b"
    finally:
        server.close()
    assert process.stdout
    process.stdout.close()
    assert process.wait(30) == 1
    assert process.stderr
    assert process.stderr.read() == ""


def until(process: subprocess.Popen[str], fits: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The next object that fits."""
    assert process.stdout
    for line in process.stdout:
        said: dict[str, Any] = json.loads(line)
        if fits(said):
            return said
    raise AssertionError("it has ended")


@ONE_KIND
def test_a_view_on_a_terminal_ends_with_q_and_leaves_the_terminal_as_it_was(
    url: str, io: SyncIO
) -> None:
    Pipe(io)
    answers = {"\x1b[?1049h": "e", "(the newest first)": "epq"}
    ways = "stty -g; {} app_start.py top --name test; code=$?; stty -g; exit $code"
    code, shown = on_terminal(
        "-c", ways.format(sys.executable), answers=answers, program=["sh"], REDIS_URL=url
    )
    assert code == 0
    assert shown.index("\x1b[?1049h") < shown.index("distlock top") < shown.rindex("\x1b[?1049l")
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is shown again
    before, after = re.findall(r"(?:[0-9a-f]+:){10,}[0-9a-f]+", shown)
    assert before == after


@ONE_KIND
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(url: str, io: SyncIO) -> None:
    Pipe(io)
    answers = {"lease first": "q"}
    code, shown = on_terminal("top", "--name", "test", answers=answers, REDIS_URL=url, TERM="dumb")
    assert code == 0
    assert "\x1b" not in shown
    assert "stored 0 (0/s)  queue 0" in shown


def test_top_of_no_server_or_no_name_is_one_line(program: Run) -> None:
    assert program("top", "--once").code == 3
    done = program("top", "--once", "--name", "a/b")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
