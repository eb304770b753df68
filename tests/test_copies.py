"""The application as real processes, with real signals and a server that is really killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from distlock.io import SyncIO
from distlock.keys import Keys
from distlock.pipeline import Records, Status, Verifier
from distlock.server import Embedded
from tests.conftest import ROOT, Server
from tests.tools import partition, wait_until

Start = Callable[..., subprocess.Popen[str]]
KEYS = Keys("test")


SENT = ("evalsha", "eval", "ping", "subscribe")  # not those that scripts send


class Watch:
    """Looks at the pipeline `test` from outside."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._records = Records(SyncIO(client, patience=20), KEYS)

    def status(self) -> Status:
        """All numbers."""
        return self._records.status()

    def stored(self) -> dict[int, bytes]:
        """The whole store."""
        results = {}
        for bucket in range(self.status().sequence // 4096 + 1):
            results.update(self.client.hgetall(KEYS.store(bucket)))
        return {int(id): body for id, body in results.items()}

    def looks(self) -> int:
        """How often somebody asked for the connections of the generator."""
        stats = self.client.info("commandstats").get("cmdstat_client|list", {"calls": 0})
        return int(stats["calls"])

    def generator(self) -> str:
        """The name of the copy that holds the lease, or ""."""
        return self.status().owner.split("/")[0]


@pytest.fixture
def watch(client: redis.Redis) -> Watch:
    """A look at the pipeline from outside."""
    return Watch(client)


@pytest.fixture
def copy(start: Start) -> Start:
    """Starts a copy that works on the pipeline `test`."""

    def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        path = str(ROOT)
        return start("--name", "test", "--json", *arguments, PYTHONPATH=path, **environment)

    return begin


def end(process: subprocess.Popen[str], code: int = 0, seconds: float = 60) -> dict[str, Any]:
    """Wait for a copy's end and return its summary; its events stand under `events`."""
    said, events = process.communicate(timeout=seconds)
    assert process.returncode == code, events
    summary: dict[str, Any] = json.loads(said) if said else {}
    summary["events"] = [json.loads(line) for line in events.splitlines() if line[:1] == "{"]
    return summary


def hear(process: subprocess.Popen[str], kind: str) -> None:
    """Wait for an event of a copy."""
    assert process.stderr
    for line in process.stderr:
        if json.loads(line)["event"] == kind:
            return
    pytest.fail(f"the copy ended without an event {kind}")


def kinds(summary: dict[str, Any]) -> list[str]:
    """The kinds of a copy's events."""
    return [event["event"] for event in summary["events"]]


def is_of(name: str, process: subprocess.Popen[str]) -> bool:
    """Whether a copy's name is that of a process."""
    return f"-{process.pid}-" in name


# --- the main job -----------------------------------------------------------------------------


def test_three_copies_share_a_job_and_all_end_when_it_is_done(copy: Start, watch: Watch) -> None:
    copies = [copy("--messages", "20000", "--error-rate", "0.02") for _ in range(3)]
    summaries = [end(process) for process in copies]
    assert all(summary["done"] for summary in summaries)
    assert sum(summary["copy"]["generated"] for summary in summaries) == 20000
    status = watch.status()
    assert status.stored + status.errors == 20000
    assert sum(summary["copy"]["stored"] for summary in summaries) == status.stored
    assert status.handlers == {}
    assert status.owner == ""
    assert Verifier(SyncIO(watch.client), KEYS).verify().good


def test_1_five_kills_of_any_copy_lose_nothing_and_store_nothing_twice(
    copy: Start, watch: Watch, tmp_path: Path
) -> None:
    dice = random.Random(3)
    lines = [b"line %d \xff\xfe\x00 %d" % (id, dice.getrandbits(64)) for id in range(1, 60001)]
    lines[999] = b"x" * 1_000_000
    lines[12345] = b""
    file = tmp_path / "input.txt"
    file.write_bytes(b"\n".join(lines))
    options = ("--input", str(file), "--ttl", "0.5", "--handler-ttl", "0.5", "--batch", "100")
    options += ("--max-queue", "2000")
    copies = [copy(*options) for _ in range(3)]
    for kill in range(1, 6):
        wait_until(lambda kill=kill: watch.status().stored >= kill * 9000)
        victim = copies.pop(dice.randrange(3))
        victim.kill()
        victim.wait()
        partition(watch.client, KEYS)
        copies.append(copy(*options))
    assert all(end(process)["done"] for process in copies)
    found = partition(watch.client, KEYS)
    assert found["store"] == sorted(found["store"]) or len(found["store"]) == 60000
    stored = watch.stored()
    assert [stored[id] for id in range(1, 60001)] == lines


def test_1_kills_at_any_instant_leave_each_id_in_one_place(copy: Start, watch: Watch) -> None:
    dice = random.Random(11)
    options = ("--messages", "30000", "--ttl", "0.4", "--handler-ttl", "0.4", "--max-queue", "500")
    options += ("--error-rate", "0.01", "--batch", "50")
    copies = [copy(*options) for _ in range(2)]
    for _ in range(8):
        before = watch.status().stored
        wait_until(lambda before=before: watch.status().stored > before or watch.status().done)
        victim = copies.pop(dice.randrange(2))
        victim.kill()
        victim.wait()
        partition(watch.client, KEYS)
        copies.append(copy(*options))
    for process in copies:
        end(process)
    assert watch.status().done
    partition(watch.client, KEYS)


def test_a_second_start_says_that_the_job_is_done_and_reset_begins_anew(
    copy: Start, watch: Watch
) -> None:
    end(copy("--messages", "50"))
    again = end(copy())
    assert again["done"]
    assert again["stored"] == 50
    anew = end(copy("--reset", "--yes", "--messages", "20"))
    assert anew["copy"]["generated"] == 20
    assert len(watch.stored()) == 20


# --- takeover ---------------------------------------------------------------------------------


def test_8_after_the_generators_death_another_generates_at_the_leases_end(
    copy: Start, watch: Watch
) -> None:
    options = ("--messages", "100000", "--interval", "0.005", "--ttl", "1")
    copies = [copy(*options) for _ in range(2)]
    wait_until(lambda: watch.status().stored > 20)
    name = watch.generator()
    victim = next(process for process in copies if is_of(name, process))
    victim.kill()
    killed = time.monotonic()
    wait_until(lambda: watch.generator() not in ("", name), 5)
    assert time.monotonic() - killed < 1 + 1
    sequence = watch.status().sequence
    wait_until(lambda: watch.status().sequence > sequence)
    assert watch.status().takeovers == 1
    partition(watch.client, KEYS)


def test_8_a_resting_handler_sees_the_generators_death_long_before_the_leases_end(
    copy: Start, watch: Watch
) -> None:
    options = ("--messages", "100000", "--interval", "0.5", "--ttl", "60")
    copies = [copy(*options) for _ in range(3)]
    wait_until(lambda: watch.status().stored > 1 and len(watch.status().handlers) == 2)
    wait_until(lambda: watch.client.hexists(KEYS.lease, "connections"))
    looks = watch.looks()
    wait_until(lambda: watch.looks() > looks + 2)
    name = watch.generator()
    victim = next(process for process in copies if is_of(name, process))
    victim.kill()
    killed = time.monotonic()
    wait_until(lambda: watch.generator() not in ("", name))
    assert time.monotonic() - killed < 3
    sequence = watch.status().sequence
    wait_until(lambda: watch.status().sequence > sequence)
    partition(watch.client, KEYS)


def test_8_a_generator_that_is_told_to_end_hands_its_lease_on_at_once(
    copy: Start, watch: Watch
) -> None:
    options = ("--messages", "100000", "--interval", "0.005", "--ttl", "30")
    copies = [copy(*options) for _ in range(2)]
    wait_until(lambda: watch.status().stored > 20)
    name = watch.generator()
    victim = next(process for process in copies if is_of(name, process))
    victim.terminate()
    told = time.monotonic()
    wait_until(lambda: watch.generator() not in ("", name), 5)
    assert time.monotonic() - told < 2
    summary = end(victim)
    assert not summary["done"]
    assert summary["copy"]["generated"] > 0


@pytest.mark.parametrize("face", ["", "_async"])
def test_8_a_generator_whose_source_is_slow_hands_its_lease_on_at_once_too(
    copy: Start, watch: Watch, face: str
) -> None:
    source = f"tests.work_for_tests:two_and_then_none_for_long{face}"
    process = copy("--messages", "100", "--generate", source, "--ttl", "30")
    wait_until(lambda: watch.status().sequence == 2)  # both, although the third has begun
    process.terminate()
    summary = end(process, seconds=5)
    assert not summary["done"]
    assert summary["copy"]["generated"] == 2
    assert summary["messages"] == 100  # the job did not shrink
    assert watch.generator() == ""


@pytest.mark.parametrize("role", ["generator", "handler"])
def test_3_and_4_a_copy_that_was_stopped_for_two_ttls_has_nothing_accepted(
    copy: Start, watch: Watch, role: str
) -> None:
    options = ("--messages", "4000", "--ttl", "0.5", "--handler-ttl", "0.5", "--sleep", "0.001")
    options += ("--max-queue", "200")
    copies = [copy(*options) for _ in range(3)]
    wait_until(lambda: watch.status().stored > 100 and len(watch.status().handlers) == 2)
    name = watch.generator()
    victim = next(p for p in copies if is_of(name, p) == (role == "generator"))
    victim.send_signal(signal.SIGSTOP)
    if role == "generator":
        wait_until(lambda: watch.generator() not in ("", name), 10)
    else:
        alive = watch.status().handlers
        stopped = next(name for name in alive if is_of(name, victim))
        wait_until(lambda: stopped not in watch.status().handlers, 10)
    victim.send_signal(signal.SIGCONT)
    summaries = {process.pid: end(process) for process in copies}
    expected = "deposed" if role == "generator" else "given-up"
    assert expected in kinds(summaries[victim.pid])
    assert watch.status().done
    partition(watch.client, KEYS)
    assert len(watch.stored()) == 4000


# --- death of a handler -----------------------------------------------------------------------


def test_a_killed_handlers_messages_are_with_another_after_its_ttl(
    copy: Start, watch: Watch
) -> None:
    options = ("--messages", "12", "--handler-ttl", "1", "--ttl", "1", "--sleep", "0.2")
    copies = [copy(*options) for _ in range(3)]
    wait_until(lambda: watch.status().stored > 2)
    victim = wait_until(
        lambda: next(
            (p for p in copies for name in watch.status().handlers if is_of(name, p)), None
        )
    )
    victim.kill()
    copies.remove(victim)
    killed = time.monotonic()
    wait_until(lambda: not any(is_of(name, victim) for name in watch.status().handlers), 10)
    assert time.monotonic() - killed < 1 + 1 + 0.2
    for process in copies:
        end(process)
    assert len(watch.stored()) == 12


def test_6_the_message_that_kills_its_process_ends_in_errors_and_no_other(
    copy: Start, watch: Watch
) -> None:
    options = ("--messages", "1000", "--handler-ttl", "0.3", "--ttl", "0.3")
    options += ("--handle", "tests.work_for_tests:poison")
    deaths = 0
    while True:
        process = copy(*options)
        process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        deaths += 1
        assert deaths < 10
    found = partition(watch.client, KEYS)
    assert found["errors"] == [500]
    assert len(found["store"]) == 999
    assert 3 <= deaths <= 4


def test_a_slow_message_is_no_death(copy: Start, watch: Watch) -> None:
    options = ("--messages", "3", "--handler-ttl", "0.3", "--ttl", "0.3", "--sleep", "1.2")
    copies = [copy(*options) for _ in range(2)]
    for process in copies:
        assert "given-up" not in kinds(end(process))
    assert watch.status().stats.get("reclaimed") is None
    assert len(watch.stored()) == 3


# --- being told to end ------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_handler_that_is_told_to_end_finishes_its_message_and_gives_back_the_rest(
    copy: Start, watch: Watch, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    notes = tmp_path / "notes"
    notes.touch()
    options = ("--messages", "400", "--handle", "tests.work_for_tests:noted")
    process = copy(*options, "--handler-ttl", "60", NOTES=str(notes))

    def begun() -> list[int]:
        return [int(id) for id in notes.read_text().split()]

    def amid_a_hand() -> bool:  # at least one of its messages is finished, two are untouched
        last, status = len(begun()), watch.status()
        return status.stored + 2 <= last <= status.stored + status.temp - 2

    wait_until(amid_a_hand)
    process.send_signal(number)
    hear(process, "stopping")
    last = len(begun())
    summary = end(process, code, 10)
    found = partition(watch.client, KEYS)
    assert not summary["done"]
    assert found["temp"] == found["again"] == []
    assert sorted(found["store"]) == begun()
    assert len(begun()) <= last + 1  # one that was just about to begin
    assert len(found["store"]) == summary["copy"]["stored"]
    assert found["queue"] == sorted(found["queue"])
    assert watch.status().handlers == {}
    assert watch.status().owner == ""


def test_a_second_ctrl_c_ends_it_now(copy: Start, watch: Watch, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    options = ("--messages", "2", "--handle", "tests.work_for_tests:noted")
    process = copy(*options, NOTES=str(notes), PAUSE="60")
    wait_until(notes.exists)  # a message that was claimed and not begun would be given back
    process.send_signal(signal.SIGINT)
    hear(process, "stopping")
    process.send_signal(signal.SIGINT)
    end(process, 130, 10)
    assert partition(watch.client, KEYS)["temp"] == [1]


# --- the user's own code and input ------------------------------------------------------------


@pytest.mark.parametrize("source", ["ten", "ten_async"])
def test_own_functions_generate_and_handle(copy: Start, watch: Watch, source: str) -> None:
    module = "tests.work_for_tests"
    end(copy("--generate", f"{module}:{source}", "--handle", f"{module}:shout"))
    assert watch.stored() == {id: f"BODY {id}".encode() for id in range(1, 11)}
    status = watch.status()
    assert status.job
    assert status.job.messages == 10


def test_an_async_handlers_result_is_stored_as_json(copy: Start, watch: Watch) -> None:
    end(copy("--messages", "3", "--handle", "tests.work_for_tests:shout_async"))
    assert [json.loads(body)["id"] for _, body in sorted(watch.stored().items())] == [1, 2, 3]


def test_what_fails_is_tried_again_later_with_the_next_attempt(copy: Start, watch: Watch) -> None:
    summary = end(copy("--messages", "30", "--handle", "tests.work_for_tests:second_try"))
    assert summary["copy"]["failed"] == 30
    assert len(watch.stored()) == 30
    assert watch.status().stats["retries"] == "30"


def test_a_source_that_raises_ends_its_copy_with_one_line(copy: Start, watch: Watch) -> None:
    process = copy("--generate", "tests.work_for_tests:broken")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "no third message" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert watch.status().owner == ""


@pytest.mark.parametrize("function", ["endless", "endless_async"])
def test_a_message_beyond_its_time_limit_fails(copy: Start, watch: Watch, function: str) -> None:
    handle = f"tests.work_for_tests:{function}"
    end(copy("--messages", "5", "--attempts", "1", "--time-limit", "0.3", "--handle", handle))
    found = partition(watch.client, KEYS)
    assert found["errors"] == [3]
    assert len(found["store"]) == 4
    assert b"TimeLimitExceeded" in watch.client.hget(KEYS.errors, "3")


def test_two_slow_handlers_share_ten_messages(copy: Start, watch: Watch) -> None:
    copies = [copy("--messages", "10", "--sleep", "0.5") for _ in range(2)]
    shares = [end(process)["copy"]["stored"] for process in copies]
    assert sum(shares) == 10
    assert min(shares) >= 4


def test_simulated_failures_are_the_same_ids_whoever_handles_them(
    copy: Start, watch: Watch, client: redis.Redis
) -> None:
    failed = []
    for copies in (1, 3):
        processes = [
            copy("--messages", "500", "--error-rate", "0.1", "--attempts", "2", "--seed", "7")
            for _ in range(copies)
        ]
        for process in processes:
            end(process)
        failed.append(sorted(partition(client, KEYS)["errors"]))
        client.flushall()
    assert failed[0] == failed[1]
    assert 25 < len(failed[0]) < 80


# --- queues that are full, jobs that rest -----------------------------------------------------


def test_the_queue_never_grows_beyond_its_bound(copy: Start, watch: Watch) -> None:
    copies = [copy("--messages", "3000", "--max-queue", "50") for _ in range(2)]
    longest = 0
    while any(process.poll() is None for process in copies):
        longest = max(longest, int(watch.client.llen(KEYS.queue)))
    assert 0 < longest <= 50
    for process in copies:
        end(process)


def test_a_lone_copy_with_a_full_queue_handles_its_messages_itself(
    copy: Start, watch: Watch
) -> None:
    options = ("--messages", "300", "--max-queue", "20", "--handler-ttl", "0.3")
    summary = end(copy(*options))
    assert kinds(summary).count("alone") == 1
    assert summary["copy"]["terms"] == 1
    assert len(watch.stored()) == 300


def test_9_a_resting_handler_sends_about_one_command_a_second_and_one_of_them_20_looks(
    copy: Start, watch: Watch
) -> None:
    copies = [copy("--messages", "10", "--interval", "1000") for _ in range(2)]
    wait_until(lambda: watch.status().stored == 1)
    wait_until(lambda: watch.client.zcard(KEYS.bell) == 1)

    def sent() -> int:
        stats = watch.client.info("commandstats")
        return int(sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in SENT))

    before, looks, began = sent(), watch.looks(), time.monotonic()
    wait_until(lambda: time.monotonic() - began > 5)
    assert (watch.looks() - looks) / (time.monotonic() - began) <= 20.5
    rate = (sent() - before) / (time.monotonic() - began)
    # one handler that rests, and a generator that renews its lease of 5 s three times in it
    assert rate <= 1.2 + 0.9
    for process in copies:
        process.terminate()


# --- a server that goes away ------------------------------------------------------------------


@pytest.fixture(params=["valkey", "redis"])
def mortal(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of its own, with an append-only file, that a test may kill."""
    server = Server(request.param, "--appendonly", "yes", "--appendfsync", "no")
    yield server
    server.close()


def test_every_copy_goes_on_after_the_servers_restart(copy: Start, mortal: Server) -> None:
    options = ("--messages", "4000", "--sleep", "0.001", "--max-queue", "300", "--ttl", "1")
    copies = [copy(*options, REDIS_URL=mortal.url) for _ in range(3)]
    with redis.Redis.from_url(mortal.url) as client:
        watch = Watch(client)
        for kill in (1, 2):
            wait_until(lambda kill=kill: watch.status().stored > kill * 800)
            mortal.kill()
            mortal.start()
            client.connection_pool.disconnect()
            partition(client, KEYS)
        said = [kind for process in copies for kind in kinds(end(process))]
        assert said.count("back") >= 2
        assert len(watch.stored()) == 4000
        partition(client, KEYS)


def test_a_server_that_stays_away_ends_a_copy_with_one_line_and_exit_3(
    copy: Start, mortal: Server
) -> None:
    process = copy("--messages", "100", "--interval", "1", "--patience", "1", REDIS_URL=mortal.url)
    with redis.Redis.from_url(mortal.url) as client:
        wait_until(lambda: client.exists(KEYS.sequence))
    mortal.kill()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "away for 1 s" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_server_that_is_frozen_ends_a_copy_when_its_patience_is_over(
    copy: Start, mortal: Server
) -> None:
    options = ("--messages", "100", "--interval", "0.1", "--patience", "1", "--ttl", "60")
    process = copy(*options, REDIS_URL=mortal.url)
    with redis.Redis.from_url(mortal.url) as client:
        wait_until(lambda: client.exists(KEYS.sequence))
    mortal.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    _, said = process.communicate(timeout=90)
    assert process.returncode == 3
    assert "away for 1 s" in said.splitlines()[-1]
    assert time.monotonic() - began < 4  # the patience, 0.5 s for the lease, and the exit


def test_ctrl_c_while_the_server_is_away_ends_a_copy_at_once(copy: Start, mortal: Server) -> None:
    process = copy("--messages", "100", "--interval", "0.1", REDIS_URL=mortal.url)
    with redis.Redis.from_url(mortal.url) as client:
        wait_until(lambda: client.exists(KEYS.sequence))
    mortal.kill()
    hear(process, "away")
    process.send_signal(signal.SIGINT)
    end(process, 130, 10)


def test_2_flushall_under_running_copies_ends_them_and_begins_nothing(
    copy: Start, watch: Watch
) -> None:
    copies = [copy("--messages", "100000", "--interval", "0.01") for _ in range(2)]
    wait_until(lambda: watch.status().stored > 10)
    watch.client.flushall()
    for process in copies:
        _, said = process.communicate(timeout=20)
        assert process.returncode == 1
        assert "vanished" in said.splitlines()[-1]
    assert watch.status().job is None
    assert watch.status().sequence == 0


def test_the_embedded_server_is_brought_back_by_the_copies_that_lost_it(
    start: Start, embedded_home: Path
) -> None:
    environment = {"DISTLOCK_HOME": str(embedded_home), "REDIS_URL": ""}
    options = ("--name", "test", "--json", "--messages", "3000", "--sleep", "0.001")
    copies = [start(*options, **environment) for _ in range(2)]
    embedded = Embedded(embedded_home)
    wait_until(embedded.alive)
    with redis.Redis.from_url(embedded.url) as client:
        watch = Watch(client)
        for kill in (1, 2):
            wait_until(lambda kill=kill: watch.status().stored > kill * 700)
            pid = embedded.pid()
            assert pid
            os.kill(pid, signal.SIGKILL)
        summaries = [end(process) for process in copies]
        assert len(watch.stored()) == 3000
        partition(client, KEYS)
    said = [kind for summary in summaries for kind in kinds(summary)]
    assert said.count("restarted") == 2


# --- what a careful reader found ---------------------------------------------------------------


def test_1_a_lone_generator_that_loses_its_lease_while_helping_loses_no_message(
    copy: Start, watch: Watch
) -> None:
    options = ("--messages", "200", "--max-queue", "60", "--sleep", "0.01", "--batch", "20")
    process = copy(*options, "--ttl", "0.4", "--handler-ttl", "0.5")
    hear(process, "alone")
    for _ in range(3):
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: watch.generator() == "")
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: watch.generator() != "" or watch.status().done)
        partition(watch.client, KEYS)
    end(process)
    assert len(partition(watch.client, KEYS)["store"]) == 200


@pytest.mark.parametrize("log", [(), ("--log-format", "json")], ids=["plain", "logged"])
@pytest.mark.parametrize("how", ["leaves", "cancels", "odd", "nasty", "speechless"])
def test_whatever_a_handler_raises_fails_its_message_and_not_the_copy(
    copy: Start, watch: Watch, how: str, log: tuple[str, ...]
) -> None:
    handle = f"tests.work_for_tests:{how}"
    end(copy("--messages", "5", "--attempts", "1", "--handle", handle, *log))
    found = partition(watch.client, KEYS)
    assert found["errors"] == [3]
    assert len(found["store"]) == 4


def test_a_signal_ends_a_copy_to_which_nobody_listens_any_more(copy: Start, watch: Watch) -> None:
    process = copy("--messages", "50", "--sleep", "0.05", "--attempts", "1")
    hear(process, "generator")
    wait_until(lambda: watch.status().stored > 0)
    assert process.stderr
    process.stderr.close()
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    found = partition(watch.client, KEYS)
    assert found["errors"] == []
    assert 0 < len(found["store"]) < 50


def test_large_results_are_settled_before_they_pile_up(copy: Start, watch: Watch) -> None:
    end(copy("--messages", "300", "--handle", "tests.work_for_tests:large", "--batch", "1000"))
    assert len(partition(watch.client, KEYS)["store"]) == 300


def _peak(url: str, path: Path, size: int, number: int) -> int:
    """The most memory, in kB, of a copy that generates and handles so many lines of a size."""
    path.write_bytes((b"x" * size + b"\n") * number)
    code = """if True:
        import re, sys
        from distlock import cli
        try:
            cli.main()
        finally:
            print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
    """
    command = [sys.executable, "-c", code, "--input", str(path), "--name", f"of{size}"]
    environment = {**os.environ, "REDIS_URL": url}
    said = subprocess.check_output(command, env=environment, cwd=ROOT, text=True)
    assert f"done: {number} messages, {number} stored" in said
    return int(said.split()[-1])


def test_a_long_line_is_held_once(url: str, tmp_path: Path) -> None:
    long, short = _peak(url, tmp_path / "f", 16 * 2**20, 8), _peak(url, tmp_path / "f", 80, 8)
    assert long - short < 1.5 * 16 * 1024


def test_a_process_that_a_handler_forks_is_no_copy(copy: Start, watch: Watch) -> None:
    end(copy("--messages", "20", "--handle", "tests.work_for_tests:forks"))
    assert len(partition(watch.client, KEYS)["store"]) == 20


def test_a_function_source_that_ended_is_not_asked_again(copy: Start, watch: Watch) -> None:
    copies = [copy("--generate", "tests.work_for_tests:ten", "--sleep", "0.2") for _ in range(3)]
    said = [kind for process in copies for kind in kinds(end(process))]
    assert said.count("shrunk") == 1
    assert said.count("generator") == 1
