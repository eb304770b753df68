"""The options of the program: what each takes, and which belong together.

Rules:

- Connection options and `--json` stand before or after a subcommand; the ones after it win.
- Settings may come from the environment (`REDIS_URL`), modes never.
- Times are seconds, fractions allowed; a value that cannot be meant is a usage error.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from .errors import UsageError
from .keys import Keys
from .password import from_file

if TYPE_CHECKING:
    from .place import Place

PROGRAM = os.path.basename(sys.argv[0]) or "distlock"
if PROGRAM == "__main__.py":
    PROGRAM = "python -m distlock"
F = TypeVar("F", bound=Callable[..., Any])
DAY = 86_400.0


class Number(click.ParamType[float]):
    """A number from `least` to `most`, by default a time in seconds; fractions allowed."""

    name = "seconds"

    def __init__(self, least: float = 0.0, most: float = DAY) -> None:
        self.least = least
        self.most = most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number, or a usage error."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not self.least <= number <= self.most:  # false for NaN, too
            text = f"{str(value)[:40]!r} is not a number from {self.least:g} to {self.most:g}"
            raise click.BadParameter(text, ctx, param)
        return number


class Size(click.IntRange):
    """A number of bytes."""

    name = "bytes"


class Mode(click.ParamType[str]):
    """The optional value of a mode: never the name of a subcommand."""

    name = "how"

    def __init__(self, *values: str) -> None:
        self.values = values

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What the help shows."""
        return "[" + "|".join(self.values) + "]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """One of the values; `yes` and `true` mean the first."""
        word = str(value).lower()
        if word in ("yes", "true"):
            return self.values[0]
        if word in self.values:
            return word
        if ctx and isinstance(ctx.command, click.Group) and value in ctx.command.commands:
            text = f"it and {value!r} are two things to do: do one after the other"
        else:
            text = f"{str(value)[:40]!r} is none of: {', '.join(self.values)}"
        raise click.BadParameter(text, ctx, param)


OUTPUT = [
    click.option("--json", "as_json", is_flag=True, help="Print for machines."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
]
SERVER = [
    click.option("--host", metavar="HOST", help="Server to use.  [default: localhost]"),
    click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="[default: 6379]"),
    click.option(
        "--db", type=click.IntRange(0, 2**31 - 1), metavar="N", help="Database.  [default: 0]"
    ),
    click.option(
        "--url",
        metavar="URL",
        help="redis://, rediss:// (TLS), unix://, redis+sentinel:// or redis+cluster:// instead of "
        "host and port; also from REDIS_URL, where a password is not seen by others.",
    ),
    click.option(
        "--password-file",
        metavar="FILE",
        help="File with the server's password and nothing else, closed to others. Without it, who "
        "sits at a terminal is asked.",
    ),
    *OUTPUT,
]
CONNECTION = [
    *SERVER[:5],
    click.option("--name", metavar="NAME", help="Pipeline to use.  [default: demo]"),
    *OUTPUT,
]
CACHES = click.option(
    "--cache",
    "caches",
    metavar="NAME",
    multiple=True,
    default=["cache"],
    show_default=True,
    help="Cache whose counters to show, if there are any; may be given more than once.",
)
RUN = [
    click.option(
        "--messages", type=click.IntRange(1, 10**9), metavar="K",
        help="Messages to generate.  [default: 1000000, or all lines of --input]",
    ),
    click.option(
        "--input", metavar="FILE", help="Make each line of a text file a message.",
    ),
    click.option(
        "--generate", metavar="MODULE:FUNCTION",
        help="Your own source: function(start) gives the bodies from message number start on.",
    ),
    click.option(
        "--handle", metavar="MODULE:FUNCTION",
        help="Your own handler: function(message), plain or async; its result is stored.",
    ),
    click.option(
        "--renew-every", type=click.IntRange(1, 10**9), metavar="X", default=5, show_default=True,
        help="The generator renews its lease every X messages.",
    ),
    click.option(
        "--ttl", type=Number(0.1), metavar="T", default=5.0, show_default=True,
        help="Seconds for which a lease lasts.",
    ),
    click.option(
        "--try-every", type=click.IntRange(1, 10**9), metavar="N", default=10, show_default=True,
        help="A handler tries for the lease every N messages.",
    ),
    click.option(
        "--interval", type=Number(), default=0.0, show_default=True,
        help="Seconds between two generated messages.",
    ),
    click.option(
        "--sleep", type=Number(), default=0.0, show_default=True,
        help="Seconds that handling a message takes on top.",
    ),
    click.option(
        "--error-rate", type=Number(0, 1), metavar="SHARE", default=0.0,
        show_default=True, help="Share of messages that fail, always the same ones.",
    ),
    click.option(
        "--seed", type=click.IntRange(0, 2**31), metavar="N",
        help="Of random text and simulated failures.  [default: 0]",
    ),
    click.option(
        "--batch", type=click.IntRange(1, 1000), metavar="N", default=500, show_default=True,
        help="Messages in one hand at most.",
    ),
    click.option(
        "--max-queue", type=click.IntRange(1, 10**8), metavar="N", default=100_000,
        show_default=True, help="The generator waits when so many messages wait.",
    ),
    click.option(
        "--max-body", type=Size(1, 256 * 2**20), metavar="BYTES", default=16 * 2**20,
        show_default=True, help="Bytes that a message or a result may have.",
    ),
    click.option(
        "--attempts", type=click.IntRange(1, 1000), metavar="N",
        help="Tries of a message before it is an error.  [default: 3]",
    ),
    click.option(
        "--time-limit", type=Number(0.001),
        help="Seconds after which a message is ended and fails.  [default: none]",
    ),
    click.option(
        "--handler-ttl", type=Number(0.1),
        help="Seconds of silence after which a handler counts as dead.  [default: 5]",
    ),
    click.option(
        "--wait-replicas", type=click.IntRange(0, 100), metavar="N", default=0, show_default=True,
        help="What was written counts when N replicas have it: a failover forgets none of it.",
    ),
    click.option(
        "--patience", type=Number(), default=60.0, show_default=True,
        help="Seconds for which a server that went away is waited for.",
    ),
    click.option(
        "--unsafe", is_flag=True, help="Run on a server that may evict our keys, too.",
    ),
    click.option(
        "--log-format", type=click.Choice(["text", "json"]),
        help="Log to stderr in this format, each failed message too, without a live view.",
    ),
    click.option(
        "--metrics-port", type=click.IntRange(1, 65535), metavar="PORT",
        help="Serve the pipeline's numbers for Prometheus.",
    ),
    click.option(
        "--metrics-cache", metavar="NAME", multiple=True, default=["cache"], show_default=True,
        help="Cache whose counters to serve, too; may be given more than once.",
    ),
]  # fmt: skip
MODES = [
    click.option(
        "--getErrors", "get_errors", type=Mode("print", "take"), is_flag=False, flag_value="print",
        help="Print all errors, oldest first; with take, remove what was printed.",
    ),
    click.option(
        "--retryErrors", "retry_errors", is_flag=True, help="Put all errors back in the queue.",
    ),
    click.option(
        "--cleanTemp", "clean_temp", type=Mode("requeue", "drop"), is_flag=False,
        flag_value="requeue",
        help="Empty the temp of dead handlers: to the queue or, with drop, to the errors.",
    ),
    click.option("--reset", is_flag=True, help="Delete the job and all its messages; begin anew."),
    click.option("--yes", is_flag=True, help="Do not ask."),
]  # fmt: skip


def options(groups: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """A decorator that adds options in the order given."""

    def decorate(function: F) -> F:
        for option in reversed(groups):
            function = option(function)
        return function

    return decorate


def given(ctx: click.Context) -> dict[str, Any]:
    """The options that stand on the command line of this command itself."""
    return {
        name: value
        for name, value in ctx.params.items()
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


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
        while ctx:
            said = given(ctx) | said
            if ctx.parent is None:
                break
            ctx = ctx.parent
        self.as_json = bool(said.get("as_json"))
        if lease is not None and "name" in said:
            raise UsageError("--name is a pipeline's; the name of a lease stands alone")
        self.keys = Keys(said.get("name", "demo") if lease is None else lease)
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
