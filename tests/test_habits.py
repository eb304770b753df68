"""What a person at a shell is used to: completion, hints, variables, colours, pipes, progress."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click
import pytest
import redis

from distlock import Lease, progress
from distlock.cli import cli
from distlock.helping import Option
from distlock.keys import Keys
from distlock.options import MODES, OUTPUT, RUN, names_of
from distlock.progress import Progress
from tests.conftest import NOWHERE, ONE_KIND, ROOT, Done
from tests.tools import activated, partition

Run = Callable[..., Done]
OLD = (3, 8)
"""A Python that must be able to read whatever says that it is too old."""


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a line of bash in which `distlock` is installed; no server is there."""
    environment = activated(tmp_path / "bin") | {"REDIS_URL": NOWHERE}

    def shell(line: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line],
            env=environment | more,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return shell


# --- completion and hints --------------------------------------------------------------------

COMPLETED = [
    ("distlock --mess", {"--messages"}),
    ("distlock ver", {"verify"}),
    ("distlock verify --na", {"--name"}),
    ("distlock server st", {"start", "stop", "status"}),
    ("distlock cache demo --work", {"--work", "--workers"}),
    ("distlock --getErrors t", {"take"}),
]


LOADING = {
    kind: line.replace("\\|", "|")
    for kind, line in re.findall(
        r"^\| (bash|zsh|fish) \| `(.*)` in `", (ROOT / "README.md").read_text(), re.MULTILINE
    )
}
"""The line that the README has for each shell."""


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_a_shell_that_asks_is_told_what_may_follow(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_DISTLOCK_COMPLETE", f"{kind}_complete")
    for line, expected in COMPLETED:
        words = line.split()
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", words[-1] if kind == "fish" else str(len(words) - 1))
        with pytest.raises(SystemExit):
            cli.main(prog_name="distlock", standalone_mode=False)
        said = capsys.readouterr().out
        assert expected <= set(re.split(r"[\s,]+", said)), (line, said)


def test_bash_completes_options_commands_and_files(
    shell: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    load = LOADING["bash"]
    load += '; compopt() { echo "$2"; }'  # what bash does by itself then: complete files
    press = "COMPREPLY=(); COMP_WORDS=($1) COMP_CWORD=$2; _distlock_completion distlock"
    press += '; echo "${COMPREPLY[@]}"'
    lines = ["distlock --max-q", "distlock le", "distlock --input app_"]
    asks = [f"press '{line}' {len(line.split()) - 1}" for line in lines]
    done = shell("; ".join([load, f"press() {{ {press}; }}", *asks]))
    assert done.stdout.splitlines() == ["--max-queue", "lease leases", "default", ""], done.stderr


@pytest.mark.parametrize("kind", ["zsh", "fish"])
def test_the_other_shells_are_given_their_scripts(
    kind: str, shell: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    line = LOADING[kind].removeprefix('eval "$(').removesuffix(')"').removesuffix(" | source")
    said = shell(line)
    assert said.returncode == 0
    assert f"_DISTLOCK_COMPLETE={kind}_complete" in said.stdout


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("--mesages 5", "--messages"),
        ("verfy", "verify"),
        ("verify --nam x", "--name"),
        ("server strt", "start"),
        ("cache demp", "demo"),
        ("lease x --waitt 1 -- true", "--wait"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_was_meant(
    program: Run, line: str, meant: str
) -> None:
    said = program(*line.split())
    assert said.code == 2
    assert re.search(rf"Did you mean.*'{meant}'", said.err), said


# --- settings from the environment ----------------------------------------------------------

SETTINGS = [param for param in cli.params if isinstance(param, Option) and param.envvar]


def test_every_setting_has_a_variable_that_the_help_names_and_no_mode_has_one(
    program: Run,
) -> None:
    shown = " ".join(program("--help").out.split())
    having = {str(setting.name): str(setting.envvar) for setting in SETTINGS}
    assert having.keys() == names_of(RUN).keys() - {"unsafe"} | {"name"}  # a risk is taken by hand
    assert not having.keys() & (names_of(MODES).keys() | names_of(OUTPUT).keys())
    for name, variable in having.items():
        assert variable == f"DISTLOCK_{name.upper()}"
        assert f"env var: {variable}" in shown
    lease = program("lease", "--help").out
    assert "DISTLOCK_LEASE_TTL" in lease
    assert "DISTLOCK_LEASE_WAIT" in lease


@ONE_KIND
def test_a_setting_comes_from_the_environment_and_the_command_line_wins(
    program: Run, url: str, client: redis.Redis
) -> None:
    variables = {"DISTLOCK_NAME": "mine", "DISTLOCK_MESSAGES": "7", "DISTLOCK_GENERATE": "no:such"}
    variables |= {"DISTLOCK_BATCH": "3", "DISTLOCK_ATTEMPTS": ""}
    lines = ROOT / "setup.cfg"  # any file: it wins over the generator of the environment
    assert program("--input", str(lines), REDIS_URL=url, **variables).code == 0
    job = client.hgetall(Keys("mine").job)
    assert (job[b"messages"], job[b"attempts"]) == (b"7", b"3")
    assert "7 generated" in program("verify", REDIS_URL=url, **variables).out
    done = program("--name", "other", "--messages", "5", "--handle", "os:getpid", REDIS_URL=url)
    assert done.code == 0
    for line in ("--name other verify", "verify --name other"):
        assert "5 generated" in program(*line.split(), REDIS_URL=url, **variables).out


@ONE_KIND
def test_what_to_do_never_comes_from_the_environment(
    program: Run, url: str, client: redis.Redis
) -> None:
    line = "--messages 5 --error-rate 1 --attempts 1"
    assert program(*line.split(), REDIS_URL=url).code == 0
    modes = ("RESET", "YES", "GET_ERRORS", "GETERRORS", "RETRY_ERRORS", "CLEAN_TEMP", "JSON")
    variables = {f"DISTLOCK_{mode}": "1" for mode in modes}
    said = program(REDIS_URL=url, **variables)
    assert "is done already" in said.out
    assert len(partition(client, Keys("demo"))["errors"]) == 5


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.envvar)
def test_a_bad_value_from_the_environment_is_named_as_such(setting: Option, program: Run) -> None:
    bad = {"input": "/no/such/file", "generate": "no:such", "handle": "no:such"}
    bad["metrics_cache"] = "a*b"
    variables = {str(setting.envvar): bad.get(str(setting.name), "a b")}
    said = program(**variables)
    assert (said.code, said.out) == (2, "")
    assert str(setting.envvar) in said.err
    assert "in the environment" in said.err
    assert len(said.err.splitlines()) == 1
    good = {"input": str(ROOT / "setup.cfg"), "name": "fine", "error_rate": "0.5"}
    word = good.get(str(setting.name), "5")
    line = f"{setting.opts[0]}={bad.get(str(setting.name)) or word}"
    said = program(line, **variables)  # no server is there: it gets as far as that, or as the bad
    assert "in the environment" not in said.err


@ONE_KIND
def test_a_setting_that_contradicts_the_job_is_named_as_coming_from_the_environment(
    program: Run, url: str
) -> None:
    assert program("--messages", "5", REDIS_URL=url).code == 0
    said = program(REDIS_URL=url, DISTLOCK_MESSAGES="6")
    assert said.code == 2
    assert "DISTLOCK_MESSAGES is set in the environment" in said.err
    assert "environment" not in program("--messages", "6", REDIS_URL=url).err


# --- help ------------------------------------------------------------------------------------


def commands(command: click.Command, path: str = "") -> dict[str, click.Command]:
    """Every command by the words that call it."""
    found = {path.strip(): command}
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            found |= commands(below, f"{path} {name}")
    return found


@pytest.mark.parametrize("words", commands(cli))
def test_every_help_is_in_groups_fits_the_width_and_speaks_of_the_program_as_it_was_called(
    words: str, program: Run
) -> None:
    for columns in (60, 80, 200):
        shown = program(*words.split(), "--help", COLUMNS=str(columns)).out
        assert re.search(r"^Other:$", shown, re.MULTILINE)
        assert not re.search(r"^Options:$", shown, re.MULTILINE)
        prose = [line for line in shown.splitlines() if "app_start.py" not in line]
        assert max(map(len, prose)) <= min(columns, 100)
    command = commands(cli)[words]
    assert f"app_start.py {words}".strip() in shown
    context = click.Context(command, info_name="called-so")
    assert "app_start.py" not in command.get_help(context)


@pytest.mark.parametrize(
    "words", sorted(set(commands(cli)) - {"server start", "server stop", "server status"})
)
def test_every_help_has_an_example(words: str, program: Run) -> None:
    assert re.search(r"^  Examples?", program(*words.split(), "--help").out, re.MULTILINE)


def test_the_help_starts_in_less_than_a_third_of_a_second() -> None:
    command = [sys.executable, str(ROOT / "app_start.py"), "--help"]

    def seconds() -> float:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = status
        assert status == 0
        return used.ru_utime + used.ru_stime  # of the processor: others may use it, too

    assert statistics.median(seconds() for _ in range(5)) < 0.3


# --- pipes, colours, progress ---------------------------------------------------------------


@ONE_KIND
def test_an_output_that_was_closed_ends_any_command_without_a_word(
    url: str, program: Run, monkeypatch: pytest.MonkeyPatch, embedded_home: Path
) -> None:
    job = "--messages 5 --error-rate 1 --attempts 1"
    assert program(*job.split(), REDIS_URL=url).code == 0
    lines = ["", *("--help", "--version", "--getErrors", "--getErrors --json", "--cleanTemp")]
    lines += ["status", "status --json", "verify", "verify --json", "leases", "leases --json"]
    lines += ["server status", "server status --json", "lease --help", "cache demo -h"]
    with Lease(url, "held"):
        for line in [*lines, "--retryErrors"]:
            reader, writer = os.pipe()
            os.close(reader)
            closed = os.fdopen(writer, "w")
            with monkeypatch.context() as patch:
                patch.setattr("sys.stdout", closed)
                said = program(*line.split(), REDIS_URL=url, DISTLOCK_HOME=str(embedded_home))
            events = r"(\d\d:\d\d:\d\d .*\n)*"
            assert (said.code, bool(re.fullmatch(events, said.err))) == (1, True), (line, said)
            with suppress(BrokenPipeError):  # what is left in it; click tells Python to be silent
                closed.close()


@ONE_KIND
def test_a_pipe_gets_lines_for_grep_jq_and_column_and_a_colour_only_in_a_frame_if_it_is_forced(
    program: Run, url: str, client: redis.Redis
) -> None:
    forced = {"REDIS_URL": url, "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    job = "--messages 5 --error-rate 1 --attempts 1"
    assert "\x1b" not in "".join(program(*job.split(), **forced)[1:])
    errors = program("--getErrors", **forced)
    assert [json.loads(line)["id"] for line in errors.out.splitlines()] == [1, 2, 3, 4, 5]
    assert json.loads(program("status", "--json", **forced).out)["errors"] == 5
    assert json.loads(program("verify", "--json", **forced).out)["places"]["errors"] == 5
    status = program("status", **forced).out.splitlines()
    assert all(re.match(r"[a-z]+ +\S", line) for line in status)
    client.hset(
        "distlock:{x}:lease", mapping={"owner": "me/1", "token": 5, "ttl": 9000, "delay": 0}
    )
    client.pexpire("distlock:{x}:lease", 9000)
    assert "\x1b[" in program("top", "--once", **forced).out
    assert "\x1b" not in program("top", "--once", REDIS_URL=url).out
    leases = program("leases", **forced).out.splitlines()
    assert [len(line.split()) for line in leases] == [5, 5]


@ONE_KIND
@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("verify", "verifying"),
        ("--getErrors", "reading errors"),
        ("--cleanTemp", "cleaning the temp of the dead"),
        ("--retryErrors", "putting errors back"),
        ("--reset --yes --messages 3", "deleting"),
    ],
)
def test_what_takes_longer_than_a_second_says_how_far_it_is_on_a_terminal_alone(
    line: str,
    what: str,
    program: Run,
    url: str,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = "--messages 5 --error-rate 1 --attempts 1"
    assert program(*job.split(), REDIS_URL=url).code == 0
    client.zadd(Keys("demo").handlers, {"dead": 1})
    client.hset(Keys("demo").temp("dead"), "#", "1-1/0")
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    plain = program(*line.split(), REDIS_URL=url)
    assert f"{what}: " not in plain.out + plain.err
    assert program(*f"--reset --yes {job}".split(), REDIS_URL=url).code == 0
    client.zadd(Keys("demo").handlers, {"dead": 1})
    client.hset(Keys("demo").temp("dead"), "#", "1-1/0")
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    shown = program(*line.split(), REDIS_URL=url)
    assert shown.code == 0
    assert re.search(rf"\r{what}: \d of \d+ \(\d+%\)", shown.err)
    assert what not in shown.out


def test_progress_waits_a_second_is_cut_to_the_width_and_goes_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal, now = io.StringIO(), [100.0]
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("COLUMNS", "30")
    with Progress("verifying") as told:
        told(1, 5000)
        assert terminal.getvalue() == ""
        now[0] += 1.01
        told(2000, 5000)
        assert terminal.getvalue() == "\rverifying: 2,000 of 5,000 (40"
        now[0] += 0.2
        told(2100, 5000)
        now[0] += 0.1
        told(3, 4)
    written = terminal.getvalue().split("\r")
    assert written[2:] == ["verifying: 3 of 4 (75%)".ljust(29), " " * 23, ""]
    with Progress("reading", shown=False) as told:
        now[0] += 5
        told(1, 2)
    assert terminal.getvalue().split("\r") == written


# --- what is missing -------------------------------------------------------------------------


def started(code: str, *words: str, url: str = NOWHERE) -> subprocess.CompletedProcess[str]:
    """Run app_start.py after some code, as if on another machine."""
    start = f"{code}; import runpy; runpy.run_path('app_start.py', run_name='__main__')"
    line = f"import sys; sys.argv = ['app_start.py', *{words!r}]; {start}"
    return subprocess.run(
        [sys.executable, "-c", line],
        env=os.environ | {"REDIS_URL": url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_python_that_is_too_old_says_so_in_one_line() -> None:
    for name in ("__main__", "__init__", "errors", "message"):
        ast.parse((ROOT / "distlock" / f"{name}.py").read_text(), feature_version=OLD)
    done = started(f"sys.version_info = {(*OLD, 10, 'final', 0)}", "--help")
    assert (done.returncode, done.stdout) == (1, "")
    needed = "app_start.py: Python 3.11 or later is needed, and this is 3.8\n"
    assert done.stderr == needed


@pytest.mark.parametrize(
    ("package", "line"),
    [("click", "--help"), ("redis", "status"), ("hiredis", "status"), ("rich", "--getErrors")],
)
@ONE_KIND
def test_a_package_that_is_not_installed_is_named_in_one_line(
    package: str, line: str, url: str, program: Run
) -> None:
    terminal = ""
    if package == "rich":  # the one that a terminal alone needs
        job = "--messages 5 --error-rate 1 --attempts 1"
        assert program(*job.split(), REDIS_URL=url).code == 0
        terminal = "; sys.stdout.isatty = lambda: True"
    done = started(f"sys.modules[{package!r}] = None{terminal}", *line.split(), url=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the package {package!r} is not installed" in done.stderr
    assert f"{shlex.quote(sys.executable)} -m pip install {package}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
