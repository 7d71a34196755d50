"""Count a relay's instructions per message of a drain, on the event loop and on the owning thread.

    python -m benchmarks.relay_instructions [--database-url URL]

Needs `valgrind`. Other load on the machine changes these numbers by a few per cent only. Under `valgrind` a relay is
about 50 times as slow, so the times that bound its turns are 50 times as long. The garbage collector is off, because it
runs on one thread or the other by chance.

Source: https://valgrind.org/docs/manual/cl-manual.html
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import structlog

from benchmarks.postgres import Scratch, database, settle_down
from benchmarks.running import ROOT, insert
from outbox import Message
from outbox_cli.commands.run.relay import tune_interpreter
from relay.databases.migrations import upgrade
from relay.delivery import workers
from relay.destinations.listener.settings import ListenerSettings
from relay.relay import Relay
from relay.settings import Settings

MESSAGES = 8000
SLOWER = 50
NO_DEADLINE: dict[str, Any] = {"timeout_s": None}
SCENARIOS: dict[str, tuple[str, list[dict[str, Any]]]] = {  # the ordering key, and the options of each destination
    "an async listener": ("NULL", [NO_DEADLINE]),
    "with a deadline": ("NULL", [{}]),
    "two destinations": ("NULL", [NO_DEADLINE, NO_DEADLINE]),
    "a key for each message": ("'k' || n", [NO_DEADLINE]),
    "one hot key": ("'k'", [NO_DEADLINE]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", help="a server where this role may create databases; by default one is made")
    parser.add_argument("--drain", metavar="SCENARIO", choices=SCENARIOS, help="drain that database (under valgrind)")
    options = parser.parse_args()
    if options.drain is not None:
        asyncio.run(_drain(options.database_url, options.drain))
        return
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed: apt-get install valgrind")
    with database(options.database_url) as url, Scratch(url) as scratch:
        for scenario, (key, _) in SCENARIOS.items():
            backlog = scratch.create("backlog")
            upgrade(backlog, only="outbox")
            insert(backlog, MESSAGES, key)
            settle_down(backlog)
            loop, owner = _count(backlog, scenario)
            print(f"{scenario}: {loop:,} on the event loop, {owner:,} on the owning thread", flush=True)


def _count(url: str, scenario: str) -> tuple[int, int]:
    """Return the instructions per message: of the main thread, and of that other thread which executes the most."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes",
             f"--callgrind-out-file={folder}/threads", sys.executable, "-m", "benchmarks.relay_instructions",
             "--database-url", url, "--drain", scenario],
            cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "0"}, check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        loop, *others = [_total(file) for file in sorted(Path(folder).glob("threads-*"))]
    return loop // MESSAGES, max(others) // MESSAGES


def _total(file: Path) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith("totals:"))


async def _drain(url: str, scenario: str) -> None:
    async def listener(message: Message) -> None: ...

    logging.disable(logging.WARNING)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    tune_interpreter()
    gc.disable()
    sys.setswitchinterval(SLOWER * sys.getswitchinterval())
    workers.TURN_S *= SLOWER
    _, destinations = SCENARIOS[scenario]
    named = {f"listener-{n}": ListenerSettings(listener=listener, **each) for n, each in enumerate(destinations)}
    async with Relay(Settings(database_url=url, destinations=named, lease_s=60, health_port=0)) as relay:
        _instrument("on")
        found = await relay.drain(look=False)
        _instrument("off")
    assert found.delivered == MESSAGES


def _instrument(switch: str) -> None:
    """Have callgrind count from here on, or not any more."""
    subprocess.run(["callgrind_control", "-i", switch, str(os.getpid())], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
