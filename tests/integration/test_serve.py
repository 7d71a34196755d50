"""`outbox serve` as a process, called as the integration guide calls the API."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import hypothesis
import psutil
import pytest
import schemathesis
from hypothesis import given
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.commands import Run
from support.databases import Database
from support.processes import Process, Spawner
from support.receiving import extracted
from support.waiting import eventually

SECRET = "your-secret-here-change-in-production"
OLD = "the-secret-of-last-quarter-0123456789"
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
PATH = "/extraction/internal/completed"
BODY = {"contentId": "test-content-id"}

Serve = Callable[..., "Served"]


class Served:
    """A running `outbox serve`."""

    def __init__(self, process: Process) -> None:
        self.process = process
        process.wait_for_output("receiving on ", deadline_s=30)
        found = re.search(r"receiving on (http://\S+)", process.stderr)
        assert found is not None
        self.url = found[1]

    def post(self, secret: str = SECRET, **options: object) -> httpx.Response:
        with httpx.Client(trust_env=False, verify=False, timeout=30) as client:
            return client.post(self.url + PATH, headers={"X-Internal-Secret": secret}, json=BODY, **options)  # type: ignore[arg-type]

    @property
    def records(self) -> list[dict[str, object]]:
        """The audit so far."""
        lines = [json.loads(line) for line in self.process.stderr.splitlines() if line.startswith("{")]
        return [line for line in lines if line["logger"] == "audit"]


@pytest.fixture
def serve(spawn: Spawner) -> Serve:
    def start(database: Database, *flags: str, **env: str) -> Served:
        given = {"DATABASE_URL": database.url, "INTERNAL_API_SECRET": SECRET} | env
        return Served(spawn("outbox", "serve", "--port", "0", *flags, env=given))

    return start


def baselines(database: Database) -> list[str]:
    return sorted(row[0] for row in database.rows("SELECT content_id FROM topic_graphs WHERE type = 'BASELINE'"))


def logged(served: Served, text: str) -> None:
    eventually(lambda: text in served.process.stderr)


# -------------------------------------------------------------------- as the guide does


def test_the_guides_curl_gets_the_expected_response_and_its_log_lines(database: Database, serve: Serve) -> None:
    extracted(database, "test-content-id")
    served = serve(database)
    curl = ["curl", "-sS", "-X", "POST", served.url + PATH, "-H", "Content-Type: application/json"]
    curl += ["-H", f"X-Internal-Secret: {SECRET}", "-d", '{"contentId": "test-content-id"}']
    answer = subprocess.run(curl, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == {"success": True}
    logged(served, "Extraction completed for content: test-content-id")
    logged(served, "Auto-building baseline for content: test-content-id")
    assert database.rows("SELECT * FROM topic_graphs WHERE type = 'BASELINE' AND content_id = 'test-content-id'")


GUIDES_WORKER = """
import requests
import os

def notify_extraction_complete(content_id: str):
    \"\"\"Notify API that extraction is complete\"\"\"
    api_url = os.getenv('API_URL', 'http://localhost:3000')
    internal_secret = os.getenv('INTERNAL_API_SECRET')

    try:
        response = requests.post(
            f'{api_url}/extraction/internal/completed',
            json={'contentId': content_id},
            headers={'X-Internal-Secret': internal_secret},
            timeout=5
        )
        response.raise_for_status()
        print(f"✅ Notified API of extraction completion for {content_id}")
    except Exception as e:
        print(f"⚠️ Failed to notify API: {e}")

notify_extraction_complete("test-content-id")
"""


def test_the_guides_worker_notifies_us_unmodified(sqlite_database: Database, serve: Serve, tmp_path: Path) -> None:
    extracted(sqlite_database, "test-content-id")
    served = serve(sqlite_database)
    (tmp_path / "worker.py").write_text(GUIDES_WORKER, encoding="utf-8")
    env = os.environ | {"API_URL": served.url, "INTERNAL_API_SECRET": SECRET, "PYTHONIOENCODING": "utf-8"}
    worker = subprocess.run([sys.executable, "worker.py"], env=env, capture_output=True, encoding="utf-8", check=True)
    assert worker.stdout == "✅ Notified API of extraction completion for test-content-id\n"
    assert baselines(sqlite_database) == ["test-content-id"]


def test_the_guides_guard_says_nothing_but_unauthorized(sqlite_database: Database, serve: Serve) -> None:
    served = serve(sqlite_database)
    for secret in ("", "wrong", SECRET.upper()):
        response = served.post(secret)
        assert response.status_code == 401
        found = response.json()
        assert (found["statusCode"], found["message"], found["error"]) == (
            401,
            "Invalid internal secret",
            "Unauthorized",
        )


# --------------------------------------------------------------------------- starting


@pytest.mark.parametrize(("secret", "says"), [("", "set INTERNAL_API_SECRET"), ("short", "shorter than 32 characters")])
def test_it_does_not_start_without_a_strong_secret(
    sqlite_database: Database, spawn: Spawner, secret: str, says: str
) -> None:
    env = {"DATABASE_URL": sqlite_database.url, "INTERNAL_API_SECRET": secret}
    process = spawn("outbox", "serve", "--port", "0", env=env)
    assert process.wait() == 3
    assert says in process.stderr
    assert "Traceback" not in process.stderr


def test_a_weak_secret_can_be_allowed(sqlite_database: Database, serve: Serve) -> None:
    extracted(sqlite_database, "test-content-id")
    assert serve(sqlite_database, "--allow-weak-secret", INTERNAL_API_SECRET="short").post("short").status_code == 200


@pytest.mark.parametrize(
    ("flags", "env", "says"),
    [
        ([], {"DATABASE_URL": "sqlite:///nowhere.db"}, "outbox db upgrade"),
        (["--handler", "no.such:thing"], {}, "cannot be loaded"),
    ],
)
def test_what_cannot_work_is_reported_at_the_start(
    sqlite_database: Database, spawn: Spawner, flags: list[str], env: Mapping[str, str], says: str
) -> None:
    given = {"DATABASE_URL": sqlite_database.url, "INTERNAL_API_SECRET": SECRET, **env}
    process = spawn("outbox", "serve", *flags, env=given)
    assert process.wait() == 3
    assert says in process.stderr


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [("--handler", "nothing", "module:callable"), ("--handler-timeout", "5q", '"15s", "5m"'), ("--host", "", "--host")],
)
def test_a_flag_that_cannot_be_understood_is_wrong_usage(
    sqlite_database: Database, run: Run, flag: str, value: str, says: str
) -> None:
    ended = run("serve", flag, value, url=sqlite_database.url, INTERNAL_API_SECRET=SECRET)
    assert ended.returncode == 2
    assert flag in ended.stderr
    assert says in ended.stderr


def test_a_port_that_is_taken_is_reported(sqlite_database: Database, spawn: Spawner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        env = {"DATABASE_URL": sqlite_database.url, "INTERNAL_API_SECRET": SECRET}
        process = spawn("outbox", "serve", "--port", port, env=env)
        assert process.wait() == 3
    assert f"cannot listen on 127.0.0.1 port {port}" in process.stderr


def test_it_listens_on_the_loopback_address_only(sqlite_database: Database, serve: Serve) -> None:
    served = serve(sqlite_database)
    listening = [c.laddr for c in psutil.Process(served.process.pid).net_connections() if c.status == "LISTEN"]
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_settings_come_from_the_file_and_flags_win(sqlite_database: Database, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "outbox.toml").write_text('[serve]\nrequire_signature = true\nport = 1\nsecret_env = "OTHER"\n')
    served = serve(sqlite_database, OTHER=OLD)
    assert served.post(SECRET).json()["message"] == "Invalid internal secret"
    assert served.post(OLD).json()["message"] == "Invalid signature"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('secret_env = "OTHER"', "set OTHER to the output"),
        ('signing_secret_env = "API_SIGNING_SECRET"', "signing_secret_env names API_SIGNING_SECRET, but neither"),
    ],
)
def test_a_secret_that_is_named_and_not_set_is_asked_for_by_its_name(
    sqlite_database: Database, run: Run, tmp_path: Path, setting: str, says: str
) -> None:
    (tmp_path / "outbox.toml").write_text(f"[serve]\n{setting}\n")
    ended = run("serve", url=sqlite_database.url, INTERNAL_API_SECRET=SECRET)
    assert ended.returncode == 3
    assert says in ended.stderr


def test_a_misspelt_setting_of_it_is_found(sqlite_database: Database, spawn: Spawner, tmp_path: Path) -> None:
    (tmp_path / "outbox.toml").write_text("[serve]\nprot = 1\n")
    process = spawn("outbox", "config", "check", env={"DATABASE_URL": sqlite_database.url})
    assert process.wait() == 3
    assert "did you mean port?" in process.stderr


# --------------------------------------------------------------------------- stopping

SLOW_HANDLER = """
import pathlib, time

def handle(message):
    pathlib.Path("started").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_orderly_stop_lets_what_is_under_way_finish(
    sqlite_database: Database, serve: Serve, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "slow.py").write_text(SLOW_HANDLER)
    served = serve(sqlite_database, "--handler", "slow:handle")
    post = "import httpx, sys; r = httpx.post(sys.argv[1], json={'contentId': 'a'}, headers={'X-Internal-Secret': "
    post += "sys.argv[2]}, timeout=30, trust_env=False); print(r.status_code)"
    caller = subprocess.Popen([sys.executable, "-c", post, served.url + PATH, SECRET], stdout=subprocess.PIPE)
    eventually((tmp_path / "started").exists)
    os.kill(served.process.pid, number)
    address = served.url.rpartition(":")[2]
    eventually(lambda: not _accepts(int(address)))
    (tmp_path / "go").touch()
    answer, _ = caller.communicate(timeout=30)
    assert answer.strip() == b"200"
    assert served.process.wait() == 0


HANGING_HANDLER = """
import pathlib, threading

def handle(message):
    pathlib.Path("started").touch()
    threading.Event().wait()
"""


def test_a_handler_that_hangs_holds_up_neither_its_caller_nor_the_end_of_the_process(
    sqlite_database: Database, serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "hanging.py").write_text(HANGING_HANDLER)
    served = serve(sqlite_database, "--handler", "hanging:handle", "--handler-timeout", "100ms")

    def begun() -> bool:
        answer = served.post()
        assert (answer.status_code, answer.json()["reason"]) == (500, "handler_timeout")
        return (tmp_path / "started").exists()

    eventually(begun, what="a call begins within its time")
    logged(served, "handler_overran")
    os.kill(served.process.pid, signal.SIGTERM)
    assert served.process.wait() == 0
    assert re.search("left behind: .* of a listener", served.process.stderr)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ----------------------------------------------------------------------- its document


def test_no_page_of_it_runs_a_script_from_elsewhere(sqlite_database: Database, serve: Serve) -> None:
    served = serve(sqlite_database)
    assert [
        httpx.get(f"{served.url}/{page}", timeout=60, verify=False).status_code
        for page in ("docs", "redoc", "openapi.json")
    ] == [
        404,
        404,
        200,
    ]


def test_no_request_that_the_document_allows_or_forbids_makes_it_fail(sqlite_database: Database, serve: Serve) -> None:
    extracted(sqlite_database, "test-content-id")
    served = serve(sqlite_database)
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    found = {operation.ok().path: operation.ok() for operation in schema.get_all_operations()}
    assert set(found) == {PATH, "/healthz", "/readyz"}
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @given(case=found[PATH].as_strategy(generation_mode=mode))
        @hypothesis.settings(max_examples=60, suppress_health_check=list(hypothesis.HealthCheck), derandomize=True)
        def call(case: schemathesis.Case) -> None:
            case.call_and_validate(headers={"X-Internal-Secret": SECRET}, checks=CHECKS)

        call()
    statuses = {record["status"] for record in served.records}
    assert {400, 422} <= statuses
    assert 500 not in statuses
