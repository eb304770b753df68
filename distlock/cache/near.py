"""Values kept in this process, too: bounded, and dropped when the node says that they changed.

Rules:

- A node says which values change, over a connection of its own; while that connection does not
  stand, nothing is kept, and when it breaks everything is dropped.
- A value that was read is kept only if nothing was said of its key between the question and the
  answer, and no longer than the node will keep it.
- The value that was not asked for the longest goes first, when there are too many, or too large.
- All callers get the same object, unless copies are asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any, Final
from weakref import WeakValueDictionary

from ..io import Mutex

MISSING: Final = object()
"""The answer when there is nothing."""


_Entry = tuple[Any, float, int]
"""Value, the monotonic time until which it is good, bytes."""


class Question:
    """A value is asked for; whoever asks holds on to it, and with him it goes."""

    __slots__ = ("__weakref__",)


class Near:
    """What is kept.

    Args:
        entries: values at most.
        size: bytes at most, encoded.
        decode: where copies are wanted: makes a value of the bytes.
    """

    def __init__(
        self, entries: int, size: int, decode: Callable[[bytes], Any] | None = None
    ) -> None:
        self._most = entries
        self._largest = size
        self._decode = decode
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._asked: WeakValueDictionary[str, Question] = WeakValueDictionary()
        self._size = 0
        self._mutex = Mutex()

    def get(self, key: str) -> Any:
        """The value, or MISSING."""
        try:
            value, until, _ = self._entries[key]
            self._entries.move_to_end(key)
        except (KeyError, TypeError):  # or dropped by another thread just now; or it is no key
            return MISSING
        if monotonic() >= until:
            return MISSING
        return value if self._decode is None else self._decode(value)

    def ask(self, key: str) -> Question:
        """Note that a value is about to be asked for; returns what `keep` wants to see."""
        question = self._asked[key] = Question()
        return question

    def keep(self, key: str, question: object, data: bytes, value: Any, until: float) -> None:
        """Keep a value that was read, until `until` (monotonic)."""
        with self._mutex:
            if self._asked.get(key) is not question:
                return
            del self._asked[key]
            self._drop(key)
            if len(data) > self._largest:  # it would drive out all others, and itself
                return
            kept = value if self._decode is None else data
            self._entries[key] = (kept, until, len(data))
            self._size += len(data)
            while len(self._entries) > self._most or self._size > self._largest:
                self._size -= self._entries.popitem(last=False)[1][2]  # one step: `get` moves them

    def drop(self, key: str) -> None:
        """Its value has changed."""
        with self._mutex:
            self._asked.pop(key, None)
            self._drop(key)

    def drop_all(self) -> None:
        """Any value may have changed."""
        with self._mutex:
            self._asked.clear()
            self._entries.clear()
            self._size = 0

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry:
            self._size -= entry[2]


class Follower:
    """Follows what one node says of its values, and drops what has changed.

    Args:
        near: where to drop it.
        prefix: what the keys of values begin with.

    Attributes:
        standing: whether the node's word is heard.
    """

    def __init__(self, near: Near, prefix: str) -> None:
        self.standing = False
        self._near = near
        self._length = len(prefix.encode())

    def hear(self, keys: list[bytes] | None) -> None:
        """Some values have changed, or all (None)."""
        if keys is None:
            self._near.drop_all()
            return
        for key in keys:
            self._near.drop(key[self._length : -1].decode("utf-8", "replace"))

    def stand(self, stands: bool) -> None:
        """The connection stands from now on, or no longer."""
        stood, self.standing = self.standing, stands
        if stood:  # else nothing was kept from this node, and the others' is still good
            self._near.drop_all()
