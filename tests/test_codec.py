"""The values of the cache as bytes: exact or refused, and readable by other languages."""

from __future__ import annotations

import collections
import enum
import io
import json
import math
import struct
import sys
import threading
import zlib
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlock.cache import codec as module
from distlock.cache import tags
from distlock.cache.codec import Codec, Serializer, Value
from distlock.errors import CannotEncode, Corrupt, DistlockError, UsageError

CODEC = Codec()
BERLIN = ZoneInfo("Europe/Berlin")
LONE = "\ud800\udc00"  # two halves that are one character to whoever reads them as UTF-16


def fake_dumps(value: object) -> bytes:
    return b"\xc1" + json.dumps(value).encode()


def fake_loads(data: bytes) -> Any:
    assert data[:1] == b"\xc1"
    return json.loads(data[1:])


STEADY = settings(deadline=None, derandomize=True, max_examples=200)
FAKE = Serializer("msgpack", fake_dumps, fake_loads)


def exact(value: Any) -> Any:
    """The value with its types, so that two are equal only if nothing tells them apart."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, [exact(part) for part in value]
    if kind in (set, frozenset):
        return kind, sorted(repr(exact(part)) for part in value)
    if kind is dict:
        return kind, [(exact(key), exact(part)) for key, part in value.items()]
    if kind in (datetime, time):
        return kind, value.isoformat(), value.fold, str(value.tzinfo), type(value.tzinfo)
    if kind is int:
        return kind, hex(value)
    return kind, repr(value)


def again(value: object, codec: Codec = CODEC) -> Any:
    found = codec.decode(codec.encode(value))
    assert found[1:] == (None, False)
    return found.value


# --- round trips ------------------------------------------------------------------------------

texts = st.text() | st.text("$#\ud800\udc00aé", max_size=4)
offsets = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
zones = st.one_of(st.none(), offsets, st.just(BERLIN), st.timezones())
naive = st.datetimes(datetime(1800, 1, 2), datetime(9990, 1, 1))
moments = st.builds(
    lambda at, zone, fold: at.replace(tzinfo=zone, fold=fold), naive, zones, st.integers(0, 1)
)
whole = st.integers() | st.sampled_from([s * (2**2048 + d) for s in (1, -1) for d in (-1, 0, 1)])
decimals = st.decimals(allow_nan=False)
hashable_leaves = st.one_of(
    st.none(),
    st.booleans(),
    whole,
    st.floats(allow_nan=False),
    texts,
    st.binary(),
    decimals,
    st.uuids(),
    st.dates(),
    moments,
    moments.map(datetime.timetz),
    st.timedeltas(),
)
leaves = hashable_leaves | st.floats() | st.decimals()
hashables = st.recursive(
    hashable_leaves,
    lambda part: st.lists(part, max_size=3).map(tuple) | st.frozensets(part, max_size=3),
    max_leaves=5,
)
look_alikes = st.sampled_from(["$int", "$dict", "$", "$tuple", "$new"])
values = st.recursive(
    leaves,
    lambda part: st.one_of(
        st.lists(part, max_size=5),
        st.lists(part, max_size=5).map(tuple),
        st.sets(hashables, max_size=5),
        st.frozensets(hashables, max_size=5),
        st.dictionaries(texts, part, max_size=5),
        st.dictionaries(hashables, part, max_size=5),
        st.dictionaries(look_alikes, part, max_size=2),
    ),
    max_leaves=25,
)
plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    max_leaves=25,
)


@STEADY
@given(values)
def test_whatever_is_accepted_comes_back_with_its_types_and_values(value: object) -> None:
    assert exact(again(value)) == exact(value)


@STEADY
@given(plain_values)
def test_what_json_has_is_pure_json_text_without_spaces(value: object) -> None:
    data = CODEC.encode(value)
    assert data.decode() == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert exact(json.loads(data)) == exact(value)
    assert exact(CODEC.decode(data).value) == exact(value)


@STEADY
@given(values, st.booleans())
def test_marks_and_compression_change_no_value(value: object, stale: bool) -> None:
    codec = Codec(compress_above=20)
    data = codec.encode(value, stale=stale)
    for reader in (codec, CODEC, Codec(FAKE)):
        found = reader.decode(data)
        assert exact(found.value) == exact(value)
        assert found[1:] == (None, stale)


@STEADY
@given(values)
def test_strict_json_readers_can_read_the_tagged_form(value: object) -> None:
    def no_constant(text: str) -> None:
        raise AssertionError(text)

    data = CODEC.encode(value)
    json.loads(data.decode().removeprefix("#json+tagged#"), parse_constant=no_constant)


def test_the_factorial_of_a_large_number_comes_back_and_the_limit_stays() -> None:
    before, number = sys.get_int_max_str_digits(), math.factorial(100_010)
    assert again(number) == number
    assert again({"n": [number, -number]}) == {"n": [number, -number]}
    assert sys.get_int_max_str_digits() == before


@pytest.mark.parametrize("bits", [2047, 2048, 2049, 14_000, 15_000])
def test_whole_numbers_come_back_under_the_lowest_limit_python_knows(bits: int) -> None:
    limit, number = sys.get_int_max_str_digits(), (1 << bits) - 1
    data = CODEC.encode([number, -number])
    sys.set_int_max_str_digits(sys.int_info.str_digits_check_threshold)
    try:
        assert CODEC.decode(data).value == [number, -number]
        assert CODEC.encode([number, -number]) == data
    finally:
        sys.set_int_max_str_digits(limit)
    assert data.startswith(b"#") is (bits > 2048)


def test_lone_surrogates_are_not_joined_to_another_character() -> None:
    for value in (LONE, [LONE], {LONE: LONE}, {"a": {"b": "\udfff"}}):
        assert again(value) == value
    assert again("\U00010000") == "\U00010000" != again(LONE)


def test_the_second_of_two_equal_hours_is_kept() -> None:
    first = datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)
    for value in (first, first.replace(fold=1), first.replace(tzinfo=None, fold=1)):
        found = again(value)
        assert (found, found.fold, found.tzinfo) == (value, value.fold, value.tzinfo)
        assert found.utcoffset() == value.utcoffset()
    assert again(first).tzinfo is BERLIN


def test_signalling_nan_and_negative_zero_are_kept() -> None:
    for text in ("sNaN", "NaN123", "-0.00", "-Infinity", "1E+999999", "1.500"):
        assert str(again(Decimal(text))) == text
    assert str(again(-0.0)) == "-0.0"
    assert math.isnan(again([float("nan")])[0])


# --- the format -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (None, b"null"),
        (17, b"17"),
        ("#é\n", b'"#\xc3\xa9\\n"'),
        ({"a": [1, 0.5, True], "b": {}}, b'{"a":[1,0.5,true],"b":{}}'),
        ({"$int": "0x1"}, b'{"$int":"0x1"}'),
        (-(1 << 2048), b'#json+tagged#{"$int":"-0x1' + b"0" * 512 + b'"}'),
        ((1 << 2048) - 1, str((1 << 2048) - 1).encode()),
        (math.inf, b'#json+tagged#{"$float":"inf"}'),
        ([math.nan, -math.inf], b'#json+tagged#[{"$float":"nan"},{"$float":"-inf"}]'),
        ("a\ud800", b'#json+tagged#{"$str":"Ye2ggA=="}'),
        (b"\x00\xff", b'#json+tagged#{"$bytes":"AP8="}'),
        (Decimal("1.50"), b'#json+tagged#{"$decimal":"1.50"}'),
        (UUID(int=1), b'#json+tagged#{"$uuid":"00000000-0000-0000-0000-000000000001"}'),
        (date(2024, 5, 1), b'#json+tagged#{"$date":"2024-05-01"}'),
        (datetime(2024, 5, 1, 12), b'#json+tagged#{"$datetime":"2024-05-01T12:00:00"}'),
        (
            datetime(2024, 5, 1, tzinfo=UTC),
            b'#json+tagged#{"$datetime":"2024-05-01T00:00:00+00:00"}',
        ),
        (
            datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
            b'#json+tagged#{"$datetime":"2024-10-27T02:30:00+01:00[Europe/Berlin][fold=1]"}',
        ),
        (time(12, 0, 0, 5), b'#json+tagged#{"$time":"12:00:00.000005"}'),
        (timedelta(-1, 2, 3), b'#json+tagged#{"$timedelta":[-1,2,3]}'),
        ((1, [2]), b'#json+tagged#{"$tuple":[1,[2]]}'),
        ({1}, b'#json+tagged#{"$set":[1]}'),
        (frozenset("a"), b'#json+tagged#{"$frozenset":["a"]}'),
        ({1: "a"}, b'#json+tagged#{"$dict":[[1,"a"]]}'),
        ({"a": {"$int": ()}}, b'#json+tagged#{"a":{"$dict":[["$int",{"$tuple":[]}]]}}'),
        ({"$a": (), "b": 1}, b'#json+tagged#{"$a":{"$tuple":[]},"b":1}'),
    ],
)
def test_the_bytes_of_each_form_are_these(value: object, data: bytes) -> None:
    assert CODEC.encode(value) == data
    assert exact(CODEC.decode(data).value) == exact(value)


def test_the_bytes_of_each_head_are_these() -> None:
    assert CODEC.encode([1], stale=True) == b"#json+stale#[1]"
    assert CODEC.encode((), stale=True) == b'#json+tagged+stale#{"$tuple":[]}'
    assert Codec(FAKE).encode([1]) == b"#msgpack#\xc1[1]"
    assert Codec(FAKE).encode([1], stale=True) == b"#msgpack+stale#\xc1[1]"
    assert CODEC.encode_failure("Käse: \ud800\n") == b"#failed#K\xc3\xa4se: \\ud800\n"
    zipped = Codec(compress_above=0).encode("a" * 99 + "é", stale=True)
    assert zipped == b"#json+zlib+stale#" + zlib.compress(b'"%b\xc3\xa9"' % (b"a" * 99), 1)
    zipped = Codec(FAKE, compress_above=0).encode("a" * 99)
    assert zipped == b"#msgpack+zlib#" + zlib.compress(b'\xc1"%b"' % (b"a" * 99), 1)


def test_a_remembered_failure_is_told_from_every_value() -> None:
    for text in ("", "ValueError: no\n#", "Käse"):
        for codec in (CODEC, Codec(FAKE)):
            assert codec.decode(codec.encode_failure(text)) == Value(None, text, False)
    assert CODEC.decode(CODEC.encode(None)) == Value(None, None, False)
    assert CODEC.decode(b"#failed+stale#x") == Value(None, "x", True)
    assert again("#failed#x") == "#failed#x"


@pytest.mark.parametrize("tag", ["$", "$int", "$dict", "$tuple", "$unknown", "$é"])
def test_a_dict_that_looks_like_a_tag_comes_back_as_it_was(tag: str) -> None:
    for form in ("0x1", (), {tag: b""}, [{tag: 1}, {1}], {tag: {tag: {"a": (1,)}}}):
        value = [{tag: form}, {tag: form, "b": (1,)}]
        assert again(value) == value


def test_compression_begins_above_its_bound_and_only_where_it_helps() -> None:
    codec = Codec(compress_above=1000)
    assert codec.encode("a" * 998) == b'"%b"' % (b"a" * 998)
    assert codec.encode("a" * 999).startswith(b"#json+zlib#")
    assert len(codec.encode("a" * 999)) < 100
    noise = [math.sin(i) for i in range(3)]
    assert Codec(compress_above=0).encode(noise) == CODEC.encode(noise)


def test_foreign_json_with_spaces_and_escapes_is_read() -> None:
    assert CODEC.decode(b' {"a" : "\\u00e9"}\n').value == {"a": "é"}


# --- what is refused --------------------------------------------------------------------------


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int


class Text(str):
    pass


class Foreign(tzinfo):
    def utcoffset(self, at: datetime | None) -> timedelta:
        return timedelta(0)

    dst = utcoffset

    def tzname(self, at: datetime | None) -> str:
        return "foreign"


def refusal(value: object, codec: Codec = CODEC, key: str = "k") -> str:
    with pytest.raises(CannotEncode) as caught:
        codec.encode(value, key=key)
    assert isinstance(caught.value, DistlockError)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 700
    assert text.startswith(f"the value of key {tags.shown(key)} cannot be stored: ")
    return text


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object(), "value is a object,"),
        ([1, object()], "value[1] is a object,"),
        ({"a": [0, 1, 2, {3j}]}, "value['a'][3] (an item of it) is a complex,"),
        ({"a": {Point(1): 2}}, "value['a'] (a key of it) is a tests.test_codec.Point,"),
        ({(1, 2): [Fraction(1)]}, "value[(1, 2)][0] is a fractions.Fraction,"),
        (Colour.RED, "tests.test_codec.Colour"),
        ([Text("a")], "value[0] is a tests.test_codec.Text"),
        ({Text("a"): 1}, "value (a key of it) is a tests.test_codec.Text"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (collections.defaultdict(int), "collections.defaultdict"),
        (bytearray(b"a"), "bytearray"),
        (int, "value is a type,"),
        ({"at": datetime(2024, 1, 1, tzinfo=Foreign())}, "value['at'] has the tzinfo <"),
        (datetime(2024, 1, 1, tzinfo=timezone(timedelta(0, 1, 1))), "of whole seconds"),
        (time(1, tzinfo=Foreign()), "tzinfo"),
        ({10**5000: object()}, "value[<int>] is a object"),
        ({"\x1b[31m" * 99: object()}, "value['\\x1b[31m"),
    ],
)
def test_a_type_that_would_not_come_back_is_refused_with_the_way_to_it(
    value: object, what: str
) -> None:
    assert what in refusal(value)


def test_a_refusal_names_the_key_and_the_remedy() -> None:
    text = refusal(object(), key="user:1\n")
    assert "'user:1\\n'" in text
    assert "serializer=" in text


def test_the_tzinfo_of_a_zone_without_a_name_is_refused() -> None:
    counts = struct.pack(">20x6llbb", 0, 0, 0, 0, 1, 4, 0, 0, 0)
    zone = ZoneInfo.from_file(io.BytesIO(b"TZif" + counts[4:] + b"UTC\0"))
    assert "ZoneInfo with a key" in refusal(datetime(2024, 1, 1, tzinfo=zone))


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value = wrap(1)
    for _ in range(depth - 1):
        value = wrap(value)
    return value


WRAPS: list[Callable[[Any], Any]] = [
    lambda part: [part],
    lambda part: {"a": part},
    lambda part: (part,),
    lambda part: frozenset([part]),
    lambda part: {1: part},
]


@pytest.mark.parametrize("wrap", WRAPS)
def test_what_nests_too_deeply_is_refused_and_all_else_is_read(wrap: Callable[[Any], Any]) -> None:
    value = nested(tags.DEEPEST, wrap)
    assert again(value) == value
    for depth in (tags.DEEPEST + 1, 300):
        assert f"more than {tags.DEEPEST} levels deep" in refusal(nested(depth, wrap))


def test_what_contains_itself_is_refused_at_once() -> None:
    in_list: list[Any] = []
    in_list += [in_list] * 10
    in_dict: dict[str, Any] = {"t": ()}
    in_dict["a"] = [in_dict] * 10
    for value in (in_list, in_dict):
        assert "within itself" in refusal(value)


def test_too_little_stack_is_a_refusal() -> None:
    value = nested(tags.DEEPEST, WRAPS[2])

    def deeper(left: int) -> None:
        if left:
            return deeper(left - 1)
        assert "RecursionError" in refusal(value)
        return None

    def with_little() -> None:
        try:
            deeper(sys.getrecursionlimit() - 130)
        except BaseException as error:
            errors.append(error)

    errors: list[BaseException] = []
    thread = threading.Thread(target=with_little)
    thread.start()
    thread.join()
    assert not errors


def test_what_is_larger_than_a_server_takes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 1000)
    for codec in (CODEC, Codec(compress_above=10), Codec(FAKE)):
        assert "bytes, and a server takes 1,000" in refusal("a" * 1000, codec)
        assert len(codec.encode("a" * 900, stale=True)) <= 1000
        assert again("a" * 900, codec) == "a" * 900


# --- serializers ------------------------------------------------------------------------------


def test_a_serializer_of_the_users_own_does_it_all() -> None:
    codec = Codec(FAKE)
    assert again({"a": [1]}, codec) == {"a": [1]}
    assert again((1, 2), codec) == [1, 2]
    assert codec.decode(b'{"a":1}').value == {"a": 1}


def test_whatever_a_serializer_raises_is_a_refusal_with_its_cause() -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    def nasty(value: object) -> bytes:
        raise Nasty

    text = refusal(object(), Codec(FAKE))
    assert "serializer 'msgpack' refuses this object: TypeError: Object of type object" in text
    assert refusal(1, Codec(Serializer("x", nasty, fake_loads))).endswith("refuses this int: Nasty")
    text = refusal(1, Codec(Serializer("x", json.dumps, json.loads)))  # type: ignore[arg-type]
    assert "serializer 'x' returned a str, let it return bytes" in text
    with pytest.raises(CannotEncode) as caught:
        Codec(FAKE).encode(object())
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize("name", ["", "A", "a b", "a#", "a+", "é", "a\n", "x" * 17, None, 5])
def test_a_serializer_needs_a_name_that_fits_the_head(name: Any) -> None:
    with pytest.raises(UsageError, match="take"):
        Serializer(name, fake_dumps, fake_loads)


def test_options_that_cannot_be_used_are_refused() -> None:
    for name in ("json", "failed"):
        with pytest.raises(UsageError, match="taken"):
            Serializer(name, fake_dumps, fake_loads)
    for functions in ((None, fake_loads), (fake_dumps, 5)):
        with pytest.raises(UsageError, match="needs functions"):
            Serializer("x", *functions)
    for bound in (-1, 0.5, True, "10"):
        with pytest.raises(UsageError, match="compress_above"):
            Codec(compress_above=bound)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Serializer"):
        Codec("orjson")  # type: ignore[arg-type]


# --- what cannot be read ----------------------------------------------------------------------

ZIPPED = Codec(compress_above=0).encode("a" * 999)


def corrupt(data: bytes, codec: Codec = CODEC) -> str:
    with pytest.raises(Corrupt) as caught:
        codec.decode(data)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "no JSON text"),
        (b"\xff\xfe", "b'\\xff\\xfe' is no JSON text: UnicodeDecodeError"),
        (b"{'a':1}", "no JSON text"),
        (b"[1] 2", "no JSON text"),
        (b"1" * 5000, "no JSON text: ValueError"),
        (b"[" * 200_000 + b"]" * 200_000, "no JSON text: RecursionError"),
        (b"#json#" + b"[" * 200_000 + b"]" * 200_000, "damaged: RecursionError"),
        (b"#", "head"),
        (b"#json[1]", "head"),
        (b"#json+new#[1]", "b'#json+new#[1]' has a head that this version does not know"),
        (b"#json+stale+zlib#[1]", "head"),
        (b"#JSON#[1]", "head"),
        (b"#json#[1", "damaged"),
        (b"#json#\xff", "damaged"),
        (b"#failed#\xff", "damaged"),
        (b'#json+tagged#{"$new":1}', "'$new'"),
        (b'#json+tagged#{"$int":"0xg"}', "damaged"),
        (b'#json+tagged#{"$int":5}', "damaged: TypeError"),
        (b'#json+tagged#{"$bytes":"A*P8="}', "damaged"),
        (b'#json+tagged#{"$decimal":"x"}', "damaged"),
        (b'#json+tagged#{"$set":[[1]]}', "damaged: TypeError"),
        (b'#json+tagged#{"$timedelta":[9999999999,0,0]}', "damaged: OverflowError"),
        (b'#json+tagged#{"$datetime":"2024-01-01T00:00:00[No/Where]"}', "damaged: ZoneInfo"),
        (b'#json+tagged#{"$datetime":"2024-01-01T00:00:00[Europe]"}', "damaged"),
        (b'#json+tagged#{"$time":"12:00[../../etc/passwd]"}', "damaged"),
        (b'#json+tagged#{"$time":"12:00[x"}', "damaged"),
        (ZIPPED[:-1], "does not end"),
        (ZIPPED + b"x", "does not end"),
        (ZIPPED[:-1] + b"\x00", "damaged: error"),
        (b"#json+zlib#", "does not end"),
        (b"#msgpack#\xc1[1]", "written with serializer 'msgpack', this cache uses 'json'"),
        (b"#failed+tagged#x", "serializer"),
    ],
    ids=lambda part: repr(part)[:40],
)
def test_bytes_that_cannot_be_read_are_corrupt_and_say_why(data: bytes, what: str) -> None:
    assert what in corrupt(data)


def test_whatever_a_serializer_raises_on_reading_is_corrupt() -> None:
    assert "damaged: AssertionError" in corrupt(b"#msgpack#[1]", Codec(FAKE))
    other = Codec(Serializer("orjson", fake_dumps, fake_loads))
    assert "serializer 'msgpack', this cache uses 'orjson'" in corrupt(b"#msgpack#x", other)
    assert "serializer" in corrupt(b"#msgpack+tagged#\xc1[1]", Codec(FAKE))


def test_a_small_value_that_unpacks_to_a_huge_one_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LARGEST", 1000)
    fits, bomb = (b"#json+zlib#" + zlib.compress(b'"%b"' % (b"a" * n)) for n in (998, 999))
    assert CODEC.decode(fits).value == "a" * 998
    assert "unpacks to more than 1,000 bytes" in corrupt(bomb)


heads = st.sampled_from(
    [b"", b"#", b"#json#", b"#json+tagged#", b"#json+zlib#", b"#failed#", b"#msgpack#", b"#json+"]
)
tag_names = st.sampled_from(sorted(tags._READERS))
forms = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.just("2024-01-01T00:00:00[X]"),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(tag_names, part, max_size=1),
    max_leaves=8,
)


@STEADY
@given(heads, st.binary() | forms.map(lambda form: json.dumps(form).encode()))
def test_no_bytes_raise_anything_but_corrupt(head: bytes, rest: bytes) -> None:
    for codec in (CODEC, Codec(FAKE)):
        with suppress(Corrupt):
            codec.decode(head + rest)


@STEADY
@given(values, st.data())
def test_damaged_values_raise_nothing_but_corrupt(value: object, data: st.DataObject) -> None:
    written = bytearray(Codec(compress_above=40).encode(value))
    written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Corrupt):
        CODEC.decode(bytes(written))


def test_base64_of_text_is_that_of_its_generalised_utf8() -> None:
    form = b64encode(b"\xed\xa0\x80\xed\xb0\x80").decode()
    assert CODEC.encode(LONE) == f'#json+tagged#{{"$str":"{form}"}}'.encode()
