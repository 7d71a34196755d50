"""What an HTTP destination is told, and what is refused before the first message."""

import pytest
from pydantic import ValidationError

from relay.destinations.http.settings import HttpSettings
from relay.destinations.http.signing import signing_key

SECRET = "a-shared-secret-of-forty-characters-long"


def resolved(environment: dict[str, str], **settings: object) -> HttpSettings:
    return HttpSettings(**({"url": "https://api/"} | settings)).resolved(environment.get)  # type: ignore[arg-type]


PRIVATE_ADDRESSES = ["127.0.0.1", "127.8.8.8", "[::1]", "10.1.2.3", "192.168.1.1", "172.16.0.1", "[fd00::1]"]
PRIVATE_NAMES = ["localhost", "api", "api.internal", "api.local", "x.default.svc", "x.default.svc.cluster.local"]


@pytest.mark.parametrize("host", [*PRIVATE_ADDRESSES, "169.254.1.1", "100.64.0.1", *PRIVATE_NAMES])
def test_plain_http_is_fine_on_private_ground(host: str) -> None:
    assert HttpSettings(url=f"http://{host}/").must_stay_private


@pytest.mark.parametrize("host", ["example.com", "8.8.8.8", "[2606:4700::1111]", "api.internal.example.com", "a.b"])
def test_plain_http_to_a_public_address_needs_a_word_of_permission(host: str) -> None:
    with pytest.raises(ValidationError, match="allow_plain = true"):
        HttpSettings(url=f"http://{host}/")
    assert not HttpSettings(url=f"http://{host}/", allow_plain=True).must_stay_private
    assert not HttpSettings(url=f"https://{host}/").must_stay_private


@pytest.mark.parametrize("url", ["https://me:password@api/", "https://me@api/", "https://:password@api/"])
def test_a_url_with_credentials_is_refused_without_showing_them(url: str) -> None:
    with pytest.raises(ValidationError, match="use secret_env") as refused:
        HttpSettings(url=url)
    assert "password@" not in str(refused.value)


@pytest.mark.parametrize("secret", ["two\nlines", "pässword", " padded ", "tab\there", "\x7f"])
def test_a_secret_that_no_header_can_carry_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as refused:
        resolved({"S": secret}, secret_env="S")
    assert secret not in str(refused.value)


@pytest.mark.parametrize("key", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!", "whsec_", "whsec_c2hvcnQ="])
def test_a_signing_key_that_is_none_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match=r"whsec_|at least 24 bytes") as refused:
        resolved({"K": key}, signing_secret_env="K")
    assert key == "whsec_" or key not in str(refused.value)


def test_a_signing_key_may_come_without_its_padding() -> None:
    assert signing_key("whsec_" + "YWFh" * 8 + "YQ") == signing_key("whsec_" + "YWFh" * 8 + "YQ==") == b"a" * 25


def test_signing_keys_are_rotated_like_secrets() -> None:
    settings = resolved(
        {"K": "whsec_" + "YWFh" * 8, "K_PREVIOUS": "whsec_" + "YmJi" * 8, "S": SECRET},
        secret_env="S",
        signing_secret_env="K",
    )
    assert settings.signing_keys() == [b"a" * 24, b"b" * 24]
    assert {"whsec_" + "YmJi" * 8, SECRET} <= settings.secrets()


@pytest.mark.parametrize("proxy", ["socks5://p:1", "proxy:3128", "https://p", "http://"])
def test_a_proxy_is_an_http_url(proxy: str) -> None:
    with pytest.raises(ValidationError, match="proxy"):
        HttpSettings(url="https://api/", proxy=proxy)


def test_no_secret_shows_in_a_repr() -> None:
    settings = resolved({"S": SECRET}, secret_env="S", proxy=f"http://u:{SECRET}@proxy:3128")
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)


# ------------------------------------------------------------------------------------------------- headers of its own


def test_headers_are_fixed_or_come_from_variables_and_then_are_secrets() -> None:
    environment = {"API_KEY": "key-from-a-variable", "API_TOKEN": "token-from-a-variable"}
    made = resolved(
        environment, headers={"X-Tenant": "7"}, headers_env={"X-Api-Key": "API_KEY"}, bearer_env="API_TOKEN"
    )
    assert dict(made.static_headers()) == {
        b"X-Tenant": b"7",
        b"X-Api-Key": b"key-from-a-variable",
        b"Authorization": b"Bearer token-from-a-variable",
    }
    assert {"key-from-a-variable", "token-from-a-variable"} <= made.secrets()
    assert "from-a-variable" not in repr(made)


def test_basic_is_encoded_and_hidden_in_both_forms() -> None:
    made = resolved({"API_LOGIN": "ada:correct-horse"}, basic_env="API_LOGIN")
    assert dict(made.static_headers()) == {b"Authorization": b"Basic YWRhOmNvcnJlY3QtaG9yc2U="}
    assert "YWRhOmNvcnJlY3QtaG9yc2U=" in made.secrets()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"headers": {"X Tenant": "7"}}, "is not a header name"),
        ({"headers": {"Authorization": "Bearer x"}}, "use bearer_env or basic_env"),
        ({"headers": {"webhook-id": "x"}}, "the delivery sets webhook-id"),
        ({"headers": {"X-Tenant": "7\r\nX-Evil: 1"}}, "a value that HTTP cannot carry"),
        (
            {"headers": {"X-Tenant": "7"}, "headers_env": {"x-tenant": "T"}},
            "headers and headers_env set x-tenant more than once",
        ),
        ({"bearer_env": "A", "basic_env": "B"}, "give one of the two"),
        ({"headers_env": {"X-Api-Key": "NOWHERE"}}, "nor NOWHERE_FILE is set"),
        ({"bearer_env": "SPACED"}, "holds no token"),
        ({"basic_env": "SPACED"}, "must hold user:password"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_and_not_repeated(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        resolved({"SPACED": "two words"}, **settings)
    assert said in str(caught.value)
    assert "two words" not in str(caught.value)
