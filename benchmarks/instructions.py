"""Count the server's instructions per message, a number that other load on the machine does not change.

    python -m benchmarks.instructions

Needs `valgrind`. A server without a postmaster (`postgres --single`) executes a prepared INSERT a number of times,
each in its own transaction, and then more times: the difference is the cost of one. `OUTBOX_TEST_POSTGRES_BIN` selects
another PostgreSQL than the one that the tests install.

Source: https://valgrind.org/docs/manual/cl-manual.html
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.producing import DATA, TABLES
from relay.databases.migrations import upgrade

sys.path.append(str(Path(__file__).parent.parent / "tests"))

FEW, MORE = 50, 250
FEW_ROWS, MORE_ROWS = 1_000, 3_000
BODY = json.dumps(DATA)
OURS = (
    "PREPARE p (uuid, text, text, json) AS INSERT INTO outbox_message (id, type, source, data) VALUES ($1, $2, $3, $4)",
    "EXECUTE p ('{id}', 'bench.produced', 'bench', '{body}')",
)
PLAIN = (
    "PREPARE p (uuid, text, jsonb) AS INSERT INTO plain_outbox (id, type, payload) VALUES ($1, $2, $3)",
    "EXECUTE p ('{id}', 'bench.produced', '{body}')",
)
ROWS = (
    "INSERT INTO outbox_message (id, type, source, data) "
    "SELECT gen_random_uuid(), 'bench.produced', 'bench', '{body}' FROM generate_series(1, {count})"
)


def main() -> None:
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed: apt-get install valgrind")
    from support.postgres import PostgresServer

    server = PostgresServer({"jit": "off", "autovacuum": "off"})
    server.start()
    try:
        upgrade(server.url(), only="outbox")
        with server.connect() as connection:
            for statement in TABLES:
                connection.execute(statement)
        server.stop()
        for name, (prepare, execute) in {"one message": OURS, "one of the plainest table": PLAIN}.items():
            few, more = (_count(server, _singles(prepare, execute, times)) for times in (FEW, MORE))
            print(f"{name}: {(more - few) // (MORE - FEW):,} instructions")
        few, more = (_count(server, ROWS.format(count=count, body=BODY)) for count in (FEW_ROWS, MORE_ROWS))
        print(f"a row of many: {(more - few) // (MORE_ROWS - FEW_ROWS):,} instructions")
    finally:
        server.remove()


def _singles(prepare: str, execute: str, times: int) -> str:
    ids = (UUID(int=times << 64 | number) for number in range(times))
    return "\n".join(
        ["SET plan_cache_mode = force_generic_plan", prepare, *(execute.format(id=each, body=BODY) for each in ids)]
    )


def _count(server: Any, statements: str) -> int:
    """Return the instructions of a whole session with these statements, one per line."""
    from support.postgres import as_account

    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
         server.bin / "postgres", "--single", "-D", server.data, "-c", "jit=off", "-c", "fsync=off", "postgres"],
        input=f"{statements}\n", text=True, capture_output=True, cwd=server.directory, **as_account(),
    )  # fmt: skip
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None or "ERROR" in done.stderr:
        raise SystemExit(f"that did not work:\n{done.stderr[-2000:]}")
    return int(found[1])


if __name__ == "__main__":
    main()
