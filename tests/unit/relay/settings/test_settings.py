"""Flags override the environment, the file and the defaults, in this order; each mistake is a sentence."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from outbox.errors import SettingsError
from relay.databases.postgresql.connections.engines import conninfo
from relay.destinations.http.settings import HttpSettings
from relay.destinations.listener.settings import ListenerSettings
from relay.destinations.policy import DestinationPolicy
from relay.destinations.rabbitmq.settings import RabbitSettings
from relay.observe.text import redacted
from relay.platform.units.durations import seconds
from relay.settings import Settings, load

PASSWORD = "correct-horse"


def loaded(cwd: Path, /, overrides: dict[str, object] | None = None, **environ: str) -> Settings:
    return load(overrides or {}, environ=environ, cwd=cwd)


def refused(cwd: Path, /, overrides: dict[str, object] | None = None, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(overrides or {}, environ=environ, cwd=cwd)
    return str(caught.value)


def write(cwd: Path, text: str) -> None:
    (cwd / "outbox.toml").write_text(text)


# ------------------------------------------------------------------------------------------------- precedence


def test_without_anything_there_is_an_sqlite_file_and_the_baseline_listener(tmp_path: Path) -> None:
    settings = loaded(tmp_path)
    assert settings.database_url == "sqlite:///outbox.db"
    baseline = settings.destinations["baseline"]
    assert isinstance(baseline, ListenerSettings)
    assert baseline.listener == "listeners.baseline:on_extraction_completed"
    assert baseline.events == ["extraction.completed"]


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    write(tmp_path, "lease_s = 40\nbeat_s = 4\ngrace_s = 400\n")
    settings = loaded(tmp_path, {"lease_s": 60, "grace_s": None}, OUTBOX_LEASE_S="50", OUTBOX_BEAT_S="5")
    assert (settings.lease_s, settings.beat_s, settings.grace_s) == (60, 5, 400)
    assert settings.slow_poll_s == 1.0
    assert settings.origin("lease_s") == "--lease"
    assert settings.origin("beat_s") == "OUTBOX_BEAT_S"
    assert settings.origin("grace_s") == str(tmp_path / "outbox.toml")
    assert settings.origin("slow_poll_s") == "the default"


def test_outbox_config_names_another_file(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('lease_s = "1m"\n')
    assert loaded(tmp_path, OUTBOX_CONFIG="other.toml").lease_s == 60
    assert "OUTBOX_CONFIG" in refused(tmp_path, OUTBOX_CONFIG="missing.toml")


def test_the_outbox_may_have_a_database_of_its_own(tmp_path: Path) -> None:
    ours, theirs = "postgresql://app@direct/app", "postgresql://app@pooler/app"
    assert loaded(tmp_path, DATABASE_URL=theirs).database_url == theirs
    settings = loaded(tmp_path, DATABASE_URL=theirs, OUTBOX_DATABASE_URL=ours, OUTBOX_SCHEMA="messaging")
    assert settings.database_url == ours
    assert settings.origin("database_url") == "OUTBOX_DATABASE_URL"
    assert settings.database.schema == "messaging"


def test_a_password_may_stand_in_the_query_of_a_url_and_is_shown_nowhere(tmp_path: Path) -> None:
    url = f"postgresql:///app?host=/run/postgresql&user=app&password={PASSWORD}%21"
    settings = loaded(tmp_path, DATABASE_URL=url)
    assert PASSWORD not in str(settings.database)
    assert settings.secrets() == {f"{PASSWORD}%21", f"{PASSWORD}!"}
    assert f"{PASSWORD}!" in conninfo(settings.database.url)


def test_a_variable_that_is_set_but_empty_counts_as_not_set(tmp_path: Path) -> None:
    settings = loaded(tmp_path, DATABASE_URL="", API_URL="", OUTBOX_LEASE_S="")
    assert settings == loaded(tmp_path)


def test_settings_made_directly_read_nothing_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_LEASE_S", "99")
    monkeypatch.setenv("API_URL", "http://localhost:3000")
    write(Path.cwd(), "lease_s = 77\n")

    def listener(message: object) -> None: ...

    settings = Settings(
        database_url="sqlite:///x.db", destinations={"mine": ListenerSettings(listener=listener, events=["*"])}
    )
    assert settings.lease_s == 15.0
    assert list(settings.destinations) == ["mine"]


# ------------------------------------------------------------------------------------------------- destinations


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://app:s3@cret@db/app", "write %40"),
        ("postgresql://app:s3@se/cret@db/app", "write %40"),
        ("postgresql://app:hidden@db:s3cret/app", "the database URL is malformed"),
    ],
)
def test_a_database_url_that_is_understood_wrongly_shows_none_of_its_password(
    tmp_path: Path, url: str, said: str
) -> None:
    told = refused(tmp_path, DATABASE_URL=url)
    assert said in told
    assert "cret" not in told


@pytest.mark.parametrize("schema", ["my schema", 'my"schema', "my'schema", "my\\schema", "my\tschema"])
def test_a_schema_that_cannot_be_asked_for_in_a_connection_is_refused_by_name(tmp_path: Path, schema: str) -> None:
    assert "OUTBOX_SCHEMA: write the name of a schema" in refused(tmp_path, OUTBOX_SCHEMA=schema)
    assert loaded(tmp_path, OUTBOX_SCHEMA="My-schema_2").schema_name == "My-schema_2"


def test_api_url_is_the_base_of_the_guides_endpoint(tmp_path: Path) -> None:
    settings = loaded(tmp_path, API_URL="http://localhost:3000/", INTERNAL_API_SECRET="s" * 40)
    assert list(settings.destinations) == ["api"]
    api = settings.destinations["api"]
    assert isinstance(api, HttpSettings)
    assert api.url == "http://localhost:3000/extraction/internal/completed"
    assert api.secret is not None
    assert api.secret.get_secret_value() == "s" * 40


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://localhost:3000\n", "http://localhost:3000/extraction/internal/completed"),
        ("\t http://localhost:3000/ \r\n", "http://localhost:3000/extraction/internal/completed"),
        ("http://localhost:3000/v1/?tenant=a", "http://localhost:3000/v1/extraction/internal/completed?tenant=a"),
        ("http://localhost:3000?tenant=a/b", "http://localhost:3000/extraction/internal/completed?tenant=a/b"),
    ],
)
def test_blanks_around_a_variable_are_no_part_of_it_and_the_path_comes_before_the_query(
    tmp_path: Path, base: str, url: str
) -> None:
    api = loaded(tmp_path, API_URL=base).destinations["api"]
    assert isinstance(api, HttpSettings)
    assert api.url == url


def test_every_variable_and_file_is_taken_without_blanks_around_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbf" + b"s" * 40 + b"\r\n")
    settings = loaded(
        tmp_path,
        API_URL="http://localhost:3000",
        INTERNAL_API_SECRET_FILE=str(tmp_path / "secret"),
        AMQP_URL="amqp://app:pw@rabbit/\n",
        OUTBOX_DATABASE_URL=" postgresql://app@db/app\n",
        OUTBOX_LEASE_S="50\n",
    )
    api, rabbit = settings.destinations["api"], settings.destinations["rabbitmq"]
    assert isinstance(api, HttpSettings)
    assert isinstance(rabbit, RabbitSettings)
    assert api.secret is not None
    assert (api.secret.get_secret_value(), rabbit.address) == ("s" * 40, "amqp://app:pw@rabbit/")
    assert (settings.database_url, settings.lease_s) == ("postgresql://app@db/app", 50)


@pytest.mark.parametrize("odd", ["\\n", "\\t", " ", "\\u0000", "\\u00a0"])
@pytest.mark.parametrize(
    "destination",
    [
        'kind = "http"\nurl = "http://localhost{odd}/x"',
        'kind = "http"\nurl = "http://localhost/x{odd}"',
        'kind = "http"\nurl = "http://localhost/x"\nproxy = "http://proxy:80{odd}"',
        'kind = "rabbitmq"\nurl = "amqp://app:pw@rabbit/{odd}"',
    ],
)
def test_a_url_with_a_blank_or_a_line_break_in_it_is_refused(tmp_path: Path, odd: str, destination: str) -> None:
    write(tmp_path, "[destinations.a]\n" + destination.format(odd=odd))
    assert "a URL holds no blanks, line breaks" in refused(tmp_path)


def test_a_database_url_with_a_line_break_in_it_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 'database_url = "postgresql://app@db/app\\n"')
    assert "the database URL holds a line break" in refused(tmp_path)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "outbox.toml").write_bytes(b"\xef\xbb\xbflease_s = 40\n")
    assert loaded(tmp_path).lease_s == 40


def test_a_variable_that_a_file_makes_ineffective_is_known_as_ignored(tmp_path: Path) -> None:
    environ = {"API_URL": "http://localhost:3000", "AMQP_URL": "amqp://app:pw@rabbit/"}
    assert loaded(tmp_path, **environ).ignored == {}
    write(tmp_path, '[destinations.a]\nkind = "http"\nurl = "${API_URL}/x"\n')
    ignored = loaded(tmp_path, **environ).ignored
    assert list(ignored) == ["AMQP_URL"]
    assert "outbox.toml names the destinations" in ignored["AMQP_URL"]


def test_amqp_url_and_api_url_both_apply(tmp_path: Path) -> None:
    settings = loaded(tmp_path, API_URL="http://localhost:3000", AMQP_URL="amqp://app:pw@rabbit/")
    assert sorted(settings.destinations) == ["api", "rabbitmq"]
    rabbit = settings.destinations["rabbitmq"]
    assert isinstance(rabbit, RabbitSettings)
    assert rabbit.address == "amqp://app:pw@rabbit/"


def test_destinations_in_a_file_switch_the_implicit_ones_off(tmp_path: Path) -> None:
    write(tmp_path, '[destinations.reports]\nkind = "listener"\nlistener = "my_app.reports:on_completed"\n')
    assert list(loaded(tmp_path, API_URL="http://localhost:3000").destinations) == ["reports"]
    write(tmp_path, "[destinations]\n")
    assert loaded(tmp_path, API_URL="http://localhost:3000").destinations == {}


def test_every_kind_of_destination_can_be_written_in_a_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        [destinations.api]
        kind = "http"
        url = "https://${API_HOST}/completed"
        secret_env = "API_SECRET"
        concurrency = 32
        give_up_after_s = "3d"
        [destinations.queue]
        kind = "rabbitmq"
        url_env = "BROKER"
        [destinations.reports]
        kind = "listener"
        listener = "my_app.reports:on_completed"
        events = ["extraction.*"]
        timeout_s = "none"
        on_dead = "skip"
        """,
    )
    settings = loaded(
        tmp_path, API_HOST="api.internal", API_SECRET="new", API_SECRET_PREVIOUS="old", BROKER="amqps://b/v"
    )
    api, queue, reports = (settings.destinations[name] for name in ("api", "queue", "reports"))
    assert isinstance(api, HttpSettings)
    assert (api.url, api.concurrency, api.give_up_after_s) == ("https://api.internal/completed", 32, 259_200)
    assert api.secret_previous is not None
    assert api.secret_previous.get_secret_value() == "old"
    assert isinstance(queue, RabbitSettings)
    assert queue.address == "amqps://b/v"
    assert (reports.timeout_s, reports.on_dead) == (None, "skip")


def test_commands_that_deliver_nothing_need_no_destinations_secrets(tmp_path: Path) -> None:
    write(tmp_path, '[destinations.api]\nkind = "http"\nurl = "${BASE}/x"\nsecret_env = "API_SECRET"\n')
    assert load({}, environ={}, cwd=tmp_path, destinations=False).destinations == {}


# ------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OUTBOX_LEASE", "OUTBOX_LEASE_S"),
        ("OUTBOX_DATABSE_URL", "OUTBOX_DATABASE_URL"),
        ("OUTBOX_SCHEME", "OUTBOX_SCHEMA"),
    ],
)
def test_a_misspelled_variable_is_refused_and_the_nearest_named(tmp_path: Path, name: str, meant: str) -> None:
    said = refused(tmp_path, **{name: "1"})
    assert name in said
    assert f"{meant}?" in said


def test_a_variable_like_none_of_ours_is_refused_with_all_that_there_are(tmp_path: Path) -> None:
    said = refused(tmp_path, OUTBOX_VERBOSITY="1")
    assert "did you mean" not in said
    assert "OUTBOX_LOG_LEVEL" in said


def test_what_kubernetes_injects_is_let_through(tmp_path: Path) -> None:
    loaded(
        tmp_path,
        OUTBOX_SERVICE_HOST="10.0.0.7",
        OUTBOX_SERVICE_PORT="9810",
        OUTBOX_SERVICE_PORT_HTTP="9810",
        OUTBOX_PORT="tcp://10.0.0.7:9810",
        OUTBOX_PORT_9810_TCP="tcp://10.0.0.7:9810",
        OUTBOX_PORT_9810_TCP_ADDR="10.0.0.7",
        OUTBOX_RELAY_SERVICE_HOST="10.0.0.8",
    )


def test_a_service_called_outbox_health_does_not_set_the_health_port(tmp_path: Path) -> None:
    assert loaded(tmp_path, OUTBOX_HEALTH_PORT="tcp://10.0.0.7:80").health_port == 9810


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lease = 15", "lease is not a setting: did you mean lease_s?"),
        ("[destinations.a]\nkind='kafka'\nservers=['h']", "servers is not a setting: did you mean bootstrap_servers?"),
        ("[workers]\nx = 1", "workers is not a setting: there are beat_s, "),
        ("[destinations.a]\nkind='http'\nurl='http://h/'\nqueue='q'", "queue is not a setting: there are allow_plain"),
        ("[destinations.a]\nkind='listener'\nlistener='m:f'\nevnets=['*']", "destinations.a.evnets is not a setting"),
        ("[destinations.a]\nkind='htpp'", "a: there is no kind 'htpp': use \"listener\", \"http\", "),
        ("[destinations.a]\nurl='http://x/'", "destinations.a: kind is needed"),
        ("[destinations.a]\nkind='http'", "destinations.a.url: this setting is required"),
        ("[destinations.a]\nkind='listener'\nlistener='nonsense'", "write module:callable"),
        ("[destinations.a]\nkind='listener'\nlistener='m:f'\nevents=[]", "destinations.a.events: the list is empty"),
        ("[destinations.a]\nkind='http'\nurl='http://h/'\nrate=50", 'a.rate: write text in quotes: "…"'),
        ("[destinations.a]\nkind='http'\nurl='http://h/'\nheaders={Host='x'}", "headers: the delivery sets Host"),
        ("[destinations.a]\nkind='http'\nurl='http://h/'\nheaders={X-Key_env='KEY'}", "use headers_env"),
        ("[destinations.a]\nkind='kafka'\nbrokers='h'", "brokers is not a setting: there are "),
        ("[destinations.a]\nkind='listener'\nlistener='m:f'\nevents='a.*'", 'destinations.a.events: write a list'),
        ("[destinations.a]\nkind='http'\nurl='http://u:p@host/'", "must not carry a user or a password"),
        ("[destinations.a]\nkind='http'\nurl='http://${NOWHERE}/'", "NOWHERE is not set"),
        ("[destinations.a]\nkind='http'\nurl='http://h/'\nsecret_env='NOWHERE'", "nor NOWHERE_FILE is set"),
        ("[destinations.a]\nkind='rabbitmq'", "url or as url_env"),
        ("[destinations.'a b']\nkind='listener'\nlistener='m:f'", "cannot name a destination"),
        ("lease_s = ", "is not TOML"),
        ("lease_s = 'soon'", 'lease_s: write a number of seconds, or "15s"'),
        ("retention_days = '36h'", "retention_days: write a whole number of days"),
        ("retention_days = 'a week'", "retention_days: write a whole number of days"),
        ("[[destinations]]\nkind='http'", "destinations: write a table, such as [destinations.NAME]"),
        ('[serve]\nproxies = ["nope"]', "nope is not an address or a network: write 10.0.0.5 or 10.0.0.0/8"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_named_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    write(tmp_path, text)
    said = refused(tmp_path)
    assert expected in said
    assert "outbox.toml" in said or "destination a" in said


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OUTBOX_LEASE_S", "0.5", "OUTBOX_LEASE_S: must be greater than or equal to 1"),
        ("OUTBOX_BEAT_S", "6", "beat_s (6) must be at most a third of lease_s (15)"),
        ("OUTBOX_PAGE_SIZE", "7000", "page_size (7000) must not be more than window (6000)"),
        ("OUTBOX_HEALTH_PORT", "70000", "OUTBOX_HEALTH_PORT"),
        ("OUTBOX_NOTIFY", "perhaps", "OUTBOX_NOTIFY"),
        ("OUTBOX_LOG_LEVEL", "loud", "OUTBOX_LOG_LEVEL"),
        ("DATABASE_URL", "mysql://localhost/x", "DATABASE_URL: the database URL begins with mysql:, but only "),
        ("DATABASE_URL", "sqlite://", "DATABASE_URL: the database URL names no file"),
        ("API_URL", "localhost:3000", "API_URL: write http://"),
    ],
)
def test_a_value_that_will_not_do_is_named_with_its_variable(
    tmp_path: Path, name: str, value: str, expected: str
) -> None:
    assert expected in refused(tmp_path, **{name: value})


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    said = refused(tmp_path, OUTBOX_DATABASE_URL="mysql://x/y", OUTBOX_LEASE_S="0", OUTBOX_WINDOW="many")
    assert "OUTBOX_DATABASE_URL" in said
    assert "OUTBOX_LEASE_S" in said
    assert "OUTBOX_WINDOW" in said


# ------------------------------------------------------------------------------------------------- secrets


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"postgresql://app:{PASSWORD}@db/app\n")
    settings = loaded(tmp_path, DATABASE_URL_FILE=str(tmp_path / "url"))
    assert settings.database.url.password == PASSWORD


def test_a_secret_given_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://db/app")
    said = refused(tmp_path, DATABASE_URL="postgresql://db/app", DATABASE_URL_FILE=str(tmp_path / "url"))
    assert said == "DATABASE_URL and DATABASE_URL_FILE are both set: unset one of them"


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\xff"])
def test_a_secrets_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "url").write_bytes(content)
    said = refused(tmp_path, DATABASE_URL_FILE=str(tmp_path / "url"))
    assert "DATABASE_URL_FILE" in said
    assert str(tmp_path / "url") in said


def test_no_secret_shows_in_settings_or_in_what_is_wrong_with_them(tmp_path: Path) -> None:
    environ = {
        "DATABASE_URL": f"postgresql://app:{PASSWORD}@db/app",
        "API_URL": "http://localhost:3000",
        "INTERNAL_API_SECRET": f"{PASSWORD}-api",
        "AMQP_URL": f"amqp://app:{PASSWORD}-amqp@rabbit/",
    }
    settings = loaded(tmp_path, **environ)
    assert PASSWORD not in repr(settings)
    assert PASSWORD not in str(settings)
    assert PASSWORD not in str(settings.database)
    assert {PASSWORD, f"{PASSWORD}-api", f"{PASSWORD}-amqp"} <= settings.secrets()
    wrong: list[dict[str, Any]] = [
        {"DATABASE_URL": f"mysql://app:{PASSWORD}@db/app"},
        {"DATABASE_URL": f"{PASSWORD}"},
        {"AMQP_URL": f"https://app:{PASSWORD}@rabbit/"},
        {"API_URL": f"http://app:{PASSWORD}@localhost/"},
    ]
    for broken in wrong:
        assert PASSWORD not in refused(tmp_path, **environ | broken)


def test_an_encoded_password_is_secret_in_both_spellings(tmp_path: Path) -> None:
    settings = loaded(tmp_path, DATABASE_URL="postgresql://app:p%40ss%2Fword@db/app")
    assert {"p%40ss%2Fword", "p@ss/word"} <= settings.secrets()


# ------------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(
    ("text", "expected"),
    [("15", 15), ("15s", 15), ("500ms", 0.5), ("5m", 300), ("1h30m", 5400), ("3d", 259_200)],
)
def test_a_duration_is_a_number_of_seconds_or_has_units(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "-1s", "nan", "2 h", "h", "1s2", True, float("inf")])
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="write a number of seconds"):
        seconds(text)


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError):
        Settings().lease_s = 3  # type: ignore[misc]


def test_an_sqlite_file_that_is_missing_is_named_with_its_variable(tmp_path: Path) -> None:
    settings = loaded(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(SettingsError) as caught:
        settings.require_database_file()
    assert f"{tmp_path}/none.db" in str(caught.value)
    assert "DATABASE_URL" in str(caught.value)
    assert "outbox db upgrade" in str(caught.value)
    assert not (tmp_path / "none.db").exists()


def test_a_missing_file_that_python_code_names_is_not_said_to_be_the_default(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(SettingsError, match=r"none\.db \(from the argument database_url\)"):
        settings.require_database_file()


def test_a_file_of_another_user_in_the_current_directory_is_refused_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may write to an operator's directory could send secrets to another host."""
    path = tmp_path / "outbox.toml"
    path.write_text("lease_s = 30\n")
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    if path.stat().st_uid == 0:
        os.chown(path, 12345, -1)
        monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(SettingsError, match=r"belongs to another user .*OUTBOX_CONFIG="):
        load(environ={}, cwd=tmp_path)
    assert load(environ={"OUTBOX_CONFIG": str(path)}, cwd=tmp_path).lease_s == 30


def test_a_file_of_the_superuser_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image contains such a file, or an orchestrator mounts it."""
    path = tmp_path / "outbox.toml"
    path.write_text("lease_s = 30\n")
    if path.stat().st_uid != 0:
        pytest.skip("needs a file of the superuser")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert load(environ={}, cwd=tmp_path).lease_s == 30


@pytest.mark.parametrize(
    ("rate", "burst", "per_s", "at_once"),
    [("50/s", None, 50, 50), (" 600 / MIN", None, 10, 10), ("1000/h", None, 1000 / 3600, 1), ("1000/s", 50, 1000, 50)],
)
def test_a_rate_says_how_many_and_in_what_time(rate: str, burst: int | None, per_s: float, at_once: int) -> None:
    limit = DestinationPolicy(kind="x", rate=rate, burst=burst).rate_limit
    assert limit is not None
    assert (limit.per_s, limit.burst) == (pytest.approx(per_s), at_once)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rate": "50"}, "write a rate such as"),
        ({"rate": "0/s"}, "above 0"),
        ({"rate": "5/w"}, "write a rate such as"),
        ({"rate": 50}, "should be a valid string"),
        ({"rate": "1000/s", "burst": 49}, "burst (49) is too small for 1000/s: write at least 50"),
        ({"burst": 5}, "write rate ="),
    ],
)
def test_a_rate_that_relays_cannot_keep_to_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        DestinationPolicy(kind="x", **options)


def test_what_a_variable_puts_behind_the_host_of_a_url_is_masked_everywhere(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        log_level = "${LEVEL}"
        [destinations.a]
        kind = "http"
        url = "https://${API_HOST}/hooks/${HOOK_TOKEN}"
        [destinations.b]
        kind = "http"
        url = "${OTHER_URL}?v=1"
        """,
    )
    environ = {
        "LEVEL": "warning",
        "API_HOST": "api.example",
        "HOOK_TOKEN": "a-token/1",
        "OTHER_URL": "https://other.example/hooks/token-2",
    }
    load(environ=environ, cwd=tmp_path)
    said = redacted("warning: api.example/hooks/a-token%2F1, a-token/1, https://other.example/hooks/token-2?v=1")
    assert said == "warning: api.example/hooks/***, ***, https://other.example/***?v=1"
