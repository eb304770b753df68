"""`distlock doctor` finds what is wrong with a server: each fault is set up on purpose.

A fit server has no bad line; with one fault there is exactly the line that names it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import redis

from distlock.io import SyncIO
from distlock.keys import Keys
from tests.conftest import ONE_KIND, Done, Server
from tests.nodes import watched
from tests.proxy import Proxy
from tests.test_bad_input import fake_server, info, snapshot
from tests.tools import Pipe, wait_until

Run = Callable[..., Done]
Bad = list[tuple[str, str]]
KEYS = Keys("demo")


@pytest.fixture
def fit(client: redis.Redis) -> Iterator[redis.Redis]:
    """A client of a server that has all that is needed; afterwards it is as it was."""
    changed = ("appendonly", "maxmemory", "maxmemory-policy", "min-replicas-to-write", "maxclients")
    before = {name: client.config_get(name)[name] for name in changed}
    client.config_set("appendonly", "yes")
    yield client
    for name, value in before.items():
        client.config_set(name, value)
    with suppress(redis.RedisError):
        client.acl_deluser("few")


@pytest.fixture
def bad(program: Run, url: str) -> Callable[..., Bad]:
    """Subject and text with remedy of each bad line, on the real server or another one."""

    def bad(*, of: str = "") -> Bad:
        done = program("doctor", "--json", REDIS_URL=of or url)
        said = json.loads(done.out)
        lines = [one for one in said["findings"] if one["state"] == "bad"]
        assert done.code == (1 if lines else 0), done
        assert said["fit"] == (not lines)
        assert all(one["remedy"] or one["subject"] == "answers" for one in lines)
        return [(one["subject"], f"{one['text']}; {one['remedy']}") for one in lines]

    return bad


def test_a_fit_server_is_said_to_be_fit_and_stays_as_it_is(
    program: Run, url: str, fit: redis.Redis, io: SyncIO
) -> None:
    pipe = Pipe(io)
    pipe.generator.publish(1, [b"x"] * 9)
    pipe.handler("b")
    before = snapshot(fit)
    done = program("doctor", "--name", "test", REDIS_URL=url)
    assert snapshot(fit) == before
    assert done.code == 0, done
    lines = done.out.splitlines()
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "note"}
    assert lines[-1] == f"{url} is fit"
    for subject in ("version", "role", "persistence", "replication", "eviction", "memory",
                    "connections", "rights", "job", "keys", "round trip", "clock"):  # fmt: skip
        assert sum(line[6:].startswith(subject) for line in lines) == 1, subject


def refuse_a_command(client: redis.Redis) -> str:
    client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "&*", "+@all", "-hset")
    return "few:pw@"


def refuse_the_keys(client: redis.Redis) -> str:
    client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~other:*", "&*", "+@all")
    return "few:pw@"


def refuse_to_run_scripts(client: redis.Redis) -> str:
    client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "&*", "+@all", "-evalsha")
    return "few:pw@"


def refuse_to_be_looked_at(client: redis.Redis) -> str:
    client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "&*", "+@all", "-info")
    return "few:pw@"


FAULTS: list[tuple[Callable[[redis.Redis], Any], str, str]] = [
    (lambda client: client.config_set("appendonly", "no"),
     "persistence", "lost when the server dies; CONFIG SET appendonly yes"),
    (lambda client: client.config_set("maxmemory-policy", "allkeys-lru"),
     "eviction", "allkeys-lru may delete our keys; CONFIG SET maxmemory-policy noeviction"),
    (lambda client: client.config_set("maxmemory", 100_000), "memory", "raise maxmemory"),
    (lambda client: client.config_set("min-replicas-to-write", 2),
     "replication", "every write is refused; start replicas"),
    (refuse_a_command, "rights", "may not HSET; ACL SETUSER ... +hset"),
    (refuse_the_keys, "rights", "ACL SETUSER ... ~distlock:*"),
    (refuse_to_run_scripts, "rights", "may not EVALSHA: the rights cannot be looked at; ACL SETUS"
     "ER ... +evalsha"),
    (refuse_to_be_looked_at, "rights", "may not INFO: the server cannot be looked at; ACL SETUSER "
     "... +info"),
    (lambda client: client.set(KEYS.queue, "x"), "keys", "{demo}:queue holds a string"),
    (lambda client: client.set(KEYS.prefix + "cart", "x"), "keys", "distlock:{demo}:cart"),
    (lambda client: client.hset(KEYS.job, "format", "99"), "job", "has format 99, this is 1"),
    (lambda client: client.set(KEYS.sequence, "7"), "job", "cut short; repeat it: --reset"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "subject", "said"), FAULTS, ids=[said for *_, said in FAULTS])
def test_a_fault_is_found_and_nothing_else(
    fault: Callable[[redis.Redis], Any],
    subject: str,
    said: str,
    bad: Callable[..., Bad],
    fit: redis.Redis,
    url: str,
) -> None:
    assert bad() == []
    user = fault(fit)
    lines = bad(of=url.replace("unix://", f"unix://{user}") if isinstance(user, str) else url)
    assert said in dict(lines).get(subject, ""), lines
    assert {subject for subject, _ in lines} == {subject}


def test_what_may_not_be_seen_but_is_not_needed_is_a_note_with_its_right(
    program: Run, fit: redis.Redis, url: str
) -> None:
    given = ("~*", "&*", "+@all", "-config", "-client|list", "-pubsub")
    fit.execute_command("ACL", "SETUSER", "few", "on", ">pw", *given)
    done = program("doctor", REDIS_URL=url.replace("unix://", "unix://few:pw@"))
    assert done.code == 0, done
    notes = [line for line in done.out.splitlines() if line.startswith("note")]
    assert [line.rpartition("+")[2].split(",")[0] for line in notes] == [
        "config|get",
        "client|list",
    ]
    assert "pw" not in done.out


def test_few_connections_left_are_found(bad: Callable[..., Bad], fit: redis.Redis) -> None:
    held = [fit.connection_pool.get_connection() for _ in range(40)]
    try:
        now = fit.info("clients")["connected_clients"]  # those of earlier tests, too
        fit.config_set("maxclients", now + 2)
        [(subject, said)] = bad()
    finally:
        for connection in held:
            fit.connection_pool.release(connection)
    assert subject == "connections"
    assert f"of {now + 2}; CONFIG SET maxclients" in said


@ONE_KIND
def test_a_slow_way_to_the_server_is_found(
    bad: Callable[..., Bad], fit: redis.Redis, url: str
) -> None:
    with slow(url) as far:
        [(subject, said)] = bad(of=far)
    assert subject == "round trip"
    assert "move the copies nearer" in said


@contextmanager
def slow(url: str) -> Iterator[str]:
    """The URL of a proxy that takes its time."""

    class Slow(Proxy):
        def _pass(self, one: Any) -> None:
            time.sleep(0.06)
            super()._pass(one)

    made = Slow(url)
    try:
        yield made.url
    finally:
        made.close()


@ONE_KIND
def test_clocks_that_are_apart_are_found(
    bad: Callable[..., Bad], fit: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    monkeypatch.setattr("distlock.doctor.reach.time.time", lambda: now() - 30)
    [(subject, said)] = bad()
    assert subject == "clock"
    assert said.startswith("30.0 s before ours")


@ONE_KIND
def test_a_server_that_is_too_old_is_found(bad: Callable[..., Bad]) -> None:
    with fake_server(INFO=info("redis_version:6.0.20"), HELLO="%1\r\n+proto\r\n:3") as url:
        lines = bad(of=url)
    assert lines[0] == ("version", "redis 6.0.20 is too old; upgrade it: 6.2 is the oldest that "
                        "will do")  # fmt: skip


@ONE_KIND
def test_a_command_that_was_renamed_away_is_found(bad: Callable[..., Bad], real: Server) -> None:
    server = Server(real.kind, "--rename-command", "ZADD", "gone", "--appendonly", "yes")
    try:
        lines = bad(of=server.url)
    finally:
        server.close()
    assert lines == [("commands", "the server does not have ZADD; do not rename or disable "
                      "commands")]  # fmt: skip


def test_a_disk_that_cannot_be_written_is_found(bad: Callable[..., Bad], real: Server) -> None:
    server = Server(real.kind, "--appendonly", "yes", "--dbfilename", "nowhere.rdb")
    try:
        (server.folder / "nowhere.rdb").mkdir()
        (server.folder / "nowhere.rdb" / "full").touch()
        with redis.Redis.from_url(server.url) as client:
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
        [(subject, said)] = bad(of=server.url)
    finally:
        server.close()
    assert subject == "disk"
    assert "the last snapshot failed" in said


@ONE_KIND
def test_a_sentinel_a_replica_and_a_primary_without_a_minimum_of_replicas_are_found(
    program: Run, bad: Callable[..., Bad], real: Server
) -> None:
    with watched() as service:
        lines = dict(bad(of=service.primary.url))
        assert "min-replicas-to-write 0: a failover loses" in lines["replication"]
        said = program("doctor", REDIS_URL=service.primary.url).out
        assert "ok    sentinel     1 watching this server" in said
        path = service.other.connection_pool.connection_kwargs["path"]
        lines = dict(bad(of=f"unix://{path}"))
        assert "this is a replica; name its primary, 127.0.0.1:" in lines["role"]
        lines = dict(bad(of=f"redis://127.0.0.1:{service.port}"))
        assert lines["role"].startswith("this is a Sentinel")


@ONE_KIND
def test_a_cluster_that_does_not_serve_all_slots_is_found(
    bad: Callable[..., Bad], real: Server
) -> None:
    server = Server(real.kind, "--cluster-enabled", "yes", "--appendonly", "yes", "--port", "0")
    try:
        lines = dict(bad(of=server.url))
    finally:
        server.close()
    assert "state fail: 0 shards, 0 of 16384 slots served" in lines["cluster"]


def test_no_server_is_no_line_but_an_error(program: Run) -> None:
    done = program("doctor")
    assert (done.code, done.out) == (3, "")
    assert len(done.err.splitlines()) == 1
