"""The log of a copy: what the library logs under the name `distlock`, as events like all others.

A record may say which owner and token it is about (`extra=`); the event has these as fields.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

FIELDS = ("owner", "token")


class Say(Protocol):
    """Told of each event."""

    def __call__(self, kind: str, text: str, /, **numbers: Any) -> None:
        """Tell one."""


class Told(logging.Handler):
    """Passes on what is logged, as events of the kind `log`."""

    def __init__(self, say: Say) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        fields = {name: value for name, value in vars(record).items() if name in FIELDS}
        self._say("log", record.getMessage(), level=record.levelname.lower(), **fields)


@contextmanager
def told(say: Say) -> Iterator[None]:
    """Have what the library logs told while the block runs."""
    log, handler = logging.getLogger("distlock"), Told(say)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
