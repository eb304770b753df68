"""Refusing a holder that does not know yet that it is none any more, outside of the server.

A token only rises. Whoever guards a resource remembers the highest one it has seen and refuses any
that is lower (M. Kleppmann, "How to do distributed locking", 2016). In SQL the guard is a column:

    UPDATE report SET body = ?, token = ? WHERE id = ? AND token <= ?

Zero rows changed: the lease had gone on.
"""

from __future__ import annotations

from ..errors import StaleToken, UsageError
from ..io import Mutex


class TokenGuard:
    """Remembers the highest token and refuses lower ones; one for each resource, for all threads.

    Args:
        highest: the highest token that the resource has seen so far, as it was stored with it.

    Attributes:
        highest: the highest token seen.
    """

    def __init__(self, highest: int = 0) -> None:
        self.highest = highest
        self._mutex = Mutex()

    def check(self, token: int) -> None:
        """Let a write with this token pass.

        Raises:
            StaleToken: a higher token was seen before: the write must not be done.
            UsageError: it is no token.
        """
        if isinstance(token, bool) or not isinstance(token, int) or token <= 0:
            raise UsageError(f"{token!r} is no token: give the lease's, while it is held")
        with self._mutex:
            if token < self.highest:
                raise StaleToken(
                    f"token {token} is refused: {self.highest} was seen before, so the lease has "
                    "gone on; stop, and acquire it again"
                )
            self.highest = token
