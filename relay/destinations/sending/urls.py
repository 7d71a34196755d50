"""Settings of destinations with a URL that may hold a password, given directly or in a variable."""

from __future__ import annotations

from typing import ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from relay.destinations.policy import LookUp, on_one_line, required, url_secrets
from relay.destinations.sending.network import NetworkPolicy


class UrlPolicy(NetworkPolicy):
    """The settings of a destination with one URL.

    Args:
        url: The URL.
        url_env: The variable that holds the URL, instead of ``url``; ``NAME_FILE`` names a file that holds it.
    """

    WHAT: ClassVar[str] = "broker"  # the kind of server, for messages
    SCHEMES: ClassVar[tuple[str, ...]]
    EXAMPLE: ClassVar[str]

    url: SecretStr | None = None
    url_env: str | None = Field(default=None, min_length=1)

    @field_validator("url")
    @classmethod
    def _is_well_formed(cls, value: SecretStr | None) -> SecretStr | None:
        return value and cls.checked(value)

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.url is None) == (self.url_env is None):
            wrong = "neither is given" if self.url is None else "both are given"
            raise ValueError(f"give the {self.WHAT} as url or as url_env: {wrong}")
        return self

    @property
    def address(self) -> str:
        """The URL. It includes the password: never log it."""
        assert self.url is not None
        return self.url.get_secret_value()

    @property
    def shown(self) -> str:
        """The URL without user, password and query."""
        parts = urlsplit(self.address)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"

    def resolved(self, look_up: LookUp) -> Self:
        if self.url_env is None:
            return self
        url = SecretStr(required(self.url_env, look_up, "url_env"))
        return self.model_copy(update={"url": self.checked(url)})

    def secrets(self) -> set[str]:
        return url_secrets(self.address) if self.url else set()

    @classmethod
    def checked(cls, url: SecretStr) -> SecretStr:
        """Return the URL.

        Raises:
            ValueError: It is malformed, or has another scheme. The message shows no part of it.
        """
        on_one_line(url.get_secret_value())
        try:
            parts = urlsplit(url.get_secret_value())
            place, _ = parts.hostname or (parts.path if "unix" in cls.SCHEMES else ""), parts.port
        except ValueError:
            raise ValueError(f"the {cls.WHAT}'s URL is malformed: write {cls.EXAMPLE}") from None
        if parts.scheme not in cls.SCHEMES or not place:
            raise ValueError(f"the {cls.WHAT}'s URL must be {cls.EXAMPLE}")
        if "@" in parts.path and not parts.scheme.startswith("http"):  # the rest of a password would be shown as a path
            raise ValueError(f"the {cls.WHAT}'s URL has an @ in its path: write %40 for it, and %2F for a password's /")
        return url
