"""The share of attempts that fail at a destination, and the longest run of failures that chance explains."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

MEMORY = 100  # attempts: older attempts count less and less
PRIOR_ATTEMPTS, PRIOR_FAILURES = 20, 1  # assumed for a destination with few attempts
LEAST, MOST = 0.05, 0.8  # a share outside this range counts as the nearer limit
CONFIDENCE = 0.05  # to the power of five; a run of failures that is less probable than that is not chance


@dataclass(slots=True)
class FailureRate:
    """Counts attempts, and forgets old ones.

    A run of failures is counted when it has ended (`add_run`). So the share does not include the current run.
    """

    attempts: float = 0.0
    failures: float = 0.0
    taken: int = 0  # successes that are not part of `attempts` yet: each costs only an addition

    def add_run(self, failures: int) -> None:
        """Count a run of failures, after the successes before it."""
        self.attempts += self.taken + failures
        self.failures += failures
        self.taken = 0
        if self.attempts > MEMORY:
            self.failures *= MEMORY / self.attempts
            self.attempts = MEMORY

    @property
    def share(self) -> float:
        """The share of attempts that failed, 0 to 1; 0 before the first attempt."""
        attempts, failures = self._recent()
        return min(failures / attempts, 1.0) if attempts else 0.0  # rounding may make it slightly more than 1

    @property
    def improbable_run(self) -> int:
        """How many different messages in a row fail by chance less often than once in three million runs.

        With p the share of failures, a run of n has the probability p ** n. The smallest n for which that is at most
        0.05 ** 5 is ceil(5 * ln 0.05 / ln p): 5 if almost no attempt fails, 13 if 30 % fail.
        """
        attempts, failures = self._recent()
        unknown = 1 - attempts / MEMORY
        p = (failures + unknown * PRIOR_FAILURES) / (attempts + unknown * PRIOR_ATTEMPTS)
        return ceil(round(5 * log(CONFIDENCE) / log(min(max(p, LEAST), MOST)), 9))

    def _recent(self) -> tuple[float, float]:
        """The attempts and the failures among them, scaled down to `MEMORY`."""
        attempts = self.attempts + self.taken
        scale = MEMORY / attempts if attempts > MEMORY else 1.0
        return attempts * scale, self.failures * scale
