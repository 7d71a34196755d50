"""The dashboard's response times over a large outbox, and a relay's rate while every page is requested in a loop.

    python -m benchmarks.pages sqlite:////tmp/pages.db
    python -m benchmarks.pages postgresql://postgres@127.0.0.1/pages --rounds 3

A database without tables is filled first: a million messages that wait, a million settled ones, 100,000 dead letters of
50 causes. A filled database is used as it is. *first*: the first request of a page in a fresh process; *later*: the
median of the later requests, which are more than a second apart, because an answer is kept for a second; *CPU*: the
processor time of the dashboard for one of these. The exit code is 1 if a page takes longer than 300 ms.

The relay delivers to a listener that takes 20 ms, so its rate is steady if nothing holds it up. Phases take turns:
alone, beside a busy loop (a process that uses as much processor time and sends no requests), beside the requests.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path

import httpx
import sqlalchemy as sa

from benchmarks.running import ROOT, ours, relay_at_work, say
from outbox.errors import OutboxError
from relay.databases.database import Database
from relay.databases.migrations import upgrade

WANTED_MS = 300
TOKEN = "a token of this benchmark only"
PHASE_S = 10.0
SAID = {  # expressions that differ between the databases: a new id, and an instant some seconds ago
    "postgresql": {"id": "outbox_uuid7()", "died": "now() - position * interval '1 second'"},
    "sqlite": {"id": "printf('%08x-%04x-7%03x-8%03x-%012x', 26999000, n >> 12, n & 4095, random() & 4095, "
               "random() & (1 << 48) - 1)",
               "died": "datetime('now', -position || ' seconds')"},
}  # fmt: skip
SERIES = "WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {count}) "
DATA = f"""'{{"pad": "{"x" * 190}"}}'"""
FILL = (
    "INSERT INTO outbox_message (id, type, source, data, subject, state) {tenth} "
    "SELECT {id}, 'bench.' || (n % 10), 'bench', {data}, 'dead-' || n, 'held' FROM series",
    "INSERT INTO outbox_delivery (message_id, destination, shard, position, state, attempts, reason, fingerprint, "
    "changed_at) SELECT id, 'listener', shard, position, 'dead', 20, 'rejected: cause ' || (position % 50), "
    "'cause' || (position % 50), {died} "
    "FROM outbox_message",
    "INSERT INTO outbox_message (id, type, source, data, subject, ordering_key) {all} "
    "SELECT {id}, 'bench.' || (n % 10), 'bench', {data}, 's-' || n, 'k-' || (n % 100000) FROM series",
    "INSERT INTO outbox_history (id, position, type, source, data, headers, subject, ordering_key, created_at, "
    "attempts, registered) {all} SELECT {id}, n, 'bench.' || (n % 10), 'bench', {data}, '{{}}', 's-' || n, "
    "'k-' || (n % 100000), CURRENT_TIMESTAMP, 1, 1 FROM series",
    "ANALYZE",
)
PAGES = (
    "/", "/overview.json", "/series.json?span=1h", "/series.json?span=30d", "/audit", "/content", "/destinations",
    "/destinations/listener", "/messages", "/messages?q=type:bench.3", "/messages?q=type:nowhere",
    "/messages?q=key:k-7", "/messages?q=key:nowhere", "/messages?q=key:k-7 state:delivered", "/messages?q=subject:s-7",
    "/messages?q=subject:s-7 state:delivered", "/messages?q=subject:nowhere", "/messages?q=destination:listener",
    "/messages?q=destination:nowhere", "/messages?q=destination:listener state:dead", "/messages?q=state:delivered",
    "/messages?q=state:dead", "/messages?q=state:dead type:bench.3", "/messages?q=since:1h", "/messages/{waiting}",
    "/messages/{dead}", "/messages/{settled}", "/dead", "/dead?type=bench.3", "/dead?type=bench.*",
    "/dead?destination=listener", "/dead?because=cause 7", "/dead?cause=cause7", "/dead/retry?all=true",
    "/dead/retry?type=bench.3", "/dead/discard?because=cause 7", "/dead/edit?id={dead}", "/replay",
    "/replay?to=listener", "/replay?to=listener&type=bench.3&since=1h",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of an empty database, or of one that an earlier run has filled")
    parser.add_argument("--messages", type=int, default=1_000_000, help="how many wait, and how many are settled")
    parser.add_argument("--rounds", type=int, default=5, help="how often each page and each phase is repeated")
    parser.add_argument("--only", choices=("pages", "relay"))
    options = parser.parse_args()
    try:
        pages = _filled(options.url, options.messages)
    except (OutboxError, sa.exc.OperationalError) as error:
        parser.error(f"this database cannot be used: {getattr(error, 'orig', error)}")
    worst_ms = 0.0
    if options.only != "relay":
        worst_ms = _measure_pages(options.url, pages, options.rounds)
    if options.only != "pages":
        _measure_relay(options.url, pages, options.rounds)
    return 1 if worst_ms > WANTED_MS else 0


def _filled(url: str, messages: int) -> list[str]:
    """Fill an empty database; return the addresses of the pages."""
    engine = Database.parse(url).engine()
    if upgrade(url):
        say("filling it")
        ours("drain", url)  # this registers the destination
        words = {**SAID[engine.dialect.name], "data": DATA}
        words |= {"all": SERIES.format(count=messages), "tenth": SERIES.format(count=messages // 10)}
        with engine.begin() as connection:
            for statement in FILL:
                connection.execute(sa.text(statement.format(**words)))
    of = {"waiting": "outbox_message WHERE state = 'ready'", "dead": "outbox_message WHERE state = 'held'"}
    of["settled"] = "outbox_history"
    with engine.connect() as connection:
        ids = {name: connection.scalar(sa.text(f"SELECT id FROM {rows} LIMIT 1")) for name, rows in of.items()}
    engine.dispose()
    return [page.format(**ids) for page in PAGES]


# ---------------------------------------------------------------------------------------------------------- pages


def _measure_pages(url: str, pages: list[str], rounds: int) -> float:
    """Print the times of each page; return the longest one, in milliseconds."""
    with _dashboard(url) as (client, pid):
        first_ms = {page: _request(client, page) for page in pages}
        later_ms: dict[str, list[float]] = {page: [] for page in pages}
        cpu_ms: dict[str, list[float]] = {page: [] for page in pages}
        for _ in range(rounds):
            time.sleep(1.1)
            for page in pages:
                before_ms = _cpu_ms(pid)
                later_ms[page].append(_request(client, page))
                cpu_ms[page].append(_cpu_ms(pid) - before_ms)
    print("| page | first, ms | later, ms | CPU, ms |\n|---|---|---|---|")
    for page in sorted(pages, key=lambda page: -max(first_ms[page], statistics.median(later_ms[page]))):
        later, cpu = statistics.median(later_ms[page]), statistics.mean(cpu_ms[page])
        print(f"| `{page}` | {first_ms[page]:.0f} | {later:.0f} | {cpu:.0f} |")
    return max(*first_ms.values(), *(statistics.median(each) for each in later_ms.values()))


def _request(client: httpx.Client, page: str) -> float:
    began_at = time.perf_counter()
    answer = client.get(page)
    took_ms = (time.perf_counter() - began_at) * 1000
    answer.raise_for_status()
    return took_ms


def _cpu_ms(pid: int) -> float:
    """Return the processor time of a process so far: Linux counts it in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


@contextmanager
def _dashboard(url: str) -> Iterator[tuple[httpx.Client, int]]:
    """Run a dashboard in a separate process; yield a client and the process id."""
    environment = os.environ | {"OUTBOX_DATABASE_URL": url, "OUTBOX_DASHBOARD_TOKEN": TOKEN}
    command = [sys.executable, "-m", "outbox_cli", "dashboard", "--allow-changes", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(word for line in process.stderr for word in line.split() if word.startswith("http://"))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
            client.get("/login")  # the dashboard listens before it is ready
            yield client, process.pid
    finally:
        process.terminate()
        process.wait()


# ---------------------------------------------------------------------------------------------------------- relay


def _measure_relay(url: str, pages: list[str], rounds: int) -> None:
    """Print the rate of a relay, and its longest pause: alone, beside a busy loop, and while pages are requested."""
    with _dashboard(url) as (client, _), tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "calls"
        beside: dict[str, Callable[[], object]] = {
            "alone": nullcontext, "a busy loop": _busy, "every page in a loop": lambda: _requesting(client, pages)
        }  # fmt: skip
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in beside}
        with relay_at_work(url, "--listener", "steady", "--record", record):
            time.sleep(PHASE_S)
            for _ in range(rounds):
                for name, other in beside.items():
                    with other():  # type: ignore[attr-defined]
                        time.sleep(1)
                        found[name].append(_rate(record))
    print("| beside the relay | deliveries/s | longest pause, ms |\n|---|---|---|")
    for name, phases in found.items():
        rate, pause_ms = (statistics.median(each) for each in zip(*phases, strict=True))
        print(f"| {name} | {rate:,.0f} | {pause_ms:.0f} |")


def _rate(record: Path) -> tuple[float, float]:
    """Return the rate of a phase, and the longest time without a delivery in milliseconds."""
    begin = record.stat().st_size
    time.sleep(PHASE_S)
    lines = record.read_bytes()[begin:].splitlines()[1:-1]  # the first and the last may be half written
    at = [float(line.split()[-1]) for line in lines]
    return len(at) / PHASE_S, max(b - a for a, b in pairwise(at)) * 1000


@contextmanager
def _requesting(client: httpx.Client, pages: list[str]) -> Iterator[None]:
    stopped = threading.Event()

    def request() -> None:
        while not stopped.is_set():
            for page in pages:
                if not stopped.is_set():
                    _request(client, page)

    with ThreadPoolExecutor(1) as executor:
        requests = executor.submit(request)
        yield
        stopped.set()
        requests.result()


def _spin() -> None:
    while True:
        pass


@contextmanager
def _busy() -> Iterator[None]:
    process = multiprocessing.Process(target=_spin, daemon=True)
    process.start()
    yield
    process.kill()


if __name__ == "__main__":
    sys.exit(main())
