"""How a server is trusted, and what is shown to it, in every kind alike."""

from pathlib import Path
from typing import Any

import pytest
from support.tls import Certificates

from outbox.errors import SettingsError
from relay.destinations import registry
from relay.settings import Settings

ENCRYPTED: dict[str, dict[str, Any]] = {
    "http": {"url": "https://server/"},
    "rabbitmq": {"url": "amqps://server/"},
    "redis": {"url": "rediss://server/"},
    "nats": {"url": "tls://server"},
    "kafka": {"bootstrap_servers": ["server:9092"], "security_protocol": "SSL"},
}
PLAIN: dict[str, dict[str, Any]] = {
    "http": {"url": "http://server/"},
    "rabbitmq": {"url": "amqp://server/"},
    "redis": {"url": "redis://server/"},
    "kafka": {"bootstrap_servers": ["server:9092"]},
}


def check(kind: str, table: dict[str, Any]) -> None:
    settings = Settings.model_validate({"destinations": {"a": {"kind": kind, **table}}}).destinations["a"]
    registry.check("a", settings)


@pytest.mark.parametrize("kind", ENCRYPTED)
def test_certificates_are_read_when_a_destination_is_made(kind: str, tmp_path: Path) -> None:
    files = Certificates(tmp_path)
    check(kind, {**ENCRYPTED[kind], "ca_file": files.authority, "client_cert_file": files.client})
    (tmp_path / "empty.pem").touch()
    for setting in ("ca_file", "client_cert_file"):
        for name in ("empty.pem", "nowhere.pem"):
            with pytest.raises(SettingsError, match=rf"{setting} .*{name} cannot be used"):
                check(kind, {**ENCRYPTED[kind], setting: tmp_path / name})


@pytest.mark.parametrize("kind", PLAIN)
def test_certificates_that_would_not_be_used_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not encrypted"):
        check(kind, {**PLAIN[kind], "ca_file": Certificates(tmp_path).authority})
