"""Each program of `examples/` does what it says, run by the commands that stand in it.

A command runs in a shell as in an activated venv, in a folder with the examples, on a real server.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import sqlite3
import subprocess
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import redis

from distlock import Lease
from distlock.keys import Keys
from tests.conftest import ONE_KIND
from tests.tools import ROOT, activated, partition, wait_until

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SECONDS = 60
"""After this an example counts as endless."""


def commands(name: str) -> list[str]:
    """The command lines in the docstring of an example: what is indented there."""
    text = ast.get_docstring(ast.parse((ROOT / "examples" / f"{name}.py").read_text()))
    return [line.strip() for line in (text or "").splitlines() if line.startswith("    ")]


class Shell:
    """A folder with the examples, and shells in it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.environment = activated(folder / "bin") | {"REDIS_URL": url}
        self.processes: list[subprocess.Popen[str]] = []
        for file in EXAMPLES:
            (folder / file.name).symlink_to(file)

    def start(self, line: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command line."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def run(self, *lines: str, code: int = 0, **environment: str) -> list[str]:
        """Run command lines at the same time; each ends with this code. Returns their outputs."""
        printed = []
        for process in [self.start(line, **environment) for line in lines]:
            out, err = process.communicate(timeout=SECONDS)
            assert process.returncode == code, err
            printed.append(out if code == 0 else err)
        return printed

    def other(self, name: str, old: str, new: str) -> str:
        """The command for an example in which something is different."""
        text = (self.folder / f"{name}.py").read_text()
        assert text.count(old) == 1
        (self.folder / "other.py").write_text(text.replace(old, new))
        return "python other.py"

    def close(self) -> None:
        """End what still runs."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def shell(url: str, tmp_path: Path) -> Iterator[Shell]:
    """A shell with the examples on an empty server."""
    shell = Shell(tmp_path, url)
    yield shell
    shell.close()


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def http(answer: Callable[[str], Answer]) -> Iterator[str]:
    """A web server that gives, for a path, status, headers and body; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self.path)
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("localhost", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_each_example_opens_with_what_it_shows_and_the_commands_to_run_it(file: Path) -> None:
    lines = commands(file.stem)
    assert any(re.search(rf"\b{file.stem}(\.py|:)", line) for line in lines)
    assert all(re.match(r"(python|distlock) ", line) for line in lines)
    assert len((ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]) > 40


def test_every_example_stands_in_the_list_of_them() -> None:
    listed = re.findall(r"\]\((\w+\.py)\)", (ROOT / "examples" / "README.md").read_text())
    assert sorted(listed) == [file.name for file in EXAMPLES]


@ONE_KIND
def test_an_access_log_is_parsed_by_three_copies_and_each_line_counted_once(
    shell: Shell, client: redis.Redis
) -> None:
    statuses = [(200, 404, 500)[number % 7 % 3] for number in range(3000)]
    lines = [
        f'10.0.0.{number % 200} - - [25/Nov/2026:23:00:00 +0000] "GET /p{number % 9} HTTP/1.1" '
        f'{status} {number if status == 200 else "-"} "-" "curl"'
        for number, status in enumerate(statuses)
    ]
    lines[::1000] = ["no line of a log"] * 3
    (shell.folder / "access.log").write_text("\n".join(lines) + "\n")
    copy, report = commands("access_log")
    shell.run(copy, copy, copy, DISTLOCK_ATTEMPTS="1")
    (printed,) = shell.run(report)
    counts = Counter(re.findall(r'HTTP/1.1" (\d+)', "\n".join(lines)))
    sent = sum(int(size) for size in re.findall(r'" 200 (\d+)', "\n".join(lines)))
    shown = re.findall(r"^(\d+) +([\d,]+) lines +([\d,]+) bytes$", printed, re.MULTILINE)
    numbers = {row[0]: tuple(int(number.replace(",", "")) for number in row[1:]) for row in shown}
    assert numbers == {
        status: (count, sent if status == "200" else 0) for status, count in counts.items()
    }
    assert sorted(partition(client, Keys("access"))["errors"]) == [1, 1001, 2001]


@ONE_KIND
def test_a_cron_job_of_three_machines_runs_once_a_day(shell: Shell, client: redis.Redis) -> None:
    (line,) = commands("cron_job")
    today = datetime.now(UTC).date().isoformat()
    printed = shell.run(line, line, line)
    if datetime.now(UTC).date().isoformat() != today:
        pytest.skip("midnight came between them")
    assert sorted(printed) == [f"{today} is done\n"] + 2 * [f"{today} is done already\n"]
    assert len((shell.folder / "backup.log").read_text().splitlines()) == 1
    client.set("{backup}:done", "2026-01-01")
    assert shell.run(line) == [f"{today} is done\n"]
    assert len((shell.folder / "backup.log").read_text().splitlines()) == 2


@ONE_KIND
def test_a_cron_job_whose_machine_dies_is_done_by_the_next_one(shell: Shell, url: str) -> None:
    (line,) = commands("cron_job")
    first = shell.start(shell.other("cron_job", "range(5)", "range(600)"))
    with redis.Redis.from_url(url) as client:
        wait_until(lambda: client.hexists("distlock:{backup}:lease", "connections"))
        client.config_resetstat()
        second = shell.start(line)
        # until the second has seen the first alive: only then is its absence a death
        wait_until(lambda: "cmdstat_client|list" in client.info("commandstats"), 8)
        os.killpg(first.pid, signal.SIGKILL)
    began = time.monotonic()
    assert second.communicate(timeout=SECONDS)[0].endswith("is done\n")
    assert time.monotonic() - began < 8  # not only when the lease is over
    assert len((shell.folder / "backup.log").read_text().splitlines()) == 1


@ONE_KIND
def test_a_cron_job_that_stands_by_too_long_says_who_has_it(shell: Shell, url: str) -> None:
    line = shell.other("cron_job", "WAIT = 3600.0", "WAIT = 0.1")
    with Lease(url, "backup") as lease:
        assert lease.owner in shell.run(line, code=1)[0]
    assert not (shell.folder / "backup.log").exists()


@ONE_KIND
def test_a_rate_limited_api_is_asked_once_for_each_town_by_all_processes(shell: Shell) -> None:
    answered, refused = Counter[str](), Counter[str]()
    free = threading.Semaphore(0)

    def answer(path: str) -> Answer:
        if not free.acquire(blocking=False):  # each second request is one too many
            refused[path] += 1
            free.release()
            return 429, {"Retry-After": "0.2"}, b""
        answered[path] += 1
        return 200, {}, json.dumps({"place": path.rpartition("/")[2]}).encode()

    (line,) = commands("rate_limited")
    with http(answer) as url:
        printed = shell.run(line, line, line, line, API=url)
    assert printed == 4 * [
        'Oslo {"place": "Oslo"}\nRome {"place": "Rome"}\nOslo {"place": "Oslo"}\n'
    ]
    assert answered == {"/weather/Oslo": 1, "/weather/Rome": 1}
    assert refused == answered


@ONE_KIND
def test_an_async_handler_tells_good_links_from_those_that_are_gone_or_fail(shell: Shell) -> None:
    asked = Counter[str]()

    def answer(path: str) -> Answer:
        asked[path] += 1
        recovers = path == "/recovers?a=1" and asked[path] == 2
        return (404 if path == "/gone" else 200 if path == "/good" or recovers else 503), {}, b"x"

    (line,) = commands("fetch")
    with http(answer) as url:
        links = [url + path for path in ("/good", "/gone", "/recovers?a=1", "/down")]
        (shell.folder / "links.txt").write_text("\n".join([*links, "http://localhost:1/"]))
        shell.run(line, DISTLOCK_ATTEMPTS="2")
    with redis.Redis.from_url(shell.environment["REDIS_URL"]) as client:
        results = [json.loads(value) for value in client.hvals(Keys("links").store(0))]
        failed = [client.hget(Keys("links").errors, str(id)) or b"" for id in (4, 5)]
    found = {result["url"].removeprefix(url): result["status"] for result in results}
    assert found == {"/good": 200, "/gone": 404, "/recovers?a=1": 200}
    assert b'"NotNow"' in failed[0]
    assert b'"ConnectionRefusedError"' in failed[1]
    assert asked == {"/good": 1, "/gone": 1, "/recovers?a=1": 2, "/down": 2}


@ONE_KIND
def test_results_move_into_sqlite_once_and_never_under_an_old_token(
    shell: Shell, client: redis.Redis
) -> None:
    (line,) = commands("to_sqlite")
    shell.run("distlock --name shop --messages 5000")
    assert shell.run(line) == ["5,000 results moved to results.db\n"]
    stored = {
        int(id): value
        for bucket in (0, 1)
        for id, value in client.hgetall(Keys("shop").store(bucket)).items()
    }
    base = sqlite3.connect(shell.folder / "results.db")
    assert dict(base.execute("SELECT * FROM result")) == stored
    with base:  # as if a mover had been killed in the middle
        base.execute("DELETE FROM result WHERE id > 4990")
    assert shell.run(line) == ["905 results moved to results.db\n"]  # of the second bucket alone
    assert dict(base.execute("SELECT * FROM result")) == stored
    with base:  # as if a later owner of the lease had written, and this one were frozen meanwhile
        base.execute("DELETE FROM result WHERE id = 1")
        base.execute("UPDATE mover SET token = token + 1000000000000000")
    assert "StaleToken" in shell.run(line, code=1)[0]
    assert base.execute("SELECT count(*) FROM result").fetchone() == (4999,)
    base.close()


@ONE_KIND
def test_a_prefix_is_forgotten_by_its_version_and_nothing_else_is(shell: Shell) -> None:
    assert shell.run(commands("by_prefix")[0])[0] == textwrap.dedent("""\
        looking up tea of Oslo
        looking up cake of Oslo
        looking up tea of Rome
        tea of Oslo: 5 | cake of Oslo: 5 | tea of Rome: 5
        tea of Oslo: 5 | cake of Oslo: 5 | tea of Rome: 5
        forgetting Oslo
        looking up tea of Oslo
        looking up cake of Oslo
        tea of Oslo: 5 | cake of Oslo: 5 | tea of Rome: 5
    """)
