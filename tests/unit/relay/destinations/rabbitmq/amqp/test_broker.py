"""How a broker is trusted, and what is shown to it."""

import ssl
from pathlib import Path

import pytest
import trustme

from outbox.errors import SettingsError
from relay.destinations.rabbitmq.amqp import Broker


def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Return the client certificates that a context gets."""
    seen: list[tuple[str, str | None]] = []
    load = ssl.SSLContext.load_cert_chain

    def spy(self: ssl.SSLContext, certfile: str, keyfile: str | None = None) -> None:
        seen.append((certfile, keyfile))
        load(self, certfile, keyfile)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    return seen


def test_a_certificate_of_our_own_is_shown_also_where_an_authority_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client = authority.issue_cert("client")
    client.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    client.private_key_pem.write_to_path(tmp_path / "k.pem")
    seen = loaded(monkeypatch)
    Broker(f"amqps://rabbit/?certfile={tmp_path}/c.pem&keyfile={tmp_path}/k.pem", tmp_path / "ca.pem").check()
    assert seen == [(f"{tmp_path}/c.pem", f"{tmp_path}/k.pem")]
    with pytest.raises(SettingsError, match=r"certfile names .*nowhere\.pem, which cannot be used"):
        Broker(f"amqps://rabbit/?certfile={tmp_path}/nowhere.pem", tmp_path / "ca.pem").check()
