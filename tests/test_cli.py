"""What the program prints and where, on a pipe and on a terminal; modes, subcommands, exit codes.

Bad input is in `test_bad_input.py`; here the input is good, or hostile in what messages contain.
"""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from distlock import Cache, Stats, __version__, connect
from distlock.demo.stage import start as start_copy
from distlock.io import SyncIO
from distlock.keys import CacheKeys, Keys
from distlock.pipeline import Outcome
from distlock.server import Embedded
from distlock.text import harmless
from tests.conftest import ONE_KIND, ROOT, Done
from tests.tools import Pipe, partition, settle, wait_until

Run = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]
KEYS = Keys("demo")
PROGRAM = [sys.executable, str(ROOT / "app_start.py")]
FAILING = "--error-rate 1 --attempts 1"


@pytest.fixture
def run(program: Run, url: str) -> Run:
    """Runs a command line, written as one string, in this process on the real server."""

    def run(line: str, **environment: str) -> Done:
        return program(*line.split(), **({"REDIS_URL": url} | environment))

    return run


def good(done: Done) -> str:
    """What a command that succeeded printed to stdout."""
    assert done.code == 0, done
    return done.out


def where(client: redis.Redis, keys: Keys = KEYS) -> dict[str, list[int]]:
    """Where each id is, in order; fails unless each is in exactly one place."""
    return {place: sorted(ids) for place, ids in partition(client, keys).items()}


def objects(text: str) -> list[dict[str, Any]]:
    """One JSON object a line."""
    return [json.loads(line) for line in text.splitlines()]


def on_terminal(
    *arguments: str, answers: Any = None, program: Any = PROGRAM, **environment: str
) -> tuple[int, str]:
    """Run the program on a pseudo-terminal; returns its exit code and all that was shown.

    Args:
        arguments: the command line.
        answers: a dict of what to type when a text has been shown.
        program: another one, as the words of a command.
        environment: variables, on top of a plain 200 by 50 terminal.
    """
    master, slave = pty.openpty()
    plain = {"TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
    kept = {name: value for name, value in os.environ.items() if "COLOR" not in name}
    process = subprocess.Popen(
        [*program, *arguments],
        env={**kept, **plain, **environment},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(slave)
    shown, waiting = b"", dict[str, str](answers or {})
    try:
        while more := read(master):
            shown += more
            for question in [text for text in waiting if text.encode() in shown]:
                os.write(master, waiting.pop(question).encode())
        return process.wait(10), shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(master)


def read(master: int) -> bytes:
    """What a terminal shows next, b"" when its program has ended."""
    assert select.select([master], [], [], 30)[0], "the program shows nothing and does not end"
    try:
        return os.read(master, 65536)
    except OSError:  # Linux's way to say that nobody has the other end any more
        return b""


# --- where options may stand -------------------------------------------------------------------


@ONE_KIND
def test_connection_options_and_json_work_before_and_after_a_subcommand(
    run: Run, url: str, io: SyncIO
) -> None:
    Pipe(io).generator.publish(1, [b"a", b"b"])
    nowhere = {"REDIS_URL": "redis://localhost:1"}
    for line in (
        f"--url {url} --name test --json status",
        f"--url {url} status --name test --json",
        f"--url redis://localhost:2 --name other --json status --url {url} --name test",
    ):
        assert json.loads(good(run(line, **nowhere)))["queue"] == 2
    for line in (
        f"--url {url} --name test verify --json",
        f"--json verify --name test --url {url}",
    ):
        assert json.loads(good(run(line, **nowhere)))["places"]["queue"] == 2
    assert json.loads(good(run("--name test verify --json --db 3")))["sequence"] == 0
    for line in ("--json server status", "server --json status", "server status --json"):
        assert "alive" in json.loads(good(run(line)))


def test_a_database_is_chosen_by_option_on_every_kind_of_url(run: Run, url: str) -> None:
    good(run("--messages 3 --db 5"))
    assert "3 generated" in good(run("verify --db 5"))
    assert "0 generated" in good(run("verify"))
    assert "3 generated" in good(run("verify", REDIS_URL=f"{url}?db=5"))


def test_an_option_with_an_optional_value_does_not_eat_a_subcommand(run: Run) -> None:
    for mode in ("--getErrors", "--cleanTemp"):
        done = run(f"{mode} verify")
        assert done.code == 2
        assert f"'{mode}'" in done.err
        assert "'verify' are two things to do" in done.err


# --- a copy ------------------------------------------------------------------------------------


def test_the_summary_goes_to_stdout_and_events_go_to_stderr(run: Run, url: str) -> None:
    done = run("--messages 20")
    assert re.fullmatch(
        r"done: 20 messages, 20 stored, 0 errors; this copy generated 20 and stored 20 messages "
        r"in \d+\.\d s\n",
        good(done),
    )
    lines = done.err.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d \w", line) for line in lines)
    assert lines[0][9:].startswith("server: ")
    assert lines[1][9:] == "a new job of 20 messages"
    assert re.fullmatch(r"generator, with token \d+: generating from message 1 on", lines[2][9:])


def test_json_makes_every_event_and_the_summary_an_object(run: Run) -> None:
    done = run(f"--json --messages 20 {FAILING}")
    [summary] = objects(good(done))
    assert summary["done"] is True
    assert (summary["messages"], summary["stored"], summary["errors"]) == (20, 0, 20)
    assert summary["copy"]["generated"] == summary["copy"]["failed"] == 20
    events = objects(done.err)
    assert [event["event"] for event in events][:3] == ["server", "begun", "generator"]
    assert len({event["copy"] for event in events}) == 1
    assert events[2]["token"] > 10**15
    for event in events:
        assert datetime.fromisoformat(event["time"]).tzinfo == UTC
        assert event["text"]


def test_every_start_says_in_one_line_which_server_it_uses(run: Run, url: str) -> None:
    said = run("--messages 3").err.splitlines()[0]
    kind = r"(Redis|Valkey) \d+\.\d+\.\d+"
    pattern = rf"\d\d:\d\d:\d\d server: {kind} at {url}, which was there before and stays"
    assert re.fullmatch(pattern, said)


def test_starting_again_after_the_end_says_so_and_does_nothing(run: Run) -> None:
    good(run("--messages 5"))
    text = good(run(""))
    assert text == (
        "job 'demo' is done already: 5 of 5 messages stored, 0 errors; --reset begins anew\n"
    )
    assert objects(good(run("--json"))) == [
        {"done": True, "messages": 5, "stored": 5, "errors": 0, "taken": 0}
    ]


@ONE_KIND
def test_starting_again_with_something_else_to_do_is_refused(run: Run, tmp_path: Path) -> None:
    good(run("--messages 5"))
    file = tmp_path / "other.txt"
    file.write_text("one\ntwo\n")
    for option in ("--messages 6", "--seed 1", "--attempts 2", f"--input {file}"):
        done = run(option)
        assert (done.code, done.out) == (2, "")
        assert "the job 'demo' " in done.err
    good(run("--messages 5 --seed 0"))
    good(run(f"--name file --input {file}"))
    assert "is done already" in good(run("--name file"))


@ONE_KIND
def test_reset_with_yes_begins_anew(run: Run, client: redis.Redis) -> None:
    good(run(f"--messages 4200 {FAILING}"))
    good(run("--getErrors take"))
    assert "done: 4 messages, 4 stored, 0 errors" in good(run("--reset --yes --messages 4"))
    assert where(client)["store"] == [1, 2, 3, 4]
    assert not client.exists(KEYS.taken, KEYS.store(1))


def test_reset_of_nothing_asks_nothing_and_begins(run: Run) -> None:
    assert "done: 4 messages" in good(run("--reset --messages 4"))


@pytest.mark.parametrize("first", ["the lease", "the handler"])
def test_reset_refuses_while_a_copy_is_alive(
    run: Run, io: SyncIO, client: redis.Redis, first: str
) -> None:
    pipe = Pipe(io, ttl=60)
    pipe.job = replace(pipe.job, handler_ttl=60)
    pipe.generator.publish(1, [b"a", b"b", b"c"])
    pipe.handler("one").exchange(Outcome(), 2)
    line = "--name test --reset --yes --messages 4"
    ends: list[Callable[[], object]] = [pipe.lease.release, lambda: pipe.die("one")]
    for end in ends if first == "the lease" else reversed(ends):
        done = run(line)
        assert done.code == 1
        assert "job 'test' has a copy at work: end it first" in done.err
        assert len(where(client, pipe.keys)["temp"]) == 2
        end()
    assert "done: 4 messages" in good(run(line))


@ONE_KIND
def test_reset_asks_on_a_terminal_and_no_means_no(run: Run, url: str, client: redis.Redis) -> None:
    good(run("--messages 5"))
    arguments = ["--reset", "--messages", "3", "--url", url]
    question = "Delete job 'demo' and its 5 messages? [y/N]"
    code, shown = on_terminal(*arguments, answers={question: "n\n"})
    assert (code, len(where(client)["store"])) == (1, 5)
    assert "stays as it is" in shown
    assert "Traceback" not in shown
    code, shown = on_terminal(*arguments, answers={question: "y\n"})
    assert (code, len(where(client)["store"])) == (0, 3)
    assert "done: 3 messages" in shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_a_copy_with_its_code_and_a_summary(
    start: Start, client: redis.Redis, number: signal.Signals, code: int
) -> None:
    copy = start("--json", "--sleep", "0.05", "--messages", "400")
    wait_until(lambda: client.hget(KEYS.stats, "stored"))
    copy.send_signal(number)
    out, err = copy.communicate(timeout=20)
    assert copy.returncode == code, err
    [summary] = objects(out)
    assert summary["done"] is False
    assert summary["copy"]["stored"] > 0
    assert not client.exists(KEYS.lease)
    assert not where(client)["temp"]


# --- status and verify --------------------------------------------------------------------------


@pytest.fixture
def pipe(io: SyncIO) -> Pipe:
    """The pipeline `test` with 9 messages: 2 stored, 1 to be tried later, 1 error, 2 in the hand
    of `alive`, 2 in the hand of `dead`, 1 in the queue."""
    pipe = Pipe(io, messages=100, ttl=60)
    pipe.job = replace(pipe.job, handler_ttl=60)
    pipe.generator.publish(1, [b"body %d" % id for id in range(1, 10)])
    alive, dead = pipe.handler("alive"), pipe.handler("dead")
    hand = alive.exchange(Outcome(), 2)
    hand = alive.exchange(settle(hand), 1)
    hand = alive.exchange(settle(hand, lambda id: True), 1)
    alive.job = replace(pipe.job, attempts=1)
    alive.exchange(settle(hand, lambda id: True), 2)
    dead.exchange(Outcome(), 2)
    pipe.die("dead")
    return pipe


def test_status_shows_every_number_to_machines(run: Run, pipe: Pipe) -> None:
    shown = json.loads(good(run("--name test status --json")))
    assert shown["job"]["messages"] == 100
    assert shown["done"] is False
    assert shown["generator"] == "first"
    assert shown["lease"]["owner"] == pipe.lease.owner
    assert shown["lease"]["token"] == pipe.lease.token
    assert 50 < shown["lease"]["left"] <= 60
    assert 50 < shown["handlers"]["alive"] <= 60
    assert shown["handlers"]["dead"] < 0
    places = ("sequence", "queue", "again", "later", "temp", "stored", "errors", "taken")
    assert [shown[place] for place in places] == [9, 1, 0, 1, 4, 2, 1, 0]
    assert (shown["retries"], shown["takeovers"], shown["reclaimed"]) == (1, 0, 0)
    assert shown["stored_per_second"] == 0


def test_status_shows_every_number_to_people(run: Run, pipe: Pipe) -> None:
    shown = good(run("--name test status"))
    for line in (
        r"job        100 messages from random",
        rf"generator  first \(token {pipe.lease.token}, 5\d\.\d s left\)",
        r"handler    alive \(alive, 5\d\.\d s left\)",
        r"handler    dead \(dead for \d+\.\d s\)",
        r"sequence   9",
        r"queue      1 waiting, 0 again, 1 later",
        r"temp       4",
        r"stored     2 \(0 a second\)",
        r"errors     1, and 0 taken",
        r"history    0 takeovers, 0 messages reclaimed, 1 retries",
    ):
        assert re.search(f"^{line}$", shown, re.MULTILINE), line


@ONE_KIND
def test_status_of_nothing_says_so(run: Run) -> None:
    assert "job        none yet\ngenerator  none (last token 0)\n" in good(run("status"))
    assert json.loads(good(run("status --json")))["lease"] == {
        "owner": None,
        "token": 0,
        "left": 0,
    }


def test_status_measures_the_rate(start: Start, run: Run) -> None:
    start("--sleep", "0.01", "--messages", "5000")
    wait_until(lambda: json.loads(good(run("status --json")))["stored_per_second"] > 10)
    wait_until(lambda: not re.search(r"stored +\d+ \(0 a second\)", good(run("status"))))


COUNTED = {"hits": 3, "misses": 1, "computed": 1}


@pytest.fixture
def counted(url: str, client: redis.Redis) -> None:
    """A cache `shop` that has counted on the server."""
    cache = Cache(url, name="shop")
    for _ in range(4):
        cache.get("key", lambda: 1, expire=60, execution_limit=5)
    wait_until(lambda: client.exists(CacheKeys("shop").counters))


@pytest.mark.usefixtures("counted")
def test_status_shows_what_a_cache_has_counted(run: Run) -> None:
    shown = json.loads(good(run("status --cache shop --cache other --json")))["caches"]
    assert shown == {"shop": asdict(Stats()) | COUNTED}
    lines = good(run("status --cache shop")).splitlines()
    assert "cache      shop: 3 hits, 1 misses, 1 computed" in lines


@pytest.mark.usefixtures("counted")
def test_status_shows_the_default_cache_and_no_other(run: Run, client: redis.Redis) -> None:
    assert json.loads(good(run("status --json")))["caches"] == {}
    assert "cache" not in good(run("status"))
    client.rename(CacheKeys("shop").counters, CacheKeys("cache").counters)
    assert "cache      cache: 3 hits" in good(run("status"))


@pytest.mark.usefixtures("counted")
def test_status_for_a_user_who_may_not_see_a_cache_shows_the_rest(
    run: Run, url: str, client: redis.Redis
) -> None:
    client.execute_command(
        *("ACL", "SETUSER", "few", "reset", "on", ">secret", "+@all", "&distlock:*"),
        "~distlock:{demo}:*",
    )
    try:
        shown = good(run(f"status --cache shop --json --url {url.replace('//', '//few:secret@')}"))
        assert json.loads(shown)["caches"] == {}
    finally:
        client.execute_command("ACL", "DELUSER", "few")


@ONE_KIND
def test_status_of_a_cache_that_cannot_be_is_refused(run: Run) -> None:
    done = run("status --cache a*b")
    assert done.code == 2
    assert "name 'a*b' cannot be used" in done.err


def test_status_warns_of_what_may_lose_messages(run: Run, client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "volatile-lru")
    client.config_set("maxmemory", 100_000)  # less than an empty server takes, whatever it frees
    try:
        warnings = "\n".join(json.loads(good(run("status --json")))["warnings"])
        lines = [line for line in good(run("status")).splitlines() if line.startswith("warning")]
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
    assert len(lines) == 3
    for remedy in ("appendonly yes", "maxmemory-policy noeviction", "raise maxmemory"):
        assert remedy in warnings
    client.config_set("appendonly", "yes")
    try:
        assert json.loads(good(run("status --json")))["warnings"] == []
    finally:
        client.config_set("appendonly", "no")


def test_verify_of_a_whole_pipeline_ends_with_exit_code_0(run: Run, pipe: Pipe) -> None:
    text = good(run("--name test verify"))
    assert re.search(r"^9 generated: 0 lost, 0 stored twice \(\d+\.\d s\)$", text, re.MULTILINE)
    assert re.search(r"^temp +4$", text, re.MULTILINE)
    verdict = json.loads(good(run("--name test verify --json")))
    assert verdict["good"] is True
    places = {place: count for place, count in verdict["places"].items() if count}
    assert places == {"store": 2, "errors": 1, "temp": 4, "later": 1, "queue": 1}


def test_verify_of_a_broken_pipeline_names_each_wrong_id_and_ends_with_exit_code_1(
    run: Run, pipe: Pipe, client: redis.Redis
) -> None:
    client.hdel(pipe.keys.store(0), "1")
    client.rpush(pipe.keys.queue, "2:1:body")
    client.hset(pipe.keys.store(0), "\x1b[31mred[/bold]", "body")
    for id in range(30):
        client.hset(pipe.keys.temp("dead"), f"odd{id}", "body")
    done = run("--name test verify")
    assert done.code == 1
    assert done.err == ""
    assert "1: nowhere\n" in done.out
    assert "2: in store and queue\n" in done.out
    assert r"b'\x1b[31mred[/bold]': in store, not an id of this job" in done.out
    assert "31 foreign\n9 generated: 1 lost, 1 stored twice" in done.out
    verdict = run("--name test verify --json")
    assert verdict.code == 1
    said = json.loads(verdict.out)
    assert (said["good"], said["lost"], said["twice"], said["foreign"]) == (False, 1, 1, 31)


# --- errors -----------------------------------------------------------------------------------


@ONE_KIND
@pytest.mark.parametrize("value", ["", " print", "=print", " yes", "=true", "=TRUE"])
def test_getting_errors_prints_them_oldest_first_and_changes_nothing(
    run: Run, client: redis.Redis, value: str
) -> None:
    good(run(f"--messages 30 {FAILING}"))
    before = where(client)
    errors = objects(good(run(f"--getErrors{value}")))
    assert [error["order"] for error in errors] == list(range(1, 31))
    assert sorted(error["id"] for error in errors) == list(range(1, 31))
    assert where(client) == before
    first = errors[0]
    assert first["exception"] == "SimulatedError"
    assert first["message"] == f"message {first['id']} fails, as --error-rate asks"
    assert "Traceback (most recent call last)" in first["traceback"]
    assert first["handler"]
    assert first["attempt"] == 1
    assert 80 <= len(first["body"]) <= 100
    assert datetime.fromisoformat(first["time"]).tzinfo == UTC


@pytest.mark.parametrize("value", [" take", "=TAKE"])
def test_taking_errors_prints_and_removes_them(run: Run, client: redis.Redis, value: str) -> None:
    good(run(f"--messages 30 {FAILING}"))
    assert len(objects(good(run(f"--getErrors{value}")))) == 30
    assert where(client)["taken"] == list(range(1, 31))
    assert good(run("--getErrors")) == ""
    good(run("verify"))
    assert "0 of 30 messages stored, 0 errors and 30 taken" in good(run(""))


@ONE_KIND
def test_a_pipe_that_closes_in_the_middle_loses_no_error(
    run: Run, start: Start, client: redis.Redis
) -> None:
    good(run(f"--messages 3000 {FAILING}"))
    printed: set[int] = set()
    for lines, taken in ((1, 0), (1500, 1000), (1, 1000)):
        taking = start("--getErrors", "take")
        assert taking.stdout
        assert taking.stderr
        printed |= {json.loads(taking.stdout.readline())["id"] for _ in range(lines)}
        taking.stdout.close()
        assert taking.wait(20) == 1
        assert taking.stderr.read() == ""
        places = where(client)
        assert len(places["taken"]) == taken
        assert printed.issuperset(places["taken"])
    rest = objects(good(run("--getErrors take")))
    assert len(rest) == 2000
    assert {error["id"] for error in rest} | printed == set(range(1, 3001))


@ONE_KIND
def test_errors_that_fit_into_a_buffer_are_not_taken_when_nobody_reads(
    run: Run, url: str, client: redis.Redis
) -> None:
    good(run(f"--messages 3 {FAILING}"))
    reader, writer = os.pipe()
    os.close(reader)
    command = [*PROGRAM, "--getErrors", "take", "--url", url]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
    assert where(client)["errors"] == [1, 2, 3]


@ONE_KIND
def test_other_results_into_a_closed_pipe_end_without_a_word(start: Start) -> None:
    for line in ("status", "verify --json"):
        copy = start(*line.split())
        assert copy.stdout
        assert copy.stderr
        copy.stdout.close()
        assert copy.wait(20) == 1
        assert copy.stderr.read() == ""


def test_retrying_errors_puts_them_back_in_the_queue(run: Run, client: redis.Redis) -> None:
    good(run(f"--messages 30 {FAILING}"))
    assert good(run("--retryErrors")) == "30 errors are back in the queue\n"
    assert len(where(client)["queue"]) == 30
    assert good(run("--retryErrors")) == "there are no errors\n"
    assert objects(good(run("--json --retryErrors"))) == [{"retried": 0}]
    assert "done: 30 messages, 30 stored, 0 errors" in good(run(""))


# --- the temp of the dead ---------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", " requeue", "=yes", " true"])
def test_cleaning_the_temp_requeues_what_the_dead_held_and_nothing_of_the_living(
    run: Run, pipe: Pipe, client: redis.Redis, value: str
) -> None:
    text = good(run(f"--name test --cleanTemp{value}"))
    assert text == (
        "2 messages of dead, which died: to the queue\n"
        "2 messages of 1 dead handlers: to the queue\n"
    )
    places = where(client, pipe.keys)
    assert sorted(places["queue"] + places["again"]) == [7, 8, 9]
    assert places["temp"] == [5, 6]
    empty = "0 messages of 0 dead handlers: to the queue\n"
    assert good(run("--name test --cleanTemp")) == empty


def test_cleaning_the_temp_with_drop_puts_it_among_the_errors(
    run: Run, pipe: Pipe, client: redis.Redis
) -> None:
    text = good(run("--name test --json --cleanTemp drop"))
    assert objects(text) == [{"to": "errors", "messages": 2, "handlers": {"dead": 2}}]
    places = where(client, pipe.keys)
    assert places["errors"] == [4, 7, 8]
    assert places["temp"] == [5, 6]
    errors = objects(good(run("--name test --getErrors")))
    assert [error["exception"] for error in errors] == ["E", "HandlerDied", "HandlerDied"]
    assert "handler dead died" in errors[1]["message"]


def test_cleaning_the_temp_of_no_job_says_so(run: Run) -> None:
    done = run("--cleanTemp")
    assert (done.code, done.out) == (1, "")
    assert done.err == "app_start.py: there is no job 'demo': nothing to clean\n"


# --- hostile messages -------------------------------------------------------------------------

HOSTILE = [
    *("[/bold]", "[red]red[/red]", "[link=http://x]y[/link]", "[[", "\\[", "[/]", ":bug:"),
    *("\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[2J\x1b[H", "\x1bP+q\x1b\\", "\x9b31m"),
    *("\x1b[?1049h", "\x1b]8;;http://x\x1b\\y\x1b]8;;\x1b\\", "a\rb", "a\x08\x08b", "\x00", "\x07"),
    *("line\nnext", "tab\tvt\x0bff\x0c", "\x7f", "\x85", "\u2028\u2029", "\ufeffbom"),
    *("\u202eevil\u202c", "\u2066\u2067\u2069", "\u200b\u200d\u00ad", "\U000e0041tag", "\ue000"),
    *("{0} %s %(x)s", "<script>&amp;", '"quoted"', "'; --", "日本語 🎉 é", " " * 5, ""),
]
BYTES = [b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"ok\x80\x1b[31m", bytes(range(256))]
MODULE = f"""
HOSTILE = {HOSTILE!r}
BODIES = [text.encode() for text in HOSTILE] + {BYTES!r}

def bodies(start):
    return BODIES[start - 1:]

class Nasty(Exception):
    pass

Nasty.__qualname__ = "Nasty[/bold]\\x1b[31m\\u202e"

def fail(message):
    raise Nasty(message.body.decode(errors="surrogateescape"))
"""


@pytest.fixture
def hostile(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A job whose every message failed, with hostile bodies, texts and types of exceptions."""
    (tmp_path / "hostile_messages.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    work = "--generate hostile_messages:bodies --handle hostile_messages:fail --attempts 1"
    assert f"{len(HOSTILE + BYTES)} errors" in good(run(work))
    return run


@ONE_KIND
def test_hostile_messages_come_through_a_pipe_whole_and_harmless(hostile: Run) -> None:
    text = good(hostile("--getErrors"))
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    errors = sorted(objects(text), key=lambda error: int(error["id"]))
    bodies = [
        base64.b64decode(error["body_base64"]) if "body_base64" in error else error["body"]
        for error in errors
    ]
    assert bodies == HOSTILE + BYTES
    assert [error["message"] for error in errors[: len(HOSTILE)]] == HOSTILE
    assert {error["exception"] for error in errors} == {"Nasty[/bold]\x1b[31m\u202e"}


@ONE_KIND
@pytest.mark.parametrize("terminal", ["xterm-256color", "dumb"])
def test_hostile_messages_are_shown_harmless_on_a_terminal(
    hostile: Run, url: str, terminal: str
) -> None:
    code, shown = on_terminal("--getErrors", "--url", url, TERM=terminal, COLUMNS="400")
    assert code == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown) if terminal != "dumb" else shown
    assert lines.replace("\r\n", "").isprintable()  # nothing but rich's own colours was there
    for text in HOSTILE:
        assert harmless(text) in lines
    for body in BYTES[:4]:
        assert harmless(body.decode(errors="backslashreplace")) in lines
    assert r"Nasty[/bold]\x1b[31m\u202e" in lines
    assert "\x1b[31m" not in shown


@ONE_KIND
def test_hostile_names_in_the_status_are_shown_harmless(
    run: Run, url: str, client: redis.Redis
) -> None:
    good(run("--messages 3"))
    client.zadd(KEYS.handlers, dict.fromkeys(HOSTILE, 9e15))
    client.hset(KEYS.lease, mapping={"owner": "\x1b[2J[bold]\u202e/1", "token": 1, "ttl": 1})
    text = good(run("status"))
    assert text.replace("\n", "").isprintable()
    assert r"generator  \x1b[2J[bold]\u202e" in text
    code, shown = on_terminal("status", "--url", url)
    assert code == 0
    assert shown.replace("\r\n", "").isprintable()


@ONE_KIND
@pytest.mark.parametrize("terminal", [True, False])
def test_a_hostile_name_in_an_event_is_shown_harmless(
    run: Run, url: str, io: SyncIO, terminal: bool
) -> None:
    pipe = Pipe(io, messages=3)
    pipe.generator.publish(1, [b"a", b"b", b"c"])
    name = "dead[/bold]\x1b[31m\u202e"
    pipe.handler(name).exchange(Outcome(), 2)
    pipe.die(name)
    pipe.lease.release()
    if terminal:
        code, shown = on_terminal("--name", "test", "--url", url, TERM="dumb")
    else:
        code, _, shown = run("--name test")
    assert code == 0
    assert r"reclaimed 2 messages of dead[/bold]\x1b[31m\u202e, which died" in shown
    assert re.sub(r"\r?\n", "", shown).isprintable()


# --- on a terminal ----------------------------------------------------------------------------


@ONE_KIND
def test_errors_are_a_table_on_a_terminal(run: Run, url: str, client: redis.Redis) -> None:
    good(run(f"--messages 5 {FAILING}"))
    code, shown = on_terminal("--getErrors", "--url", url, TERM="dumb")
    assert code == 0
    lines = shown.splitlines()
    head = ["id", "failed (UTC)", "tries", "exception", "message", "body"]
    assert re.split(r"  +", lines[0].strip()) == head
    assert len(lines) == 6
    for line in lines[1:]:
        assert re.match(r"[1-5] +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d +1 +SimulatedError +message", line)
    assert where(client)["errors"] == [1, 2, 3, 4, 5]


@ONE_KIND
def test_what_is_taken_on_a_terminal_was_written_out_in_full(
    run: Run, url: str, client: redis.Redis
) -> None:
    good(run(f"--messages 5 {FAILING}"))
    errors = objects(good(run("--getErrors")))
    code, shown = on_terminal("--getErrors", "take", "--url", url, TERM="dumb", COLUMNS="40")
    assert code == 0
    for error in errors:
        whole = [f"handler: {error['handler']}", f"body: {error['body']}"]
        whole += error["traceback"].splitlines()
        assert "".join(f"    {line}\r\n" for line in whole) in shown
    assert where(client)["taken"] == [1, 2, 3, 4, 5]


@ONE_KIND
def test_json_on_a_terminal_stays_json(run: Run, url: str) -> None:
    good(run(f"--messages 5 {FAILING}"))
    code, shown = on_terminal("--json", "--getErrors", "--url", url)
    assert code == 0
    assert len(objects(shown)) == 5


@ONE_KIND
def test_a_table_of_many_pages_has_one_head(run: Run, url: str) -> None:
    good(run(f"--messages 1200 {FAILING}"))
    code, shown = on_terminal("--getErrors", "--url", url, TERM="dumb")
    assert code == 0
    assert shown.count("failed (UTC)") == 1
    assert shown.count("SimulatedError") == 1200


@ONE_KIND
@pytest.mark.parametrize("columns", ["1", "40"])
def test_a_narrow_terminal_is_no_trouble(run: Run, url: str, columns: str) -> None:
    good(run(f"--messages 5 --name failed {FAILING}"))
    for line in ("--getErrors --name failed", "--messages 20 --sleep 0.02"):
        code, shown = on_terminal(*line.split(), REDIS_URL=url, COLUMNS=columns, LINES="5")
        assert code == 0, shown
        assert "Traceback" not in shown


@ONE_KIND
def test_a_copy_on_a_terminal_shows_its_role_and_progress(url: str) -> None:
    code, shown = on_terminal("--messages", "40", "--sleep", "0.03", "--url", url)
    assert code == 0
    assert "handler" in shown
    assert re.search(r"\d+/40", shown)
    assert "queue" in shown
    assert "generating from message 1 on\r\n" in shown
    assert shown.rstrip().endswith(" s")  # the picture is gone, the summary stays
    assert "done: 40 messages, 40 stored" in shown.splitlines()[-1]
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


@ONE_KIND
def test_a_picture_is_drawn_4_times_a_second_at_most_however_much_is_printed(url: str) -> None:
    chatty = ("--handle", "tests.work_for_tests:chatty", "--sleep", "0.01")
    code, shown = on_terminal("--messages", "150", *chatty, "--url", url, COLUMNS="40")
    assert code == 0
    assert re.findall(r"handled (\d+)\r\n", shown) == [str(id) for id in range(1, 151)]
    assert "generating from message 1 on\r\n" in shown  # longer than the terminal is wide
    took = re.search(r"in (\d+\.\d) s", shown.splitlines()[-1])
    assert took
    assert 3 < shown.count("in hand") < 4 * float(took[1]) + 3


@ONE_KIND
def test_no_color_leaves_out_every_colour(run: Run, url: str) -> None:
    good(run(f"--messages 5 --name failed {FAILING}"))
    colour = r"\x1b\[(?:\d+;)*(?:3[0-9]|4[0-9]|9[0-7]|10[0-7])(?:;\d+)*m"

    def coloured(line: str, **environment: str) -> bool:
        code, shown = on_terminal(
            *line.split(), REDIS_URL=url, TERM="xterm-256color", **environment
        )
        assert code == 0
        return bool(re.search(colour, shown))

    assert coloured("--messages 9 --sleep 0.05 --name one")
    assert not coloured("--messages 9 --sleep 0.05 --name two", NO_COLOR="1")
    assert not coloured("--getErrors --name failed", NO_COLOR="1")


@ONE_KIND
def test_a_terminal_that_knows_only_ascii_is_no_trouble(run: Run, url: str, hostile: Run) -> None:
    for line in ("--getErrors", "status", "--messages 20 --sleep 0.02 --name new"):
        code, shown = on_terminal(*line.split(), REDIS_URL=url, PYTHONIOENCODING="ascii")
        assert code == 0, shown
        assert shown.isascii()


# --- the program itself -----------------------------------------------------------------------


def printed(*command: str, **environment: str) -> str:
    """What a command prints to stdout; it must succeed and print nothing else."""
    done = subprocess.run(
        command,
        env={**os.environ, "REDIS_URL": "redis://localhost:1", **environment},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_the_version_is_printed(program: Run) -> None:
    assert good(program("--version")) == f"app_start.py, version {__version__}\n"


def test_help_is_the_same_by_both_its_names(program: Run) -> None:
    whole = good(program("--help"))
    assert good(program("-h")) == whole
    for option in ("--getErrors", "--retryErrors", "--cleanTemp", "--reset", "--url", "--messages"):
        assert option in whole
    commands = (
        "demo",
        "cache",
        "cache demo",
        "server",
        "status",
        "verify",
        "server start",
        "server stop",
    )
    for command in (*commands, "server status"):
        assert command.split()[0] in whole
        said = good(program(*command.split(), "--help"))
        assert good(program(*command.split(), "-h")) == said
        assert f"Usage: app_start.py {command}" in said


def test_the_module_and_the_script_are_the_same_program() -> None:
    script, module = printed(*PROGRAM, "--help"), printed(sys.executable, "-m", "distlock", "-h")
    assert module.replace("python -m distlock", "app_start.py") == script
    assert "Usage: python -m distlock [OPTIONS]" in module
    assert printed(sys.executable, "-m", "distlock", "--version").endswith(f" {__version__}\n")


@ONE_KIND
def test_a_copy_works_with_a_closed_stderr(url: str) -> None:
    line = f"exec {shlex.join([*PROGRAM, '--messages', '5', '--url', url])} 2>&-"
    done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == 0
    assert "done: 5 messages, 5 stored" in done.stdout


@ONE_KIND
def test_a_closed_stdout_loses_no_errors(url: str, client: redis.Redis) -> None:
    pipe = Pipe(SyncIO(client, patience=0), attempts=1)
    pipe.generator.publish(1, [b"x"])
    handler = pipe.handler("a")
    handler.exchange(settle(handler.exchange(Outcome(), 1), lambda id: True), 0)
    take = [*PROGRAM, "--getErrors", "take", "--name", "test", "--url", url]
    line = f"exec {shlex.join(take)} >&-"
    done = subprocess.run(["bash", "-c", line], stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr == (
        "app_start.py: stdout is closed: let it go somewhere, such as >/dev/null\n"
    )
    assert partition(client, pipe.keys)["errors"] == [1]


@ONE_KIND
def test_the_module_runs_a_job_like_the_script(url: str) -> None:
    command = [sys.executable, "-m", "distlock", "--messages", "5"]
    done = subprocess.run(
        command, env={**os.environ, "REDIS_URL": url}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "done: 5 messages, 5 stored" in done.stdout


def test_the_demo_uses_no_server_of_the_users_even_if_the_environment_names_one(
    program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, bool, str | None]] = []
    monkeypatch.setattr("distlock.demo.pipeline.show", lambda *what: shown.append(what))
    good(program("--json", "demo", "--messages", "7", DISTLOCK_MESSAGES="3"))
    assert shown == [(7, True, None)]


def test_the_copies_of_a_demo_know_nothing_of_the_settings_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DISTLOCK_NAME", "other")
    copy = start_copy("distlock", ["--version"], tmp_path, stdout=subprocess.DEVNULL)
    with open(f"/proc/{copy.pid}/environ") as environment:
        names = {word.partition("=")[0] for word in environment.read().split("\0")}
    assert copy.wait() == 0
    assert {name for name in names if name.startswith("DISTLOCK_")} == {"DISTLOCK_HOME"}


@pytest.mark.parametrize(
    ("messages", "killed"), [(1, set()), (12, {"generator killed", "handler killed"})]
)
def test_a_demo_of_few_messages_kills_while_there_is_time_and_never_after_the_end(
    messages: int, killed: set[str], tmp_path: Path
) -> None:
    picture = tmp_path / "demo.svg"
    command = [*PROGRAM, "demo", "--json", "--messages", str(messages), "--plot", str(picture)]
    environment = {**os.environ, "REDIS_URL": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done
    told = json.loads(done.stdout)
    assert killed <= set(told["marks"])
    assert ("server killed" in told["marks"]) == bool(killed)
    stored = sum(told["stored_per_second"]) * told["step"]
    assert stored == pytest.approx(told["stored"], abs=1)  # each column is rounded
    assert ("server back" in picture.read_text()) == ("server back" in told["marks"])


def test_help_and_version_ask_no_server_and_start_none(embedded_home: Path) -> None:
    home = {"DISTLOCK_HOME": str(embedded_home), "REDIS_URL": ""}
    for line in ("--help", "--version", "status --help"):
        assert printed(*PROGRAM, *line.split(), **home)
    assert list(embedded_home.iterdir()) == []


# --- the embedded server ----------------------------------------------------------------------


def test_the_embedded_server_is_started_shown_and_stopped(
    program: Run, embedded_home: Path
) -> None:
    home = {"DISTLOCK_HOME": str(embedded_home)}
    dead = {"alive": False, "pid": None, "folder": str(embedded_home)}
    url = f"unix://{embedded_home}/valkey.sock"

    assert good(program("server", "status", **home)) == (
        f"no embedded server runs; its folder is {embedded_home}\n"
    )
    started = good(program("server", "start", **home))
    found = re.fullmatch(rf"embedded server started: process (\d+), {url}\n", started)
    assert found
    pid = found[1]
    runs = f"embedded server runs: process {pid}, {url}\n"
    assert good(program("server", "status", **home)) == runs
    again = good(program("server", "start", **home))
    assert again == f"embedded server runs already: process {pid}, {url}\n"
    for line in (["--json", "server", "status"], ["server", "status", "--json"]):
        [shown] = objects(good(program(*line, **home)))
        assert shown == {**dead, "alive": True, "pid": int(pid), "url": url}
    stopped = "embedded server stopped; its data stays\n"
    assert good(program("server", "stop", **home)) == stopped
    assert good(program("server", "stop", **home)) == "no embedded server runs\n"
    assert objects(good(program("--json", "server", "status", **home))) == [{**dead, "url": url}]


def test_the_embedded_server_speaks_json_too(program: Run, embedded_home: Path) -> None:
    home = {"DISTLOCK_HOME": str(embedded_home)}
    [started] = objects(good(program("server", "start", "--json", **home)))
    assert started["started"] is True
    os.kill(started["pid"], 0)
    [again] = objects(good(program("--json", "server", "start", **home)))
    assert again == started | {"started": False}
    assert objects(good(program("server", "stop", "--json", **home))) == [{"stopped": True}]


@pytest.fixture
def terminal(embedded_home: Path) -> Iterator[Start]:
    """Starts the program as a process that names no server; ends all of them after the test."""
    processes: list[subprocess.Popen[str]] = []

    def terminal(line: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*PROGRAM, *line.split()],
            env={**os.environ, "REDIS_URL": "", "DISTLOCK_HOME": str(embedded_home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield terminal
    for process in processes:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> str:
    """What a process printed to stdout; it must end well."""
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return out


def test_two_terminals_share_the_embedded_server(terminal: Start, embedded_home: Path) -> None:
    ended(terminal("server start"))
    first = terminal("--json --messages 60 --interval 0.01")
    assert first.stderr
    events = [json.loads(first.stderr.readline()) for _ in range(3)]
    assert events[0]["text"].startswith("server: embedded Valkey ")
    assert f", found in {embedded_home}; it stays for all terminals until `" in events[0]["text"]
    second = terminal("--json --sleep 0.001")
    results = [json.loads(ended(copy)) for copy in (first, second)]
    assert [result["stored"] for result in results] == [60, 60]
    assert sum(result["copy"]["stored"] for result in results) == 60
    assert "60 generated: 0 lost, 0 stored twice" in ended(terminal("verify"))
    ended(terminal("server stop"))


def test_with_no_server_named_and_none_there_the_embedded_one_is_started(
    terminal: Start, embedded_home: Path
) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("localhost", 6379)) == 0:
            pytest.skip("somebody answers at localhost:6379")
    for how, line in (("started", "--json --messages 5"), ("found", "--json")):
        out, err = terminal(line).communicate(timeout=30)
        said = objects(err)[0]["text"]
        assert f", {how} in {embedded_home}; it stays for all terminals until `" in said
        assert "server stop`" in said
        assert json.loads(out)["stored"] == 5


def test_an_embedded_server_that_dies_while_a_copy_starts_is_started_again(
    program: Run, embedded_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded, killed, really = Embedded(embedded_home), list[int](), connect.check

    def check(url: str, keys: Keys) -> str:
        if pid := 0 if killed else embedded.pid():
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not embedded.alive())
        return really(url, keys)

    monkeypatch.setattr("distlock.connect.check", check)
    embedded.start()
    done = good(program("--messages", "5", REDIS_URL="", DISTLOCK_HOME=str(embedded_home)))
    assert "done: 5 messages" in done
    assert killed


def test_a_database_of_the_embedded_server_is_chosen_by_option(terminal: Start) -> None:
    ended(terminal("server start"))
    assert "done: 5 messages" in ended(terminal("--messages 5 --db 4"))
    assert "5 generated" in ended(terminal("verify --db 4"))
    assert "0 generated" in ended(terminal("verify"))
