"""Values of the cache as bytes, and back: exactly, or not at all.

What was encoded comes back with its type and its value. What would come back as something else is
refused (CannotEncode): subclasses, such as an IntEnum, a named tuple or an OrderedDict; types that
are not named below; what contains itself or nests deeper than 200. Bytes that cannot be read are
Corrupt, and nothing worse: pickle is never used, who can write to the server runs no code here.
With a serializer of the user's own, which types come back is its matter. Nothing here touches the
outside; all of it may be used by several threads at once.

The format is for other languages, too. All text is UTF-8, without spaces between the tokens::

    {"a":[1,"é",null]}                                   a value that JSON has: pure JSON text
    #<serializer>[+tagged][+zlib][+stale]#<payload>      everything else
    #failed#<text>                                       no value: its computation failed, and why

`serializer` is `json`, which every reader knows, or the name of a user's own. `zlib`: the payload
was compressed (RFC 1950). `stale`: the value is past its time, kept for whoever can do with an old
one. No JSON text begins with `#`, so a look at the first byte tells the two apart: a plain hit
costs that and json's own work.

`tagged` (with `json` alone): each JSON object of exactly one member whose name begins with `$`
stands for what JSON lacks. Without the mark such an object is what it looks like.

    {"$int":"-0x1f"}             a whole number of more than 2,048 bits: Python refuses to read more
                                 than 4,300 decimal digits (or 640), and takes seconds for a million
    {"$float":"nan"}             or inf, -inf
    {"$str":"7aCA"}              text with lone surrogates: base64 of their generalised UTF-8
    {"$bytes":"AP8="}            base64
    {"$decimal":"1.50"}          {"$uuid":"12345678-1234-5678-1234-567812345678"}
    {"$date":"2024-05-01"}       {"$timedelta":[days,seconds,microseconds]}
    {"$datetime":"2024-10-27T02:30:00+01:00[Europe/Berlin][fold=1]"}   and $time: ISO 8601, with the
                                 zone's name if it has one (then the offset is only for information)
                                 and `fold` for the second of two equal readings of the clock
    {"$tuple":[…]}               $set, $frozenset
    {"$dict":[[key,value],…]}    a dict with a key that is no text, or that looks like a tag itself

Lost are only: the sign and payload of a float's nan, the display name of a `timezone`, a UUID's
`is_safe`, the order within a set, and which items were one and the same object. A tzinfo that is
neither a `timezone` of whole seconds nor a `ZoneInfo` with a key is refused.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import CannotEncode, Corrupt, UsageError
from . import tags
from .tags import Refused, said, shown

LARGEST = 512 * 1024 * 1024
"""Bytes that a server takes as one string, and that a compressed value may have unpacked."""

_HEAD = re.compile(rb"#([a-z0-9]{1,16})(\+tagged)?(\+zlib)?(\+stale)?#")
_LONGEST_HEAD = 1 + 16 + len("+tagged+zlib+stale") + 1


class Value(NamedTuple):
    """What was found in the cache.

    Attributes:
        value: the value; None if there is a failure.
        failure: why there is no value; None if there is one.
        stale: whether it was stored as past its time.
    """

    value: Any
    failure: str | None = None
    stale: bool = False


@dataclass(frozen=True)
class Serializer:
    """Another way than JSON, such as `Serializer("msgpack", msgpack.packb, msgpack.unpackb)`.

    Attributes:
        name: stands before each value, so that no other serializer reads it: 1 to 16 of a-z 0-9.
        dumps: value -> bytes. Which types survive is its own matter.
        loads: bytes -> value.

    Raises:
        UsageError: one of them cannot be used.
    """

    name: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[a-z0-9]{1,16}", self.name):
            raise UsageError(f"serializer {shown(self.name)} cannot be named so: take a-z 0-9")
        if self.name in ("json", "failed"):
            raise UsageError(f"serializer {self.name!r} cannot be named so: the name is taken")
        for function in (self.dumps, self.loads):
            if not callable(function):
                raise UsageError(f"serializer {self.name!r} needs functions, not {shown(function)}")


class Codec:
    """Values <-> bytes. It reads what JSON wrote, and what its own serializer wrote.

    Args:
        serializer: what writes the values; None for JSON.
        compress_above: more bytes than this are compressed where that makes them fewer; None never.

    Raises:
        UsageError: one of them cannot be used.
    """

    def __init__(
        self, serializer: Serializer | None = None, compress_above: int | None = None
    ) -> None:
        if not isinstance(serializer, Serializer | None):
            raise UsageError(f"serializer {shown(serializer)} cannot be used: give a Serializer")
        if compress_above is not None and (type(compress_above) is not int or compress_above < 0):
            raise UsageError(f"compress_above {shown(compress_above)} cannot be used: give bytes")
        self.serializer = serializer
        self.name = serializer.name if serializer else "json"
        self.compress_above = compress_above

    def encode(self, value: object, *, key: str = "", stale: bool = False) -> bytes:
        """The value as bytes. The key is for the text of the error.

        Raises:
            CannotEncode: it would not come back as it is, or it is too large.
        """
        try:
            payload, marks = self._written(value)
            return self._packed(payload, marks, "+stale" if stale else "")
        except Refused as refused:
            text = f"the value of key {shown(key)} cannot be stored: {refused}"
            raise CannotEncode(text) from refused.__cause__

    def encode_failure(self, text: str) -> bytes:
        """A failure as bytes; lone surrogates in its text become escapes."""
        return b"#failed#" + text.encode("utf-8", "backslashreplace")

    def decode(self, data: bytes) -> Value:
        """What the bytes stand for.

        Raises:
            Corrupt: they are somebody else's, damaged, or of another serializer.
        """
        if data[:1] == b"#":
            return self._decode_headed(data)
        try:
            return Value(tags.loads(data.decode()))
        except (ValueError, RecursionError) as error:
            raise Corrupt(f"{_beginning(data)} is no JSON text: {said(error)}") from error

    def _written(self, value: object) -> tuple[bytes, str]:
        if self.serializer:
            return _serialized(self.serializer, value), ""
        try:
            payload, tagged = tags.dumps(value)
        except RuntimeError as error:  # too little stack is left, or another thread changes it
            raise Refused(said(error)) from error
        return payload, "+tagged" if tagged else ""

    def _packed(self, payload: bytes, marks: str, stale: str) -> bytes:
        if len(payload) > LARGEST - _LONGEST_HEAD:
            raise Refused(f"it has {len(payload):,} bytes, and a server takes {LARGEST:,}")
        if self.compress_above is not None and len(payload) > self.compress_above:
            smaller = zlib.compress(payload, 1)
            if len(smaller) + len("#json+zlib#") < len(payload):
                payload, marks = smaller, marks + "+zlib"
        if self.name == "json" and not marks and not stale:
            return payload
        return f"#{self.name}{marks}{stale}#".encode() + payload

    def _decode_headed(self, data: bytes) -> Value:
        head = _HEAD.match(data)
        if not head:
            raise Corrupt(f"{_beginning(data)} has a head that this version does not know")
        name, tagged, zipped, stale = head.groups()
        load = self._loader((name + (tagged or b"")).decode())
        try:
            payload = data[head.end() :]
            found = load(_unpacked(payload) if zipped else payload)
        except Exception as error:
            raise Corrupt(f"{_beginning(data)} is damaged: {said(error)}") from error
        if name == b"failed":
            return Value(None, failure=found, stale=bool(stale))
        return Value(found, stale=bool(stale))

    def _loader(self, form: str) -> Callable[[bytes], Any]:
        if form in _LOADERS:
            return _LOADERS[form]
        if self.serializer and form == self.name:
            return self.serializer.loads
        raise Corrupt(f"it was written with serializer {form!r}, this cache uses {self.name!r}")


_LOADERS: dict[str, Callable[[bytes], Any]] = {
    "json": lambda payload: tags.loads(payload.decode()),
    "json+tagged": lambda payload: tags.loads_tagged(payload.decode()),
    "failed": bytes.decode,
}


def _serialized(serializer: Serializer, value: object) -> bytes:
    try:
        payload = serializer.dumps(value)
    except Exception as error:
        what = f"serializer {serializer.name!r} refuses this {tags.name(type(value))}"
        raise Refused(f"{what}: {said(error)}") from error
    if not isinstance(payload, bytes):
        kind = tags.name(type(payload))
        raise Refused(f"serializer {serializer.name!r} returned a {kind}, let it return bytes")
    return payload


def _unpacked(payload: bytes) -> bytes:
    stream = zlib.decompressobj()
    found = stream.decompress(payload, LARGEST + 1)
    if len(found) > LARGEST:
        raise ValueError(f"it unpacks to more than {LARGEST:,} bytes")
    if not stream.eof or stream.unused_data:
        raise ValueError("it does not end where its compressed form ends")
    return found


def _beginning(data: bytes) -> str:
    return f"a value that begins with {data[:24]!r}"
