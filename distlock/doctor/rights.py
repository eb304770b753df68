"""What this user may do: every command that a copy sends, on the pipeline's own keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

from redis.exceptions import NoPermissionError, ResponseError

from ..about import read_info
from ..connect import DIRECT
from ..io import SyncIO, run
from ..keys import TYPES, Keys
from ..scripts import commands, script
from .finding import BAD, NOTE, OK, Finding


def look(io: SyncIO, keys: Keys) -> Iterator[Finding]:
    """All of it; and which of our keys hold something else, for the same script tells that."""
    ours = [*keys.pick(TYPES), keys.store(0)]
    asked = [*commands(), *DIRECT]
    if unknown := _unknown(io, asked):
        text = f"the server does not have {', '.join(unknown)}"
        yield Finding(BAD, "commands", text, "do not rename or disable commands")
        asked = [command for command in asked if command not in unknown]
    args = [*TYPES.values(), "hash", *asked]
    foreign, refused = run(io.call(script("server_check"), ours, args))
    yield _of(io, [command.decode() for command in refused])
    if not refused:
        yield from _optional(io)
    for key, found in foreign:
        text = f"{key.decode()} holds a {found.decode()} that is not ours"
        yield Finding(BAD, "keys", text, "take another --name, or delete it if nobody needs it")


def _unknown(io: SyncIO, asked: Sequence[str]) -> list[str]:
    """Commands that the server does not know by these names."""
    try:
        known = run(io.command("COMMAND", "INFO", *asked))
    except (NoPermissionError, ResponseError):
        return []
    if isinstance(known, dict):
        known = [known.get(command.lower().encode()) for command in asked]
    return [command for command, what in zip(asked, known, strict=False) if not what]


def _of(io: SyncIO, refused: Sequence[str]) -> Finding:
    if refused:
        rights = [f"+{command.lower()}" for command in refused]
        if {"+publish", "+subscribe"}.intersection(rights):
            rights.append("&distlock:*")  # it may be the channels alone that are missing
        text = f"this user may not {', '.join(refused)}"
        return Finding(BAD, "rights", text, f"ACL SETUSER ... {' '.join(rights)}")
    with suppress(NoPermissionError):  # which is said elsewhere
        facts = read_info(io)
        if "valkey_version" not in facts and facts.get("redis_version", "7").startswith("6."):
            return Finding(NOTE, "rights", "before Redis 7.0 only use shows what is forbidden")
    return Finding(OK, "rights", "all that a copy sends is allowed")


def _optional(io: SyncIO) -> Iterator[Finding]:
    """What makes things better and is not needed."""
    try:
        run(io.command("CLIENT", "LIST", "ID", "1"))
    except NoPermissionError:
        text = "CLIENT LIST is forbidden: a dead generator is missed only at its lease's end"
        yield Finding(NOTE, "rights", text, "ACL SETUSER ... +client|list")


def denied(subject: str, error: NoPermissionError) -> Finding:
    """What a refusal says is missing."""
    said = str(error)
    if command := re.search(r"'([\w|-]+)' command|run the '([\w|-]+)'", said):
        name = command[1] or command[2]
        text = f"this user may not {name.upper()}: the {subject} cannot be looked at"
        return Finding(BAD, "rights", text, f"ACL SETUSER ... +{name}")
    if "key" in said:
        text = "this user may not touch keys of these names"
        return Finding(BAD, "rights", text, "ACL SETUSER ... ~distlock:*")
    return Finding(BAD, "rights", " ".join(said.split()), "grant it with ACL SETUSER")
