"""A lease in another process: it speaks for the same term, since the owner is no process.

A lease that was made from a URL can be pickled, with the URL (and the password in it), owner and
token. What comes out does not count as held until `renew` has said that the term goes on; then it
is renewed there, too. Let one of the two release it.
"""

from __future__ import annotations

from typing import Any

from ..errors import UsageError
from .term import Term


def pickled(lease: Term, server: object) -> tuple[Any, ...]:
    """What `__reduce__` returns.

    Raises:
        UsageError: the lease was made from a client, which cannot be pickled.
    """
    if not isinstance(server, str):
        raise UsageError(
            f"lease {lease.name!r} was made from a client, which cannot be pickled: make it from a "
            "URL"
        )
    return unpickle, (type(lease), server, lease.name, lease.options, lease.owner, lease.token)


def unpickle(
    kind: Any, server: str, name: str, options: dict[str, Any], owner: str, token: int
) -> Any:
    """The lease again."""
    lease = kind(server, name, **options)
    lease.owner, lease.token = owner, token
    return lease
