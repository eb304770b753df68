"""Which server a program uses, and how to stop it.

In this order: the server that the user names; an embedded one that lives; localhost:6379 if
somebody answers there; else the embedded one is started. All terminals of a user come to the same
answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from .connect import answers, check_url
from .errors import UsageError
from .server import Embedded, home
from .text import mask

LOCAL = "redis://localhost:6379"


@dataclass(frozen=True)
class Place:
    """A server that was found.

    Attributes:
        url: where it is, with the database's number.
        embedded: the embedded server, if it is one.
        started: whether this call started it.
    """

    url: str
    embedded: Embedded | None = None
    started: bool = False

    def line(self, kind: str, program: str) -> str:
        """One line that says which server this is and how to stop it.

        Args:
            kind: what answers there, such as `Valkey 9.1.2`.
            program: how this program was called.
        """
        if self.embedded is None:
            return f"server: {kind} at {mask(self.url)}, which was there before and stays"
        how = "started" if self.started else "found"
        return (
            f"server: embedded {kind}, {how} in {self.embedded.folder}; it stays for all terminals "
            f"until `{program} server stop`"
        )


def find(named: str | None, db: int | None = None) -> Place:
    """Find the server to use, and start the embedded one if there is no other.

    Args:
        named: the URL of a server that the user named, or None.
        db: the number of the database, or None for the one in the URL (0 if none is there).

    Raises:
        UsageError: the URL cannot be used.
        ServerUnreachable: there is none, and none can be started.
    """
    if named is not None:
        check_url(named)
        return Place(_with_db(named, db))
    embedded = Embedded(home())
    if not embedded.alive() and answers(LOCAL):
        return Place(_with_db(LOCAL, db))
    started = embedded.start()
    return Place(_with_db(embedded.url, db), embedded, started)


def _with_db(url: str, db: int | None) -> str:
    """The URL with the number of the database in it."""
    if db is None:
        return url
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if query.get("db", parts.path.strip("/") if parts.scheme != "unix" else "") not in (
        "",
        str(db),
    ):
        raise UsageError(f"--db {db} and {mask(url)!r} name two databases: leave one out")
    query["db"] = str(db)
    return f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(query)}"
