"""What every destination is told, whatever its kind: what it wants, how much at once, and how long we try."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import unquote, unquote_plus, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from relay.platform.durations import Seconds, SecondsOrNone

LookUp = Callable[[str], str | None]

_GLOB = re.compile(r"[A-Za-z0-9_.:/*?\[\]!-]{1,255}")


def _glob(text: str) -> str:
    if not _GLOB.fullmatch(text):
        raise ValueError('an event type or a glob such as "extraction.completed", "extraction.*", "*"')
    return text


Glob = Annotated[str, AfterValidator(_glob)]


class DestinationPolicy(BaseModel):
    """The settings that destinations of every kind share.

    Args:
        kind: What kind it is of; each kind's own model has it as a default.
        events: The event types it wants; globs as in a shell (``extraction.*``).
        concurrency: How many deliveries may be under way at once, per relay.
        timeout_s: The deadline of one attempt.
        max_attempts: After so many charged failures a message is a dead letter.
        give_up_after_s: So is one that has been failing for so long (paused time does not count).
        backoff_s: The wait after the first failure; it doubles with each further one.
        backoff_max_s: The longest such wait.
        on_dead: Whether a dead letter holds back its successors of the same ordering key, or is skipped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kind: str
    events: list[Glob] = Field(default=["*"], min_length=1)
    concurrency: int = Field(default=16, ge=1, le=1000)
    timeout_s: SecondsOrNone = Field(default=10.0, gt=0, le=3600)
    max_attempts: int = Field(default=20, ge=1, le=1000)
    give_up_after_s: Seconds = Field(default=259_200.0, gt=0)
    backoff_s: Seconds = Field(default=1.0, gt=0, le=3600)
    backoff_max_s: Seconds = Field(default=3600.0, gt=0, le=86_400)
    on_dead: Literal["block", "skip"] = "block"

    @model_validator(mode="after")
    def _backoff_grows(self) -> DestinationPolicy:
        if self.backoff_max_s < self.backoff_s:
            raise ValueError(f"backoff_max_s ({self.backoff_max_s:g}) is less than backoff_s ({self.backoff_s:g})")
        return self

    def resolved(self, look_up: LookUp) -> DestinationPolicy:
        """The same, with the values of the variables that it names.

        Args:
            look_up: Finds the value of an environment variable, or of the file that ``NAME_FILE`` names.

        Raises:
            ValueError: A variable that is needed is not set.
        """
        return self

    def secrets(self) -> set[str]:
        """What must never be shown: values, not names."""
        return set()


def on_one_line(url: str) -> str:
    """Return a URL as it is, if it is one to the last character.

    Raises:
        ValueError: It holds blanks, line breaks or control characters, which Python's parser removes without a word.
    """
    if any(char.isspace() or not char.isprintable() for char in url):
        raise ValueError("a URL holds no blanks, line breaks or control characters: remove them, or write %20")
    return url


def url_secrets(url: str) -> set[str]:
    """The passwords in a URL, as they stand there and decoded.

    One that equals the user's name is left out: hiding that name everywhere would make every log unreadable.
    URLs are redacted whatever the password.
    """
    parts = urlsplit(url)
    pairs = [pair.partition("=") for pair in parts.query.split("&")]
    written = {parts.password, *(value for name, _, value in pairs if name in ("password", "sslpassword"))}
    written -= {None, "", parts.username}
    return {form for password in written if password for form in (password, unquote(password), unquote_plus(password))}
