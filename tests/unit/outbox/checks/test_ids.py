import time
from uuid import UUID, uuid4

import pytest

from outbox.checks.ids import new_id, normal_id
from outbox.errors import InvalidId


def test_an_id_is_a_uuid_of_version_7_in_its_usual_form():
    text = new_id()
    assert str(UUID(text)) == text
    assert UUID(text).version == 7
    assert UUID(text).variant == "specified in RFC 4122"


def test_an_id_tells_the_millisecond_it_was_made_in():
    before = time.time_ns() // 1_000_000
    made_at = UUID(new_id()).int >> 80
    assert before <= made_at <= time.time_ns() // 1_000_000


def test_ids_are_distinct_however_fast_they_are_made():
    assert len({new_id() for _ in range(20_000)}) == 20_000


def test_ids_made_a_millisecond_apart_sort_by_their_age():
    earlier = new_id()
    while time.time_ns() // 1_000_000 == UUID(earlier).int >> 80:
        pass
    assert earlier < new_id()


def test_ids_sort_by_their_age_though_the_clock_stands_still_or_is_set_back(monkeypatch):
    now = time.time_ns()
    clock = iter([now, now, now, now - 10**9, now - 10**9])
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    made = [new_id() for _ in range(5)]
    assert sorted(set(made)) == made


@pytest.mark.parametrize(
    "spelled",
    [
        "0197C2F0-A1B2-7C3D-8E4F-5A6B7C8D9E0F",
        "0197c2f0a1b27c3d8e4f5a6b7c8d9e0f",
        "{0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f}",
        UUID("0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"),
    ],
)
def test_every_spelling_of_a_uuid_is_one_id(spelled):
    assert normal_id(spelled) == "0197c2f0-a1b2-7c3d-8e4f-5a6b7c8d9e0f"


def test_an_id_of_another_version_is_taken():
    given = uuid4()
    assert normal_id(given) == str(given)


@pytest.mark.parametrize("given", ["", "c-1", "0197c2f0", "\0", "\ud800", 7, b"0" * 16, None])
def test_what_is_no_uuid_is_refused_as_an_id(given):
    with pytest.raises(InvalidId, match=r"pass a uuid\.UUID"):
        normal_id(given)
