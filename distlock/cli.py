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
from functools import partial
from io import TextIOWrapper
from typing import Any

import click

from . import __version__, modes
from .cli_cache import cache
from .cli_server import server
from .cli_watch import doctor, top
from .errors import DistlockError, UsageError, not_installed
from .helping import Group, Option, naming_variables
from .options import (
    CACHES,
    CONNECTION,
    MODES,
    PROGRAM,
    RUN,
    SERVER,
    SOURCES,
    Connection,
    given,
    names_of,
    options,
    printing,
    settled,
)
from .progress import Progress
from .text import harmless, mask
from .values import Number

leasing = partial(click.option, cls=Option, group="The lease", setting="DISTLOCK_LEASE")
LONGEST = 1000
"""Characters of an error's line: what the user gave may be longer."""
HELP = """One copy of the application: the first copy generates messages, all others handle them.

Start it in several terminals. Kill any of them: nothing is lost, nothing is stored twice.

\b
Examples:
  app_start.py demo                        see it all happen, no server needed
  app_start.py cache demo                  the same for the cache
  app_start.py --messages 1000             one copy; start more in other terminals
  app_start.py --input access.log          each line of a file is a message
  app_start.py --getErrors                 what failed for good
"""


@click.group(
    cls=Group,
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
        mine = settled(ctx)
        with naming_variables(ctx):
            sys.exit(modes.run_copy(connection, mine, said | dict.fromkeys(SOURCES - mine.keys())))


# --- subcommands -----------------------------------------------------------------------------


@cli.command(short_help="Prove that no message is lost.")
@options(CONNECTION)
@click.pass_context
def verify(ctx: click.Context, /, **said: Any) -> None:
    """Prove that no message is lost and none is stored twice; exit 1 if one is.

    \b
    Examples:
      app_start.py verify
      app_start.py verify --name shop --json | jq .places
    """
    from dataclasses import asdict

    from .opening import opened
    from .pipeline import Verifier
    from .view import result, verdict_lines

    connection = Connection(ctx, dict(os.environ))
    with opened(connection) as (_, io), Progress("verifying") as progress:
        verdict = Verifier(io, connection.keys).verify(progress)
    text = "\n".join(verdict_lines(verdict))
    if connection.as_json:
        result(asdict(verdict) | {"good": verdict.good}, text, True)
    else:
        print(text, flush=True)
    sys.exit(0 if verdict.good else 1)


@cli.command(short_help="Show what stands where, and warnings.")
@options([*CONNECTION, CACHES])
@click.pass_context
def status(ctx: click.Context, /, caches: tuple[str, ...], **said: Any) -> None:
    """Show roles, lease, queue, store, errors, rates, counters of caches, and warnings.

    \b
    Examples:
      app_start.py status
      app_start.py status --json | jq .stored_per_second
    """
    modes.show_status(Connection(ctx, dict(os.environ)), caches)


@cli.command(short_help="See it all happen, no server needed.")
@options(CONNECTION)
@click.option("--messages", type=click.IntRange(1, 10**8), metavar="K", default=1_000_000)
@printing("--plot", metavar="FILE", help="Draw what happened, as FILE.png or FILE.svg.")
@click.pass_context
def demo(ctx: click.Context, /, messages: int, plot: str | None, **said: Any) -> None:
    """See it all: four copies, two killed, the server killed once, nothing lost.

    \b
    Examples:
      app_start.py demo
      app_start.py demo --messages 2000
    """
    from .demo.pipeline import show

    connection = Connection(ctx, {})  # REDIS_URL names a server for the other commands
    connection.refuse_server("demo has a server of its own, never yours")
    sys.exit(show(messages, connection.as_json, plot))


@cli.command("leases", short_help="List all leases of a server.")
@options(SERVER)
@click.pass_context
def list_leases(ctx: click.Context, /, **said: Any) -> None:
    """List all leases of a server: who holds them, and how many wait.

    \b
    Examples:
      app_start.py leases
      app_start.py leases --json | jq -r .name
    """
    modes.list_leases(Connection(ctx, dict(os.environ), lease="all"))


@cli.command("lease", short_help="Run a command on one of many machines.")
@options(SERVER)
@leasing(
    "--ttl",
    type=Number(0.1),
    default=10.0,
    show_default=True,
    help="Seconds after which another machine may go on when this one dies.",
)
@leasing(
    "--wait",
    type=Number(),
    help="Seconds to wait for it; 0 tries once.  [default: for ever]",
)
@click.argument("lease_name", metavar="NAME")
@click.argument("command", nargs=-1, required=True)
@click.pass_context
def lease_command(
    ctx: click.Context,
    /,
    lease_name: str,
    command: tuple[str, ...],
    ttl: float,
    wait: float | None,
    **said: Any,
) -> None:
    """Run a command under a lease, on one machine at a time: lease NAME -- COMMAND ARGS.

    The command finds its fencing token in DISTLOCK_TOKEN. It is stopped, SIGTERM then SIGKILL,
    when the lease is lost. Its exit code is passed on; 1 says that the lease was not free in time.

    \b
    Example, in the crontab of many machines:
      app_start.py lease backup --wait 0 -- /usr/local/bin/backup --all
    """
    connection = Connection(ctx, dict(os.environ), lease=lease_name)
    sys.exit(modes.run_command(connection, command, ttl, wait))


for command in (cache, doctor, server, top):
    cli.add_command(command)


# --- the way out -----------------------------------------------------------------------------


def main() -> None:
    """Run the program and exit with its code."""
    debug = "--debug" in sys.argv
    if sys.stderr is None:  # it was closed: `2>&-`
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may know less than UTF-8
    try:
        if sys.stdout is None:  # `>&-`: what is taken from the errors would be lost
            raise UsageError("stdout is closed: let it go somewhere, such as >/dev/null")
        cli(prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as shown:
        shown.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", 130, debug)
    except click.ClickException as error:
        # it may quote a URL that stands where none belongs
        fail(f"{mask(error.format_message())} (--help says what there is)", 2, debug)
    except DistlockError as error:
        fail(str(error), error.exit_code, debug)
    except OSError as error:
        # what is still in the buffer must not fail once more at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        fail(f"{error}: mend that and start again; nothing is lost", 1, debug)
    except ModuleNotFoundError as error:
        fail(not_installed(error), 1, debug)
    except Exception as error:
        what = f"unexpected {type(error).__name__}: {error}"
        fail(f"{what}: --debug shows where; please report it", 1, debug)


def fail(line: str, code: int, debug: bool) -> None:
    """End the program with one line on stderr."""
    if debug:
        traceback.print_exc()
    line = harmless(line)
    if len(line) > LONGEST:
        line = f"{line[: LONGEST - 200]} ... {line[-200:]}"  # the remedy stands at the end
    print(f"{PROGRAM}: {line}", file=sys.stderr)
    sys.exit(code)
