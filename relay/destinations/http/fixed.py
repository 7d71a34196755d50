"""The headers that every request of a destination has."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

from outbox.checks.attributes import HEADER_NAME, HEADER_VALUE, is_reserved
from relay.destinations.policy import LookUp, required

AUTHORIZATION = "Authorization"


def names(table: dict[str, str]) -> dict[str, str]:
    """Return the table, if each of its names may be used for a header.

    Raises:
        ValueError: A name may not be used.
    """
    for name in table:
        if not HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!a} is not a header name: use letters, digits and -, as in X-Tenant")
        if is_reserved(name):
            raise ValueError(f"the delivery sets {name}; use bearer_env or basic_env for Authorization")
        if name.lower().endswith("_env"):
            raise ValueError(f"{name} would be sent under this name: for a value from a variable, use headers_env")
    return table


def values(table: dict[str, str]) -> dict[str, str]:
    """Return the table, if its names and values are valid headers.

    Raises:
        ValueError: A name or a value is not valid.
    """
    for name, value in names(table).items():
        if not HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the header {name} holds a value that HTTP cannot carry: use printable ASCII on one line")
    return table


def looked_up(table: Mapping[str, str], look_up: LookUp) -> dict[str, str]:
    """Return the headers whose values are in variables.

    Args:
        table: Header → variable.
        look_up: Finds the value of a variable.

    Raises:
        ValueError: A variable is not set, or its value is not a valid header.
    """
    return values({name: required(variable, look_up, f"headers_env.{name}") for name, variable in table.items()})


def authorization(bearer_env: str | None, basic_env: str | None, look_up: LookUp) -> dict[str, str]:
    """Return the header ``Authorization``, if one of the variables is named.

    Args:
        bearer_env: The variable that holds the token.
        basic_env: The variable that holds ``user:password``.
        look_up: Finds the value of a variable.

    Raises:
        ValueError: The variable is not set, or its value has another form.
    """
    if bearer_env is not None:
        token = required(bearer_env, look_up, "bearer_env")
        if not HEADER_VALUE.fullmatch(token) or " " in token:
            raise ValueError(f"bearer_env names {bearer_env}, which holds no token: use printable ASCII without blanks")
        return {AUTHORIZATION: f"Bearer {token}"}
    if basic_env is not None:
        pair = required(basic_env, look_up, "basic_env")
        if ":" not in pair:
            raise ValueError(f"basic_env names {basic_env}, which must hold user:password")
        return {AUTHORIZATION: f"Basic {b64encode(pair.encode()).decode()}"}
    return {}
