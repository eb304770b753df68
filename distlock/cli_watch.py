"""The subcommands that look on: `top` and `doctor`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from . import watching
from .helping import Command
from .options import CACHES, CONNECTION, Connection, options, printing


@click.command(cls=Command, short_help="Watch it live.")
@options([*CONNECTION, CACHES])
@printing("--once", is_flag=True, help="Print the view once, and end.")
@click.pass_context
def top(ctx: click.Context, /, caches: tuple[str, ...], once: bool, **said: Any) -> None:
    """Watch a pipeline: copies, lease, queue, errors, what happened.

    Keys: q quits, p pauses the view (not the pipeline), e shows the newest errors and goes back,
    the arrows scroll. In a pipe it prints a line a second; with --json, an object.

    \b
    Examples:
      app_start.py top
      app_start.py top --name shop --once
      app_start.py top --json | jq .stored_per_second
    """
    watching.watch(Connection(ctx, dict(os.environ)), caches, once)


@click.command(cls=Command, short_help="Say whether a server is fit.")
@options(CONNECTION)
@click.pass_context
def doctor(ctx: click.Context, /, **said: Any) -> None:
    """Say whether a server is fit, line by line with a remedy; exit 1 if it is not.

    It changes nothing. Version, role, persistence, replication, eviction, memory, connections,
    rights, keys of others in our names, round trip, clock.

    \b
    Examples:
      app_start.py doctor --url redis://db.example
      app_start.py doctor --json | jq -r '.findings[] | select(.state == "bad") | .remedy'
    """
    sys.exit(watching.diagnose(Connection(ctx, dict(os.environ))))
