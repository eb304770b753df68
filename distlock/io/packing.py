"""A command as it is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import getsizeof
from typing import NamedTuple

import hiredis

from ..scripts import Script
from .base import Argument

PACK: Callable[..., bytes] = hiredis.pack_command
LONG = 1 << 18
"""Bytes of a long word."""


def packed(words: Sequence[Argument]) -> Sequence[bytes]:
    """A command as it is sent; hiredis would copy a long word twice, so that goes as it is."""
    if max(map(getsizeof, words)) <= LONG:
        return (PACK(words),)
    pieces: list[bytes] = []
    short = b"*%d\r\n" % len(words)
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        short += b"$%d\r\n" % len(data)
        if len(data) > LONG:
            pieces += (short, data)
            short = b"\r\n"
        else:
            short += data + b"\r\n"
    return [*pieces, short]


class Request(NamedTuple):
    """A script's call, made before it is sent.

    Attributes:
        words: of the command.
        pieces: the same as it is sent.
    """

    words: tuple[Argument, ...]
    pieces: Sequence[bytes]

    @classmethod
    def of(cls, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Request:
        """The request that `IO.call` makes of the same."""
        words = ("EVALSHA", script.sha, len(keys), *keys, *args)
        return cls(words, packed(words))
