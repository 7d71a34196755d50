"""Commands as a user runs them, in this process, which saves a second each."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from outbox_cli import main
from support.built import get_command


@dataclass
class Ended:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    def report(self) -> str:
        return f"exit code {self.returncode}\n{self.stdout}\n{self.stderr}"


Run = Callable[..., Ended]


def runner(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs one command: `run("status", "--json", url=database.url)`."""

    def run(*arguments: str, url: str | None = None, program: str = "outbox", **environ: str) -> Ended:
        capfd.readouterr()
        with monkeypatch.context() as patched:
            for name, value in (({"DATABASE_URL": url} if url else {}) | environ).items():
                patched.setenv(name, value)
            patched.setattr(sys, "argv", [program, *arguments])
            patched.setattr("typer.main.get_command", get_command)
            with pytest.raises(SystemExit) as exit_:
                main()
        out, err = capfd.readouterr()
        return Ended(exit_.value.code or 0, out, err)  # type: ignore[arg-type]

    return run


def status(run: Run, url: str) -> dict[str, object]:
    process = run("status", "--json", url=url)
    assert process.returncode == 0, process.report()
    found: dict[str, object] = process.json
    return found
