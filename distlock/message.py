"""A message, as a handler's function receives it."""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """One message, as a handler's function receives it.

    Attributes:
        id: 1 to K.
        body: what the generator gave, as bytes.
        attempt: 1 at the first try.
    """

    id: int
    body: bytes
    attempt: int
