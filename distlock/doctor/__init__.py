"""`distlock doctor`: whether a server is fit for distlock, line by line, each with a remedy.

Rules:

- It reads, and changes nothing. What may not be looked at is said, with the right that it needs.
- *bad* is what breaks a promise, or will: then the exit code is 1. A *note* is worth knowing.

`server` looks at what the server says of itself, `rights` at what this user may do, `keys` at what
lies under the pipeline's names, `reach` at the way there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from redis.exceptions import NoPermissionError, ResponseError

from ..io import SyncIO
from ..keys import Keys
from . import keys as _keys
from . import reach, rights, server
from .finding import Finding

__all__ = ["Finding", "examine"]
Examination = Callable[[SyncIO, Keys], Iterator[Finding]]
EXAMINATIONS: tuple[tuple[str, Examination], ...] = (
    ("server", server.look),
    ("rights", rights.look),
    ("keys", _keys.look),
    ("round trip", reach.look),
)


def examine(io: SyncIO, keys: Keys) -> Iterator[Finding]:
    """Look at a server.

    Args:
        io: the connection to it.
        keys: the pipeline's keys.

    Returns:
        What was found, one after the other.

    Raises:
        RedisError, ServerUnreachable: it does not answer.
    """
    for subject, look in EXAMINATIONS:
        try:
            yield from look(io, keys)
        except NoPermissionError as error:
            yield rights.denied(subject, error)
        except ResponseError as error:
            text = f"cannot be looked at: {' '.join(str(error).split())}"
            yield Finding("bad", subject, text, "distlock needs what is refused here")
