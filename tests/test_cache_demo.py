"""The cache's demo: its judge on made-up reports, and small runs of it as real processes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distlock.demo.judge import NODE, NOTHING, WORKER, Computation, Kills, complete, judge
from distlock.demo.result import result_lines, result_object, table_lines
from distlock.demo.stage import ENDING, fresh_folder
from distlock.demo.story import Story
from distlock.demo.worker import Plan
from distlock.picture import CachePicture, worker_does
from distlock.work import factorial
from tests.conftest import NOWHERE, ROOT, Done
from tests.test_cli import on_terminal
from tests.tools import wait_until

LINE = "--nodes 3 --workers 4 --count 3 --first 1000 --work 0.2 --expire 1 --windows 2"
SMALL = LINE.split()
PLAN = Plan(
    nodes=3,
    workers=4,
    first=1000,
    count=3,
    expire=10.0,
    execution_limit=60.0,
    work=1.0,
    windows=2,
    store_value=True,
)

# --- the judge ---------------------------------------------------------------------------------

EXPIRE = 10.0
HOME, OTHER, THIRD = "home", "other", "third"


def one(began: float, node: str = HOME, worker: int = 1, took: float = 1.0) -> Computation:
    """A computation of the key, whole."""
    return Computation("key", worker, node, began, began + took, began + took + 0.01)


def cut(began: float, node: str = HOME, worker: int = 1) -> Computation:
    """A computation that did not come to its end."""
    return Computation("key", worker, node, began)


def judged(*computations: Computation, **kills: Any) -> list[list[str]]:
    """What explains each computation, by windows."""
    windows = judge(computations, lambda key: [HOME, OTHER, THIRD], Kills(**kills), EXPIRE)
    return [window.why for window in windows["key"]]


WORKER_KILLED = {"worker": 1, "worker_at": 0.5}
NODE_KILLED = {"node": HOME, "node_at": 5.0, "node_back": 8.0}
JUDGED: dict[str, tuple[tuple[Computation, ...], dict[str, Any], list[list[str]]]] = {
    "once in each life": ((one(0), one(11), one(22.5)), {}, [[""], [""], [""]]),
    "again too soon": ((one(0), one(5, worker=2)), {}, [["", NOTHING]]),
    "again a moment too soon": ((one(0), one(10.9)), {}, [["", NOTHING]]),
    "twice at the same time": ((one(0), one(0.5, worker=2)), {}, [["", NOTHING]]),
    "twice in a second life": ((one(0), one(11), one(14)), {}, [[""], ["", NOTHING]]),
    "on another node for no reason": ((one(0), one(2, OTHER)), {}, [["", NOTHING]]),
    "on another node alone": ((one(0, OTHER),), {}, [[NOTHING]]),
    "on no node": ((one(0, ""),), {}, [[NOTHING]]),
    "after its worker was killed": (
        (cut(0), one(0.8, worker=2), one(11.9, worker=3)), WORKER_KILLED, [["", WORKER], [""]],
    ),
    "twice after its worker was killed": (
        (cut(0), one(0.8, worker=2), one(4, worker=3)), WORKER_KILLED, [["", WORKER, NOTHING]],
    ),
    "before its worker was killed": (
        (cut(0), one(0.4, worker=2)), WORKER_KILLED, [["", NOTHING]],
    ),
    "although its worker had ended before the kill": (
        (one(0), one(3, worker=2)), WORKER_KILLED | {"worker_at": 2.0}, [["", NOTHING]],
    ),
    "although its worker, killed later, had ended long before": (
        (Computation("key", 1, HOME, 0, 1), one(4, worker=2)),
        WORKER_KILLED | {"worker_at": 3.0},
        [["", NOTHING]],
    ),
    "after its worker was killed with the value in hand": (
        (Computation("key", 1, HOME, 0, 1), one(1.5, worker=2)),
        WORKER_KILLED | {"worker_at": 1.1},
        [["", WORKER]],
    ),
    "although another worker was killed": (
        (cut(0), one(0.8, worker=3)), {"worker": 2, "worker_at": 0.5}, [["", NOTHING]],
    ),
    "on another node as its worker was killed": (
        (cut(0), one(0.8, OTHER, 2)), WORKER_KILLED, [["", NOTHING]],
    ),
    "elsewhere while its node was away": (
        (one(0), one(6, OTHER), one(11), one(22)), NODE_KILLED, [["", NODE], [""], [""]],
    ),
    "twice elsewhere while its node was away": (
        (one(0), one(6, OTHER), one(7.5, OTHER)), NODE_KILLED, [["", NODE, NOTHING]],
    ),
    "by one who has not seen that it is back": (
        (one(0), one(9, OTHER)), NODE_KILLED, [["", NODE]],
    ),
    "by one who never sees that it is back": (
        (one(0), one(10.5, OTHER)), NODE_KILLED, [["", NOTHING]],
    ),
    "on a third node": ((one(0), one(6, THIRD)), NODE_KILLED, [["", NOTHING]]),
    "elsewhere before its node was killed": (
        (one(0), one(4, OTHER)), NODE_KILLED, [["", NOTHING]],
    ),
    "elsewhere although another node was killed": (
        (one(0), one(6, OTHER)), NODE_KILLED | {"node": THIRD}, [["", NOTHING]],
    ),
    "on its node, which had its value when it came back": (
        (one(0), one(6, OTHER), one(9)), NODE_KILLED, [["", NODE, NOTHING]],
    ),
    "as its node died under it": (
        (one(4.5), one(5.2, OTHER), one(8.5)), NODE_KILLED, [["", NODE, NODE]],
    ),
    "twice as its node died under it": (
        (one(4.5), one(8.5), one(11)), NODE_KILLED, [["", NODE, NOTHING]],
    ),
    "only elsewhere, its life over": ((one(-9), one(6, OTHER)), NODE_KILLED, [[""], [NODE]]),
}  # fmt: skip


@pytest.mark.parametrize("what", JUDGED)
def test_a_computation_too_many_is_found_and_only_a_kill_of_its_own_explains_it(what: str) -> None:
    computations, kills, expected = JUDGED[what]
    assert judged(*computations, **kills) == expected
    assert judged(*reversed(computations), **kills) == expected


def test_windows_count_once_every_key_has_a_value_in_them() -> None:
    its = [one(0), one(11), cut(22)]
    windows = judge(its, lambda key: [HOME, OTHER], Kills(), EXPIRE)
    assert complete(windows, ["key"]) == 2
    assert complete(windows, ["key", "another"]) == 0


# --- the story ---------------------------------------------------------------------------------


def hear(story: Story, number: int, what: str, at: float, **more: Any) -> list[str]:
    """Have a worker say something; what a person is told of it."""
    return [event.text for event in story.hear(number, {"what": what, "at": at, **more})]


def compute(story: Story, number: int, key: str, at: float, value: int = 7) -> list[str]:
    """Have a worker compute a value on the key's own node."""
    node = next(name for name in story.nodes if key in story.keys_of(name))
    hear(story, number, "asks", at, key=key)
    hear(story, number, "computes", at, key=key, node=node)
    hear(story, number, "ends", at + 1, key=key)
    return hear(story, number, "got", at + 1.1, key=key, how="computed", value=value)


def whole_story(*more: tuple[int, str, float]) -> Story:
    """Two windows of each key, and computations (worker, key, time) on top."""
    story = Story(PLAN, began=0.0)
    due = [(1, key, began) for key in PLAN.keys for began in (0.0, 11.5)]
    for number, key, at in [*due, *more]:
        compute(story, number, key, at)
    return story


def test_the_verdict_is_good_when_each_key_was_computed_once_in_each_window() -> None:
    story = whole_story()
    assert story.good()
    assert [*table_lines(story.windows())] == [
        "window  1  2",
        "1000    1  1",
        "1001    1  1",
        "1002    1  1",
    ]
    assert "each value was computed once in each window" in [*result_lines(story, 25, True)][-1]


def test_one_computation_too_many_breaks_the_verdict_and_is_named() -> None:
    story = whole_story((3, "1001", 15.0))
    assert not story.good()
    lines = [*result_lines(story, 25, story.good())]
    assert "1001     1  2!" in lines
    assert any(line.startswith("1001, window 2: worker 3 computed it for node-") for line in lines)
    assert lines[-1].startswith("NOT each value")
    shown = json.loads(json.dumps(result_object(story, 25, False)))
    assert [one["why"] for one in shown["keys"]["1001"][1]] == ["", NOTHING]


def test_two_values_for_one_key_break_the_verdict() -> None:
    story = whole_story()
    hear(story, 2, "got", 3.0, key="1000", how="hit", value=8)
    assert not story.good()
    assert "1000: 2 different values" in [*result_lines(story, 25, False)]


def test_too_few_windows_break_the_verdict() -> None:
    story = Story(PLAN, began=0.0)
    for key in PLAN.keys:
        compute(story, 1, key, 0.0)
    assert not story.good()


def test_the_story_tells_who_computed_and_how_many_waited() -> None:
    story = Story(PLAN)
    hear(story, 2, "asks", 0.2, key="1000")
    hear(story, 3, "asks", 0.2, key="1001")
    (said,) = compute(story, 1, "1000", 0.0)
    assert said.startswith("1000: worker 1 computed it for node-")
    assert said.endswith(" in 1.1 s, 1 waited")
    assert hear(story, 2, "got", 1.2, key="1000", how="waited", value=7) == []
    counts = [(worker.computed, worker.waited) for worker in story.workers.values()]
    assert counts == [(1, 0), (0, 1), (0, 0), (0, 0)]
    assert hear(story, 3, "failed", 2, key="1001", text="too late") == ["worker 3: too late"]


def test_that_the_killed_node_is_away_and_back_is_no_event_and_anything_else_is() -> None:
    story = Story(PLAN)
    away, back = "cache node node-2 is left out: Error 111", "cache node node-2 is used again"
    assert hear(story, 1, "log", 1.0, text=away) == ["worker 1: cache node node-2 is left out"]
    story.kills = Kills(node="node-2", node_at=1.5)
    assert hear(story, 1, "log", 2.0, text=away) == []
    assert story.left_out
    assert hear(story, 1, "log", 3.0, text=back) == []
    assert (story.left_out, story.again) == (False, 3.0)
    other = back.replace("2", "3")
    assert hear(story, 1, "log", 3.0, text=other) == [f"worker 1: {other}"]


def test_a_killed_worker_stays_killed_whatever_it_said_before() -> None:
    story = Story(PLAN)
    hear(story, 1, "asks", 0.0, key="1000")
    story.killed(1, "1000", 0.5)
    hear(story, 1, "computes", 0.1, key="1000", node="node-1")
    assert (story.workers[1].doing, story.workers[1].key) == ("killed", "1000")
    assert story.taken_over is None
    compute(story, 2, "1000", 0.7)
    assert story.taken_over is story.computations[1]


def test_the_picture_shows_who_computes_who_waits_and_who_hits() -> None:
    from rich.console import Console

    story, now = Story(PLAN), time.monotonic()
    hear(story, 1, "asks", now - 1, key="1000")
    hear(story, 1, "computes", now - 1, key="1000", node="node-1")
    hear(story, 2, "asks", now - 1, key="1000")
    hear(story, 3, "got", now, key="1002", how="hit", value=7)
    story.nodes["node-2"] = "killed"
    console = Console(width=40, color_system=None)
    with console.capture() as capture:
        console.print(CachePicture(story).draw())
    lines = capture.get().splitlines()
    for line, words in zip(lines[1:5], ("computes", "waits", "hit", "starting"), strict=True):
        assert words in line
    assert "node-2 killed" in capture.get()
    assert worker_does(story.workers[2])[0] == "waits"


@pytest.mark.parametrize("number", [0, 1, 5, 63, 64, 65, 66, 130, 1000])
def test_the_factorial_is_the_factorial(number: int) -> None:
    assert factorial(number, 0) == math.factorial(number)


# --- runs --------------------------------------------------------------------------------------


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Path]]]:
    """Has demos make their folders in a place of their own; gives what is there."""
    place = Path(tempfile.mkdtemp(prefix="dl-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(place))
    yield lambda: [*place.iterdir()]
    for pid in processes(place):
        os.kill(pid, signal.SIGKILL)
    subprocess.run(["rm", "-rf", str(place)], check=True)


def processes(place: Path) -> list[int]:
    """The processes, not zombies, whose command line names a place: workers and nodes of a demo."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(place).encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def demo(*arguments: str, **streams: Any) -> subprocess.Popen[str]:
    """Start a small demo."""
    command = [sys.executable, str(ROOT / "app_start.py"), "cache", "demo", *SMALL, *arguments]
    plain: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    environment = os.environ | {"REDIS_URL": NOWHERE}
    return subprocess.Popen(command, text=True, env=environment, **(plain | streams))


def test_a_small_demo_kills_a_worker_and_a_node_and_ends_with_a_good_verdict(
    folders: Callable[[], list[Path]],
) -> None:
    process = demo()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert out.splitlines()[-1].startswith("each value was computed once")
    for what in ("3 nodes, embedded Valkey", "kill -9 of worker", "kill -9 of node-", "is back"):
        assert what in err
    assert folders() == []


def test_json_makes_every_event_and_the_result_an_object(
    folders: Callable[[], list[Path]],
) -> None:
    process = demo("--json", "--no-store-value")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    events = [json.loads(line) for line in err.splitlines()]
    assert {"server", "computed", "kill", "back"} <= {event["event"] for event in events}
    shown = json.loads(out)
    assert shown["good"] is True
    assert list(shown["keys"]) == ["1000", "1001", "1002"]
    assert shown["kills"]["worker"] in (1, 2, 3, 4)
    assert shown["kills"]["node"].startswith("node-")
    why = [one["why"] for its in shown["keys"].values() for window in its for one in window]
    assert set(why) >= {"", WORKER}
    assert NOTHING not in why
    assert shown["computed"] == len(why)


def test_a_demo_on_a_terminal_shows_its_workers(folders: Callable[[], list[Path]]) -> None:
    code, shown = on_terminal("cache", "demo", *SMALL, COLUMNS="40")
    assert code == 0, shown
    for word in ("worker", "computes", "waits", "hit", "killed", "serves"):
        assert word in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_demo_and_leaves_no_process(
    folders: Callable[[], list[Path]], number: signal.Signals
) -> None:
    process = demo("--windows", "12")
    assert process.stderr
    while "computed it" not in process.stderr.readline():
        assert process.poll() is None
    (folder,) = folders()
    assert len(processes(folder)) >= 7  # the workers and the nodes
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("app_start.py: interrupted\n")
    assert processes(folder) == []
    assert folders() == []


def test_ctrl_c_while_it_starts_leaves_no_process(folders: Callable[[], list[Path]]) -> None:
    process = demo()
    wait_until(folders)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert folders() == []


def test_a_signal_just_as_the_folder_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tempfile.mkdtemp

    def interrupted(**how: str) -> str:
        folder = make(dir=tmp_path, **how)
        signal.raise_signal(signal.SIGTERM)
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        with pytest.raises(KeyboardInterrupt), fresh_folder():
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not [*tmp_path.iterdir()]


def test_a_demo_that_is_killed_leaves_no_process_for_long(
    folders: Callable[[], list[Path]],
) -> None:
    process = demo("--windows", "12")
    assert process.stderr
    while "computed it" not in process.stderr.readline():
        assert process.poll() is None
    (folder,) = folders()
    process.kill()
    process.communicate()
    wait_until(lambda: not processes(folder) and not folders())


def test_a_worker_that_ends_by_itself_is_an_error(folders: Callable[[], list[Path]]) -> None:
    process = demo("--windows", "12")
    assert process.stderr
    while "computed it" not in process.stderr.readline():
        assert process.poll() is None
    (folder,) = folders()
    workers = [
        pid for pid in processes(folder)
        if b"demo.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]  # fmt: skip
    os.kill(workers[0], signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "ended by itself, with exit code -15" in err.splitlines()[-1]
    assert folders() == []


# --- bad input ---------------------------------------------------------------------------------

BAD = [
    ("--work 70", "--work 70 takes longer than --execution-limit 60"),
    ("--nodes 1", "'--nodes': 1 is not in the range"),
    ("--workers 1", "'--workers': 1 is not in the range"),
    ("--windows 1", "'--windows': 1 is not in the range"),
    ("--count 0", "'--count': 0 is not in the range"),
    ("--first 200001", "'--first': 200001 is not in the range"),
    ("--expire nan", "'--expire': 'nan' is not a number"),
    ("--expire 0", "'--expire': '0' is not a number"),
    ("--work -1", "'--work': '-1' is not a number"),
    ("--execution-limit 0", "'--execution-limit': '0' is not a number"),
    ("--store-value=no", "'--store-value' does not take a value"),
    ("--url redis://x", "No such option '--url'"),
    ("more", "Got unexpected extra argument (more)"),
]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_options_that_cannot_be_used_are_refused_in_one_line(
    program: Callable[..., Done], line: str, said: str
) -> None:
    done = program("cache", "demo", *line.split())
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_it_takes_no_server_of_the_users(program: Callable[..., Done]) -> None:
    for option in ("--url redis://x", "--host x", "--port 7"):
        done = program(*option.split(), "cache", "demo")
        assert done.code == 2
        assert "leave --url, --host, --port and --password-file out" in done.err
