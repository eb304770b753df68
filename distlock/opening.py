"""From what the user said about a server to one that was checked; its refusals become one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from .errors import DistlockError, PasswordNeeded, ServerUnreachable
from .options import PROGRAM, Connection
from .text import mask

if TYPE_CHECKING:
    from .io import SyncIO
    from .place import Place
    from .view import View


@contextmanager
def opened(connection: Connection, view: View | None = None) -> Iterator[tuple[Place, SyncIO]]:
    """A server that was checked, and an IO to it; what the server refuses becomes one line.

    Args:
        connection: which server.
        view: told which server it is; without one, only when it had to be started.
    """
    from redis.exceptions import RedisError

    from .connect import connect
    from .io import Route, SyncIO
    from .remedies import explain
    from .view import View

    place = checked(connection)
    try:
        if view:
            view.say("server", place.line(PROGRAM))
        elif place.started:
            View(connection.as_json).say("server", place.line(PROGRAM))
        with connect(place.url) as client:
            route = Route(client, connection.keys.job)
            with closing(SyncIO(route, patience=2.0)) as io:
                yield place, io
    except (RedisError, DistlockError) as error:
        raise explain(error, place.url) from error


def checked(connection: Connection) -> Place:
    """A server that was checked; somebody at a terminal is asked for a password.

    An embedded server that dies just now is started again.
    """
    from .connect import check

    place = connection.place()
    try:
        return replace(place, kind=check(place.url, connection.keys))
    except PasswordNeeded:
        if not sys.stdin.isatty():
            raise
    except ServerUnreachable:
        if not place.embedded or place.embedded.alive():
            raise
        place = connection.place()
        return replace(place, kind=check(place.url, connection.keys))
    question = f"Password for {mask(place.url)}"
    connection.password = click.prompt(question, hide_input=True, err=True)
    place = connection.place()
    return replace(place, kind=check(place.url, connection.keys))
