"""The Lua scripts, read from `lua/` once per process.

Every change of state is one script in one file, and every file opens with one sentence and the
lines `KEYS:`, `ARGV:` and `RETURNS:`. A file named `_part.lua` is no script but a function that
scripts share; they name it in a line `USES:` and it is put in front of them.

Scripts run by EVALSHA, by EVAL when the server does not know them (io.py does both). redis-py's
`register_script` would add a round trip to every pipeline, and `FUNCTION LOAD` would change the
code under processes of an older version that are still running.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True)
class Script:
    """One script: its name, its whole text, and the SHA-1 by which the server knows it."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script in `lua/<name>.lua` with the parts that it uses in front.

    Raises:
        FileNotFoundError: there is no such script.
    """
    body = source(name)
    used = re.search(r"^-- USES: (.*)$", body, re.MULTILINE)
    parts = [source(part) for part in used[1].split()] if used else []
    text = "\n".join([*parts, body])
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def under(part: str, text: str) -> Script:
    """A script of a user's with one of our parts in front."""
    whole = f"{source(part)}\n{text}"
    return Script("", whole, sha1(whole.encode(), usedforsecurity=False).hexdigest())


@cache
def source(name: str) -> str:
    """The text of one file of `lua/`, without its parts."""
    return (files("distlock.lua") / f"{name}.lua").read_text(encoding="utf-8")


@cache
def names() -> list[str]:
    """The names of all scripts, sorted, without the parts."""
    return sorted(name for name in _all() if name[0] != "_")


def parts() -> list[str]:
    """The names of the parts."""
    return sorted(name for name in _all() if name[0] == "_")


def _all() -> list[str]:
    found = (entry.name for entry in files("distlock.lua").iterdir())
    return [name[:-4] for name in found if name.endswith(".lua")]


@cache
def commands() -> list[str]:
    """Every command that a script of the application may send, sorted: the rights it needs."""
    ours = (script(name).text for name in names() if not name.startswith("cache_"))
    calls = (re.findall(r"redis\.call\('([A-Z]+)'", text) for text in ours)
    indirect = {"LRANGE", "ZRANGE"}  # verify_page and verify_ask choose between the two
    return sorted(indirect.union(*calls))
