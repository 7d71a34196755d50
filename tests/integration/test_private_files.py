"""Only its owner can read a file that we write, and no file of others is run."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.databases import Database
from support.scene import Scene, Taker

from relay.admin.doctor import examine
from relay.databases import migrations


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes_beside(path: Path) -> dict[str, int]:
    return {each.name: mode(each) for each in path.parent.glob(f"{path.name}*")}


async def test_an_sqlite_file_and_all_that_is_beside_it_is_readable_for_its_owner_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    migrations.upgrade(url)
    database = Database("sqlite", url)
    scene = Scene(database)
    scene.emit(1)
    async with scene.relay({"a": Taker()}) as relay:
        await relay.drain()
        modes = modes_beside(tmp_path / "new.db")
    database.dispose()
    assert {"new.db", "new.db-wal", "new.db.relay.lock"} <= modes.keys()
    assert set(modes.values()) == {0o600}, {name: oct(each) for name, each in modes.items()}


def test_a_file_that_others_may_read_is_used_as_it_is_and_named_by_doctor(sqlite_database: Database) -> None:
    path = Path(sqlite_database.url.removeprefix("sqlite:///"))
    path.chmod(0o644)
    found = {each.check: each for each in examine(sqlite_database.engine, lease_s=15, older_than_s=300)}
    assert (found["file rights"].severity, mode(path)) == ("note", 0o644)
    assert f"chmod 600 {path}" in found["file rights"].do
    path.chmod(0o600)
    found = {each.check: each for each in examine(sqlite_database.engine, lease_s=15, older_than_s=300)}
    assert found["file rights"].severity == "ok"


@pytest.mark.parametrize("name", ["typer", "pydantic", "socket"])
def test_no_file_of_the_current_directory_is_run_in_place_of_a_module(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the current directory was run')")
    done = subprocess.run(
        [sys.executable, "-m", "outbox_cli", "config", "show"],
        cwd=tmp_path,
        env={"DATABASE_URL": "sqlite:///x.db", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_module_runs_from_a_checkout_too(tmp_path: Path) -> None:
    project = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "outbox_cli", "--version"], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
