"""What the receiving API is told: the table ``[serve]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from outbox.errors import SettingsError
from relay.destinations.listener.settings import module_and_callable
from relay.destinations.policy import LookUp
from relay.platform.guide import BASELINE_LISTENER, CONTENT_ID
from relay.platform.units.durations import Seconds, SecondsOrNone


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"this is no regular expression: {error}") from None
    return text


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        raise ValueError(f"{text} is no address and no network: write 10.0.0.5 or 10.0.0.0/8") from None
    return text


class ServeSettings(BaseModel):
    """How `outbox serve` receives.

    Args:
        host: The address to listen on; the loopback address unless told otherwise.
        port: The port; the guide's.
        handler: What is called for each event: a listener, as ``module:callable``.
        secret_env: The variable that holds what ``X-Internal-Secret`` has to be; ``NAME_PREVIOUS`` counts too.
        signing_secret_env: The variable that holds the ``whsec_…`` that signatures are made with, with
            ``NAME_PREVIOUS`` likewise; default: the bytes of the secrets.
        require_signature: Refuse calls without a signature; one that is there must be right in any case.
        allow_weak_secret: Take a secret of less than 32 characters.
        max_body_bytes: The size of a request.
        receive_timeout_s: The time in which the body of a request has to arrive; its headers have as long again.
        rate_per_s: Calls a second of one client in the long run; twice as many at once.
        content_id_pattern: The regular expression that a ``contentId`` matches as a whole.
        concurrency: Handlers under way at once.
        handler_timeout_s: The deadline of one call of the handler, the wait for its turn included; ``None`` (in a file
            ``"none"``) lets it take as long as it takes. Longer than what senders allow, so that what is slow but not
            stuck is done when they come again.
        proxies: Addresses and networks whose ``X-Forwarded-For`` is believed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=3000, ge=0, le=65_535)
    handler: Annotated[str, AfterValidator(module_and_callable)] = BASELINE_LISTENER
    secret_env: str = Field(default="INTERNAL_API_SECRET", min_length=1)
    signing_secret_env: str | None = Field(default=None, min_length=1)
    require_signature: bool = False
    allow_weak_secret: bool = False
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    receive_timeout_s: Seconds = Field(default=10.0, gt=0, le=600)
    rate_per_s: float = Field(default=500.0, gt=0, le=1_000_000)
    content_id_pattern: Annotated[str, AfterValidator(_pattern)] = Field(default=CONTENT_ID, min_length=1)
    concurrency: int = Field(default=16, ge=1, le=1000)
    handler_timeout_s: SecondsOrNone = Field(default=30.0, gt=0, le=3600)
    proxies: tuple[Annotated[str, AfterValidator(_network)], ...] = ()

    def changed(self, values: Mapping[str, object]) -> ServeSettings:
        """The same with other values, checked."""
        return ServeSettings.model_validate({**self.model_dump(), **values})

    def check_handler(self) -> None:
        """Check that the handler can be called, as ``outbox serve`` will call it.

        Raises:
            SettingsError: It cannot be loaded, or would fail at each call.
        """
        from relay.destinations.listener.calling import how_to_call
        from relay.destinations.listener.loading import load

        how_to_call(load(self.handler))

    def secrets(self, look_up: LookUp) -> list[str]:
        """What ``X-Internal-Secret`` may be, the current one first.

        Raises:
            SettingsError: The variable is not set.
        """
        return _both(
            self.secret_env,
            look_up,
            f"the receiver needs a secret: set {self.secret_env}, to what `openssl rand -hex 32` prints, here and "
            "where the messages come from",
        )

    def signing_secrets(self, look_up: LookUp) -> list[str]:
        """What signatures may be made with, as ``whsec_…``; empty: with the secrets.

        Raises:
            SettingsError: The variable is named, and not set.
        """
        name = self.signing_secret_env
        if name is None:
            return []
        return _both(name, look_up, f"signing_secret_env names {name}, but neither {name} nor {name}_FILE is set")


def _both(name: str, look_up: LookUp, problem: str) -> list[str]:
    current = look_up(name)
    if not current:
        raise SettingsError(problem)
    previous = look_up(f"{name}_PREVIOUS")
    return [current, previous] if previous else [current]
