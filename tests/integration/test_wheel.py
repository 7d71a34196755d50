"""What adopters install: the wheel, and in a worker's slim image beside it only SQLAlchemy and pydantic."""

import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

SLIM = [
    "sqlalchemy",
    "greenlet",
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-extensions",
    "typing-inspection",
]

WORKER = """
import importlib.util, sys
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from outbox import Event, emit

assert importlib.util.find_spec("psycopg") is None, "the environment is not slim"
assert importlib.util.find_spec("alembic") is None, "the environment is not slim"

class ExtractionCompleted(Event, type="extraction.completed"):
    content_id: str

engine = create_engine(sys.argv[1])
with Session(engine) as session, session.begin():
    print(emit(session, ExtractionCompleted(content_id="c-1"), ordering_key="c-1"))
engine.dispose()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def slim_python(wheel, tmp_path_factory) -> Path:
    """The interpreter of an environment with the wheel, SQLAlchemy and pydantic; no network is needed."""
    directory = tmp_path_factory.mktemp("slim")
    venv.create(directory, symlinks=True)
    python = directory / "bin" / "python"
    [site_packages] = directory.glob("lib/python*/site-packages")
    for name in SLIM:
        link_distribution(name, site_packages)
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    return python


def build(target: str, directory: Path, project: Path = PROJECT) -> Path:
    run(
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        target,
        "--directory",
        str(directory),
        cwd=project,
    )
    [built] = directory.iterdir()
    return built


def link_distribution(name: str, site_packages: Path) -> None:
    installed = distribution(name)
    tops = {file.parts[0] for file in installed.files or []} - {"..", "__pycache__"}
    for top in tops:
        (site_packages / top).symlink_to(Path(str(installed.locate_file(top))))


def pip(*arguments: str) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=PROJECT)


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_carries_the_migrations_and_the_types(wheel):
    names = names_in(wheel)
    assert {"outbox/migrations/env.py", "outbox/py.typed", "relay/py.typed"} <= names
    revisions = {path.name for path in (PROJECT / "alembic" / "versions").glob("*.py")}
    assert {f"outbox/migrations/versions/{name}" for name in revisions} <= names


def test_the_wheel_overwrites_no_package_of_others(wheel):
    tops = {name.partition("/")[0] for name in names_in(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "outbox",
        "relay",
        "listeners",
        "outbox_demo",
        "outbox_cli",
    }


def test_the_source_distribution_builds_the_same_wheel(wheel, tmp_path):
    sdist = build("sdist", tmp_path / "sdist")
    run(sys.executable, "-m", "tarfile", "-e", str(sdist), str(tmp_path / "unpacked"), cwd=tmp_path)
    [unpacked] = (tmp_path / "unpacked").iterdir()
    assert names_in(build("wheel", tmp_path / "rebuilt", unpacked)) == names_in(wheel)


def test_a_worker_emits_with_nothing_but_sqlalchemy_and_pydantic_installed(slim_python, sqlite_database):
    printed = run(str(slim_python), "-I", "-c", WORKER, sqlite_database.url, cwd=Path.cwd())
    [(stored_id, type_, key)] = sqlite_database.rows("SELECT id, type, ordering_key FROM outbox_message")
    assert (stored_id.replace("-", ""), type_, key) == (
        printed.strip().replace("-", ""),
        "extraction.completed",
        "c-1",
    )


def test_a_command_in_a_workers_slim_image_says_what_is_missing(slim_python):
    ended = subprocess.run(
        [str(slim_python.with_name("outbox")), "status"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith("outbox: typer is not installed")
    assert "Traceback" not in ended.stderr
