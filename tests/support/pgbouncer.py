"""A real PgBouncer in front of a PostgreSQL, from Debian's package `pgbouncer`."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Literal

import psycopg
import pytest
from sqlalchemy import make_url

from support.guardian import guardian
from support.ports import free_port
from support.postgres import as_account, give_to_account

PROGRAM = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

PoolMode = Literal["session", "transaction"]

# auth_type any: every client is let in, as the user that the server's line names.
_CONFIG = """
[databases]
* = host=127.0.0.1 port={server_port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 20
max_client_conn = 200
ignore_startup_parameters = extra_float_digits
"""


class PgBouncer:
    """A pooler in front of the server that `url` names.

    Args:
        url: Of a database on the server.
        mode: When a client returns its session: after a transaction, or when it disconnects.
    """

    def __init__(self, url: str, mode: PoolMode) -> None:
        if PROGRAM is None:
            pytest.skip("there is no PgBouncer: install the package `pgbouncer`")
        self._url = make_url(url)
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="outbox-pgbouncer-"))
        config = self._directory / "pgbouncer.ini"
        config.write_text(
            _CONFIG.format(server_port=self._url.port, user=self._url.username, port=self.port, mode=mode)
        )
        for path in (self._directory, config):
            give_to_account(path)  # PgBouncer refuses to run as root
        self._log = self._directory / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [PROGRAM, config],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **as_account(),
            )
        guardian().watch(self._process.pid)
        self._wait_until_ready()

    @property
    def url(self) -> str:
        """The same database, through the pooler."""
        return self._url.set(port=self.port).render_as_string(hide_password=False)

    def remove(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        guardian().forget(self._process.pid)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=30).close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"PgBouncer did not start: {error}\n{self._log.read_text()}") from None
                time.sleep(0.01)
            else:
                return
