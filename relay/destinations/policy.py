"""The settings that all kinds of destinations share: subscriptions, concurrency, retries and limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import ceil
from typing import Annotated, Literal
from urllib.parse import unquote, unquote_plus, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from relay.decide.backoff import Policy
from relay.decide.rate import Rate
from relay.platform.units.durations import Seconds, SecondsOrNone
from relay.platform.units.rates import RateText, per_second

LookUp = Callable[[str], str | None]

SMALLEST_BURST_S = 0.05  # relays take from the budget in portions; a smaller burst would lose budget between them

_GLOB = re.compile(r"[A-Za-z0-9_.:/*?\[\]!-]{1,255}")


def _glob(text: str) -> str:
    if not _GLOB.fullmatch(text):
        raise ValueError('an event type or a glob such as "extraction.completed", "extraction.*", "*"')
    return text


Glob = Annotated[str, AfterValidator(_glob)]


class DestinationPolicy(BaseModel):
    """The settings that destinations of every kind share.

    Args:
        kind: The kind; each kind's own model has it as a default.
        events: The event types that it wants; globs as in a shell (``extraction.*``).
        concurrency: Deliveries at the same time, per relay.
        timeout_s: The deadline of one attempt, in seconds.
        max_attempts: The number of charged failures after which a message is a dead letter.
        give_up_after_s: How long a message may keep failing before it is a dead letter, in seconds (paused time does
            not count).
        backoff_s: The longest wait after the first failure, in seconds; it doubles with each further failure. The wait
            is random, between zero and this time.
        backoff_max_s: The limit of the doubling, in seconds.
        on_dead: Whether a dead letter blocks its successors with the same ordering key, or is skipped.
        rate: How many attempts all relays together may start in a time, such as ``"50/s"``; by default no limit.
        burst: How many attempts may start at once after a pause; by default as many as in one second.
        expires_in: How long a message may still be sent after it was written or fell due; by default there is no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    kind: str
    events: list[Glob] = Field(default=["*"], min_length=1)
    concurrency: int = Field(default=16, ge=1, le=1000)
    timeout_s: SecondsOrNone = Field(default=10.0, gt=0, le=3600)
    max_attempts: int = Field(default=20, ge=1, le=1000)
    give_up_after_s: Seconds = Field(default=259_200.0, gt=0)
    backoff_s: Seconds = Field(default=1.0, gt=0, le=3600)
    backoff_max_s: Seconds = Field(default=3600.0, gt=0, le=86_400)
    on_dead: Literal["block", "skip"] = "block"
    rate: RateText | None = None
    burst: int | None = Field(default=None, ge=1, le=1_000_000)
    expires_in: SecondsOrNone = Field(default=None, gt=0, le=315_360_000)

    @model_validator(mode="after")
    def _backoff_grows(self) -> DestinationPolicy:
        if self.backoff_max_s < self.backoff_s:
            raise ValueError(f"backoff_max_s ({self.backoff_max_s:g}) is less than backoff_s ({self.backoff_s:g})")
        return self

    @model_validator(mode="after")
    def _burst_carries_the_rate(self) -> DestinationPolicy:
        if self.burst is None:
            return self
        if self.rate is None:
            raise ValueError('burst limits how much of a rate may come at once: write rate = "50/s", too')
        least = ceil(per_second(self.rate) * SMALLEST_BURST_S)
        if self.burst < least:
            raise ValueError(
                f"burst ({self.burst}) is too small for {self.rate}: write at least {least}, or leave it out"
            )
        return self

    @property
    def retry_policy(self) -> Policy:
        """The settings by which `relay.decide` retries or gives up."""
        return Policy(self.max_attempts, self.give_up_after_s, self.backoff_s, self.backoff_max_s)

    @property
    def rate_limit(self) -> Rate | None:
        """The limit that `rate` and `burst` define."""
        if self.rate is None:
            return None
        per_s = per_second(self.rate)
        return Rate(per_s, self.burst or max(ceil(per_s), 1), self.rate)

    def resolved(self, look_up: LookUp) -> DestinationPolicy:
        """Return these settings with the values of the variables that they name.

        Args:
            look_up: Finds the value of an environment variable, or of the file that ``NAME_FILE`` names.

        Raises:
            ValueError: A required variable is not set.
        """
        return self

    def secrets(self) -> set[str]:
        """Return the values (not the names) that must never be shown."""
        return set()


def required(variable: str, look_up: LookUp, setting: str) -> str:
    """Return the value of a variable that a setting names.

    Raises:
        ValueError: The variable is not set.
    """
    value = look_up(variable)
    if value is None:
        raise ValueError(f"{setting} names {variable}, but neither {variable} nor {variable}_FILE is set")
    return value


def on_one_line(url: str) -> str:
    """Return a URL unchanged, if every character of it belongs to a URL.

    Raises:
        ValueError: The URL holds blanks, line breaks or control characters, which Python's parser would remove
            silently.
    """
    if any(char.isspace() or not char.isprintable() for char in url):
        raise ValueError("a URL holds no blanks, line breaks or control characters: remove them, or write %20")
    return url


def url_secrets(url: str) -> set[str]:
    """Return the passwords in a URL, as written and decoded.

    A password that equals the user's name is left out: masking that name everywhere would make every log unreadable.
    Masking of URLs does not depend on this.
    """
    parts = urlsplit(url)
    pairs = [pair.partition("=") for pair in parts.query.split("&")]
    written = {parts.password, *(value for name, _, value in pairs if name in ("password", "sslpassword"))}
    written -= {None, "", parts.username}
    return {form for password in written if password for form in (password, unquote(password), unquote_plus(password))}
