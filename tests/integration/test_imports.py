"""A worker's image may be slim: `import outbox` loads SQLAlchemy and pydantic, and nothing heavier."""

import importlib
import json
import subprocess
import sys
import sysconfig
from functools import cache

import pytest
import typer

from outbox_cli.app import MODULES, command_line

ALLOWED = {
    "outbox",
    "sqlalchemy",
    "greenlet",
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "typing_extensions",
    "typing_inspection",
}

# Modules without a file are not counted: they are built in, or made up at run time (Cython's, in SQLAlchemy).
LOADED_BY = """
import json, sys
before = set(sys.modules)
import {module}
files = {{name: getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before}}
print(json.dumps({{name: file for name, file in files.items() if file}}))
"""


@cache
def files_loaded_by(module: str) -> dict[str, str]:
    """Return the modules that a fresh interpreter loads for `module`, and their files."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOADED_BY.format(module=module)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def packages_loaded_by(module: str) -> set[str]:
    """Return the installed packages, ours included, that a fresh interpreter loads for `module`."""
    files = files_loaded_by(module).items()
    return {name.partition(".")[0] for name, file in files if not is_standard_library(file)}


def is_standard_library(file: str) -> bool:
    in_its_directory = any(file.startswith(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    return in_its_directory and "site-packages" not in file


def test_importing_outbox_loads_sqlalchemy_and_pydantic_and_nothing_heavier():
    assert packages_loaded_by("outbox") - ALLOWED == set()


def test_an_application_has_all_of_outbox_when_it_imports_it():
    """Listeners on sessions must not be registered in the middle of a session, with its first message."""
    assert "outbox.writing.accepted" in files_loaded_by("outbox")


def test_importing_outbox_loads_no_other_package_of_ours():
    assert packages_loaded_by("outbox") & {"relay", "listeners", "outbox_demo", "outbox_cli"} == set()


def test_the_check_sees_what_a_package_loads():
    assert {"alembic", "sqlalchemy"} <= packages_loaded_by("alembic")


# What a command may need for its work, but none of the commands below needs for its output.
HEAVY = {
    "aio_pika",
    "aiohttp",
    "alembic",
    "apscheduler",
    "fastapi",
    "httpx",
    "markdown_it",
    "networkx",
    "numpy",
    "opentelemetry",
    "prometheus_client",
    "starlette",
    "structlog",
    "uvicorn",
}
RUN = """
import json, sys
from outbox_cli import main
for arguments in {commands}:
    sys.argv = ["outbox", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, arguments
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def modules_loaded_by(*commands: list[str]) -> set[str]:
    """Return all modules that a fresh interpreter has loaded when the commands have ended."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN.format(commands=commands)], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_and_version_load_no_database_and_no_settings():
    loaded = modules_loaded_by(["--version"], ["--help"], ["status", "--help"], ["relay", "--help"])
    unwanted = HEAVY | {"sqlalchemy", "psycopg", "relay.settings", "relay.databases.database", "relay.relay"}
    assert loaded & (unwanted - {"markdown_it"}) == set()  # Rich's, for the help


def test_a_command_imports_and_builds_no_other_command():
    modules = {name for name in modules_loaded_by(["db", "check", "--help"]) if "outbox_cli.commands" in name}
    assert modules == {f"outbox_cli.commands{each}" for each in ("", ".run", ".run.database")}


def test_every_command_is_found_by_its_name():
    every = set(typer.main.get_group(command_line()).commands)
    assert len(every) > 20
    named = [name for names in MODULES.values() for name in names]
    assert (set(named), len(named)) == (every, len(every))


EVERYDAY = [["messages", "list"], ["dead", "list"], ["destinations", "list"], ["audit"]]


def test_looking_at_the_outbox_loads_no_relay_no_server_and_no_migrations(monkeypatch, sqlite_database):
    monkeypatch.setenv("DATABASE_URL", sqlite_database.url)
    loaded = modules_loaded_by(["status"], ["status", "--json"], ["relays"], *EVERYDAY)
    unwanted = HEAVY | {
        "sqlalchemy.orm",
        "sqlalchemy.ext.asyncio",
        "sqlalchemy.dialects.postgresql",
        "psycopg",
        "relay.relay",
        "relay.databases.postgresql",
        "relay.databases.store.contract",
        "relay.databases.migrations",
        "rich.live",
    }
    assert loaded & unwanted == set()
    assert {"sqlalchemy", "relay.admin.status"} <= loaded, "the check sees what a command loads"


def test_the_demo_says_that_it_starts_before_it_loads_anything():
    """While nothing is compiled yet, loading takes longer than a user waits without a message."""
    watched = """
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if not name.startswith("outbox_cli"):
            print("loads", name, file=sys.stderr)
sys.meta_path.insert(0, Watch())
from outbox_cli import main
sys.argv = ["outbox", "demo", "--no-such-option"]
main()
"""
    done = subprocess.run([sys.executable, "-P", "-c", watched], capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("Loading the demo"))
    loaded = {line.split()[1] for line in lines[:at] if line.startswith("loads")}
    assert {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names} == set()
    assert "loads typer" in lines[at:]


@pytest.mark.parametrize("package", ["outbox", "relay"])
def test_every_name_that_a_package_offers_can_be_imported_from_it(package):
    module = importlib.import_module(package)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


def test_a_short_command_ends_before_it_collects_garbage(monkeypatch, sqlite_database):
    """Imported objects stay: nothing could be freed. The interpreter's last collection sees only newer objects."""
    monkeypatch.setenv("DATABASE_URL", sqlite_database.url)
    watched = """
import atexit, gc, sys
collected = []
gc.disable()  # until the threshold is set
gc.callbacks.append(lambda phase, info: collected.append(info["generation"]) if phase == "start" else None)
atexit.register(lambda: print(collected, len(gc.get_objects()) < 1000 < gc.get_freeze_count(), file=sys.stderr))
from outbox_cli import main
gc.enable()
sys.argv = ["outbox", "status"]
main()
"""
    done = subprocess.run([sys.executable, "-P", "-c", watched], capture_output=True, text=True, check=True)
    assert done.stderr == "[] True\n"


def test_without_a_client_library_the_extra_to_install_is_named() -> None:
    code = """
import sys
sys.modules.update({"redis": None, "nats": None, "aiokafka": None})
from relay.destinations import registry
from relay.settings import Settings
settings = Settings.model_validate({"destinations": {
    "redis": {"kind": "redis", "url": "redis://localhost/"},
    "nats": {"kind": "nats", "url": "nats://localhost"},
    "kafka": {"kind": "kafka", "bootstrap_servers": "localhost:9092"},
}})
for name, destination in settings.destinations.items():
    for use in (registry.check, lambda *given: registry.build(*given, settings.database)):
        try:
            use(name, destination)
        except registry.SettingsError as error:
            print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for kind in ("redis", "nats", "kafka"):
        assert done.stdout.count(f"install the extra {kind}, in a checkout with pip install '.[{kind}]'") == 2
