"""What `top` and `doctor` do once the options are read: they look, and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from .errors import DistlockError
from .opening import opened

if TYPE_CHECKING:
    from .options import Connection


def watch(connection: Connection, caches: Sequence[str], once: bool) -> None:
    """Show a pipeline until told to end, or once."""
    from .connect import connect
    from .look import Looker
    from .text import mask
    from .top import Top

    with (
        opened(connection) as (place, _),
        connect(place.url, timeout=1.0, connect_timeout=1.0) as client,
    ):
        looker = Looker(client, connection.keys, caches)
        where = "the embedded server" if place.embedded else mask(place.url)
        view = Top(looker, f"{connection.keys.name} at {where}", connection.as_json)
        view.once() if once else view.run()


def diagnose(connection: Connection) -> int:
    """Say whether the server is fit; returns the exit code, 1 when it is not."""
    from redis.exceptions import RedisError

    from .connect import connect
    from .doctor import Finding, examine
    from .io import Route, SyncIO
    from .remedies import explain
    from .text import mask
    from .view import out, result

    place = connection.place()
    found = list[Finding]()
    try:
        with (
            connect(place.url) as client,
            closing(SyncIO(Route(client, connection.keys.job), 0)) as io,
        ):
            for finding in examine(io, connection.keys):
                found.append(finding)
                if not connection.as_json:
                    out(finding.line())
    except (RedisError, DistlockError) as error:
        explained = explain(error, place.url)
        if not found:
            raise explained from error
        found.append(Finding("bad", "answers", str(explained)))
        if not connection.as_json:
            out(found[-1].line())
    bad = sum(finding.state == "bad" for finding in found)
    numbers = {"fit": not bad, "server": mask(place.url)}
    numbers |= {"findings": [finding._asdict() for finding in found]}
    text = f"{mask(place.url)} is not fit: {bad} bad" if bad else f"{mask(place.url)} is fit"
    result(numbers, text, connection.as_json)
    return 1 if bad else 0
