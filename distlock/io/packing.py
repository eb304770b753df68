"""A command as it is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import hiredis

from ..scripts import Script
from .base import Argument

PACK: Callable[..., bytes] = hiredis.pack_command
LONG, LAST = 1 << 18, 64
"""Bytes of a long word; the words, at the end of a command, among which it is: it ends a hand."""


def packed(words: Sequence[Argument]) -> Sequence[bytes]:
    """A command as it is sent; hiredis would copy a long word twice, so that goes as it is."""
    for word in words[-LAST:]:
        if isinstance(word, bytes) and len(word) > LONG:
            break
    else:
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
