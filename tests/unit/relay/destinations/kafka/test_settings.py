"""What a Kafka destination may be told."""

from typing import Any

import pytest
from pydantic import ValidationError

from relay.destinations.kafka.settings import KafkaSettings

LOGIN = {"security_protocol": "SASL_SSL", "username": "relay", "password_env": "KAFKA_PASSWORD"}


def settings(**table: Any) -> KafkaSettings:
    return KafkaSettings.model_validate({"bootstrap_servers": "kafka-1:9092, kafka-2:9092", **table})


def test_servers_may_be_a_list_or_one_text() -> None:
    assert settings().bootstrap_servers == ["kafka-1:9092", "kafka-2:9092"]
    assert settings(bootstrap_servers=["[::1]:9092"]).shown == "[::1]:9092"


def test_a_password_comes_from_its_variable_and_is_shown_nowhere() -> None:
    made = settings(**LOGIN).resolved({"KAFKA_PASSWORD": "correct-horse"}.get)
    assert made.secrets() == {"correct-horse"}
    assert "correct-horse" not in repr(made)
    with pytest.raises(ValueError, match="neither KAFKA_PASSWORD nor KAFKA_PASSWORD_FILE is set"):
        settings(**LOGIN).resolved({}.get)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"bootstrap_servers": "kafka-1"}, "write host:port"),
        ({"bootstrap_servers": "user:password@kafka:9092"}, "write host:port"),
        ({"topic": "a topic"}, "letters, digits"),
        ({"topic": "{key}"}, "{key} is not known here: use {type}"),
        ({"username": "relay"}, "username requires security_protocol"),
        ({"security_protocol": "SASL_SSL"}, "username requires security_protocol"),
        ({**LOGIN, "password_env": None}, "password_env is needed"),
    ],
)
def test_settings_that_cannot_work_are_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**table)
    assert said in str(caught.value)


def test_a_certificate_that_cannot_be_used_is_named() -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        settings(security_protocol="SSL", ca_file="/nowhere/ca.pem").tls_context()
    assert settings().tls_context() is None
