"""The settings of a destination in this process: a Python callable."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, field_validator

from relay.destinations.policy import DestinationPolicy
from relay.platform.units.durations import SecondsOrNone

_MODULE_AND_CALLABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def module_and_callable(text: str) -> str:
    """Return the text, if it can name a callable."""
    if not _MODULE_AND_CALLABLE.fullmatch(text):
        raise ValueError('write module:callable, such as "my_app.reports:on_completed"')
    return text


class ListenerSettings(DestinationPolicy):
    """Deliver to a plain or async callable.

    Args:
        listener: The callable, or its name: ``"my_app.reports:on_completed"``.
        timeout_s: The deadline of one call, in seconds; ``None`` (in a file ``"none"``): no limit.
    """

    kind: Literal["listener"] = "listener"
    listener: str | Callable[..., Any]
    timeout_s: SecondsOrNone = Field(default=60.0, gt=0, le=86_400)

    @field_validator("listener")
    @classmethod
    def _names_a_callable(cls, value: str | Callable[..., Any]) -> str | Callable[..., Any]:
        return module_and_callable(value) if isinstance(value, str) else value
