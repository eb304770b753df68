"""The options of the program: what each takes, and which belong together.

Rules:

- Connection options and `--json` stand before or after a subcommand; the ones after it win.
- Settings may come from the environment (`REDIS_URL`), modes never.
- Times are seconds, fractions allowed; a value that cannot be meant is a usage error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from .errors import UsageError
from .helping import Option, comes_from
from .keys import Keys
from .password import from_file
from .values import File, Mode, Name, Number, Size

if TYPE_CHECKING:
    from .place import Place

PROGRAM = os.path.basename(sys.argv[0]) or "distlock"
if PROGRAM == "__main__.py":
    PROGRAM = "python -m distlock"
PREFIX = "DISTLOCK"
"""What the variables of the settings begin with."""
F = TypeVar("F", bound=Callable[..., Any])
SOURCES = {"input", "generate"}


printing = partial(click.option, cls=Option, group="Output")
where = partial(click.option, cls=Option, group="Server and pipeline")
whose = partial(where, setting=PREFIX)
shaping = partial(click.option, cls=Option, group="The job", setting=PREFIX)
running = partial(click.option, cls=Option, group="This copy", setting=PREFIX)
mode = partial(click.option, cls=Option, group="Errors, and beginning anew")
OUTPUT = [
    printing("--json", "as_json", is_flag=True, help="Print for machines."),
    printing("--debug", is_flag=True, help="Show the traceback of an error."),
]
SERVER = [
    where("--host", metavar="HOST", help="Server to use.  [default: localhost]"),
    where("--port", type=click.IntRange(1, 65535), metavar="PORT", help="[default: 6379]"),
    where("--db", type=click.IntRange(0, 2**31 - 1), metavar="N", help="Database.  [default: 0]"),
    where(
        "--url",
        metavar="URL",
        help="redis://, rediss:// (TLS), unix://, redis+sentinel:// or redis+cluster:// instead of "
        "host and port; also from REDIS_URL, where a password is not seen by others.",
    ),
    where(
        "--password-file",
        metavar="FILE",
        help="File with the server's password and nothing else, closed to others. Without it, who "
        "sits at a terminal is asked.",
    ),
    *OUTPUT,
]
CONNECTION = [
    *SERVER[:5],
    whose("--name", type=Name(), metavar="NAME", help="Pipeline to use.  [default: demo]"),
    *OUTPUT,
]
CACHES = printing(
    "--cache",
    "caches",
    type=Name(),
    metavar="NAME",
    multiple=True,
    default=["cache"],
    show_default=True,
    help="Cache whose counters to show, if there are any; may be given more than once.",
)
RUN = [
    shaping(
        "--messages", type=click.IntRange(1, 10**9), metavar="K",
        help="Messages to generate.  [default: 1000000, or all lines of --input]",
    ),
    shaping(
        "--input", type=File(), metavar="FILE", help="Make each line of a text file a message.",
    ),
    shaping(
        "--generate", metavar="MODULE:FUNCTION",
        help="Your own source: function(start) gives the bodies from message number start on.",
    ),
    running(
        "--handle", metavar="MODULE:FUNCTION",
        help="Your own handler: function(message), plain or async; its result is stored.",
    ),
    running(
        "--renew-every", type=click.IntRange(1, 10**9), metavar="X", default=5, show_default=True,
        help="The generator renews its lease every X messages.",
    ),
    running(
        "--ttl", type=Number(0.1), metavar="T", default=5.0, show_default=True,
        help="Seconds for which a lease lasts.",
    ),
    running(
        "--try-every", type=click.IntRange(1, 10**9), metavar="N", default=10, show_default=True,
        help="A handler tries for the lease every N messages.",
    ),
    running(
        "--interval", type=Number(), default=0.0, show_default=True,
        help="Seconds between two generated messages.",
    ),
    running(
        "--sleep", type=Number(), default=0.0, show_default=True,
        help="Seconds that handling a message takes on top.",
    ),
    running(
        "--error-rate", type=Number(0, 1), metavar="SHARE", default=0.0,
        show_default=True, help="Share of messages that fail, always the same ones.",
    ),
    shaping(
        "--seed", type=click.IntRange(0, 2**31), metavar="N",
        help="Of random text and simulated failures.  [default: 0]",
    ),
    running(
        "--batch", type=click.IntRange(1, 1000), metavar="N", default=500, show_default=True,
        help="Messages in one hand at most.",
    ),
    running(
        "--max-queue", type=click.IntRange(1, 10**8), metavar="N", default=100_000,
        show_default=True, help="The generator waits when so many messages wait.",
    ),
    running(
        "--max-body", type=Size(1, 256 * 2**20), metavar="BYTES", default=16 * 2**20,
        show_default=True, help="Bytes that a message or a result may have.",
    ),
    shaping(
        "--attempts", type=click.IntRange(1, 1000), metavar="N",
        help="Tries of a message before it is an error.  [default: 3]",
    ),
    running(
        "--time-limit", type=Number(0.001),
        help="Seconds after which a message is ended and fails.  [default: none]",
    ),
    shaping(
        "--handler-ttl", type=Number(0.1),
        help="Seconds of silence after which a handler counts as dead.  [default: 5]",
    ),
    running(
        "--wait-replicas", type=click.IntRange(0, 100), metavar="N", default=0, show_default=True,
        help="What was written counts when N replicas have it: a failover forgets none of it.",
    ),
    running(
        "--patience", type=Number(), default=60.0, show_default=True,
        help="Seconds for which a server that went away is waited for.",
    ),
    running(
        "--unsafe", is_flag=True, setting="",
        help="Run on a server that may evict our keys, too.",
    ),
    running(
        "--log-format", type=click.Choice(["text", "json"]),
        help="Log to stderr in this format, each failed message too, without a live view.",
    ),
    running(
        "--metrics-port", type=click.IntRange(1, 65535), metavar="PORT",
        help="Serve the pipeline's numbers for Prometheus.",
    ),
    running(
        "--metrics-cache", type=Name(), metavar="NAME", multiple=True, default=["cache"],
        show_default=True, help="Cache whose counters to serve, too; may be given more than once.",
    ),
]  # fmt: skip
MODES = [
    mode(
        "--getErrors", "get_errors", type=Mode("print", "take"), is_flag=False, flag_value="print",
        help="Print all errors, oldest first; with take, remove what was printed.",
    ),
    mode(
        "--retryErrors", "retry_errors", is_flag=True, help="Put all errors back in the queue.",
    ),
    mode(
        "--cleanTemp", "clean_temp", type=Mode("requeue", "drop"), is_flag=False,
        flag_value="requeue",
        help="Empty the temp of dead handlers: to the queue or, with drop, to the errors.",
    ),
    mode("--reset", is_flag=True, help="Delete the job and all its messages; begin anew."),
    mode("--yes", is_flag=True, help="Do not ask."),
]  # fmt: skip


def options(groups: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """A decorator that adds options in the order given."""

    def decorate(function: F) -> F:
        for option in reversed(groups):
            function = option(function)
        return function

    return decorate


def given(ctx: click.Context, *sources: ParameterSource) -> dict[str, Any]:
    """The options of this command itself that were said: on the command line, if not named else."""
    wanted = sources or (ParameterSource.COMMANDLINE,)
    return {name: ctx.params[name] for name in ctx.params if comes_from(ctx, name) in wanted}


def settled(ctx: click.Context) -> dict[str, Any]:
    """The options that were said, here or in the environment; of two sources the one said here."""
    line, set_before = given(ctx), given(ctx, ParameterSource.ENVIRONMENT)
    if SOURCES & line.keys():
        set_before = {name: set_before[name] for name in set_before.keys() - SOURCES}
    return set_before | line


def names_of(options: Sequence[Callable[[Any], Any]]) -> dict[str, str]:
    """Parameter name -> the option as it is typed."""

    @click.command()
    def probe() -> None: ...

    for option in options:
        option(probe)
    return {str(param.name): param.opts[0] for param in probe.params}


class Connection:
    """What the connection options say, merged from before and after a subcommand.

    Args:
        ctx: the context of the command that runs.
        environment: where settings may come from, too.
        lease: the name of the lease that the command is about, instead of a pipeline's.

    Attributes:
        password: of the server, if it does not stand in the URL.

    Raises:
        UsageError: two of them contradict each other.
    """

    def __init__(
        self, ctx: click.Context, environment: dict[str, str], lease: str | None = None
    ) -> None:
        said: dict[str, Any] = {}
        set_before = given(ctx.find_root(), ParameterSource.ENVIRONMENT)
        while ctx:
            said = given(ctx) | said
            if ctx.parent is None:
                break
            ctx = ctx.parent
        self.as_json = bool(said.get("as_json"))
        if lease is not None and "name" in said:
            raise UsageError("--name is a pipeline's; the name of a lease stands alone")
        name = said.get("name", set_before.get("name", "demo"))
        self.keys = Keys(name if lease is None else lease)
        file = said.get("password_file")
        self.password = None if file is None else from_file(file)
        self._said = said
        self._environment = environment

    def place(self) -> Place:
        """The server to use; starts the embedded one if there is no other."""
        from .place import find  # imports redis, which takes a while

        return find(self.named(), self._said.get("db"), self.password)

    def refuse_server(self, why: str) -> None:
        """Raise UsageError when the user named a server, or its password."""
        if self.named() or self.password:
            raise UsageError(f"{why}: leave --url, --host, --port and --password-file out")

    def named(self) -> str | None:
        """The URL of the server that the user named, or None."""
        url, host, port = (self._said.get(option) for option in ("url", "host", "port"))
        if host == "":
            raise UsageError("--host is empty: name a host, or leave it out")
        if url is not None and (host or port):
            raise UsageError("--url and --host or --port name two servers: leave one out")
        if url is not None:
            return str(url)
        if host or port:
            host = f"[{host}]" if host and ":" in host else host
            return f"redis://{host or 'localhost'}:{port or 6379}"
        return self._environment.get("REDIS_URL") or None
