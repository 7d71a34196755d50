import json
import math
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, field_serializer

from outbox import InvalidData, TooDeep, TooLarge
from outbox.checks.payload import MAX_BYTES, MAX_DEPTH, to_payload

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
json_values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=10)
documents = st.lists(json_values) | st.dictionaries(text, json_values)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=15,
)


class Colour(StrEnum):
    RED = "red"


class Size(Enum):
    LARGE = 3


class Model(BaseModel):
    ratio: float


@dataclass
class Point:
    x: int


@settings(max_examples=40)
@given(documents)
def test_what_is_accepted_says_the_same_as_json(value):
    assert json.loads(to_payload(value)) == value


@pytest.mark.parametrize("value", [None, True, 7, 1.5, "text", datetime(2026, 1, 1, tzinfo=UTC), Colour.RED])
def test_a_value_by_itself_has_to_be_wrapped(value):
    with pytest.raises(InvalidData, match=r'wrap it, as in \{"value": …\}'):
        to_payload(value)


def outcome(value):
    """Return the serialised data, or the refusal as text."""
    try:
        return json.loads(to_payload(value).encode())
    except InvalidData as error:
        return error


@given(anything)
@example({"\x1f": math.inf})
def test_any_value_comes_back_equal_or_is_refused_in_printable_words(value):
    it = outcome(value)
    if isinstance(it, InvalidData):
        assert str(it).startswith("data")
        assert str(it).encode().decode().isprintable()
    else:
        assert it == value


def test_the_text_is_compact():
    assert to_payload({"a": [1, "é"], "b": None}) == '{"a":[1,"é"],"b":null}'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (datetime(2026, 1, 1, 10, tzinfo=UTC), "2026-01-01T10:00:00Z"),
        (Decimal("1.50"), "1.50"),
        (UUID("0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"), "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"),
        ({1}, [1]),
        ((1, 2), [1, 2]),
        (Colour.RED, "red"),
        (Size.LARGE, 3),
        (Model(ratio=0.5), {"ratio": 0.5}),
        (Point(x=1), {"x": 1}),
        (b"bytes", "bytes"),
    ],
)
def test_what_json_has_no_type_for_is_written_as_pydantic_writes_it(value, written):
    assert json.loads(to_payload({"it": value})) == {"it": written}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"topics": ["fine", "a\0b"]}, r"data\.topics\[1\] holds NUL"),
        ({"topics": [{"name": "\ud800"}]}, r"data\.topics\[0\]\.name holds NUL or a lone surrogate"),
        ({"a\0b": 1}, r"data has the key 'a\\x00b'"),
        ({"\udfff": 1}, r"data has the key"),
        ({"score": math.nan}, r"data\.score is nan"),
        ({"score": [-math.inf]}, r"data\.score\[0\] is -inf"),
        (Model(ratio=math.nan), r"data\.ratio is nan"),
        ({"score": Model(ratio=math.inf)}, r"data\.score\.ratio is inf"),
        ({1: "a"}, r"data has the key 1, and JSON's keys are strings"),
        ({"n": 10**5000}, r"data\.n is an integer of more than 4,000 digits"),
        ({"n": -(10**5000)}, r"data\.n is an integer of more than 4,000 digits"),
        ({"it": object()}, r"data\.it cannot be written as JSON"),
        ({"it": b"\xff"}, r"data\.it cannot be written as JSON"),
        ("\ud800", r"data holds NUL"),
        (object(), r"data cannot be written as JSON"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_its_place(value, problem):
    with pytest.raises(InvalidData, match=problem):
        to_payload(value)


def test_a_circle_is_refused():
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(TooDeep):
        to_payload(circle)


def nested(depth):
    value: object = 1
    for level in range(depth):
        value = {"in": value} if level % 2 else [value]
    return value


def test_nesting_is_taken_to_the_limit_and_not_beyond():
    assert json.loads(to_payload(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(TooDeep, match="flatten it"):
        to_payload(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize("char", ["x", "é", "\U0001f600", '"', "\x01"])
def test_size_is_counted_in_bytes_as_serialised(char):
    per_char = len(json.dumps(char, ensure_ascii=False).encode()) - 2
    fits = (MAX_BYTES - len('[""]')) // per_char
    assert len(to_payload([char * fits]).encode()) <= MAX_BYTES
    with pytest.raises(TooLarge, match="262,144"):
        to_payload([char * (fits + 1)])


def test_the_largest_integer_that_python_reads_back_is_read_back():
    value = [10**4000]
    assert json.loads(to_payload(value)) == value


@pytest.mark.parametrize(
    "iterator",
    [
        lambda rows: (row for row in rows),
        lambda rows: map(dict, rows),
        lambda rows: filter(None, rows),
        lambda rows: iter(rows),
    ],
    ids=["generator", "map", "filter", "iter"],
)
def test_an_iterator_is_written_with_all_its_items(iterator):
    rows = [{"n": 1}, {"n": 2}]
    assert json.loads(to_payload({"items": iterator(rows), "after": 1})) == {"items": rows, "after": 1}


def test_what_an_iterator_gives_is_checked_like_everything_else():
    assert json.loads(to_payload({"items": zip([1, 2], ["a", "b"], strict=True)})) == {"items": [[1, "a"], [2, "b"]]}
    with pytest.raises(InvalidData, match=r"data\.items\[1\] is nan"):
        to_payload({"items": (each for each in [1.0, math.nan])})
    with pytest.raises(TooDeep):
        to_payload({"items": (nested(MAX_DEPTH) for _ in range(1))})


class Loose(BaseModel):
    anything: Any = None
    by_name: dict[str, Any] = {}


@pytest.mark.parametrize(
    "model", [Loose(anything=math.nan), Loose(by_name={"x": math.inf}), Loose(anything=[Loose(anything=-math.inf)])]
)
def test_a_field_of_any_type_that_holds_nan_is_refused_and_does_not_become_null(model):
    with pytest.raises(InvalidData, match="JSON does not have"):
        to_payload(model)
    with pytest.raises(InvalidData, match="JSON does not have"):
        to_payload({"nested": [model]})


class Blank(BaseModel):
    ratio: Any = math.nan

    @field_serializer("ratio", when_used="json")
    def blank(self, value):
        return ""


def test_a_field_that_says_itself_how_nan_is_written_is_left_alone():
    assert json.loads(to_payload({"it": Blank(), "none": Loose()}))["it"] == {"ratio": ""}


@pytest.mark.parametrize("mapping", [OrderedDict, lambda items: defaultdict(str, items)])
def test_two_keys_that_would_become_one_are_refused_in_every_kind_of_dict(mapping):
    with pytest.raises(InvalidData, match="JSON's keys are strings"):
        to_payload(mapping({1: "a", "1": "b"}))


class Timed(BaseModel):
    at: datetime
    log: list[Any] = []


@pytest.mark.parametrize(
    "value",
    [
        {"at": datetime(2026, 1, 1)},
        {"at": [Timed(at=datetime(2026, 1, 1))]},
        Timed(at=datetime(2026, 1, 1, tzinfo=UTC), log=[{"at": datetime(2026, 1, 1, 12, 0, 0, 5)}]),
    ],
)
def test_a_time_without_a_time_zone_is_refused_as_due_at_is(value):
    with pytest.raises(InvalidData, match=r"\.at is a datetime without a time zone"):
        to_payload(value)
    assert to_payload({"at": Timed(at=datetime(2026, 1, 1, tzinfo=UTC))})
