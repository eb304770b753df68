"""Passwords stay secret, rights are the least, what is printed is harmless, no text is code."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from distlock import AsyncCache, AsyncLease, Cache, Lease, NodesUnreachable, cli, scripts
from distlock.connect import DIRECT
from distlock.errors import ServerUnreachable
from distlock.keys import CacheKeys, Keys
from distlock.scripts import commands
from tests.conftest import ONE_KIND, ROOT, Done, Server
from tests.faults.test_all_or_nothing import OPERATIONS, Siege, besieged, busy, cached
from tests.test_bad_input import Tls, fake_server, tls
from tests.test_cli import BYTES, HOSTILE, on_terminal
from tests.tools import wait_until

__all__ = ["besieged", "tls"]  # fixtures

Start = Callable[..., subprocess.Popen[str]]
Program = Callable[..., Done]
SECRET = "s3cret-Word/%"
OPERATING = (ROOT / "docs/operating.md").read_text()


# --- passwords --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locking(real: Server) -> Iterator[Server]:
    """A server that asks for a password."""
    server = Server(real.kind)
    with redis.Redis.from_url(server.url) as admin:
        admin.config_set("requirepass", SECRET)
    yield server
    server.close()


@pytest.fixture
def admin(locking: Server) -> Iterator[redis.Redis]:
    """A client of that server, which is empty."""
    with redis.Redis(unix_socket_path=f"{locking.folder}/s", password=SECRET) as admin:
        admin.flushall()
        yield admin


@pytest.fixture
def locked(locking: Server, admin: redis.Redis) -> str:
    """The URL of that server, without the password."""
    return locking.url


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with the password, closed to others."""
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_text(SECRET + "\n")
    return path


@ONE_KIND
def test_a_password_file_opens_the_server_for_every_command_and_is_shown_nowhere(
    locked: str, program: Program, secret: Path
) -> None:
    for line in (
        *("--messages 9 --error-rate 0.5 --attempts 1", "status", "verify", "--getErrors take"),
        *(
            "--retryErrors",
            "--cleanTemp",
            "leases",
            "lease nightly -- true",
            "--reset --yes --messages 9",
        ),
        "--json --messages 5 --name other",
    ):
        words = [*line.split()[:1], "--password-file", str(secret), *line.split()[1:]]
        if line[:2] == "--":
            words = ["--password-file", str(secret), *line.split()]
        done = program(*words, REDIS_URL=locked)
        assert done.code == 0, done
        assert "s3cret" not in done.out + done.err


@ONE_KIND
def test_a_password_file_gives_the_password_of_the_user_in_the_url(
    locked: str, admin: redis.Redis, program: Program, secret: Path
) -> None:
    execute: Callable[..., Any] = admin.execute_command
    execute("ACL", "SETUSER", "some@one", "reset", "on", f">{SECRET}", "~*", "&*", "+@all")
    url = locked.replace("unix://", "unix://some%40one@")
    done = program("--password-file", str(secret), "--messages", "5", REDIS_URL=url)
    assert (done.code, "s3cret" in done.err) == (0, False), done
    execute("ACL", "DELUSER", "some@one")


@ONE_KIND
def test_a_password_file_that_cannot_be_meant_is_refused_in_one_line(
    locked: str, program: Program, tmp_path: Path
) -> None:
    for what, content, mode in (
        ("it is open to others: run `chmod 600` on it", SECRET.encode(), 0o644),
        ("it is open to others: run `chmod 600` on it", SECRET.encode(), 0o640),
        ("it is empty: write the password into it", b"", 0o600),
        ("it is empty: write the password into it", b"\r\n", 0o600),
        ("it is no UTF-8", SECRET.encode() + b"\xff", 0o600),
        ("it holds more than one line of text", f"{SECRET}\nmore".encode(), 0o600),
        ("it holds more than one line of text", b"s3cret" * 1000, 0o600),
        ("No such file or directory: name a file that holds the password", None, 0),
    ):
        path = tmp_path / "secret"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
            path.chmod(mode)
        for words in (["--password-file", str(path)], ["status", "--password-file", str(path)]):
            done = program(*words, REDIS_URL=locked)
            assert (done.code, done.out) == (2, ""), done
            [line] = done.err.splitlines()
            assert line.startswith(f"app_start.py: --password-file {path}: {what}"), line
            assert "s3cret" not in line
    done = program("--password-file", str(tmp_path), "status", REDIS_URL=locked)
    assert "Is a directory" in done.err


@ONE_KIND
def test_a_password_is_given_once_and_never_to_the_embedded_server(
    locked: str, program: Program, secret: Path, embedded_home: Path, monkeypatch: Any
) -> None:
    given = ("--password-file", str(secret))
    twice = locked.replace("unix://", "unix://:s3cret@")
    for url in (twice, f"{locked}?password=s3cret"):
        done = program(*given, "status", REDIS_URL=url)
        assert (done.code, "s3cret" in done.err) == (2, False)
        assert "has a password, --password-file gives another: leave one out" in done.err
    for line in ("demo", "server start", "cache demo"):
        done = program(*given, *line.split())
        assert (done.code, "--password-file out" in done.err) == (2, True), done
    monkeypatch.setattr("distlock.place.answers", lambda url: False)
    done = program(*given, "status", REDIS_URL="", DISTLOCK_HOME=str(embedded_home))
    assert (done.code, "asks for no password" in done.err) == (2, True), done


@ONE_KIND
def test_who_sits_at_a_terminal_is_asked_for_the_password_and_it_is_not_shown(locked: str) -> None:
    answers = {"Password for": f"{SECRET}\n"}
    code, shown = on_terminal("status", REDIS_URL=locked, answers=answers)
    assert (code, "s3cret" in shown) == (0, False), shown
    assert f"Password for {locked}: " in shown
    code, shown = on_terminal("--messages", "5", REDIS_URL=locked, answers=answers)
    assert (code, "5 stored" in shown, "s3cret" in shown) == (0, True, False), shown
    code, shown = on_terminal("status", REDIS_URL=locked, answers={"Password for": "s3cret-no\n"})
    assert (code, "password is wrong" in shown, "s3cret" in shown) == (3, True, False), shown


def raised(use: Callable[[str], object], url: str) -> str:
    """All that an error of the library says, if there is one."""
    try:
        use(url)
    except (redis.RedisError, cli.DistlockError) as error:
        return f"{error} {error!r} {error.__cause__!r}"
    return ""


@ONE_KIND
@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_no_failure_shows_the_password(
    locked: str, admin: redis.Redis, program: Program, debug: tuple[str, ...], caplog: Any
) -> None:
    execute: Callable[..., Any] = admin.execute_command
    quoted = SECRET.replace("/", "%2F").replace("%", "%25", 1).replace("%252F%", "%2F%25")
    right = locked.replace("unix://", f"unix://:{quoted}@")
    execute("ACL", "SETUSER", "few", "reset", "on", f">{SECRET}", "~*", "&*", "+@all", "-zadd")

    def lease(url: str) -> None:
        Lease(url, "t").acquire(timeout=0.05)

    def cache(url: str) -> None:
        Cache(url).get("k", lambda: 1, expire=1, execution_limit=1)

    failures = {
        "wrong": (right.replace("Word", "Wrong"), 3),
        "nobody there": (right.replace("/s", "/nowhere"), 3),
        "rights": (right.replace("://:", "://few:"), 1),
        "foreign": (f"{right}?db=1", 1),
        "no database": (f"{right}?db=99", 2),
        "no url": (right.replace("unix", "unicks"), 2),
        "port": (f"redis://:{quoted}@localhost:99999", 2),
        "slash": (f"redis://:{SECRET}@localhost", 2),
        "no tls": (f"rediss://:{quoted}@localhost:1", 3),
    }
    with redis.Redis(unix_socket_path=locked[7:], password=SECRET, db=1) as other:
        other.set("distlock:{demo}:queue", "foreign")
    for what, (url, code) in failures.items():
        done = program(*debug, "--messages", "5", REDIS_URL=url)
        assert done.code == code, (what, done)
        assert ("Traceback" in done.err) == bool(debug), what
        assert "s3cret" not in done.out + done.err, what
        for use in (lease, cache):
            assert "s3cret" not in raised(use, url), what
    assert "s3cret" not in caplog.text


@ONE_KIND
def test_no_process_has_the_password_in_its_arguments(
    locked: str, admin: redis.Redis, start: Start, secret: Path
) -> None:
    given = ("--password-file", str(secret))
    copy = start(*given, "--messages", "1000", "--sleep", "0.01", REDIS_URL=locked)
    lease = start("lease", *given, "nightly", "--", "sleep", "60", REDIS_URL=locked)
    wait_until(lambda: admin.exists(Keys("demo").job, Keys("nightly").lease) == 2)
    mine = {copy.pid, lease.pid, os.getpid()}
    children = Path(f"/proc/{lease.pid}/task/{lease.pid}/children")
    mine.update(map(int, wait_until(lambda: children.read_text().split())))
    assert len(mine) == 4
    for pid in mine:
        assert b"s3cret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    for process in (copy, lease):
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert "s3cret" not in out + err


# --- rights -----------------------------------------------------------------------------------


def documented(who: str) -> list[str]:
    """The rules of the line in the docs that makes a user."""
    found = re.search(rf"^ACL SETUSER {who} on >PASSWORD (.*)$", OPERATING, re.MULTILINE)
    assert found
    return found[1].split()


BESIDE = {"eval", "evalsha", "info", "client|id", "client|list"}
"""What connections and those who watch them send."""


def test_the_documented_rights_are_those_of_the_scripts_and_of_what_is_sent_by_itself() -> None:
    for who, more in (("app", commands()), ("cache", commands(cache=True))):
        direct = DIRECT if who == "app" else ("HMGET", "MGET", "SET", "SUBSCRIBE")
        rules = documented(who)
        places = ["resetkeys", "~distlock:*", "resetchannels", "&distlock:*", "-@all"]
        assert rules[:5] == places
        assert len(rules) == len(set(rules))
        assert {rule[1:].upper() for rule in rules[5:]} == {
            *more,
            *direct,
            *map(str.upper, BESIDE),
        }


class Narrow(Siege):
    """An IO, not armed, of a user with the documented rights."""

    def __init__(self, server: Server, who: str, *more: str) -> None:
        super().__init__(server)
        self._acl("reset", "on", ">secret", *documented(who), *more)
        self.url = server.url.replace("unix://", "unix://narrow:secret@")
        execute: Callable[..., Any] = self.admin.execute_command
        execute("ACL", "LOG", "RESET")
        self.admin.config_resetstat()

    def used(self) -> set[str]:
        """The commands that were called since."""
        return {name.removeprefix("cmdstat_") for name in self.admin.info("commandstats")}

    def refused(self) -> list[str]:
        """What the user wanted to do and may not."""
        execute: Callable[..., Any] = self.admin.execute_command
        log = str(execute("ACL", "LOG"))
        refused = set(re.findall(r"b?'object': b?'([^']*)'", log))
        return sorted(refused - {"client|setinfo"})  # of redis-py, which does not mind


def test_a_user_with_the_documented_rights_can_do_everything_and_uses_each(
    besieged: Server, program: Program
) -> None:
    used: set[str] = set()
    for operation in OPERATIONS:
        if operation is not cached:
            narrow = Narrow(besieged, "app")
            pipe = busy(narrow)
            narrow.armed = False
            operation(pipe)
            assert narrow.refused() == []
            used |= narrow.used()
    narrow = Narrow(besieged, "app")
    for line in (
        *("--messages 60 --error-rate 0.5 --attempts 2", "status", "verify", "--getErrors"),
        *("--getErrors take", "--retryErrors", "--cleanTemp", "leases", "lease n -- true"),
        "--reset --yes --messages 20",
    ):
        assert program(*line.split(), REDIS_URL=narrow.url).code == 0, line

    narrow.admin.rpush("distlock:{demo}:queue", "1:1:twice")  # then it asks where each is
    assert program("verify", REDIS_URL=narrow.url).code == 1

    async def lease() -> None:
        holder = AsyncLease(narrow.url, "t", ttl=9, watch_connection=True)
        waiter = AsyncLease(narrow.url, "t", ttl=9, watch_connection=True)
        await holder.acquire()
        waiting = asyncio.create_task(waiter.acquire(timeout=20))
        while "client|list" not in narrow.used():  # the first in line watches
            await asyncio.sleep(0.01)
        await holder.release()
        assert await waiting
        await waiter.release()

    asyncio.run(lease())
    with Lease(narrow.url, "u", watch_connection=True) as holder:
        assert not Lease(narrow.url, "u").acquire(timeout=0.05)
        assert holder.renew()
    assert narrow.refused() == []
    used |= narrow.used()
    assert {rule[1:] for rule in documented("app")[5:]} - used == set()


def test_a_user_with_the_documented_rights_can_use_a_cache_and_uses_each(besieged: Server) -> None:
    narrow = Narrow(besieged, "cache")
    cached(busy_cache(narrow))
    how: dict[str, Any] = {"expire": 5.0, "execution_limit": 5.0}
    cache = Cache(narrow.url, ttl=0.5)
    assert cache.get("k", lambda: 1, **how) == cache.get("k", lambda: 2, **how) == 1
    cache.set("k", 2, expire=5.0)
    cache.delete("k")
    assert cache.get_many(["a", "b"], lambda key: key, **how) == {"a": "a", "b": "b"}
    wait_until(lambda: narrow.admin.exists("distlock:{cache}:counters"))

    def slow() -> int:
        wait_until(lambda: "client|list" in narrow.used())  # it is watched
        return 3

    with ThreadPoolExecutor() as threads:
        computing = threads.submit(cache.get, "slow", slow, **how)
        wait_until(lambda: narrow.admin.exists(CacheKeys("cache").all("slow")[1]))
        other = Cache(redis.Redis.from_url(narrow.url), ttl=0.5)
        assert other.get("slow", lambda: 4, **how) == computing.result() == 3

    async def once() -> None:
        assert await AsyncCache(narrow.url).get("k", lambda: 5, **how) == 5

    asyncio.run(once())
    assert narrow.refused() == []
    left_out = {"hmget", "set"}  # to read the counters, and to see whether a node is back
    assert {rule[1:] for rule in documented("cache")[5:]} - narrow.used() - left_out == set()


def busy_cache(narrow: Narrow) -> Any:
    """What `cached` works on."""

    class Pipe:
        io = narrow

    return Pipe()


def test_each_documented_right_is_needed_and_named_when_it_is_missing(
    besieged: Server, program: Program
) -> None:
    spared = {"client|id", "client|list", "info"}  # see the docs: something is said, or slower
    for rule in documented("app")[5:]:
        if rule[1:] in spared:
            continue
        narrow = Narrow(besieged, "app", f"-{rule[1:]}")
        done = program("--messages", "5", REDIS_URL=narrow.url)
        last = done.err.splitlines()[-1]
        if rule != "+eval":  # the scripts are known already
            assert done.code == 1, (rule, done)
            assert re.search(rf"(?i)\+{rule[1:]}\b|'{rule[1:]}'", last), last
        assert narrow.admin.keys("distlock:{demo}*") == [] or rule == "+eval"


def test_where_info_is_refused_a_copy_goes_on_with_a_warning(
    besieged: Server, program: Program
) -> None:
    narrow = Narrow(besieged, "app", "-info")
    done = program("--messages", "5", REDIS_URL=narrow.url)
    assert done.code == 0, done
    assert "nobody can tell whether it evicts keys" in done.err
    done = program("status", REDIS_URL=narrow.url)
    assert (done.code, "this user may not ask with INFO" in done.out) == (0, True), done


# --- what is printed --------------------------------------------------------------------------

MORE = [
    *("\ud800", "\udcff\udcfe", "x" * 20_000, "\x1b[31m" * 500, "a\x1b]52;c;aGk=\x07b", "\x1bc"),
    *("\u061c\u200e\u200f", "\u2060\ufeff\u034f", "Z\u0351\u036b\u0343", "\x1b[6n", "\r\x1b[K"),
]
TEXTS = [text.encode(errors="surrogatepass") for text in [*HOSTILE, *MORE]]
LINES = [
    *(
        "status",
        "status --cache cache",
        "verify",
        "--getErrors",
        "--retryErrors",
        "--getErrors take",
    ),
    *("leases", "lease demo --wait 0 -- true", "--cleanTemp", "--cleanTemp drop", "--reset --yes"),
    *("--name new --messages 3", "--messages 9", "--json status", "--json verify", "--json leases"),
]


def poison(client: redis.Redis, texts: list[bytes]) -> None:
    """Put texts wherever something may come from that is printed."""
    keys = Keys("demo")
    where = keys.prefix.encode()
    client.hset(keys.job, "source", texts[0])
    client.hset(keys.lease, mapping={b"owner": texts[0], b"token": 5, b"ttl": 9000, b"delay": 0})
    client.pexpire(keys.lease, 9000)
    for number, text in enumerate(texts, 1):
        report = b'{"exception":"E","message":"m","traceback":"t","handler":"h"}'
        record = b"%d\n1\n%s\n%d:1:%s" % (number, report, number, text)
        client.hset(keys.errors, mapping={b"%d" % number: record, b"#%d" % number: b"%d" % number})
        client.zadd(keys.handlers, {b"h" + text: 1, text: 1})
        client.hset(where + b"temp:" + text, mapping={b"#": b"1-1/1", b"77": b"77:1:" + text})
        client.hset(where + b"temp:stray" + text, mapping={b"78": b"78:1:" + text})
        client.rpush(keys.queue, text)
        client.rpush(keys.line, b"far %s/1 60000 0 0 1" % text.replace(b" ", b"_"))
        client.sadd(keys.taken, text)
    client.hset(keys.stats, "errors", len(texts))
    client.hset(CacheKeys("cache").counters, "hits", texts[0])
    client.hset("distlock:{\x1b[31m}:lease", "owner", "x")


def harmless(shown: str) -> bool:
    """Whether nothing in it steers a terminal, or shows text in another order."""
    return re.sub(r"[\r\n]", "", shown).isprintable()


@pytest.fixture
def done_job(url: str, client: redis.Redis, program: Program) -> str:
    """The URL of a server with a job that is done."""
    assert program("--messages", "9", REDIS_URL=url).code == 0
    return url


@ONE_KIND
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[::-1], BYTES], ids=["text", "turned", "bytes"])
def test_nothing_that_comes_from_the_server_reaches_a_pipe_as_it_is(
    done_job: str, client: redis.Redis, program: Program, texts: list[bytes]
) -> None:
    assert len(TEXTS) > 45
    for line in LINES:
        poison(client, texts)
        done = program(*line.split(), REDIS_URL=done_job)
        assert harmless(done.out), line
        assert harmless(done.err), line
        assert "Traceback" not in done.err
        assert done.code in (0, 1)


@ONE_KIND
@pytest.mark.parametrize("line", ["status", "verify", "leases", "--cleanTemp", "--getErrors take"])
def test_nothing_that_comes_from_the_server_steers_a_terminal(
    done_job: str, client: redis.Redis, line: str
) -> None:
    poison(client, TEXTS)
    code, shown = on_terminal(*line.split(), REDIS_URL=done_job, TERM="dumb", COLUMNS="120")
    assert harmless(shown), line
    assert "Traceback" not in shown
    assert code in (0, 1)


@pytest.mark.parametrize("terminal", [True, False])
def test_an_error_of_the_server_is_shown_harmless(program: Program, terminal: bool) -> None:
    evil = "-ERR \x1b[31m[/bold]\x1b]0;title\x07\u202e\x9b2J \x00"
    with fake_server(HELLO=evil, INFO=evil) as url:
        if terminal:
            code, shown = on_terminal("status", REDIS_URL=url, TERM="dumb")
        else:
            code, _, shown = program("status", REDIS_URL=url)
    assert code in (1, 3)
    assert harmless(shown)
    assert r"\x1b[31m[/bold]\x1b]0;title\x07\u202e" in shown


@ONE_KIND
def test_what_the_user_gave_is_shown_harmless(program: Program, url: str) -> None:
    texts = [text.replace("\x00", "") for text in [*HOSTILE, *MORE]]  # no argument can hold it
    for at in range(0, len(texts), 5):
        given = "".join(texts[at : at + 5])
        for words in (
            ["--name", given, "status"],
            ["lease", given, "--", "true"],
            ["--handle", f"x{given}:y", "--messages", "1"],
            ["--input", f"/nowhere/{given}"],
            ["--url", f"redis://{given}:5/x"],
            ["--password-file", f"/nowhere/{given}"],
            ["lease", "t", "--", f"/nowhere/{given}"],
            [f"--x{given}"],
            ["--cache", given],
        ):
            done = program(*words, REDIS_URL=url)
            assert done.code in (1, 2, 3, 127), words
            assert harmless(done.err), words
            assert len(done.err.splitlines()) == 1, done
            assert done.out == "", words


# --- sources ----------------------------------------------------------------------------------


def test_no_source_evaluates_text_unpickles_or_sends_what_stops_a_server() -> None:
    sources = sorted((ROOT / "distlock").rglob("*.py"))
    sources += sorted((ROOT / "distlock").rglob("*.lua"))
    assert len(sources) > 100
    for path in sources:
        comments = r"--.*" if path.suffix == ".lua" else r'#.*|"""(.|\n)*?"""'
        code = re.sub(comments, "", path.read_text())
        for word in (r"\beval\(", r"\bexec\(", r"\bcompile\(", r"loadstring", r"shell=True"):
            own = path.name == "twins.py" and word == r"\beval\("  # Lease.eval runs Lua under it
            assert own or not re.search(rf"(?<!re\.){word}", code), (path, word)
        for word in (r"import pickle\b", r"\bmarshal\b", r"\bshelve\b", r"yaml"):
            assert not re.search(word, code), (path, word)
        for word in (r"['\"]KEYS['\"]", r"FLUSH(ALL|DB)", r"\.flush(all|db)\(", r"\.keys\(['\"]"):
            assert not re.search(word, code), (path, word)


HEAD = """\
local may, place = redis.acl_check_cmd, KEYS[1]
if may and not () then
  for _, command in ipairs({}) do
    if not may(command, place) then
      return redis.error_reply("NOPERM this user has no permissions to run '" .. command .. "'")
    end
  end
end
"""


def test_nothing_but_names_of_commands_is_ever_formatted_into_lua() -> None:
    for name in scripts.names():
        text = scripts.script(name).text
        head = text.removesuffix(scripts._whole(name))
        assert set(re.findall(r"'([A-Z]+)'", head)) == scripts.sent(name)
        assert re.sub(r"may\('[A-Z]+', place\)( and )?|'[A-Z]+'(, )?", "", head) == HEAD
    for path in (ROOT / "distlock").rglob("*.py"):
        if path.name != "scripts.py":
            assert "Script(" not in path.read_text(), path


# --- TLS --------------------------------------------------------------------------------------


def test_leases_and_caches_speak_tls_and_check_the_certificate(tls: Tls) -> None:
    bare = f"rediss://localhost:{tls.port}"
    good = f"{bare}?ssl_ca_certs={tls.authority}"
    how: dict[str, Any] = {"expire": 600.0, "execution_limit": 10.0}
    with Lease(good, "t") as lease:
        assert lease.held
        with pytest.raises(cli.DistlockError, match="certificate verify failed"):
            Lease(bare, "u").acquire(timeout=0.1)
    assert Cache(good, node_timeout=5).get("k", lambda: 1, **how) == 1
    with pytest.raises(NodesUnreachable):
        Cache(bare, node_timeout=5, on_outage="raise").get("k", lambda: 2, **how)

    async def body() -> None:
        async with AsyncLease(good, "v") as other:
            assert other.held
        assert await AsyncCache(good, node_timeout=5).get("k", lambda: 3, **how) == 1
        with pytest.raises(ServerUnreachable):
            await AsyncLease(bare, "u").acquire(timeout=0.3)
        with pytest.raises(NodesUnreachable):
            await AsyncCache(bare, node_timeout=5, on_outage="raise").get("k", lambda: 4, **how)

    asyncio.run(body())
    with redis.Redis.from_url(tls.server.url) as admin:
        assert admin.exists("distlock:{u}:lease") == 0
    gc.collect()  # nobody asks any more whether the node is back


# --- evictions --------------------------------------------------------------------------------


@ONE_KIND
def test_a_server_that_evicts_keys_is_refused_unless_the_risk_is_taken(
    url: str, client: redis.Redis, program: Program
) -> None:
    try:
        for policy in ("allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"):
            client.config_set("maxmemory-policy", policy)
            for line in ("--messages 5", "--reset --yes"):
                done = program(*line.split(), REDIS_URL=url)
                last = done.err.splitlines()[-1]
                assert done.code == 1
                assert f"the eviction policy {policy} may delete the lease and messages" in last
                assert "CONFIG SET maxmemory-policy noeviction" in last
                assert "--unsafe" in last
            assert client.keys("distlock:{demo}*") == []
        done = program("--unsafe", "--messages", "5", REDIS_URL=url)
        assert (done.code, "--unsafe allows it" in done.err) == (0, True), done
        assert program("status", REDIS_URL=url).code == 0
        assert program("--unsafe", "status", REDIS_URL=url).code == 2
    finally:
        client.config_set("maxmemory-policy", "noeviction")
