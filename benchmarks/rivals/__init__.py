"""Install, fill and run the rivals, in an environment separate from ours.

A rival's worker is a process (`NAME_worker.py`, `graphile_worker.mjs`) in the configuration that suits it best; the
top of its file says what was chosen. Each has one table of 200-byte messages in its own database.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PAYLOAD = "jsonb_build_object('pad', repeat('x', 190))"
BYTES = f"convert_to({PAYLOAD}::text, 'UTF8')"


@dataclass(frozen=True)
class Rival:
    """One rival.

    Args:
        name: As its registry knows it, with the version that is measured.
        package: What pip or npm installs.
        worker: The file that runs it.
        insert: SQL that puts ``{count}`` ready messages into its table.
        share: The share of the messages that it drains: a share is enough to show a slow rival's rate, and no rival is
            slower with fewer messages.
        is_claiming: Whether line 9 measures its claims.
    """

    name: str
    package: str
    worker: str
    insert: str
    share: float = 1.0
    is_claiming: bool = False

    @property
    def runs_on_node(self) -> bool:
        return self.worker.endswith(".mjs")


RIVALS = (
    Rival(
        "graphile-worker 0.17.3",
        "graphile-worker@0.17.3",
        "graphile_worker.mjs",
        "INSERT INTO graphile_worker._private_jobs (task_id, payload) SELECT t.id, "
        f"{PAYLOAD}::json FROM graphile_worker._private_tasks AS t, generate_series(1, {{count}}) "
        "WHERE t.identifier = 'noop'",
        is_claiming=True,
    ),
    Rival(
        "txoutbox 0.2.2",
        "txoutbox[postgres]==0.2.2",
        "txoutbox_worker.py",
        f"INSERT INTO outbox (topic, payload) SELECT 'noop', {BYTES} FROM generate_series(1, {{count}})",
        is_claiming=True,
    ),
    Rival(
        "pgqueuer 1.6.0",
        "pgqueuer[asyncpg]==1.6.0",
        "pgqueuer_worker.py",
        "INSERT INTO pgqueuer (priority, entrypoint, payload, status) "
        f"SELECT 0, 'noop', {BYTES}, 'queued' FROM generate_series(1, {{count}})",
        share=0.5,
    ),
    Rival(
        "faststream-outbox 0.19.0",
        "faststream-outbox[asyncpg]==0.19.0",
        "faststream_outbox_worker.py",
        "INSERT INTO outbox (queue, payload, headers) "
        f"""SELECT 'noop', {BYTES}, '{{{{"content-type": "application/json", "correlation_id": "c"}}}}' """
        "FROM generate_series(1, {count})",
        share=0.2,
    ),
    Rival(
        "procrastinate 3.10.0",
        "procrastinate==3.10.0",
        "procrastinate_worker.py",
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args) "
        f"SELECT 'default', 'noop', {PAYLOAD} FROM generate_series(1, {{count}})",
        share=0.02,
    ),
)


class Missing(Exception):
    """A rival cannot be run here; the message says why."""


class Environment:
    """Where the rivals are installed: a virtual environment and an npm folder, made once and kept.

    Args:
        folder: By default ``neverlost-rivals`` in the user's cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        self.folder = folder or cache / "neverlost-rivals"

    def install(self, rival: Rival) -> None:
        """Install a rival, unless it is installed.

        Raises:
            Missing: It cannot be installed; the message is the last line of the reason.
        """
        stamp = self.folder / f"{rival.package.replace('/', '_')}.installed"
        if stamp.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if rival.runs_on_node:
            if not (shutil.which("node") and shutil.which("npm")):
                raise Missing("node and npm are not installed")
            _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", self.folder, rival.package])
        else:
            if not self._python.exists():
                _run([sys.executable, "-m", "venv", self.folder / "venv"])
            _run([self._python, "-m", "pip", "install", "-q", rival.package, "uvloop", "psycopg[binary]"])
        stamp.touch()

    def command(self, rival: Rival, *arguments: object) -> list[str]:
        """Return the command that runs its worker in `folder`."""
        program = "node" if rival.runs_on_node else str(self._python)
        return [program, str(HERE / rival.worker), *map(str, arguments)]

    @property
    def _python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing((done.stderr.strip() or "it failed").splitlines()[-1])
