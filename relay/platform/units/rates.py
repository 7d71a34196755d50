"""Rates as people write them: ``"50/s"``, ``"600/min"``, ``"1000/h"``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
FASTEST_PER_S = 1_000_000.0

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|min|h|d)")


def per_second(text: str) -> float:
    """Parse a rate; return the number per second.

    Args:
        text: A number and the time it is for, such as ``"50/s"``.

    Raises:
        ValueError: It is not a rate, is 0, or is above a million a second.

    Example:
        >>> per_second("600/min")
        10.0
    """
    found = _RATE.fullmatch(text)
    rate = float(found[1]) / UNITS_S[found[2]] if found else 0.0
    if not 0 < rate <= FASTEST_PER_S:
        raise ValueError('write a rate such as "50/s", "600/min" or "1000/h", above 0 and at most 1000000/s')
    return rate


def _checked(text: str) -> str:
    per_second(text)
    return text


def _text(value: Any) -> Any:
    return "".join(value.split()).lower() if isinstance(value, str) else value


RateText = Annotated[str, AfterValidator(_checked), BeforeValidator(_text)]
