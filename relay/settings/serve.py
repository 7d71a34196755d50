"""The settings of the receiving API: the table ``[serve]``."""

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
        raise ValueError(f"this is not a regular expression: {error}") from None
    return text


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        raise ValueError(f"{text} is not an address or a network: write 10.0.0.5 or 10.0.0.0/8") from None
    return text


class ServeSettings(BaseModel):
    """The settings of `outbox serve`.

    Args:
        host: The address to listen on; default: the loopback address.
        port: The port; default: the guide's.
        handler: The listener that is called for each event, as ``module:callable``.
        secret_env: The variable that holds the accepted ``X-Internal-Secret``; ``NAME_PREVIOUS`` is accepted too.
        signing_secret_env: The variable that holds the ``whsec_…`` key of signatures, with ``NAME_PREVIOUS`` likewise;
            default: the bytes of the secrets.
        require_signature: Whether to refuse calls without a signature. A signature that is sent must always be right.
        allow_weak_secret: Whether to accept a secret of less than 32 characters.
        max_body_bytes: The largest size of a request's body, in bytes.
        receive_timeout_s: How long the body of a request may take to arrive, in seconds; its headers may take the same
            time again.
        rate_per_s: The calls per second that one client may make on average; twice as many may come at once.
        content_id_pattern: The regular expression that a whole ``contentId`` must match.
        concurrency: Calls of the handler at the same time.
        handler_timeout_s: How long one call of the handler may take, in seconds, including the wait for its turn;
            ``None`` (in a file ``"none"``): no limit. It is longer than senders wait, so a call that is slow but not
            stuck is done when they call again.
        proxies: Addresses and networks whose ``X-Forwarded-For`` is trusted.
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
        """Return these settings with other values, checked."""
        return ServeSettings.model_validate({**self.model_dump(), **values})

    def check_handler(self) -> None:
        """Check that the handler can be called in the way that ``outbox serve`` calls it.

        Raises:
            SettingsError: The handler cannot be loaded, or would fail at each call.
        """
        from relay.destinations.listener.calling import how_to_call
        from relay.destinations.listener.loading import load

        how_to_call(load(self.handler))

    def secrets(self, look_up: LookUp) -> list[str]:
        """Return the accepted values of ``X-Internal-Secret``, the current one first.

        Raises:
            SettingsError: The variable is not set.
        """
        return _both(
            self.secret_env,
            look_up,
            f"the receiver needs a secret: set {self.secret_env} to the output of `openssl rand -hex 32`, here and "
            "where the messages come from",
        )

    def signing_secrets(self, look_up: LookUp) -> list[str]:
        """Return the keys of signatures, as ``whsec_…``; empty: the secrets are the keys.

        Raises:
            SettingsError: The variable is named, but not set.
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
