"""What a server may do to those who work on it: refuse, forget, hang up, stall, lose its clock.

Copies at work go on by themselves when it is over. When it is not, each ends with one line that
says what to do, and its exit code. However it ends, each id is in one place.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import redis

from distlock import AsyncCache, AsyncLease, Cache, Lease
from distlock.errors import ServerUnreachable
from distlock.io import SyncIO, run
from distlock.keys import TYPES, CacheKeys, Keys
from distlock.pipeline import Verifier
from tests.caches import Caches
from tests.conftest import ONE_KIND, Done, Server
from tests.leases import Faces, in_thread
from tests.tools import partition, wait_until

Start = Callable[..., subprocess.Popen[str]]
Program = Callable[..., Done]
KEYS = Keys("test")
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class Spoilt(Server):
    """A server with an append-only file that a test may spoil.

    It ignores SIGXFSZ: a write beyond the limit of a file fails, as on a full disk.
    """

    how: ClassVar[dict[str, Any]] = {"restore_signals": False}

    def __init__(self, kind: str) -> None:
        super().__init__(kind, "--appendonly", "yes", "--appendfsync", "no")
        self.admin = redis.Redis.from_url(self.url, single_connection_client=True)

    def send(self, *words: str) -> Any:
        """Send one command as it stands."""
        execute: Callable[..., Any] = self.admin.execute_command
        return execute(*words)

    def close(self) -> None:
        """End it."""
        self.admin.close()
        super().close()


@pytest.fixture
def spoilt(real: Server) -> Iterator[Spoilt]:
    """A server of the test's own."""
    server = Spoilt(real.kind)
    yield server
    server.close()


@contextmanager
def setting(server: Spoilt, name: str, bad: str, good: str) -> Iterator[None]:
    """A setting of the server that makes it refuse."""
    server.admin.config_set(name, bad)
    yield
    server.admin.config_set(name, good)


@contextmanager
def no_memory(server: Spoilt) -> Iterator[None]:
    """The server is at its maxmemory."""
    with setting(server, "maxmemory", "1", "0"):
        yield


@contextmanager
def no_replicas(server: Spoilt) -> Iterator[None]:
    """The server wants a replica for each write, and has none."""
    with setting(server, "min-replicas-to-write", "1", "0"):
        yield


@contextmanager
def demoted(server: Spoilt) -> Iterator[None]:
    """The server is the replica of one that is not there."""
    server.send("REPLICAOF", "127.0.0.1", "1")
    yield
    server.send("REPLICAOF", "NO", "ONE")


@contextmanager
def no_snapshot(server: Spoilt) -> Iterator[None]:
    """The server cannot write its snapshot."""
    (server.folder / "dump.rdb").mkdir()
    with setting(server, "save", "3600 1", ""):
        server.admin.bgsave()
        state = "rdb_last_bgsave_status"
        wait_until(lambda: server.admin.info("persistence")[state] == "err")
        yield
    (server.folder / "dump.rdb").rmdir()


@contextmanager
def no_disk(server: Spoilt) -> Iterator[None]:
    """The server cannot write to its append-only file."""
    most = resource.RLIM_INFINITY
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, most))
    yield
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))


@contextmanager
def long_script(server: Spoilt) -> Iterator[None]:
    """Somebody's script does not end."""
    server.admin.config_set("lua-time-limit", "20")

    def run() -> None:
        with redis.Redis.from_url(server.url) as other, suppress(redis.ResponseError):
            other.eval("while true do end", 0)  # until it is killed

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: _is_busy(server))
        yield
    finally:
        server.send("SCRIPT", "KILL")
        thread.join()


def _is_busy(server: Spoilt) -> bool:
    try:
        server.admin.ping()
    except redis.ResponseError:
        return True
    return False


class Fault(NamedTuple):
    """Something that a server does to those who want to write.

    Attributes:
        begin: has it do so while the block runs.
        said: in the event of a copy that waits.
        line: in the last line of a copy that has waited in vain.
        code: its exit code.
        open: whether the server answers who only reads, in a transaction.
    """

    begin: Callable[[Spoilt], Any]
    said: str
    line: str
    code: int = 1
    open: bool = True


FAULTS = [
    Fault(
        no_memory, "takes no writes (command not allowed when", "raise its maxmemory", open=False
    ),
    Fault(no_replicas, "takes no writes (NOREPLICAS", "too few replicas are connected"),
    Fault(demoted, "takes no writes (You can't write", "a read-only replica: name its primary"),
    Fault(no_snapshot, "takes no writes (MISCONF", "cannot write to its disk: make room there"),
    Fault(no_disk, "takes no writes (MISCONF", "cannot write to its disk: make room there"),
    Fault(long_script, "is away (BUSY", "end it with SCRIPT KILL", 3, open=False),
]


class Copy:
    """A copy at work on the pipeline `test`, and what it has said so far."""

    def __init__(self, start: Start, url: str, *options: str) -> None:
        few = ("--max-queue", "200", "--sleep", "0.002", "--ttl", "2", "--handler-ttl", "2")
        self.process = start("--name", "test", "--json", *few, *options, REDIS_URL=url)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        self.lines.extend(self.process.stderr)

    def said(self, kind: str) -> list[str]:
        """The texts of its events of a kind."""
        events = [json.loads(line) for line in list(self.lines) if line[:1] == "{"]
        return [event["text"] for event in events if event["event"] == kind]

    def end(self, seconds: float = 30.0) -> tuple[int, str]:
        """Wait for its end: the exit code, and the last line."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code, self.lines[-1].rstrip()


def stored(admin: redis.Redis) -> int:
    """How many messages are stored."""
    return int(admin.hget(KEYS.stats, "stored") or 0)


def goes_on(server: Spoilt) -> None:
    """More messages are stored than were."""
    before = stored(server.admin)
    wait_until(lambda: stored(server.admin) > before + 20)


def test_copies_at_work_go_on_by_themselves_after_whatever_their_server_did(
    start: Start, spoilt: Spoilt
) -> None:
    copies = [Copy(start, spoilt.url, "--messages", "1000000") for _ in range(2)]
    goes_on(spoilt)
    for fault in FAULTS:

        def heard(fault: Fault = fault) -> bool:
            return any(fault.said in text for copy in copies for text in copy.said("away"))

        with fault.begin(spoilt):
            wait_until(heard)
            if fault.open:
                partition(spoilt.admin, KEYS)
        goes_on(spoilt)
        partition(spoilt.admin, KEYS)
    for copy in copies:
        copy.process.send_signal(signal.SIGTERM)
    assert [copy.end()[0] for copy in copies] == [0, 0]
    partition(spoilt.admin, KEYS)
    assert Verifier(SyncIO(spoilt.admin, patience=0), KEYS).verify().good


@ONE_KIND
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.begin.__name__)
def test_a_copy_that_waits_in_vain_ends_with_one_line_and_a_new_one_with_the_same_at_once(
    start: Start, spoilt: Spoilt, program: Program, fault: Fault
) -> None:
    copy = Copy(start, spoilt.url, "--messages", "1000000", "--patience", "0.5")
    goes_on(spoilt)
    with fault.begin(spoilt):
        code, line = copy.end()
        assert (code, fault.line in line) == (fault.code, True), line
        done = program("--name", "new", "--messages", "5", REDIS_URL=spoilt.url)
        assert (done.code, fault.line in done.err.splitlines()[-1]) == (fault.code, True), done
    assert not spoilt.admin.exists(*Keys("new").pick(TYPES))
    partition(spoilt.admin, KEYS)
    assert "Traceback" not in "".join(copy.lines) + done.err


def test_scripts_that_are_forgotten_and_connections_that_are_cut_are_no_trouble(
    start: Start, spoilt: Spoilt
) -> None:
    copies = [Copy(start, spoilt.url, "--messages", "800") for _ in range(2)]
    goes_on(spoilt)
    kills = 0
    while stored(spoilt.admin) < 600:
        spoilt.send("SCRIPT", "FLUSH")
        for kind in ("normal", "pubsub"):
            kills += spoilt.send("CLIENT", "KILL", "TYPE", kind)
        partition(spoilt.admin, KEYS)
        before = stored(spoilt.admin)
        wait_until(lambda before=before: stored(spoilt.admin) > before)
    assert kills > 30
    assert [copy.end()[0] for copy in copies] == [0, 0]
    assert len(partition(spoilt.admin, KEYS)["store"]) == 800


def test_an_outage_leaves_no_connection_for_the_garbage_collector(spoilt: Spoilt) -> None:
    def outlives() -> tuple[weakref.ref[SyncIO], weakref.ref[SyncIO]]:
        back = SyncIO(spoilt.admin, 20, on_outage=lambda error, seconds: spoilt.start())
        lost = SyncIO(spoilt.admin, 0)
        for io in (back, lost):
            run(io.command("GET", "key"))
        spoilt.kill()
        with pytest.raises(ServerUnreachable):
            run(lost.command("GET", "key"))
        run(back.command("GET", "key"))
        assert back.resent == 1
        return weakref.ref(back), weakref.ref(lost)

    gc.disable()
    try:
        assert [io() for io in outlives()] == [None, None]
    finally:
        gc.enable()


# --- keys and rights that change under copies at work ------------------------------------------


@contextmanager
def meanwhile(ready: Callable[[], Any], do: Callable[[], Any]) -> Iterator[None]:
    """Do something in a thread while the block runs, when it is time to."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            wait_until(ready)
            do()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()
    assert not failures, failures


MESSAGES = 1000
RUN = [
    *("--name", "test", "--messages", str(MESSAGES), "--sleep", "0.002", "--batch", "10"),
    *("--error-rate", "0.2", "--attempts", "2", "--ttl", "0.4", "--handler-ttl", "0.5"),
]


@ONE_KIND
@pytest.mark.parametrize("name", [*TYPES, "store:0"])
def test_a_key_that_somebody_overwrites_under_a_copy_at_work_loses_nothing_but_itself(
    url: str, program: Program, name: str
) -> None:
    key = KEYS.prefix + name
    with redis.Redis.from_url(url) as admin:

        def at_work() -> bool:
            return bool(admin.hlen(KEYS.store(0)) > 20 and admin.exists(KEYS.errors))

        def spoil() -> None:
            with admin.pipeline(transaction=True) as at_once:
                if admin.exists(key):
                    at_once.rename(key, "kept")
                if TYPES.get(name) == "string":
                    at_once.rpush(key, "foreign")
                else:
                    at_once.set(key, "foreign")
                at_once.execute()

        with meanwhile(at_work, spoil):
            done = program(*RUN, REDIS_URL=url)
        assert done.code in (0, 1), done
        assert "Traceback" not in done.err
        if done.code == 1:  # else it needed that key no more, or not again
            last = done.err.splitlines()[-1]
            assert "a key in our name holds something that is not ours" in last, last
            assert "take another --name, or delete it" in last
        else:
            assert name == "line"  # a copy alone has nobody to stand in it
        admin.delete(key)
        if admin.exists("kept"):
            admin.rename("kept", key)
        partition(admin, KEYS)


WHO = "narrow"


@contextmanager
def user(admin: redis.Redis, url: str) -> Iterator[str]:
    """The URL of a server with a user in it who may do everything, until that is taken away."""
    execute: Callable[..., Any] = admin.execute_command
    execute("ACL", "SETUSER", WHO, "reset", "on", ">secret", "~*", "&*", "+@all")
    try:
        yield url.replace("unix://", f"unix://{WHO}:secret@")
    finally:
        execute("ACL", "DELUSER", WHO)


@ONE_KIND
@pytest.mark.parametrize("command", ["HSET", "ZADD", "HINCRBY", "EVALSHA"])
def test_a_right_that_is_taken_away_from_a_copy_at_work_ends_it_and_nothing_is_half_done(
    url: str, client: redis.Redis, program: Program, command: str
) -> None:
    execute: Callable[..., Any] = client.execute_command
    with user(client, url) as narrow:

        def take_away() -> None:
            execute("ACL", "SETUSER", WHO, f"-{command}")

        with meanwhile(lambda: client.hlen(KEYS.store(0)) > 20, take_away):
            done = program(*RUN, REDIS_URL=narrow)
        partition(client, KEYS)
        assert done.code == 1, done
        last = done.err.splitlines()[-1]
        assert f"'{command.lower()}'" in last.lower()
        assert "grant it with ACL SETUSER" in last
        execute("ACL", "SETUSER", WHO, f"+{command}")
        assert program(*RUN, REDIS_URL=narrow).code == 0  # another one finds all as it should be
    found = partition(client, KEYS)
    assert len(found["store"]) + len(found["errors"]) == MESSAGES


@ONE_KIND
@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_lease_or_cache_without_a_right_raises_at_once_and_leaves_nothing(
    url: str, client: redis.Redis, face: str
) -> None:
    execute: Callable[..., Any] = client.execute_command

    async def body(narrow: str) -> None:
        faces, caches = Faces(face, narrow), Caches(face, narrow)
        for command in ("PEXPIRE", "HSET", "PUBLISH", "LPOP"):
            execute("ACL", "SETUSER", WHO, f"-{command}")
            with pytest.raises(redis.exceptions.NoPermissionError, match=f"(?i)'{command}'"):
                await faces.lease().acquire()
            assert client.keys("distlock:*") == []
            execute("ACL", "SETUSER", WHO, f"+{command}")
        cache = caches.cache()
        for command in ("SADD", "PUBLISH", "SMEMBERS"):
            execute("ACL", "SETUSER", WHO, f"-{command}")
            with pytest.raises(redis.exceptions.NoPermissionError, match=f"(?i)'{command}'"):
                await cache.get("k", lambda: 1, expire=5, execution_limit=5)
            assert client.keys("distlock:*:{cache:k}") == []
            execute("ACL", "SETUSER", WHO, f"+{command}")
        assert await cache.get("k", lambda: 1, expire=5, execution_limit=5) == 1
        lease = faces.lease()
        assert await lease.acquire(timeout=5)
        await lease.release()

    with user(client, url) as narrow:
        asyncio.run(body(narrow))


# --- a password that is wrong -----------------------------------------------------------------

COMMANDS = [
    *("--messages 5", "verify", "status", "--getErrors", "--getErrors take", "--retryErrors"),
    *("--cleanTemp", "--reset --yes", "leases", "lease nightly -- true", "verify --db 1"),
]


@contextmanager
def wrong_password(client: redis.Redis, url: str) -> Iterator[str]:
    """The URL of a server with a user in it whose password is another one."""
    with user(client, url) as narrow:
        yield narrow.replace(":secret@", ":s3cret-Word@")


def within_a_second(do: Callable[[], object]) -> None:
    """It takes no longer, in the best of three times: a busy machine fails no test."""
    took = []
    while len(took) < 3 and min(took, default=2.0) > 1:
        began = time.monotonic()
        do()
        took.append(time.monotonic() - began)
    assert min(took) <= 1, took


@ONE_KIND
@pytest.mark.parametrize("line", COMMANDS)
def test_a_wrong_password_ends_every_command_within_a_second(
    url: str, client: redis.Redis, program: Program, line: str
) -> None:
    def run() -> None:
        done = program(*line.split(), REDIS_URL=wrong)
        assert done.code == 3, done
        assert "user or password is wrong: check REDIS_URL" in done.err.splitlines()[-1]
        assert "s3cret" not in done.out + done.err

    with wrong_password(client, url) as wrong:
        within_a_second(run)


@ONE_KIND
def test_a_wrong_password_is_an_error_of_the_library_within_a_second(
    url: str, client: redis.Redis
) -> None:
    how = {"expire": 5.0, "execution_limit": 5.0}

    async def acquire() -> None:
        await AsyncLease(wrong, "t").acquire()

    async def compute() -> None:
        await AsyncCache(wrong).get("k", lambda: 1, **how)

    def every(kind: str) -> None:
        with pytest.raises(redis.AuthenticationError):
            tries[kind]()

    tries: dict[str, Callable[[], object]] = {
        "lease": lambda: Lease(wrong, "t").acquire(),
        "asyncio's lease": lambda: asyncio.run(acquire()),
        "cache": lambda: Cache(wrong).get("k", lambda: 1, **how),
        "asyncio's cache": lambda: asyncio.run(compute()),
    }
    with wrong_password(client, url) as wrong:
        for kind in tries:
            within_a_second(lambda kind=kind: every(kind))


# --- a clock that is set ----------------------------------------------------------------------


class Clocked(Server):
    """A server whose clock a test sets.

    The malloc is libc's: jemalloc, which Debian's Redis comes with, hangs under libfaketime.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self._clock = folder / "clock"
        self.set(0)
        faked = {"FAKETIME_TIMESTAMP_FILE": str(self._clock), "FAKETIME_NO_CACHE": "1"}
        faked |= {"LD_PRELOAD": f"{FAKETIME}:libc.so.6", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        self.how = {"env": {**os.environ, **faked}}  # type: ignore[misc]
        super().__init__(kind)
        self.admin = redis.Redis.from_url(self.url)

    def set(self, hours: int) -> None:
        """Set the clock so many hours ahead."""
        new = self._clock.with_suffix(".new")
        new.write_text(f"{hours:+d}h\n")
        new.rename(self._clock)

    def jump(self, hours: int) -> None:
        """Set the clock, and see it set."""
        self.set(hours)
        wait_until(lambda: abs(self.admin.time()[0] - time.time() - 3600 * hours) < 60)


@pytest.fixture
def clocked(real: Server, tmp_path: Path) -> Iterator[Clocked]:
    """A server whose clock can be set."""
    if not FAKETIME.exists():
        if os.environ.get("CI"):
            pytest.fail("faketime is not installed")
        pytest.skip("faketime is not installed; test_lease_faults sets what is stored instead")
    server = Clocked(real.kind, tmp_path)
    yield server
    server.admin.close()
    server.close()


@pytest.mark.parametrize("face", ["sync", "async"])
def test_8_a_lease_is_free_in_time_whatever_the_clock_is_set_to(
    clocked: Clocked, face: str
) -> None:
    faces, tokens = Faces(face, clocked.url), []

    async def body() -> None:
        for hours in (-2, 3, -5):
            holder = faces.lease(ttl=1, auto_renew=False)
            assert await holder.acquire(timeout=5)
            tokens.append(holder.token)
            waiting = asyncio.ensure_future(faces.lease(ttl=1).acquire(timeout=5))
            while not (waiting.done() or clocked.admin.llen("distlock:{t}:line")):
                await asyncio.sleep(0.005)
            await in_thread(clocked.jump, hours)
            assert await asyncio.wait_for(waiting, 5)
            tokens.append(int(clocked.admin.hget("distlock:{t}:lease", "token") or 0))
            clocked.admin.delete("distlock:{t}:lease")  # its owner renews no more

    asyncio.run(body())
    assert tokens == sorted(set(tokens))


def test_a_job_is_done_in_time_while_the_clock_is_set_back_and_forth(
    clocked: Clocked, start: Start
) -> None:
    few = ("--messages", "900", "--error-rate", "0.1", "--attempts", "2")
    copies = [Copy(start, clocked.url, *few) for _ in range(2)]
    for share, hours in ((100, -2), (300, 3), (500, -4), (700, 0)):
        wait_until(lambda share=share: stored(clocked.admin) > share)
        clocked.jump(hours)
        partition(clocked.admin, KEYS)
    copies[0].process.kill()  # its messages and its lease go to the other one
    assert copies[1].end(20)[0] == 0
    found = partition(clocked.admin, KEYS)
    assert len(found["store"]) + len(found["errors"]) == 900


@pytest.mark.parametrize("face", ["sync", "async"])
def test_10_a_right_to_compute_ends_in_time_whatever_the_clock_is_set_to(
    clocked: Clocked, face: str
) -> None:
    async def body() -> None:
        flight = CacheKeys("cache").all("k")[1]
        cache = Caches(face, clocked.url).cache(ttl=0.5)
        for hours in (-2, 3, -5):
            clocked.admin.set(flight, f"right-of-the-dead{hours} 500 0 0 0", px=500)
            await in_thread(clocked.jump, hours)
            how = {"expire": 5, "execution_limit": 5}
            assert await asyncio.wait_for(cache.get("k", lambda: 7, **how), 5) == 7
            clocked.admin.flushall()

    asyncio.run(body())
