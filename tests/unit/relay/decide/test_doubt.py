"""Which message is tried next in doubt: bad messages that stand together do not hide those between them."""

import pytest

from relay.decide.failures.doubt import NEWEST, halfway, place_in_doubt


def test_of_four_attempts_in_doubt_one_is_the_newest_one_has_its_turn_and_two_halve_what_is_between() -> None:
    assert [place_in_doubt(n) for n in range(1, 13)] == [
        *(NEWEST, 1 / 2, None, 1 / 4),
        *(NEWEST, 3 / 4, None, 1 / 8),
        *(NEWEST, 5 / 8, None, 3 / 8),
    ]
    assert place_in_doubt(0) is None


@pytest.mark.parametrize("parts", range(1, 40))
def test_the_first_2n_places_meet_every_run_of_one_nth(parts: int) -> None:
    places = sorted(halfway(n) for n in range(1, 2 * parts + 1))
    gaps = [after - before for before, after in zip([0.0, *places], [*places, 1.0], strict=True)]
    assert max(gaps) <= 1 / parts
