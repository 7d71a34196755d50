"""A destination on Kafka over TLS, with certificates and logins that are taken, against a real broker.

noida-db speaks SASL PLAIN and accepts any password, so that a test reads what it was sent. No broker on PyPI, npm or in
Debian accepts a SCRAM login: Tansu's build there can store no user. `test_kafka.py` shows that it refuses such logins.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kafka import Noida
from support.tls import Certificates, TlsFront

from outbox.testing.destination_contract import World, message
from relay.admin.destinations.probe import probe
from relay.settings import Settings

TYPE = "extraction.completed"
LOGIN = {"sasl_mechanism": "PLAIN", "username": "relay", "password": "correct-horse"}


class Behind(Noida):
    """At an address that only a server in front of it is told."""

    host = TlsFront.BEHIND


@pytest.fixture
def broker() -> Iterator[Noida]:
    server = Behind()
    try:
        server.start()
        server.create_topic(TYPE)
        yield server
    finally:
        server.remove()


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def outcome(broker: Noida, **table: object) -> tuple[str, str]:
    settings = {"kind": "kafka", "bootstrap_servers": f"127.0.0.1:{broker.port}", "timeout_s": 5, **table}
    async with World(settings, taken=list).destination() as destination:
        found = await destination.send(message())
    return found.kind, found.reason


async def test_a_broker_is_trusted_with_the_authority_of_the_settings_and_not_without(
    broker: Noida, files: Certificates
) -> None:
    async with TlsFront(broker.port, files.context(asks=False)):
        for _ in range(2):
            assert await outcome(broker, security_protocol="SSL", ca_file=str(files.authority)) == ("taken", "")
        kind, _ = await outcome(broker, security_protocol="SSL")
    assert kind == "unreachable"
    assert len(await broker.records_of(TYPE)) == 2


async def test_a_broker_that_asks_for_a_certificate_is_shown_that_of_the_settings(
    broker: Noida, files: Certificates
) -> None:
    trusting = {"security_protocol": "SSL", "ca_file": str(files.authority)}
    async with TlsFront(broker.port, files.context(asks=True)):
        assert await outcome(broker, **trusting, client_cert_file=str(files.client)) == ("taken", "")
        assert (await outcome(broker, **trusting))[0] == "unreachable"


async def test_a_login_with_plain_is_taken_over_tls(broker: Noida, files: Certificates) -> None:
    async with TlsFront(broker.port, files.context(asks=False)) as front:
        login = {"security_protocol": "SASL_SSL", "ca_file": str(files.authority), **LOGIN}
        assert await outcome(broker, **login) == ("taken", "")
        assert b"\x00relay\x00correct-horse" in front.received
    assert len(await broker.records_of(TYPE)) == 1


async def test_a_login_with_plain_is_taken_without_tls(broker: Noida) -> None:
    table = {"kind": "kafka", "bootstrap_servers": broker.bootstrap, "security_protocol": "SASL_PLAINTEXT", **LOGIN}
    assert await outcome(broker, **table) == ("taken", "")
    found = await probe("kafka", Settings.model_validate({"destinations": {"kafka": {**table, "topic": TYPE}}}))
    assert (found.well, found.said) == (True, "the broker lets us in")
