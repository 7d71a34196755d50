"""A fleet of relays that share a database and record what they send."""

import json
import os
import signal
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg

from support import nursery
from support.guardian import guardian
from support.recording import Record, Send
from support.waiting import await_standstill, eventually

# Which living relay owns which shard. A relay's id is host-pid-random.
_OWNERS = """
SELECT s.shard::int, r.id, r.backend_pid FROM outbox_shard AS s JOIN outbox_relay AS r ON r.number = s.relay
JOIN pg_locks AS l ON l.pid = r.backend_pid AND l.objid::bigint = r.presence
WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_OWNING = "FROM pg_stat_activity WHERE application_name LIKE 'outbox relay%' AND datname = current_database()"


class Relay:
    """One relay's process."""

    def __init__(self, pid: int, output: Path) -> None:
        self.pid = pid
        self._output = output
        self._process = psutil.Process(pid)
        guardian().watch(pid)

    @property
    def is_running(self) -> bool:
        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    @property
    def rss_bytes(self) -> int:
        return int(self._process.memory_info().rss)

    def kill(self) -> None:
        """Send SIGKILL, and wait for its end."""
        self._signal(signal.SIGKILL)
        self.wait()

    def terminate(self) -> None:
        """Send SIGTERM for an orderly end; the test waits for that."""
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        """Send SIGSTOP, and wait until it is stopped."""
        self._signal(signal.SIGSTOP)
        await_standstill(self.pid)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def wait(self, *, deadline_s: float = 40) -> None:
        """Wait for its end."""
        __tracebackhide__ = True
        eventually(lambda: not self.is_running, deadline_s=deadline_s, what=f"relay {self.pid} ends")
        guardian().forget(self.pid)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(psutil.NoSuchProcess):  # it checks that the id is still that of this process
            self._process.send_signal(number)


class Fleet:
    """Starts relays on one database.

    They have a destination `log` (an async listener) unless told otherwise; `hold_path` and `fail_path` are files that,
    while they exist, keep its attempts from ending and make them fail.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.record_path = directory / "sends"
        self.hold_path = directory / "hold"
        self.fail_path = directory / "fail"
        self.relays: list[Relay] = []
        self._record = Record(self.record_path)
        self.env: dict[str, str] = {}

    def configure(
        self,
        database_url: str,
        *,
        destinations: Mapping[str, Mapping[str, object]] | None = None,
        work_s: float = 0.0,
        **settings: object,
    ) -> None:
        """Write the settings for relays that are started from now on."""
        wanted = destinations or {"log": {"listener": "support.recording:record"}}
        lines = [f"{name} = {json.dumps(value)}" for name, value in {"health_port": 0, **settings}.items()]
        for name, options in wanted.items():
            lines.append(f"[destinations.{name}]")
            lines += [f"{option} = {json.dumps(value)}" for option, value in {"kind": "listener", **options}.items()]
        (self.directory / "outbox.toml").write_text("\n".join(lines) + "\n")
        self.env = {
            "DATABASE_URL": database_url,
            "PYTHONPATH": nursery.PATH,
            "PYTHONUNBUFFERED": "1",
            "RECORD_PATH": str(self.record_path),
            "RECORD_HOLD_PATH": str(self.hold_path),
            "RECORD_FAIL_PATH": str(self.fail_path),
            "RECORD_WORK_S": str(work_s),
        }

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> Relay:
        """Fork an `outbox relay`."""
        output = self.directory / f"relay-{len(self.relays)}.output"
        environment = {**os.environ, **self.env, **(env or {})}
        relay = Relay(nursery.fork(["relay", *arguments], environment, self.directory, output).pid, output)
        self.relays.append(relay)
        return relay

    def sends(self) -> list[Send]:
        """Return every attempt so far."""
        return self._record.sends()

    def end_all(self) -> None:
        for relay in self.relays:
            relay.kill()

    def report(self) -> str:
        return "\n\n".join(f"relay {relay.pid}:\n{relay.output[-6000:]}" for relay in self.relays if relay.output)


def owners(url: str) -> dict[int, int]:
    """Return shard → process id of the relay that holds it, by PostgreSQL's lock table."""
    return {shard: int(relay_id.rsplit("-", 2)[1]) for shard, relay_id, _ in _owner_rows(url)}


def shard_counts(url: str) -> Counter[int]:
    """Return process id → how many shards it holds."""
    return Counter(owners(url).values())


def backend_of(url: str, relay: Relay) -> int:
    """Return the server process at the other end of a relay's owning connection."""
    return next(backend for _, relay_id, backend in _owner_rows(url) if int(relay_id.rsplit("-", 2)[1]) == relay.pid)


def end_owning_sessions(url: str) -> None:
    """End the owning connections of all relays, and wait until the server has ended what they had requested."""
    with psycopg.connect(url, autocommit=True, connect_timeout=30) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) {_OWNING}")
        eventually(lambda: connection.execute(f"SELECT count(*) {_OWNING}").fetchone() == (0,))


def _owner_rows(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True, connect_timeout=30) as connection:
        rows = connection.execute(_OWNERS).fetchall()
    shards = [row[0] for row in rows]
    assert len(shards) == len(set(shards)), f"a shard is held twice: {sorted(rows)}"
    return rows
