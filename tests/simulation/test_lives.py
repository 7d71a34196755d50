"""A thousand lives of relays on a virtual clock, or the number in OUTBOX_TEST_LIVES: nothing is lost, nothing stops.

A failing life prints its seed: ``OUTBOX_TEST_LIFE=N python -m pytest tests/simulation -k any_life`` lives it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import structlog
from simulation.life import Life, Script
from simulation.scripts import DIRECTED, any_script

TESTS = 20
SEEDS_A_SCRIPT = 3


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("part", range(TESTS))
def test_any_life_keeps_what_is_promised_and_stops_nowhere(part: int, life_seeds: Sequence[int]) -> None:
    for seed in life_seeds[part::TESTS]:
        try:
            Life(seed, any_script(seed)).run()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("seed", range(SEEDS_A_SCRIPT))
@pytest.mark.parametrize("script", DIRECTED.values(), ids=DIRECTED.keys())
def test_what_once_stopped_a_destination_or_a_key_no_longer_stops_it(
    script: Callable[[int], Script], seed: int
) -> None:
    Life(seed, script(seed)).run()


def test_a_seed_lives_the_same_life_again() -> None:
    def attempts() -> dict[tuple[str, str], list[float]]:
        life = Life(7, any_script(7))
        life.run()
        return dict(life.attempts)

    assert attempts() == attempts()
