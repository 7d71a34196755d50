"""The settings of a destination over HTTP, which gets a POST for each message and has its own secret."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from relay.destinations.http import fixed
from relay.destinations.http.signing import signing_key
from relay.destinations.policy import LookUp, on_one_line, required, url_secrets
from relay.destinations.sending.network import NetworkPolicy

# Names that no public server can have. The address is checked again when a connection is opened.
# https://www.iana.org/assignments/special-use-domain-names/, https://www.icann.org/en/board-activities-and-meetings
# (29 July 2024, for .internal); the last two are the names of Kubernetes' services.
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa", ".test", ".svc", ".cluster.local")
SECRET = re.compile(r"[!-~]([ -~]*[!-~])?")


def _http_url(text: str) -> str:
    on_one_line(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("this is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("write http://host[:port]/path or https://…")
    if parts.username or parts.password:
        raise ValueError("a URL must not carry a user or a password: use secret_env")
    if parts.fragment:
        raise ValueError("a URL for POST has no #fragment")
    return text


HttpUrl = Annotated[str, AfterValidator(_http_url)]


class HttpSettings(NetworkPolicy):
    """POST each message to a URL.

    Args:
        url: The full URL.
        secret_env: The variable that holds ``X-Internal-Secret``; ``NAME_PREVIOUS`` is used during rotation.
        signing_secret_env: The variable that holds the ``whsec_…`` signing key, with ``NAME_PREVIOUS`` likewise;
            default: the bytes of the secret.
        headers: Headers of every request: ``{X-Tenant = "7"}``.
        headers_env: Headers of every request whose values are in variables: ``{X-Api-Key = "API_KEY"}``.
        bearer_env: The variable that holds a token for ``Authorization: Bearer …``.
        basic_env: The variable that holds ``user:password`` for ``Authorization: Basic …``.
        batch: The maximum number of messages in one request; more than 1: they are sent as a CloudEvents JSON batch.
        timeout_s: The deadline of one attempt, from the first byte sent to the last one received, in seconds.
        on_409: Whether status 409 means that the receiver is still processing the message, or that it has it already.
        allow_plain: Permit ``http://`` to a public address.
        proxy: The URL of a proxy to go through; proxies of the environment are ignored.
    """

    kind: Literal["http"] = "http"
    allow_plain: bool = False  # must stand before the url, whose validation uses it
    url: HttpUrl
    secret_env: str | None = Field(default=None, min_length=1)
    signing_secret_env: str | None = Field(default=None, min_length=1)
    headers: Annotated[dict[str, str], AfterValidator(fixed.values)] = Field(default_factory=dict)
    headers_env: Annotated[dict[str, str], AfterValidator(fixed.names)] = Field(default_factory=dict)
    bearer_env: str | None = Field(default=None, min_length=1)
    basic_env: str | None = Field(default=None, min_length=1)
    batch: int = Field(default=1, ge=1, le=1000)
    on_409: Literal["retry", "delivered"] = "retry"
    proxy: str | None = Field(default=None, repr=False)

    secret: SecretStr | None = None
    secret_previous: SecretStr | None = None
    signing_secret: SecretStr | None = None
    signing_secret_previous: SecretStr | None = None
    secret_headers: dict[str, SecretStr] = Field(default_factory=dict)

    @field_validator("proxy")
    @classmethod
    def _is_a_proxy(cls, value: str | None) -> str | None:
        parts = urlsplit(on_one_line(value or "http://none"))
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("write http://[user:password@]host:port")
        return value

    @field_validator("url")
    @classmethod
    def _keeps_secrets_private(cls, value: str, info: ValidationInfo) -> str:
        host = urlsplit(value).hostname or ""
        if not info.data.get("allow_plain") and value.lower().startswith("http:") and not _is_private(host):
            raise ValueError(
                f"http://{host} is not private, and others on the network could read secret and data: use https://, or "
                "set allow_plain = true"
            )
        return value

    @model_validator(mode="after")
    def _has_each_header_once(self) -> HttpSettings:
        if self.bearer_env and self.basic_env:
            raise ValueError("bearer_env and basic_env set the same header: give one of the two")
        named = [name.lower() for name in (*self.headers, *self.headers_env)]
        if twice := {name for name in named if named.count(name) > 1}:
            raise ValueError(
                f"headers and headers_env set {', '.join(sorted(twice))} more than once: give each header once"
            )
        return self

    @property
    def must_stay_private(self) -> bool:
        """Return whether a connection to a public address must be refused, for any host name."""
        return self.url.lower().startswith("http:") and not self.allow_plain and self.proxy is None

    def resolved(self, look_up: LookUp) -> HttpSettings:
        secret_env, signing_env = self.secret_env, self.signing_secret_env
        found: dict[str, Any] = {
            "secret": _required(secret_env, look_up, "secret_env") or self.secret,
            "secret_previous": _previous(secret_env, look_up) or self.secret_previous,
            "signing_secret": _required(signing_env, look_up, "signing_secret_env") or self.signing_secret,
            "signing_secret_previous": _previous(signing_env, look_up) or self.signing_secret_previous,
        }
        hidden = fixed.looked_up(self.headers_env, look_up)
        hidden |= fixed.authorization(self.bearer_env, self.basic_env, look_up)
        found["secret_headers"] = self.secret_headers | {name: SecretStr(value) for name, value in hidden.items()}
        settings = self.model_copy(update=found)
        settings.check()
        return settings

    def check(self) -> None:
        """Check everything that can be checked before the first message.

        Raises:
            ValueError: A secret is not valid in a header, or a signing key is malformed.
        """
        for secret in self.shared_secrets():
            if not SECRET.fullmatch(secret):
                raise ValueError("the secret cannot be sent in a header: use printable ASCII characters")
        self.signing_keys()

    def secrets(self) -> set[str]:
        held = (self.secret, self.secret_previous, self.signing_secret, self.signing_secret_previous)
        found = {secret.get_secret_value() for secret in held if secret} | url_secrets(self.proxy or "")
        for secret in self.secret_headers.values():
            found |= {secret.get_secret_value(), secret.get_secret_value().partition(" ")[2]} - {""}
        return found

    def static_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of every request; a header of a message never replaces one of them."""
        hidden = {name: secret.get_secret_value() for name, secret in self.secret_headers.items()}
        return [(name.encode(), value.encode()) for name, value in {**self.headers, **hidden}.items()]

    def shared_secrets(self) -> list[str]:
        """Return the values of ``X-Internal-Secret`` to try, the current one first."""
        return _values(self.secret, self.secret_previous)

    def signing_keys(self) -> list[bytes]:
        """Return the keys to sign with, the current key first; empty: do not sign.

        Raises:
            ValueError: A signing key is malformed.
        """
        if explicit := _values(self.signing_secret, self.signing_secret_previous):
            return [signing_key(text) for text in explicit]
        return [secret.encode() for secret in self.shared_secrets()]

    @property
    def needs_tls(self) -> bool:
        return self.url.lower().startswith("https:")


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(PRIVATE_SUFFIXES)


def _required(name: str | None, look_up: LookUp, key: str) -> SecretStr | None:
    return None if name is None else SecretStr(required(name, look_up, key))


def _previous(name: str | None, look_up: LookUp) -> SecretStr | None:
    value = look_up(f"{name}_PREVIOUS") if name else None
    return None if value is None else SecretStr(value)


def _values(*secrets: SecretStr | None) -> list[str]:
    return list(dict.fromkeys(secret.get_secret_value() for secret in secrets if secret is not None))
