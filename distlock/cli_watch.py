"""The subcommands that look on: `top` and `doctor`."""

from __future__ import annotations

import os
from typing import Any

import click

from . import modes
from .options import CACHES, CONNECTION, Connection, options


@click.command()
@options([*CONNECTION, CACHES])
@click.option("--once", is_flag=True, help="Print the view once, and end.")
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
    modes.watch(Connection(ctx, dict(os.environ)), caches, once)
