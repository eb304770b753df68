"""`--metrics-port` and `--log-format`: the numbers and the events of a copy, for machines."""

from __future__ import annotations

import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.request import urlopen

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from distlock import Cache
from distlock.io import SyncIO
from distlock.keys import Keys
from distlock.logs import told
from distlock.look import Looker
from distlock.metrics import Exporter, serving
from distlock.pipeline import Outcome
from tests.conftest import NOWHERE, ONE_KIND, ROOT, Done
from tests.nodes import free_port
from tests.test_bad_input import snapshot
from tests.test_cli import objects, on_terminal
from tests.tools import Pipe, settle, wait_until

Run = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]
Numbers = dict[str, float]
UNITS = ("_total", "_seconds", "_messages")
WITHOUT_UNIT = {"distlock_up", "distlock_job_done", "distlock_handlers", "distlock_lease_token"}


def scrape(port: int) -> Numbers:
    """All samples, by their names with labels; the text is checked on the way."""
    with closing(urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)) as answer:
        text = answer.read().decode()
    found: Numbers = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")
            assert sample.name.endswith(UNITS) or sample.name in WITHOUT_UNIT
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.fixture
def exported(client: redis.Redis, io: SyncIO) -> Iterator[tuple[Pipe, int]]:
    """A pipeline, and the port on which its numbers are served."""
    pipe, port = Pipe(io, attempts=2), free_port()
    with serving(port, "test") as exporter:
        assert exporter
        exporter.watch(Looker(client, pipe.keys, ["cache"]).look)
        yield pipe, port


def test_the_numbers_are_those_of_the_server_with_their_names_and_units(
    exported: tuple[Pipe, int], client: redis.Redis
) -> None:
    pipe, port = exported
    pipe.generator.publish(1, [b"x"] * 20)
    handler = pipe.handler("a")
    handler.exchange(settle(handler.exchange(Outcome(), 5), lambda id: id == 2), 4)
    pipe.handler("b").exchange(Outcome(), 3)
    pipe.die("b")
    handler.reclaim("b")
    pipe.handler("c")
    pipe.die("c")
    before = snapshot(client)
    found = scrape(port)
    assert snapshot(client) == before
    assert 0 < found.pop('distlock_lease_remaining_seconds{pipeline="test"}') <= 5
    of = '{pipeline="test"}'
    assert {name: value for name, value in found.items() if of in name and value} == {
        f"distlock_up{of}": 1,
        f"distlock_messages_generated_total{of}": 20,
        f"distlock_messages_stored_total{of}": 4,
        f"distlock_messages_retried_total{of}": 1,
        f"distlock_messages_reclaimed_total{of}": 3,
        f"distlock_queue_messages{of}": 8,
        f"distlock_again_messages{of}": 3,
        f"distlock_later_messages{of}": 1,
        f"distlock_temp_messages{of}": 4,
        f"distlock_job_messages{of}": 100,
        f"distlock_lease_token{of}": pipe.lease.token,
    }
    for state in ("alive", "dead"):
        assert found[f'distlock_handlers{{pipeline="test",state="{state}"}}'] == 1


@ONE_KIND
def test_the_requests_of_a_cache_are_served_by_their_results(
    exported: tuple[Pipe, int], client: redis.Redis, url: str
) -> None:
    _, port = exported
    assert not any("cache" in name for name in scrape(port))
    cache = Cache(url)
    for _ in range(3):
        cache.get("key", lambda: 1, expire=10, execution_limit=5)
    wait_until(lambda: client.hget("distlock:{cache}:counters", "hits") == b"2")
    found = scrape(port)
    assert found['distlock_cache_requests_total{cache="cache",result="hit"}'] == 2
    assert found['distlock_cache_requests_total{cache="cache",result="miss"}'] == 1
    assert found['distlock_cache_computations_total{cache="cache"}'] == 1


def test_a_server_that_is_away_is_up_0_and_no_old_numbers() -> None:
    port = free_port()
    with serving(port, "test") as exporter:
        assert isinstance(exporter, Exporter)
        assert scrape(port) == {'distlock_up{pipeline="test"}': 0}
        with redis.Redis.from_url(NOWHERE) as nowhere:
            exporter.watch(Looker(nowhere, Keys("test"), []).look)
            assert scrape(port) == {'distlock_up{pipeline="test"}': 0}
    with socket.create_server(("127.0.0.1", port)):
        pass  # the port is free again


@ONE_KIND
def test_a_port_in_use_is_one_line_before_anything_begins(
    program: Run, url: str, client: redis.Redis
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        done = program("--messages", "3", "--metrics-port", str(port), REDIS_URL=url)
    assert (done.code, done.out, client.dbsize()) == (2, "", 0)
    [line] = done.err.splitlines()
    assert f"--metrics-port {port}: Address already in use: take another one" in line


@ONE_KIND
def test_without_prometheus_client_one_line_says_what_to_install(
    program: Run, url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    done = program("--messages", "3", "--metrics-port", "1", REDIS_URL=url)
    assert (done.code, done.out, client.dbsize()) == (2, "", 0)
    [line] = done.err.splitlines()
    assert "pip install 'distlock[metrics]'" in line
    assert program("--messages", "3", REDIS_URL=url).code == 0  # it is needed for nothing else


@ONE_KIND
def test_a_copy_serves_numbers_and_logs_events_for_machines(start: Start) -> None:
    port = free_port()
    line = f"--messages 40 --interval 0.02 --error-rate 0.5 --attempts 1 --metrics-port {port}"
    first = start(*line.split(), "--log-format", "json")
    assert first.stderr
    events = [json.loads(first.stderr.readline()) for _ in range(3)]
    found = scrape(port)
    assert found['distlock_job_messages{pipeline="demo"}'] == 40
    out, err = first.communicate(timeout=30)
    assert first.returncode == 0
    assert out.startswith("done: 40 messages")  # the result stays as it was
    events += objects(err)
    kinds = {event["event"] for event in events}
    assert {"server", "begun", "generator", "failed"} <= kinds
    for event in events:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", event["time"])
        assert event["copy"]
    [term] = [event for event in events if event["event"] == "generator"]
    assert term["owner"].startswith(term["copy"] + "/")
    assert term["token"] > 10**15
    failed = [event for event in events if event["event"] == "failed"]
    assert len({event["message_id"] for event in failed}) == len(failed) > 5
    assert {event["exception"] for event in failed} == {"SimulatedError"}
    assert all(event["final"] for event in failed)


@ONE_KIND
def test_without_a_log_format_no_failure_is_an_event(program: Run, url: str) -> None:
    line = "--messages 9 --error-rate 1 --attempts 1 --json"
    assert "failed" not in {
        one["event"] for one in objects(program(*line.split(), REDIS_URL=url).err)
    }


@ONE_KIND
def test_a_log_on_a_terminal_is_lines_and_no_live_view(url: str) -> None:
    line = "--messages 5 --error-rate 1 --attempts 1 --log-format text"
    code, shown = on_terminal(*line.split(), REDIS_URL=url)
    assert code == 0
    assert "\x1b" not in shown
    assert len(re.findall(r"message \d failed, attempt 1 of 1: SimulatedError", shown)) == 5


def test_what_the_library_logs_is_told_with_owner_and_token(io: SyncIO) -> None:
    events: list[tuple[str, str, dict[str, Any]]] = []

    def say(kind: str, text: str, /, **numbers: Any) -> None:
        events.append((kind, text, numbers))

    pipe = Pipe(io)
    with told(say):
        owner, token = pipe.lease.owner, pipe.lease.token
        pipe.expire(pipe.keys.lease)
        pipe.new_lease("second").acquire(blocking=False)
        assert not pipe.lease.renew()
        logging.getLogger("distlock").debug("not told")
    logging.getLogger("distlock").warning("told to nobody")
    [(kind, text, numbers)] = events
    assert kind == "log"
    assert "lost" in text
    assert numbers == {"level": "warning", "owner": owner, "token": token}


def test_the_library_is_silent_until_it_is_listened_to() -> None:
    code = (
        "from distlock import Cache, Node\n"
        "cache = Cache(Node('redis://localhost:1', name='a'))\n"
        "print(cache.get('k', lambda: 1, expire=5, execution_limit=5))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (said.stdout, said.stderr) == ("1\n", "")
