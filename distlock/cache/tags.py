"""JSON that keeps types: plain where JSON has them all, with tags where it lacks one.

A value is looked through once, by the exact types in it. If JSON has them all, json writes the
value as it is. Otherwise a copy is made, in which a tag stands for each part that JSON lacks, and
whatever has no tag is refused with the way to it. On reading, json itself hands over each object
from the innermost outwards, so nothing is walked again. The tags are listed in codec.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from math import isfinite
from typing import Any, NoReturn
from uuid import UUID
from zoneinfo import ZoneInfo

from ..text import harmless

DEEPEST = 200
"""Containers within each other: far from what exhausts the stack, here or in a reader."""

_BIG = 1 << 2048  # 617 digits: below 640, the lowest limit that Python can be given
_LEAVES = frozenset((str, float, bool, type(None)))
_MOMENT = re.compile(r"([^\[]*)(?:\[([^=\]]+)\])?(\[fold=1\])?")
_REMEDY = "store what it is made of, or give the cache a serializer= of your own"

_write = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")
).encode

Path = tuple[tuple[object] | str, ...]
"""The way to a part of a value: what to subscribe with, or words where that has no name."""


class Refused(Exception):
    """Why a value cannot be encoded, without the key that it was for."""


def dumps(value: object) -> tuple[bytes, bool]:
    """The value as JSON text, and whether there are tags in it.

    Raises:
        Refused: it would not come back as it is.
    """
    if _is_plain(value, 0):
        try:
            return _write(value).encode(), False
        except ValueError:  # nan, inf or a lone surrogate: these have tags
            pass
    return _write(_tag(value, ())).encode(), True


def shown(value: object) -> str:
    """The value for a message: short, and on one line whatever it is."""
    try:
        return harmless(repr(value))[:60]
    except Exception:
        return f"<{name(type(value))}>"


def said(error: Exception) -> str:
    """The exception for a message."""
    try:
        return harmless(f"{type(error).__name__}: {error}")[:200]
    except Exception:
        return type(error).__name__


def name(kind: type) -> str:
    """The type for a message, with its module."""
    full = f"{kind.__module__}.{kind.__qualname__}"
    return harmless(full.removeprefix("builtins."))[:100]


# --- writing ----------------------------------------------------------------------------------


def _is_plain(value: Any, depth: int) -> bool:
    """Whether JSON has each type in it: the exact ones, json would let subclasses pass."""
    kind, parts = type(value), value
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        parts = value.values()
    elif kind is not list:
        return kind in _LEAVES or (kind is int and -_BIG < value < _BIG)
    if depth == DEEPEST:
        return False
    for part in parts:
        if type(part) in _LEAVES:
            continue
        if not _is_plain(part, depth + 1):
            return False
    return True


def _tag(value: Any, path: Path) -> Any:
    """A copy of the value for json to write, with tags for what JSON lacks."""
    write = _WRITERS.get(type(value))
    if not write:
        _refuse(path, f"is a {name(type(value))}, which has no exact form in JSON", _REMEDY)
    return write(value, path)


def _refuse(path: Path, what: str, remedy: str) -> NoReturn:
    steps = [step if isinstance(step, str) else f"[{shown(step[0])}]" for step in path[:12]]
    way = "".join(steps) + "[…]" * (len(path) > 12)
    raise Refused(f"value{way} {what}: {remedy}")


def _same(value: Any, path: Path) -> Any:
    return value


def _int(value: int, path: Path) -> Any:
    return value if -_BIG < value < _BIG else {"$int": hex(value)}


def _float(value: float, path: Path) -> Any:
    return value if isfinite(value) else {"$float": repr(value)}


def _str(value: str, path: Path) -> Any:
    return value if _is_text(value) else {"$str": _base64(value.encode("utf-8", "surrogatepass"))}


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


def _moment(value: datetime | time, path: Path) -> Any:
    zone, name_of_zone = value.tzinfo, ""
    if type(zone) is ZoneInfo and zone.key:
        name_of_zone = f"[{zone.key}]"
    elif zone is not None and (type(zone) is not timezone or zone.utcoffset(None).microseconds):
        what = f"has the tzinfo {shown(zone)}, which has no exact form"
        _refuse(path, what, "take a timezone of whole seconds, or a ZoneInfo with a key")
    return {_tag_of(value): value.isoformat() + name_of_zone + "[fold=1]" * value.fold}


def _tag_of(value: object) -> str:
    return "$" + type(value).__name__.lower()


def _list(value: Iterable[Any], path: Path) -> list[Any]:
    _check_depth(path)
    return [_tag(part, (*path, (index,))) for index, part in enumerate(value)]


def _set(value: Iterable[Any], path: Path) -> Any:
    _check_depth(path)
    return {_tag_of(value): [_tag(part, (*path, " (an item of it)")) for part in value]}


def _dict(value: dict[Any, Any], path: Path) -> Any:
    _check_depth(path)
    parts = {key: _tag(part, (*path, (key,))) for key, part in value.items()}
    if all(type(key) is str and _is_text(key) for key in value) and not _looks_like_a_tag(value):
        return parts
    return {"$dict": [[_tag(key, (*path, " (a key of it)")), parts[key]] for key in parts]}


def _looks_like_a_tag(value: dict[Any, Any]) -> bool:
    return len(value) == 1 and next(iter(value)).startswith("$")


def _check_depth(path: Path) -> None:
    if len(path) >= DEEPEST:
        _refuse(path, f"is more than {DEEPEST} levels deep, or within itself", "store less of it")


_WRITERS: dict[type, Callable[[Any, Path], Any]] = {
    str: _str,
    int: _int,
    float: _float,
    bool: _same,
    type(None): _same,
    list: _list,
    dict: _dict,
    tuple: lambda value, path: {"$tuple": _list(value, path)},
    set: _set,
    frozenset: _set,
    bytes: lambda value, path: {"$bytes": _base64(value)},
    Decimal: lambda value, path: {"$decimal": str(value)},
    UUID: lambda value, path: {"$uuid": str(value)},
    date: lambda value, path: {"$date": value.isoformat()},
    datetime: _moment,
    time: _moment,
    timedelta: lambda value, path: {"$timedelta": [value.days, value.seconds, value.microseconds]},
}


# --- reading ----------------------------------------------------------------------------------


def _untag(found: dict[str, Any]) -> Any:
    """What an object stands for; what is in it was already seen to."""
    if len(found) != 1:
        return found
    ((tag, form),) = found.items()
    return _READERS[tag](form) if tag.startswith("$") else found


def _read_moment(kind: type[datetime] | type[time], form: str) -> Any:
    match = _MOMENT.fullmatch(form)
    if not match:
        raise ValueError(f"{shown(form)} is no moment")
    clock = kind.fromisoformat(match[1])
    zone = ZoneInfo(match[2]) if match[2] else clock.tzinfo
    return clock.replace(tzinfo=zone, fold=1 if match[3] else 0)


_READERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda form: int(form, 16),
    "$float": float,
    "$str": lambda form: b64decode(form, validate=True).decode("utf-8", "surrogatepass"),
    "$bytes": lambda form: b64decode(form, validate=True),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$date": date.fromisoformat,
    "$datetime": lambda form: _read_moment(datetime, form),
    "$time": lambda form: _read_moment(time, form),
    "$timedelta": lambda form: timedelta(*form),
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$dict": dict,
}

loads: Callable[[str], Any] = json.JSONDecoder().decode
loads_tagged: Callable[[str], Any] = json.JSONDecoder(object_hook=_untag).decode
