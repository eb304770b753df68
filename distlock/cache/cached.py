"""The decorator's part: which key a call of a function has.

Two calls have the same key when the function is given the same arguments, whatever way they are
written. What says by its value what it is may be an argument: what JSON has, tuples, sets, bytes,
dates, decimals, UUIDs, enums, dataclasses and classes. An object says it by `__cache_key__` (a
value, or a method without arguments), or else by its attributes; so two instances share the values
of a method only if they are alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import wraps
from hashlib import sha256
from typing import Any
from urllib.parse import quote
from uuid import UUID

from ..errors import UsageError

LONGEST = 200
"""Characters of a key; what is longer is a hash."""
PLAIN = (str, int, float, bool, type(None), bytes, Decimal, UUID, date, datetime, time, timedelta)


@dataclass(frozen=True)
class Named:
    """How the calls of one function are named.

    Args:
        function: whose calls.
        key: gives the key for the arguments; None: by default, as said above.
    """

    function: Callable[..., Any]
    key: Callable[..., str] | None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise UsageError(f"{self.function!r} cannot be decorated: it is no function")
        if self.key is not None and not callable(self.key):
            raise UsageError(
                f"key {self.key!r} cannot be called: give a function of the arguments, such as "
                "lambda user: f'user:{user}'"
            )

    def of(self, *args: Any, **kwargs: Any) -> str:
        """The key of a call with these arguments.

        Raises:
            UsageError: one of the arguments does not say what it is.
        """
        if self.key is not None:
            return self.key(*args, **kwargs)
        name = f"{self.function.__module__}.{self.function.__qualname__}"
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        bound.apply_defaults()
        parts = [f"{which}={self._text(which, value)}" for which, value in bound.arguments.items()]
        key = quote(f"{name}({','.join(parts)})", safe="()=,:'\"[]*/@+<>")
        return key if len(key) <= LONGEST else f"{quote(name)}:{sha256(key.encode()).hexdigest()}"

    def _text(self, which: str, value: Any) -> str:
        """An argument as text that says what it is, the same in every process."""
        kind = type(value)
        if kind in PLAIN:
            return repr(value)
        if kind in (list, tuple):
            texts = [self._text(which, item) for item in value]
            return f"[{','.join(texts)}]" if kind is list else f"({','.join(texts)},)"
        if kind in (set, frozenset):
            return f"{kind.__name__}({','.join(sorted(self._text(which, item) for item in value))})"
        if kind is dict:
            return self._pairs(which, "dict", value.items())
        if isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, Enum):
            return f"{kind.__qualname__}.{value.name}"
        return f"{kind.__module__}.{kind.__qualname__}{self._of_object(which, value)}"

    def _pairs(self, which: str, name: str, pairs: Any) -> str:
        texts = (f"{self._text(which, key)}:{self._text(which, value)}" for key, value in pairs)
        return f"{name}({','.join(sorted(texts))})"

    def _of_object(self, which: str, value: Any) -> str:
        if (own := getattr(value, "__cache_key__", None)) is not None:
            return f"({self._text(which, own() if callable(own) else own)})"
        if is_dataclass(value):
            return self._pairs(which, "", [(f.name, getattr(value, f.name)) for f in fields(value)])
        if (
            callable(value)
            or not hasattr(value, "__dict__")
            or type(value).__module__ == "builtins"
        ):
            kind = type(value).__qualname__
            raise UsageError(
                f"argument {which!r} of {self.function.__qualname__} is a {kind}, which does not "
                "say what it is: give cached(key=...), or give its class a __cache_key__"
            )
        return self._pairs(which, "", vars(value).items())


def dress(wrapper: Callable[..., Any], named: Named) -> Any:
    """Give a wrapper the function's looks, and `key_of`: the key of a call."""
    dressed: Any = wraps(named.function)(wrapper)
    dressed.key_of = named.of
    return dressed
