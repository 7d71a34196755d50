"""Real processes: started, watched, frozen, killed, and certainly gone at the end of the test.

An `outbox` is forked from the nursery, where everything is imported already, unless it is to be started anew.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from support import nursery
from support.guardian import guardian
from support.waiting import eventually

_TAIL_CHARACTERS = 8_000


class Process:
    """One process in its own group, with its output in files."""

    def __init__(
        self, command: list[str], directory: Path, name: str, env: Mapping[str, str], *, is_forked: bool
    ) -> None:
        self.command = command
        self.stdout_path = directory / f"{name}.stdout"
        self.stderr_path = directory / f"{name}.stderr"
        self.stdout_path.touch()
        self.stderr_path.touch()
        self._process: subprocess.Popen[bytes] | nursery.Child
        if is_forked:
            self._process = nursery.fork(command[1:], env, directory, self.stdout_path, self.stderr_path)
        else:
            self._process = self._start(directory, env)
        guardian().watch(self.pid)

    def _start(self, directory: Path, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        with self.stdout_path.open("wb") as stdout, self.stderr_path.open("wb") as stderr:
            return subprocess.Popen(
                self.command,
                cwd=directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal's number; None while it runs."""
        return self._process.poll()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def stdout(self) -> str:
        """All of its standard output so far."""
        return self.stdout_path.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """All of its standard error so far."""
        return self.stderr_path.read_text(errors="replace")

    def wait(self, *, deadline_s: float = 30) -> int:
        """Wait for it to end, and return its exit code."""
        __tracebackhide__ = True
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline_s:g} s: {self}") from None

    def wait_for_output(self, expected: str, *, deadline_s: float = 30) -> None:
        """Wait until `expected` is in its output or errors; fail at once if it ends without that."""
        __tracebackhide__ = True

        def said_or_ended() -> bool:
            ended = not self.is_running
            return expected in self.stdout + self.stderr or ended

        eventually(said_or_ended, deadline_s=deadline_s, what=f"{expected!r} in the output of {self}")
        if expected not in self.stdout + self.stderr:
            raise AssertionError(f"ended with {self.returncode} and never said {expected!r}: {self}")

    def terminate(self) -> None:
        """SIGTERM this process alone: a parent tells its children."""
        self._process.send_signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """SIGINT the whole group, as Ctrl-C in a terminal does."""
        self._signal_group(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL this process alone, and wait for its end."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP the whole group."""
        self._signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT the whole group."""
        self._signal_group(signal.SIGCONT)

    def end(self) -> None:
        """SIGKILL every remaining process of the group, frozen or not, orphans included."""
        self._signal_group(signal.SIGKILL)
        self._process.wait()
        guardian().forget(self.pid)

    def report(self) -> str:
        """Return a report: the command, its exit, and the end of its output."""
        fate = "still running" if self.is_running else f"ended with {self.returncode}"
        said = ((path.suffix[1:], path.read_text(errors="replace")) for path in (self.stdout_path, self.stderr_path))
        parts = [f"{name} of {self.pid}:\n{text[-_TAIL_CHARACTERS:].rstrip()}" for name, text in said if text]
        return "\n".join([f"{self} {fate}", *parts])

    def __str__(self) -> str:
        return f"process {self.pid} ({' '.join(self.command)})"

    def _signal_group(self, number: signal.Signals) -> None:
        if not self.is_running and Path(f"/proc/{self.pid}").exists():
            return  # it has ended, and another process has its id now
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Spawner:
    """Starts a test's processes: `spawn("outbox", "relay", env={"DATABASE_URL": database.url})`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: list[Process] = []

    def __call__(self, *command: str | Path, env: Mapping[str, str] | None = None, is_anew: bool = False) -> Process:
        """Start `command` in the test's directory, with `env` on top of the test's environment.

        "python" is the interpreter that runs the tests, and any other plain name is first looked for
        among the scripts installed beside it. An `outbox` whose imports or interpreter are under test is started anew.
        """
        process = Process(
            _resolved(command),
            self._directory,
            name=f"process-{len(self._processes)}",
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            is_forked=command[0] == "outbox" and not is_anew,
        )
        self._processes.append(process)
        return process

    def end_all(self) -> None:
        for process in self._processes:
            process.end()

    @property
    def said(self) -> str:
        """Everything that all processes wrote."""
        return "\n".join(process.stdout + process.stderr for process in self._processes)

    def report(self) -> str:
        return "\n\n".join(process.report() for process in self._processes)


def _resolved(command: tuple[str | Path, ...]) -> list[str]:
    program, *arguments = map(str, command)
    installed = Path(sys.executable).with_name(program)
    if program == "python":
        program = sys.executable
    elif installed.exists():
        program = str(installed)
    return [program, *arguments]
