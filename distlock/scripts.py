"""The Lua scripts, read from `lua/` once per process.

Every change of state is one script in one file, and every file opens with one sentence and the
lines `KEYS:`, `ARGV:` and `RETURNS:`. A file named `_part.lua` is no script but a function that
scripts share; they name it in a line `USES:` and it is put in front of them.

Whoever may run a script may still lack the right to one of its commands, and a refusal in the
middle would leave standing what was written before. So each script asks first, by RIGHTS, for all
of them: 3 to 7 µs of the server's. (Redis 6.2 cannot say.)

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

RIGHTS = """\
local may, place = redis.acl_check_cmd, KEYS[1]
if may and not ({all}) then
  for _, command in ipairs({{{each}}}) do
    if not may(command, place) then
      return redis.error_reply("NOPERM this user has no permissions to run '" .. command .. "'")
    end
  end
end
"""
INDIRECT = {"verify_page": {"LRANGE", "ZRANGE"}, "verify_ask": {"LRANGE", "ZRANGE"}}
"""Commands that a script chooses between."""


@dataclass(frozen=True)
class Script:
    """One script: its name, its whole text, and the SHA-1 by which the server knows it."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script in `lua/<name>.lua`, with the question for its rights and its parts in front.

    Raises:
        FileNotFoundError: there is no such script.
    """
    asked = sorted(sent(name))
    asking = " and ".join(f"may('{command}', place)" for command in asked)
    text = RIGHTS.format(all=asking, each=str(asked)[1:-1]) + _whole(name)
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _whole(name: str) -> str:
    body = source(name)
    used = re.search(r"^-- USES: (.*)$", body, re.MULTILINE)
    parts = [source(part) for part in used[1].split()] if used else []
    return "\n".join([*parts, body])


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


def sent(name: str) -> set[str]:
    """Every command that a script may send: the rights that it needs."""
    called = re.findall(r"redis\.call\('([A-Z]+)'", _whole(name))
    return INDIRECT.get(name, set()).union(called)


@cache
def commands(cache: bool = False) -> list[str]:
    """Every command that scripts may send, those of the cache or all others, sorted."""
    ours = (name for name in names() if name.startswith("cache_") is cache)
    return sorted(set[str]().union(*map(sent, ours)))
