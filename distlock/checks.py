"""Checks of what a user gives, before anything is sent."""

from __future__ import annotations

import math

from .errors import UsageError

LONGEST = 365 * 86_400.0
"""Seconds that any time may have."""


def seconds(what: str, value: object, least: float, most: float = LONGEST) -> float:
    """The value as seconds, else UsageError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{what} {value!r} is no number: give seconds, such as 10 or 0.5")
    if not least <= value <= most or math.isnan(value):
        raise UsageError(f"{what} {value!r} cannot be used: take {least:g} to {most:g} seconds")
    return float(value)


def whole(what: str, value: object, least: int, most: int) -> int:
    """The value as a whole number, else UsageError."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{what} {value!r} cannot be used: take {least} to {most}")
    return value
