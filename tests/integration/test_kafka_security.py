"""A destination on Kafka over TLS, with certificates and logins that are taken, against a real broker.

noida-db speaks SASL PLAIN and accepts any password, so that a test reads what it was sent. No broker on PyPI, npm or in
Debian accepts a SCRAM login: a gateway in front of one does.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kafka import Noida
from support.scram import ScramFront
from support.servers import running
from support.tls import Certificates, Front

from outbox.testing.destination_contract import World, message
from relay.admin.destinations.probe import probe
from relay.settings import Settings

TYPE = "extraction.completed"
LOGIN = {"sasl_mechanism": "PLAIN", "username": "relay", "password": "correct-horse"}


class Behind(Noida):
    """A broker at an address that only the server in front of it knows."""

    host = Front.BEHIND


@pytest.fixture
def broker() -> Iterator[Noida]:
    with running(Behind()) as server:
        server.create_topic(TYPE)
        yield server


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
    async with Front(broker.port, files.context(asks=False)):
        for _ in range(2):
            assert await outcome(broker, security_protocol="SSL", ca_file=str(files.authority)) == ("taken", "")
        kind, reason = await outcome(broker, security_protocol="SSL")
    assert (kind, "certificate verify failed" in reason) == ("unreachable", True), reason
    assert len(await broker.records_of(TYPE)) == 2


async def test_a_broker_that_asks_for_a_certificate_is_shown_that_of_the_settings(
    broker: Noida, files: Certificates
) -> None:
    trusting = {"security_protocol": "SSL", "ca_file": str(files.authority)}
    async with Front(broker.port, files.context(asks=True)):
        assert await outcome(broker, **trusting, client_cert_file=str(files.client)) == ("taken", "")
        assert (await outcome(broker, **trusting))[0] == "unreachable"


async def test_a_login_with_plain_is_taken_over_tls(broker: Noida, files: Certificates) -> None:
    async with Front(broker.port, files.context(asks=False)) as front:
        login = {"security_protocol": "SASL_SSL", "ca_file": str(files.authority), **LOGIN}
        assert await outcome(broker, **login) == ("taken", "")
        assert b"\x00relay\x00correct-horse" in front.received
    assert len(await broker.records_of(TYPE)) == 1


async def test_a_login_with_plain_is_taken_without_tls(broker: Noida) -> None:
    table = {"kind": "kafka", "bootstrap_servers": broker.bootstrap, "security_protocol": "SASL_PLAINTEXT", **LOGIN}
    assert await outcome(broker, **table) == ("taken", "")
    found = await probe("kafka", Settings.model_validate({"destinations": {"kafka": {**table, "topic": TYPE}}}))
    assert (found.well, found.said) == (True, "the broker lets us in")


# ------------------------------------------------------------------------------------------------ SCRAM

SCRAM = {"security_protocol": "SASL_PLAINTEXT", "username": "relay", "password": "correct-horse"}
MECHANISMS = ["SCRAM-SHA-256", "SCRAM-SHA-512"]


@pytest.fixture(params=MECHANISMS)
def front(request: pytest.FixtureRequest, broker: Noida) -> ScramFront:
    return ScramFront(broker.port, request.param, {"relay": "correct-horse"})


async def test_a_scram_login_is_taken_and_its_messages_are_delivered(broker: Noida, front: ScramFront) -> None:
    async with front:
        assert await outcome(broker, **SCRAM, sasl_mechanism=front.mechanism) == ("taken", "")
    assert set(front.logged_in) == {"relay"}
    assert front.turned_away == []
    assert len(await broker.records_of(TYPE)) == 1


@pytest.mark.parametrize("wrong", [{"password": "wrong-horse"}, {"username": "unknown"}], ids=["password", "user"])
async def test_a_scram_login_with_a_wrong_password_or_user_is_an_outage_that_says_so(
    broker: Noida, front: ScramFront, wrong: dict[str, str]
) -> None:
    async with front:
        kind, reason = await outcome(broker, **{**SCRAM, **wrong}, sasl_mechanism=front.mechanism)
    assert (kind, front.logged_in) == ("unreachable", [])
    assert f"does not let {wrong.get('username', 'relay')} in ({front.mechanism})" in reason
    assert "Invalid credentials" in reason
    assert not any(secret in reason for secret in ("correct-horse", "wrong-horse"))


async def test_a_mechanism_that_the_broker_does_not_speak_is_an_outage_that_names_it(
    broker: Noida, front: ScramFront
) -> None:
    (other,) = {*MECHANISMS} - {front.mechanism}
    async with front:
        kind, reason = await outcome(broker, **SCRAM, sasl_mechanism=other)
    assert (kind, front.logged_in) == ("unreachable", [])
    assert other in reason


async def test_without_a_login_nothing_passes_the_gateway(broker: Noida, front: ScramFront) -> None:
    async with front:
        kind, _ = await outcome(broker)
    assert kind == "unreachable"
    assert front.turned_away
    assert await broker.records_of(TYPE) == []
