"""The program: `python app_start.py` and `distlock` are the same.

Rules:

- Without a subcommand it is one copy of the application, or does what a mode option says.
- Exit codes: 0 done, 1 failed, 2 usage, 3 server unreachable, 130 interrupted.
- An error is one line on stderr with what, where and the remedy; `--debug` adds the traceback.
- What a command needs is imported when it runs: `--help` starts fast.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import click

from . import __version__, modes
from .errors import DistlockError, UsageError
from .options import CONNECTION, MODES, RUN, Connection, given, names_of, options

PROGRAM = os.path.basename(sys.argv[0]) or "distlock"
HELP = """One copy of the application: the first copy generates messages, all others handle them.

Start it in several terminals. Kill any of them: nothing is lost, nothing is stored twice.

\b
Examples:
  app_start.py demo                        see it all happen, no server needed
  app_start.py --messages 1000             one copy; start more in other terminals
  app_start.py --input access.log          each line of a file is a message
  app_start.py --getErrors                 what failed for good
"""


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=HELP,
)
@options([*CONNECTION, *RUN, *MODES])
@click.version_option(__version__, "--version")
@click.pass_context
def cli(ctx: click.Context, /, **said: Any) -> None:
    """Run a copy, or do what a mode says; see HELP."""
    mine = given(ctx)
    runs = [text for name, text in names_of(RUN).items() if name in mine]
    things = [text for name, text in names_of(MODES[:4]).items() if name in mine]
    if ctx.invoked_subcommand:
        things.append(ctx.invoked_subcommand)
    if len(things) > 1:
        raise UsageError(
            f"{things[0]} and {things[1]} are two things to do: do one after the other"
        )
    if things and things != ["--reset"] and runs:
        raise UsageError(f"{runs[0]} is for running a copy, not for {things[0]}: leave it out")
    if mine.get("yes") and not mine.get("reset"):
        raise UsageError("--yes answers --reset: leave it out, or add --reset")
    if ctx.invoked_subcommand:
        return
    connection = Connection(ctx, dict(os.environ))
    if said["get_errors"]:
        modes.get_errors(connection, take=said["get_errors"] == "take")
    elif said["retry_errors"]:
        modes.retry_errors(connection)
    elif said["clean_temp"]:
        modes.clean_temp(connection, drop=said["clean_temp"] == "drop")
    else:
        sys.exit(modes.run_copy(connection, mine, said, PROGRAM))


# --- subcommands -----------------------------------------------------------------------------


@cli.command()
@options(CONNECTION)
@click.pass_context
def verify(ctx: click.Context, /, **said: Any) -> None:
    """Prove that no message is lost and none is stored twice; exit 1 if one is."""
    from dataclasses import asdict

    from .pipeline import Verifier
    from .view import result, verdict_lines

    connection = Connection(ctx, dict(os.environ))
    with modes.opened(connection) as (_, io):
        verdict = Verifier(io, connection.keys).verify()
    text = "\n".join(verdict_lines(verdict))
    if connection.as_json:
        result(asdict(verdict) | {"good": verdict.good}, text, True)
    else:
        print(text, flush=True)
    sys.exit(0 if verdict.good else 1)


@cli.command()
@options(CONNECTION)
@click.pass_context
def status(ctx: click.Context, /, **said: Any) -> None:
    """Show roles, lease, queue, store, errors, rates and warnings."""
    from .connect import warnings
    from .pipeline import Records
    from .view import out, result, status_lines, status_object

    connection = Connection(ctx, dict(os.environ))
    with modes.opened(connection) as (_, io):
        records = Records(io, connection.keys)
        before = records.status()
        io.sleep_now(0.3)
        now = records.status()
        rate = (now.stored - before.stored) / max(now.now - before.now, 0.001)
        warned = warnings(io.client)
    if connection.as_json:
        result(status_object(now, rate, warned), "", True)
    else:
        for line in status_lines(now, rate, warned):
            out(line)


@cli.command()
@options(CONNECTION)
@click.option("--messages", type=click.IntRange(1, 10**8), metavar="K", default=1_000_000)
@click.pass_context
def demo(ctx: click.Context, /, messages: int, **said: Any) -> None:
    """See it all: four copies, two killed, the server killed once, nothing lost."""
    from .demo import show

    connection = Connection(ctx, dict(os.environ))
    if connection.named():
        raise UsageError("demo has a server of its own, never yours: leave --url and --host out")
    sys.exit(show(messages, connection.as_json))


@cli.group()
def server() -> None:
    """The embedded server: start, stop or show it."""


@server.command("start")
def server_start() -> None:
    """Start the embedded server, if it does not run."""
    from .server import Embedded, home
    from .view import out

    embedded = Embedded(home())
    how = "started" if embedded.start() else "runs already"
    out(f"embedded server {how}: process {embedded.pid()}, {embedded.url}")


@server.command("stop")
def server_stop() -> None:
    """Stop the embedded server; its data stays for the next start."""
    from .server import Embedded, home
    from .view import out

    stopped = Embedded(home()).stop()
    out("embedded server stopped; its data stays" if stopped else "no embedded server runs")


@server.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def server_status(as_json: bool) -> None:
    """Say whether the embedded server runs, and where."""
    from .server import Embedded, home
    from .view import result

    embedded = Embedded(home())
    pid = embedded.pid()
    numbers = {"alive": pid is not None, "pid": pid, "folder": str(embedded.folder)}
    text = f"embedded server runs: process {pid}, {embedded.url}"
    if pid is None:
        text = f"no embedded server runs; its folder is {embedded.folder}"
    result(numbers | {"url": embedded.url}, text, as_json)


# --- the way out -----------------------------------------------------------------------------


def main() -> None:
    """Run the program and exit with its code."""
    debug = "--debug" in sys.argv
    try:
        cli(prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as shown:
        shown.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", 130, debug)
    except click.ClickException as error:
        fail(f"{error.format_message()} (--help says what there is)", 2, debug)
    except DistlockError as error:
        fail(str(error), error.exit_code, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def fail(line: str, code: int, debug: bool) -> None:
    """End the program with one line on stderr."""
    from .view import harmless

    if debug:
        traceback.print_exc()
    print(f"{PROGRAM}: {harmless(line)}", file=sys.stderr)
    sys.exit(code)
