"""A kind of destination is a folder, found by its name through one registry; installed packages bring others."""

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.sources import ROOT, facts_of, sources_of

from outbox.errors import SettingsError
from relay.destinations import registry
from relay.destinations.kind import Kind
from relay.settings import load

KINDS = ROOT / "relay" / "destinations"

# Files that may name a kind: public names, and the consumer, which is RabbitMQ's.
NAMES_A_KIND = {
    "relay/__init__.py",
    "relay/settings/serve.py",
    "outbox_cli/commands/run/consume.py",
}

OVER_A_NETWORK = {
    "http": "url = 'http://api/'",
    "rabbitmq": "url = 'amqp://broker/'",
    "redis": "url = 'redis://server/'",
    "nats": "url = 'nats://server/'",
    "kafka": "bootstrap_servers = 'kafka:9092'",
}

THEIRS = """
from typing import Literal
from relay.destinations.kind import Kind
from relay.destinations.policy import DestinationPolicy

class PigeonSettings(DestinationPolicy):
    kind: Literal["pigeon"] = "pigeon"
    loft: str

KIND = Kind(name="pigeon", settings=PigeonSettings, build=None, probe=None)
"""


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Forget which packages were installed, before and after."""
    for found in (registry.kind, registry._theirs):
        found.cache_clear()
    yield
    for found in (registry.kind, registry._theirs):
        found.cache_clear()


def install(site: Path, distribution: str, module: str, code: str, kind: str = "pigeon") -> None:
    """Put a package where Python finds it, as an installer does."""
    sys.modules.pop(module, None)
    (site / f"{module}.py").write_text(code)
    info = site / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{kind} = {module}:KIND\n")


def refused(cwd: Path, text: str) -> str:
    (cwd / "outbox.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load({}, environ={}, cwd=cwd)
    return str(caught.value)


def modules_outside_the_kinds() -> Iterator[Path]:
    for package in ("relay", "outbox", "outbox_cli"):
        for path in sources_of(package):
            if not any(path.is_relative_to(KINDS / kind) for kind in registry.OURS):
                yield path


def kinds_imported_by(path: Path) -> set[str]:
    names = [name for name, _ in facts_of(path).imports]
    return {kind for kind in registry.OURS for name in names if name.startswith(f"relay.destinations.{kind}")}


@cache
def names_of_settings() -> set[str]:
    return {registry.kind(kind).settings.__name__ for kind in registry.OURS}


def test_every_folder_is_a_kind_and_every_kind_has_a_folder() -> None:
    assert {path.parent.name for path in KINDS.glob("*/kind.py")} == set(registry.OURS)
    for name in registry.OURS:
        found = registry.kind(name)
        assert isinstance(found, Kind)
        assert (found.name, found.settings.model_fields["kind"].default) == (name, name)


@pytest.mark.xdist_group("sources")
def test_nothing_but_its_folder_names_a_kind() -> None:
    naming = {
        str(path.relative_to(ROOT))
        for path in modules_outside_the_kinds()
        if kinds_imported_by(path) or facts_of(path).asked & names_of_settings()
    }
    assert naming == NAMES_A_KIND


def test_an_unknown_kind_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    said = refused(tmp_path, "[destinations.a]\nkind = 'pigeon'\n")
    assert "destinations.a: there is no kind 'pigeon': use " in said
    assert all(f'"{name}"' in said for name in registry.OURS)


@pytest.mark.parametrize("text", ["destinations = {a = 'http'}", "[destinations.a]\nurl = 'http://h/'"])
def test_a_destination_without_a_kind_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    assert "kind" in refused(tmp_path, text)


@pytest.mark.parametrize("kind", [name for name in registry.OURS if name != "listener"])
def test_an_attempt_over_a_network_has_a_deadline(tmp_path: Path, kind: str) -> None:
    table = f"[destinations.a]\nkind = '{kind}'\n{OVER_A_NETWORK[kind]}\n"
    (tmp_path / "outbox.toml").write_text(table)
    assert load({}, environ={}, cwd=tmp_path).destinations["a"].timeout_s == 10.0
    assert "destinations.a.timeout_s: write a number of seconds" in refused(tmp_path, f"{table}timeout_s = 'none'\n")


def test_a_kind_that_an_installed_package_brings_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "pigeons", "pigeon_post", THEIRS)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "outbox.toml").write_text("[destinations.a]\nkind = 'pigeon'\nloft = 'north'\nevents = ['a.*']\n")
    made = load({}, environ={}, cwd=tmp_path).destinations["a"]
    assert (type(made).__name__, made.kind, made.events) == ("PigeonSettings", "pigeon", ["a.*"])
    assert "pigeon" in registry.names()
    assert "loft is not a setting" not in refused(tmp_path, "[destinations.a]\nkind = 'pigeon'\n")
    assert "lofd is not a setting: did you mean loft?" in refused(
        tmp_path, "[destinations.a]\nkind = 'pigeon'\nlofd = 'north'\nloft = 'n'\n"
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("KIND = 'pigeon'", "is not a relay.destinations.kind.Kind"),
        (THEIRS.replace('name="pigeon"', 'name="dove"'), "has different names"),
    ],
)
def test_a_kind_that_cannot_be_used_is_refused_with_the_package_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    install(tmp_path, "pigeons", "broken_post", code)
    monkeypatch.syspath_prepend(str(tmp_path))
    told = refused(tmp_path, "[destinations.a]\nkind = 'pigeon'\n")
    assert said in told
    assert "broken_post:KIND" in told


def test_a_kind_that_two_packages_bring_is_refused_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "pigeons", "pigeon_post", THEIRS)
    install(tmp_path, "doves", "dove_post", THEIRS)
    monkeypatch.syspath_prepend(str(tmp_path))
    told = refused(tmp_path, "[destinations.a]\nkind = 'pigeon'\nloft = 'n'\n")
    assert "uninstall all but one" in told
    assert "pigeon_post:KIND" in told
    assert "dove_post:KIND" in told


@pytest.mark.parametrize(("kind", "scheme"), [("rabbitmq", "amqp"), ("redis", "redis"), ("nats", "nats")])
def test_the_rest_of_a_password_with_a_slash_is_not_taken_for_a_path(tmp_path: Path, kind: str, scheme: str) -> None:
    told = refused(tmp_path, f"[destinations.broker]\nkind = '{kind}'\nurl = '{scheme}://app:s3@se/cret@host/0'\n")
    assert "%2F" in told
    assert "cret" not in told
