"""What a handler does with one message: the user's function, or imitated work; and a getter's work.

Rules:

- What the function returns is what the store keeps: bytes and str as they are, the body itself for
  None, anything else as JSON. What it raises makes the message fail.
- Imitated failures are a function of id and seed: the same ids fail on every attempt, in any copy.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any
from zlib import crc32

from .io import Caller, is_async
from .pipeline import Message
from .source import load


class SimulatedError(Exception):
    """What imitated work raises for the share of messages that `--error-rate` names."""


def work(
    spec: str | None, *, sleep: float, error_rate: float, seed: int, time_limit: float | None
) -> Caller:
    """The function for one message, ready to call.

    Args:
        spec: the user's `module:function`, or None for imitated work alone.
        sleep: seconds that each message takes on top.
        error_rate: share of messages that fail, 0 to 1.
        seed: decides which ones.
        time_limit: seconds after which a message is ended, or None.

    Raises:
        UsageError: there is no such function.
    """
    imitated = _imitated(sleep, error_rate, seed)
    if spec is None:
        return Caller(imitated, time_limit)
    function = load(spec, "--handle")
    if not sleep and not error_rate:
        return Caller(function, time_limit)
    return Caller(_after(imitated, function), time_limit)


def _after(imitated: Callable[[Message], None], function: Callable[..., Any]) -> Callable[..., Any]:
    """The user's function, after the imitated work; `async def` when the function is."""

    def plain(message: Message) -> Any:
        imitated(message)
        return function(message)

    async def waiting(message: Message) -> Any:
        imitated(message)
        return await function(message)

    return waiting if is_async(function) else plain


def _imitated(sleep: float, error_rate: float, seed: int) -> Callable[[Message], None]:
    if not sleep and not error_rate:
        return lambda message: None
    bound, begun = round(error_rate * 2**32), crc32(b"%d:" % seed)

    def imitated(message: Message) -> None:
        if sleep:
            time.sleep(sleep)
        if error_rate and crc32(b"%d" % message.id, begun) < bound:
            raise SimulatedError(f"message {message.id} fails, as --error-rate asks")

    return imitated


def encode(result: Any) -> bytes:
    """The bytes that the store keeps for what a function returned, if that is not None.

    Raises:
        TypeError, ValueError: JSON cannot express it.
    """
    if isinstance(result, bytes):
        return result
    if isinstance(result, str):
        return result.encode()
    return json.dumps(result, allow_nan=False).encode()


def factorial(number: int, sleep: float) -> int:
    """The factorial of a number, after some seconds of imitated work.

    It is multiplied by halves: math.factorial holds the interpreter's lock to its end, and a
    process that is silent for so long may be taken for dead.
    """
    time.sleep(sleep)
    return _product(1, number)


def _product(first: int, last: int) -> int:
    if last - first < 64:
        return math.prod(range(first, last + 1))
    middle = (first + last) // 2
    return _product(first, middle) * _product(middle + 1, last)
