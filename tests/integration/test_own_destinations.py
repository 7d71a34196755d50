"""docs/destinations.md shows a kind of destination in a separate package: built, installed and used as printed."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import Run
from support.databases import Database
from support.scene import Scene

PROJECT = Path(__file__).parents[2]
PRINTED = re.compile(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the example was installed from its wheel."""
    source, built, installed = (tmp_path_factory.mktemp(name) for name in ("source", "built", "installed"))
    for name, content in PRINTED.findall((PROJECT / "docs" / "destinations.md").read_text()):
        (source / name).write_text(content)
    _run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(built), cwd=source)
    (wheel,) = built.iterdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    _run(*pip, "--target", str(installed), str(wheel), cwd=source)
    (installed / "test_neverlost_file.py").write_text((source / "test_neverlost_file.py").read_text())
    return installed


@pytest.fixture
def command(site: Path, tmp_path: Path) -> Command:
    """`command("relay", "--drain")` runs a command where the example is installed and `outbox.toml` uses it."""
    (tmp_path / "outbox.toml").write_text(
        f'health_port = 0\n[destinations.archive]\nkind = "file"\npath = "{tmp_path}/all.jsonl"\n'
    )

    def run(*arguments: str, database: Database) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PYTHONPATH": str(site), "DATABASE_URL": database.url}
        return subprocess.run(
            [sys.executable, "-m", "outbox_cli", *arguments],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def _run(*command: str, cwd: Path, **environ: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_keeps_the_contract_with_its_own_tests(site: Path, tmp_path: Path) -> None:
    said = _run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_neverlost_file.py",
        cwd=site, PYTHONPATH=str(site),
    )  # fmt: skip
    assert " passed" in said
    assert "skipped" not in said


def test_an_installed_kind_is_delivered_to_checked_and_probed(
    command: Command, database: Database, tmp_path: Path
) -> None:
    numbers = Scene(database).emit(3)
    checked = command("config", "check", database=database)
    assert "destination archive: file, wants *" in checked.stderr
    assert command("destinations", "test", "archive", database=database).returncode == 0
    drained = command("relay", "--drain", database=database)
    assert drained.returncode == 0, drained.stderr
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["data"]["n"] for line in lines) == numbers


def test_a_relay_without_the_package_refuses_the_kind_and_lists_the_known_ones(run: Run, tmp_path: Path) -> None:
    (tmp_path / "outbox.toml").write_text('[destinations.archive]\nkind = "file"\npath = "all.jsonl"\n')
    ended = run("config", "check")
    assert ended.returncode == 3
    assert "there is no kind 'file': use \"listener\"" in ended.stderr
