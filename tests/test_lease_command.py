"""`distlock lease NAME -- command` and `distlock leases`, as real processes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from distlock import Lease
from tests.conftest import ONE_KIND, ROOT, Done
from tests.tools import wait_until

KEY, LINE = "distlock:{t}:lease", "distlock:{t}:line"
TOLD = """
import os, signal

def told(*_):
    os.write(1, b"told\\n")
    os._exit({code})

signal.signal({number:d}, told)
os.write(1, b"on\\n")
while True:
    signal.pause()
"""
"""A command that says which signal it got. (A shell's own child may swallow one as it begins.)"""
Start = Callable[..., subprocess.Popen[str]]
Program = Callable[..., Done]


def ended(process: subprocess.Popen[str], seconds: float = 20) -> Done:
    """How a process ended, and what it printed."""
    out, err = process.communicate(timeout=seconds)
    return Done(process.returncode, out, err)


def test_a_command_runs_under_the_lease_with_its_token_and_passes_its_code_on(
    start: Start, client: redis.Redis
) -> None:
    script = "echo $DISTLOCK_LEASE $DISTLOCK_TOKEN; exit 3"
    done = ended(start("lease", "t", "--", "sh", "-c", script))
    name, token = done.out.split()
    assert (done.code, name, done.err) == (3, "t", "")
    assert client.get("distlock:{t}:token") == token.encode()
    assert client.exists(KEY, LINE) == 0
    assert ended(start("lease", "t", "--", "sh", "-c", "kill -9 $$")).code == 128 + 9


def test_only_one_command_runs_at_a_time_and_the_next_one_waits(
    start: Start, client: redis.Redis, tmp_path: Path
) -> None:
    script = f"[ -e {tmp_path}/on ] && echo both; touch {tmp_path}/on; sleep 0.2; rm {tmp_path}/on"
    running = [start("lease", "t", "--", "sh", "-c", script) for _ in range(4)]
    for process in running:
        done = ended(process)
        assert (done.code, done.out) == (0, "")


def test_wait_0_tries_once_and_says_who_has_it(start: Start, url: str) -> None:
    holder = Lease(url, "t", who="other")
    holder.acquire()
    for wait in ("0", "0.2"):
        done = ended(start("lease", "t", "--wait", wait, "--", "echo", "no"))
        assert (done.code, done.out) == (1, "")
        assert "other/" in done.err
        assert len(done.err.splitlines()) == 1
    holder.release()
    assert ended(start("lease", "t", "--wait", "0", "--", "echo", "yes")).out == "yes\n"


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_command_is_stopped_with_all_it_started_when_the_lease_is_lost(
    start: Start, client: redis.Redis, stubborn: bool, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    trap = "trap '' TERM; " if stubborn else ""
    script = f"{trap}sleep 300 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait; sleep 300"
    process = start("lease", "t", "--ttl", "0.5", "--", "sh", "-c", script)
    wait_until(pids.exists)
    client.delete(KEY)
    done = ended(process)
    assert done.code != 0
    assert "was lost" in done.err
    assert ("killing it" in done.err) == stubborn
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: not alive(int(pid)))


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on_to_the_command_and_the_lease_released_when_it_has_ended(
    start: Start, client: redis.Redis, number: signal.Signals
) -> None:
    process = start("lease", "t", "--", sys.executable, "-c", TOLD.format(number=number, code=7))
    assert process.stdout
    assert process.stdout.readline() == "on\n"
    process.send_signal(number)
    done = ended(process)
    assert (done.code, done.out) == (7, "told\n")
    assert client.exists(KEY) == 0


def test_when_it_is_killed_its_command_ends_too(start: Start, tmp_path: Path) -> None:
    process = start("lease", "t", "--", "sh", "-c", "echo $$; exec sleep 300")
    assert process.stdout
    pid = int(process.stdout.readline())
    process.kill()
    wait_until(lambda: not alive(pid))


def test_ctrl_c_while_it_waits_leaves_no_place_in_line(
    start: Start, client: redis.Redis, url: str
) -> None:
    holder = Lease(url, "t")
    holder.acquire()
    process = start("lease", "t", "--", "echo", "no")
    wait_until(lambda: client.llen(LINE) == 1)
    process.send_signal(signal.SIGINT)
    done = ended(process)
    assert (done.code, done.out) == (130, "")
    assert client.exists(LINE) == 0
    holder.release()


def test_on_a_terminal_ctrl_c_reaches_the_command(url: str, client: redis.Redis) -> None:
    command = [sys.executable, str(ROOT / "app_start.py"), "lease", "t", "--"]
    command += [sys.executable, "-c", TOLD.format(number=signal.SIGINT, code=9)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, {**os.environ, "REDIS_URL": url})
    said = b""
    while b"on" not in said:
        said += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert b"told" in os.read(terminal, 1000)
    assert client.exists(KEY) == 0
    os.close(terminal)


@ONE_KIND
def test_leases_lists_who_holds_what_and_how_many_wait(
    program: Program, url: str, client: redis.Redis, start: Start
) -> None:
    assert program("leases", REDIS_URL=url).out.split() == [
        "LEASE",
        "OWNER",
        "TOKEN",
        "LEFT",
        "WAITING",
    ]
    first, second = Lease(url, "a-long-name", who="me"), Lease(url, "t", who="you")
    first.acquire()
    second.acquire()
    client.set("distlock:{x}:later", "no lease")
    waiter = start("lease", "t", "--", "true")
    wait_until(lambda: client.llen(LINE) == 1)
    _, *rows = program("leases", REDIS_URL=url).out.splitlines()
    assert [row.split()[0] for row in rows] == ["a-long-name", "t"]
    assert [row.split()[-1] for row in rows] == ["0", "1"]
    assert rows[0].split()[1:3] == [first.owner, str(first.token)]
    found = [json.loads(row) for row in program("leases", "--json", REDIS_URL=url).out.splitlines()]
    assert [lease["name"] for lease in found] == ["a-long-name", "t"]
    assert found[1]["owner"] == second.owner
    assert len(found[1]["waiters"]) == 1
    first.release()
    second.release()
    assert ended(waiter).code == 0


@ONE_KIND
@pytest.mark.parametrize(
    ("arguments", "word", "code"),
    [
        (("lease",), "Missing argument", 2),
        (("lease", "t"), "Missing argument", 2),
        (("lease", "a b", "--", "true"), "name 'a b'", 2),
        (("lease", "t", "--ttl", "0", "--", "true"), "--ttl", 2),
        (("lease", "t", "--ttl", "x", "--", "true"), "--ttl", 2),
        (("lease", "t", "--wait", "-1", "--", "true"), "--wait", 2),
        (("lease", "t", "--", "no-such-program"), "no-such-program", 127),
        (("--name", "x", "lease", "t", "--", "true"), "--name", 2),
        (("--name", "x", "leases"), "--name", 2),
        (("--messages", "5", "leases"), "--messages", 2),
    ],
)
def test_11_what_cannot_be_used_is_one_line_and_changes_nothing(
    program: Program, url: str, client: redis.Redis, arguments: list[str], word: str, code: int
) -> None:
    done = program(*arguments, REDIS_URL=url)
    assert (done.code, done.out) == (code, "")
    assert word in done.err
    assert len(done.err.splitlines()) == 1
    assert client.keys() == []


def test_11_a_server_that_is_away_is_one_line(program: Program) -> None:
    began = time.monotonic()
    done = program("lease", "t", "--", "true")
    assert (done.code, done.out) == (3, "")
    assert len(done.err.splitlines()) == 1
    assert time.monotonic() - began < 3
