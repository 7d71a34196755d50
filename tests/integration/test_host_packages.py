"""A host that has packages called `relay` and `listeners`: every command works, and its listeners are found."""

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest
from support.databases import Database
from support.scene import Scene

PROJECT = Path(__file__).parents[2]

REPORTS = """
from pathlib import Path
import listeners.names, relay.sprint
from listeners.names import FILE

def on_completed(message):
    with Path(FILE).open("a") as file:
        file.write(relay.sprint.spell(message.data["n"]))
"""
SETTINGS = """
health_port = 0
log_format = "text"
[destinations.reports]
kind = "listener"
listener = "listeners.reports:on_completed"
"""
KINDS = """
[destinations.http]
kind = "http"
url = "http://127.0.0.1:1/"
[destinations.kafka]
kind = "kafka"
bootstrap_servers = ["127.0.0.1:1"]
topic = "events"
[destinations.nats]
kind = "nats"
url = "nats://127.0.0.1:1"
[destinations.rabbitmq]
kind = "rabbitmq"
url = "amqp://127.0.0.1:1/"
[destinations.redis]
kind = "redis"
url = "redis://127.0.0.1:1/0"
"""
TEST = """
from listeners.reports import on_completed

def test_drain(tmp_path):
    import sqlalchemy as sa
    from outbox import emit
    from outbox.tables import metadata
    from outbox.testing import drain
    engine = sa.create_engine("sqlite:///" + str(tmp_path / "x.db"))
    metadata().create_all(engine)
    with engine.begin() as connection:
        emit(connection, "a.b", {"n": 7})
    assert drain(engine, on_completed).delivered == 1
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which the wheel and its dependencies are installed."""
    built, directory = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(built), cwd=PROJECT)
    venv.create(directory, symlinks=True)
    python = directory / "bin" / "python"
    [site_packages] = directory.glob("lib/python*/site-packages")
    for each in {Path(str(found.locate_file(""))) for found in distributions()}:
        for entry in each.iterdir():
            is_ours = entry.name.startswith(("neverlost", "_neverlost", "outbox")) or entry.suffix == ".pth"
            if not is_ours and each.name == "site-packages" and not (site_packages / entry.name).exists():
                (site_packages / entry.name).symlink_to(entry)
    [wheel] = built.iterdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    run(*pip, "install", "--no-deps", "--no-index", str(wheel), cwd=built)
    return python


def run(*command: str, cwd: Path, **environ: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host application with its own packages `relay` and `listeners`."""
    for package in ("relay", "listeners"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "listeners" / "names.py").write_text(f"FILE = {str(tmp_path / 'taken')!r}\n")
    (tmp_path / "listeners" / "tables.py").write_text("raise RuntimeError('a command of ours runs this')\n")
    (tmp_path / "listeners" / "reports.py").write_text(REPORTS)
    (tmp_path / "relay" / "sprint.py").write_text("def spell(n):\n    return f'<{n}>'\n")
    (tmp_path / "outbox.toml").write_text(SETTINGS)
    (tmp_path / "test_host.py").write_text(TEST)
    return tmp_path


@pytest.fixture(params=["on PYTHONPATH", "here"])
def environ(request: pytest.FixtureRequest, host: Path, sqlite_database: Database) -> dict[str, str]:
    path = {"PYTHONPATH": str(host)} if request.param == "on PYTHONPATH" else {}
    return {
        "DATABASE_URL": sqlite_database.url,
        "INTERNAL_API_SECRET": "a secret of sufficient length, as it were",
        **path,
    }


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    programs: list[subprocess.Popen[str]] = []
    yield programs
    for program in programs:
        program.kill()
        program.communicate()


@pytest.mark.parametrize("has_init", [True, False])
def test_a_hosts_listener_is_loaded_and_called(
    python: Path, host: Path, environ: dict[str, str], sqlite_database: Database, has_init: bool
) -> None:
    if not has_init:
        (host / "relay" / "__init__.py").unlink()
        (host / "listeners" / "__init__.py").unlink()
    outbox = str(python.with_name("outbox"))
    Scene(sqlite_database).emit(3)
    assert "destination reports: listener" in run(outbox, "config", "check", cwd=host, **environ)
    run(outbox, "relay", "--drain", cwd=host, **environ)
    assert sorted((host / "taken").read_text()) == sorted("<0><1><2>")
    assert sqlite_database.scalar("SELECT count(*) FROM outbox_history") == 3


def test_a_relay_in_several_processes_starts_beside_such_a_host(
    python: Path, host: Path, environ: dict[str, str], sqlite_database: Database
) -> None:
    Scene(sqlite_database).emit(1)
    run(str(python.with_name("outbox")), "relay", "--drain", "--processes", "1", cwd=host, **environ)
    assert (host / "taken").read_text() == "<0>"


@pytest.mark.parametrize(
    ("environ", "command"),
    [("on PYTHONPATH", ["status"]), ("here", ["content", "missing"]), ("on PYTHONPATH", ["--help"])],
    indirect=["environ"],
)
def test_the_other_commands_work_beside_such_a_host(
    python: Path, host: Path, environ: dict[str, str], command: list[str], sqlite_database: Database
) -> None:
    run(str(python.with_name("outbox")), *command, cwd=host, **environ)


@pytest.mark.parametrize("environ", ["on PYTHONPATH", "here"], indirect=True)
def test_every_kind_of_destination_is_built_beside_such_a_host(
    python: Path, host: Path, environ: dict[str, str]
) -> None:
    with (host / "outbox.toml").open("a") as file:
        file.write(KINDS)
    said = run(str(python.with_name("outbox")), "config", "check", cwd=host, **environ)
    assert [line.split()[1] for line in said.splitlines() if line.startswith("destination ")] == [
        "reports:", "http:", "kafka:", "nats:", "rabbitmq:", "redis:",
    ]  # fmt: skip


@pytest.mark.parametrize("environ", ["on PYTHONPATH", "here"], indirect=True)
def test_the_tables_are_created_and_their_sql_is_printed_beside_such_a_host(
    python: Path, host: Path, environ: dict[str, str]
) -> None:
    outbox, new = str(python.with_name("outbox")), {**environ, "DATABASE_URL": f"sqlite:///{host}/new.db"}
    assert "applied 2" in run(outbox, "db", "upgrade", cwd=host, **new)
    assert "can be used" in run(outbox, "db", "check", cwd=host, **new)
    assert "CREATE TABLE topic_graphs" in run(outbox, "db", "sql", cwd=host, **new)


@pytest.mark.parametrize(
    ("environ", "handler"),
    [("on PYTHONPATH", None), ("here", "listeners.reports:on_completed")],
    indirect=["environ"],
)
def test_the_receiving_api_starts_with_our_listener_and_with_the_hosts(
    python: Path,
    host: Path,
    environ: dict[str, str],
    handler: str | None,
    started: list[subprocess.Popen[str]],
) -> None:
    if handler is not None:
        with (host / "outbox.toml").open("a") as file:
            file.write(f'[serve]\nhandler = "{handler}"\n')
    program = subprocess.Popen(
        [str(python.with_name("outbox")), "serve", "--port", "0"],
        cwd=host, env={**os.environ, **environ}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    started.append(program)
    assert program.stderr is not None
    said: list[str] = []
    for line in program.stderr:
        said.append(line)
        if "http://" in line:
            return
    raise AssertionError("".join(said))


@pytest.mark.parametrize(
    ("environ", "handler"),
    [("here", []), ("on PYTHONPATH", ["--listener", "listeners.reports:on_completed"])],
    indirect=["environ"],
    ids=["ours", "theirs"],
)
def test_the_consumer_starts_with_our_listener_and_with_the_hosts(
    python: Path, host: Path, environ: dict[str, str], handler: list[str], started: list[subprocess.Popen[str]]
) -> None:
    """The consumer starts until it connects to its broker, which is missing: by then everything is loaded."""
    (host / "outbox.toml").unlink()
    program = subprocess.Popen(
        [str(python.with_name("outbox")), "consume", "--health-port", "0", *handler],
        cwd=host, env={**os.environ, **environ, "AMQP_URL": "amqp://127.0.0.1:1/"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    started.append(program)
    assert program.stderr is not None
    said: list[str] = []
    for line in program.stderr:
        said.append(line)
        if "unreachable" in line or "127.0.0.1:1" in line:
            return
    raise AssertionError("".join(said))


def test_a_hosts_test_drains_with_its_own_listener(python: Path, host: Path) -> None:
    said = run(
        str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_host.py", cwd=host, PYTHONPATH=str(host)
    )
    assert "1 passed" in said


def test_an_application_with_its_own_listeners_loads_our_receiver(python: Path, host: Path) -> None:
    imports = "import listeners.names, outbox.own_packages as own"
    shown = "print(own.load('listeners.http').Receiver.__name__, own.load('relay').Relay.__name__)"
    said = run(str(python), "-c", f"{imports}; {shown}", cwd=host, PYTHONPATH=str(host))
    assert said == "Receiver Relay\n"


def test_our_documented_paths_are_importable_where_the_host_has_no_such_package(python: Path, tmp_path: Path) -> None:
    imports = "from relay import Relay, Settings; from listeners.baseline import on_extraction_completed as listener"
    assert (
        run(str(python), "-I", "-c", f"{imports}; print(listener.__module__)", cwd=tmp_path) == "listeners.baseline\n"
    )
