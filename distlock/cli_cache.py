"""The subcommand `cache`: the demonstration of the cache."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import click

from .errors import UsageError
from .helping import Group, Option
from .options import OUTPUT, Connection, options
from .values import Number

LARGEST = 200_000
"""The number whose factorial still takes about half a second: a getter's work is imitated."""
planning = partial(click.option, cls=Option, group="What is shown")
PLAN = [
    planning(
        "--nodes", type=click.IntRange(2, 16), metavar="N", default=3, show_default=True,
        help="Embedded servers.",
    ),
    planning(
        "--workers", type=click.IntRange(2, 50), metavar="N", default=10, show_default=True,
        help="Processes that ask for values.",
    ),
    planning(
        "--first", type=click.IntRange(0, LARGEST), metavar="NUMBER", default=100_000,
        show_default=True, help="The first number whose factorial is asked for.",
    ),
    planning(
        "--count", type=click.IntRange(1, 100), metavar="N", default=11, show_default=True,
        help="How many numbers.",
    ),
    planning(
        "--expire", type=Number(0.5), default=10.0, show_default=True,
        help="Seconds for which a value is kept.",
    ),
    planning(
        "--execution-limit", type=Number(1), default=60.0, show_default=True,
        help="Seconds that a call takes at most.",
    ),
    planning(
        "--work", type=Number(), default=1.0, show_default=True,
        help="Seconds that a computation takes on top.",
    ),
    planning(
        "--windows", type=click.IntRange(2, 12), metavar="N", default=3, show_default=True,
        help="Lives of each value to see before the end.",
    ),
    planning(
        "--store-value/--no-store-value", default=True, show_default=True,
        help="Keep the factorial itself, or only its number of bits.",
    ),
]  # fmt: skip


@click.group(cls=Group)
@options(OUTPUT)
@click.pass_context
def cache(ctx: click.Context, /, **said: Any) -> None:
    """The cache: see each value computed once in the whole system.

    \b
    Example:
      app_start.py cache demo
    """
    Connection(ctx, {}).refuse_server("cache demo has servers of its own, never yours")


@cache.command()
@options([*PLAN, *OUTPUT])
@click.pass_context
def demo(ctx: click.Context, /, as_json: bool, debug: bool, **said: Any) -> None:
    """Ten processes, three nodes; one of each is killed on the way.

    The processes ask for the factorials of the same numbers again and again. At the end a table
    shows how often each was computed in each life of its value. The exit code is 0 when that is
    once, but where a kill explains it.

    \b
    Examples:
      app_start.py cache demo
      app_start.py cache demo --workers 4 --count 3 --first 1000 --work 0.2 --expire 1
    """
    if said["work"] > said["execution_limit"]:
        raise UsageError(
            f"--work {said['work']:g} takes longer than --execution-limit "
            f"{said['execution_limit']:g}: no call would get a value; give it more"
        )
    from .demo.cache import show
    from .demo.worker import Plan

    sys.exit(show(Plan(**said), Connection(ctx, {}).as_json))
