"""Any JSON value that `emit` accepts comes back from the database equal; what it refuses leaves nothing behind."""

import json
import string

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from outbox import EmitError, emit, emit_many

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
json_values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20)
documents = st.lists(json_values) | st.dictionaries(text, json_values)
odd_text = st.text(st.characters() | st.sampled_from("\0\ud800\udfff\\\"'%:"))
odd_values = st.recursive(
    st.none() | st.floats() | st.integers(min_value=10**3999) | odd_text,
    lambda inner: st.lists(inner) | st.dictionaries(odd_text, inner),
    max_leaves=8,
)
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def as_numbers(value):
    """JSON knows numbers, not their Python types: jsonb writes 1e+23 with all of its digits."""
    match value:
        case bool() | None | str():
            return value
        case float() | int():
            return float(value) if abs(value) < 10**300 else str(int(value))[:15]
        case list():
            return [as_numbers(each) for each in value]
        case dict():
            return {key: as_numbers(each) for key, each in value.items()}


def bodies(database):
    text_of_data = "data" if database.kind == "sqlite" else "data::text AS data"
    rows = database.rows(f"SELECT {text_of_data} FROM outbox_message ORDER BY position")
    return [json.loads(row.data) for row in rows]


@few
@given(values=st.lists(documents, min_size=1, max_size=5))
def test_what_is_accepted_comes_back_equal(database, values):
    database.execute("DELETE FROM outbox_message")
    with Session(database.engine) as session, session.begin():
        emit(session, "page.read", values[0])
        session.flush()
        emit_many(session, [("page.read", value) for value in values])
    assert as_numbers(bodies(database)) == as_numbers([values[0], *values])


@few
@example(value="\0", key=None, subject=None)
@example(value="\ud800", key=None, subject=None)
@example(value={"\0": 1}, key=None, subject=None)
@example(value={"\udfff": 1}, key=None, subject=None)
@example(value=float("nan"), key=None, subject=None)
@example(value=float("-inf"), key=None, subject=None)
@example(value=None, key="\0", subject=None)
@example(value=None, key="\ud800", subject=None)
@example(value=None, key=None, subject="\0")
@example(value=None, key=None, subject="\ud800")
@given(value=odd_values, key=st.none() | odd_text, subject=st.none() | odd_text)
def test_what_is_refused_leaves_nothing_and_what_is_not_is_stored(database, value, key, subject):
    database.execute("DELETE FROM outbox_message")
    expected = 0
    with Session(database.engine) as session, session.begin():
        try:
            emit(session, "page.read", {"it": value}, ordering_key=key, subject=subject)
            expected += 1
        except EmitError:
            pass
        session.flush()
        emit(session, "page.kept", {})
        expected += 1
    assert len(bodies(database)) == expected


@few
@given(type_=st.text(st.sampled_from(string.printable + "é\0"), max_size=12))
def test_any_type_is_refused_or_stored_as_it_is(database, type_):
    database.execute("DELETE FROM outbox_message")
    with Session(database.engine) as session, session.begin():
        try:
            emit(session, type_, {})
            expected = [type_]
        except EmitError:
            expected = []
    assert [row.type for row in database.rows("SELECT type FROM outbox_message")] == expected


@pytest.mark.parametrize("number", [1e308, -1e308, 5e-324, 2.2250738585072014e-308, 1e23, 10**3999, -(2**63) - 1, 0.1])
def test_the_ends_of_the_number_line_fit(database, number):
    with Session(database.engine) as session, session.begin():
        emit(session, "page.read", [number])
    ((stored,),) = bodies(database)
    assert stored == number or float(stored) == number
