"""What an error's record says of an exception: one line of JSON."""

from __future__ import annotations

import json
import traceback
from functools import lru_cache

TRACEBACK = 16_000
"""Bytes of a traceback that an error keeps at most, from its end."""
_encode = json.JSONEncoder(ensure_ascii=False).encode


def report(error: BaseException, handler: str) -> bytes:
    """One line of JSON that says what went wrong, for the record of an error."""
    kind, message = type(error).__qualname__, text_of(error)
    text = _cut(f"{_traceback(error)}{kind}: {message}\n")
    shown = {"exception": kind, "message": message, "traceback": text, "handler": handler}
    return _encode(shown).encode()


def text_of(error: BaseException) -> str:
    """What an exception says, if it can be had."""
    try:
        return _cut(str(error))
    except Exception:
        return "(its text cannot be had)"


def _cut(text: str) -> str:
    """The end of a text, as UTF-8 of at most TRACEBACK bytes."""
    return text.encode(errors="backslashreplace")[-TRACEBACK:].decode(errors="ignore")


def _traceback(error: BaseException) -> str:
    """Where an exception came from, and before it what caused it, the innermost ten."""
    text, seen = "", 0
    while seen < 10:
        frames = traceback.walk_tb(error.__traceback__)
        places = ((f.f_code.co_filename, line, f.f_code.co_name) for f, line in frames)
        text = f"Traceback (most recent call last):\n{_stack(tuple(places))}{text}"
        earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if earlier is None:
            break
        error, seen = earlier, seen + 1
        text = f"{type(error).__qualname__}: {text_of(error)}\n\nAnd then:\n\n{text}"
    return text


@lru_cache(256)
def _stack(places: tuple[tuple[str, int, str], ...]) -> str:
    """The lines of a traceback; cached, for what fails in a job fails in few places."""
    stack = traceback.StackSummary.from_list([(*place, None) for place in places])
    return "".join(stack.format())
