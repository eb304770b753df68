"""The subcommand `server`: the embedded server."""

from __future__ import annotations

from typing import Any

import click

from .helping import Group
from .options import OUTPUT, Connection, options


@click.group(cls=Group)
@options(OUTPUT)
@click.pass_context
def server(ctx: click.Context, /, **said: Any) -> None:
    """The embedded server: start, stop or show it.

    It is for all your terminals, and stays when the one that started it dies.

    \b
    Examples:
      app_start.py server start
      app_start.py server status --json | jq -r .url
    """
    Connection(ctx, {}).refuse_server("server is about the embedded server")


@server.command("start")
@options(OUTPUT)
@click.pass_context
def server_start(ctx: click.Context, /, **said: Any) -> None:
    """Start the embedded server, if it does not run."""
    from .server import Embedded, home
    from .view import result

    embedded = Embedded(home())
    started = embedded.start()
    numbers = {"started": started, "pid": embedded.pid(), "url": embedded.url}
    how = "started" if started else "runs already"
    text = f"embedded server {how}: process {numbers['pid']}, {embedded.url}"
    result(numbers, text, Connection(ctx, {}).as_json)


@server.command("stop")
@options(OUTPUT)
@click.pass_context
def server_stop(ctx: click.Context, /, **said: Any) -> None:
    """Stop the embedded server; its data stays for the next start."""
    from .server import Embedded, home
    from .view import result

    stopped = Embedded(home()).stop()
    text = "embedded server stopped; its data stays" if stopped else "no embedded server runs"
    result({"stopped": stopped}, text, Connection(ctx, {}).as_json)


@server.command("status")
@options(OUTPUT)
@click.pass_context
def server_status(ctx: click.Context, /, **said: Any) -> None:
    """Say whether the embedded server runs, and where."""
    from .server import Embedded, home
    from .view import result

    embedded = Embedded(home())
    pid = embedded.pid()
    numbers = {"alive": pid is not None, "pid": pid, "folder": str(embedded.folder)}
    text = f"embedded server runs: process {pid}, {embedded.url}"
    if pid is None:
        text = f"no embedded server runs; its folder is {embedded.folder}"
    result(numbers | {"url": embedded.url}, text, Connection(ctx, {}).as_json)
