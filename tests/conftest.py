"""The fixtures that every test may use, and the rules of the whole run; tests/support/ is the machinery."""

from __future__ import annotations

import atexit
import gc
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from support import nursery
from support.guardian import dismiss_guardian
from support.memory import memory
from support.processes import Spawner
from support.servers import lent, running

if TYPE_CHECKING:  # what uses them imports them: each loads libraries that unit tests or xdist's controller do not need
    from support.kafka import KafkaServer
    from support.nats import NatsServer
    from support.postgres import PostgresServer
    from support.rabbitmq import RabbitServer
    from support.redis import RecentRedis, RedisServer

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

pytest_plugins = ["support.databases"]  # the fixtures of databases

HERE = Path(__file__).parent
# When a process ends, Python would search all that it has imported for garbage: half a second in each.
atexit.register(gc.freeze)
# Without bytecode, each process that a test starts would compile all modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory()))  # of `tmp_path`

_LONGEST_FIRST = ("simulation", "integration", "faults", "migrations", "contract", "unit")
# The tests of each module share a fixture that takes seconds.
_SHARE_A_FIXTURE = (
    "test_wheel.py",
    "test_host_packages.py",
    "test_roles.py",
    "test_own_destinations.py",
    "test_dashboard_browser.py",
    "test_operator_plans.py",
)
# There is one of each for the whole run, so the tests that share it run in one process.
_SERVERS = {"kafka_server", "nats_server", "rabbitmq_server", "recent_redis_server", "redis_server"}

# Any of these makes Typer colour its help, despite the settings below.
_COLOURS = ("PY_COLORS", "FORCE_COLOR", "GITHUB_ACTIONS")
_OURS = ("OUTBOX_", "DATABASE_URL", "API_URL", "API_SIGNING_SECRET", "AMQP_URL", "INTERNAL_API_SECRET")
_LIBPQ = (
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGUSER",
    "PGDATABASE",
    "PGPASS",
    "PGSERVICE",
    "PGOPTIONS",
    "PGSSL",
)

# Read here, because pytest_configure then removes them like every other variable of ours.
MODEL_EXAMPLES = int(os.environ.get("OUTBOX_TEST_MODEL_EXAMPLES", "12"))
LIVES = int(os.environ.get("OUTBOX_TEST_LIVES", "1000"))
ONLY_LIFE = os.environ.get("OUTBOX_TEST_LIFE")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run the whole suite and folders in several processes; run single files in this one.

    A process that runs the suite uses 0.4 processors: it waits for brokers, leases and other processes.
    """
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        return 2 * (os.cpu_count() or 1) + 1
    return (os.cpu_count() or 1) if all(Path(argument).is_dir() for argument in config.args) else 0


def pytest_configure(config: pytest.Config) -> None:
    """Forget the developer's settings before anything, session fixtures included, can read them; set ours."""
    if config.getoption("numprocesses") and not hasattr(config, "workerinput"):
        return  # xdist's workers run the tests; they still have to read the suite's variables
    import hypothesis
    import support.postgres  # noqa: F401  it reads which PostgreSQL to run

    for name in [name for name in os.environ if name.startswith((*_OURS, *_LIBPQ, *_COLOURS))]:
        del os.environ[name]
    # A process that a shell starts in the background ignores Ctrl-C, and its child processes inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # The time of an example depends more on the machine's other programs than on the code.
    # CI uses the same examples each time: random findings help only where a developer can examine them.
    hypothesis.settings.register_profile(
        "suite", hypothesis.settings(), deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
    )
    hypothesis.settings.load_profile("suite")


def pytest_collection() -> None:
    """Collect no garbage while modules are imported: nearly all of it stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Keep what collection has made out of later garbage collections: each would cost ten times as much.

    Collect less often, too: a test makes many objects that live as long as its engines, and few circles.
    """
    gc.enable()
    gc.freeze()
    gc.set_threshold(10_000)


def pytest_unconfigure() -> None:
    nursery.close()
    dismiss_guardian()


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow tests, so that none is left at the end; keep tests that share a server together."""
    items.sort(key=lambda item: _LONGEST_FIRST.index(item.path.relative_to(HERE).parts[0]))
    for item in items:
        if item.path.name == "test_nestjs.py":  # one installation by npm costs more than a start of every server
            item.add_marker(pytest.mark.xdist_group("rabbitmq_server"))
        elif servers := _SERVERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(min(servers)))
        elif item.path.name in _SHARE_A_FIXTURE:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    from support.secrecy import assert_hidden, secrets_of

    report = _no_skip_in_ci((yield))
    if report.passed and isinstance(item, pytest.Function):
        try:
            assert_hidden(
                secrets_of(item.module), "\n".join(text for _, text in report.sections), "what it printed or logged"
            )
        except AssertionError as error:
            report.outcome, report.longrepr = "failed", str(error)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _no_skip_in_ci((yield))


def _no_skip_in_ci(report: Report) -> Report:
    """Fail skipped tests in CI: .ci/run must install what the test needs."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def empty_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current directory of the unit tests that write no files."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(autouse=True)
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test works in its own directory, away from the developer's outbox.toml and outbox.db.

    What one test has hidden from logs is not hidden in the next one, which does not log into its streams either.
    A session reads all shards at once: on a busy machine, a read that was slow would end the page.
    """
    root = logging.getLogger()
    handlers, level, path = root.handlers[:], root.level, sys.path[:]
    writes = "tmp_path" in request.fixturenames or not request.path.is_relative_to(HERE / "unit")
    directory: Path = request.getfixturevalue("tmp_path" if writes else "empty_directory")
    monkeypatch.chdir(directory)
    monkeypatch.setattr("relay.observe.text._hidden", set())
    _print_plain_tracebacks(request, monkeypatch)
    if reading := sys.modules.get("relay.databases.postgresql.store.reading"):
        monkeypatch.setattr(reading, "QUICK_S", math.inf)
    yield
    if root.handlers != handlers:  # a command has run in this process, and has called `relay.observe.logging.configure`
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.modules["structlog"].reset_defaults()
    logging.captureWarnings(False)  # switched on twice, it has no effect
    if sys.path != path:  # a command has run here: other tests have modules of the same names in their directories
        sys.path[:] = path
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(f"{directory}/"):
                del sys.modules[name]
    assert writes or not os.listdir(directory), "a test that writes files takes tmp_path"


def _print_plain_tracebacks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the 50 ms that Rich takes for each traceback with all variables; not where tests look for secrets."""
    from support.secrecy import secrets_of

    if (dev := sys.modules.get("structlog.dev")) and not secrets_of(request.module):
        monkeypatch.setattr(dev.ConsoleRenderer.get_active(), "exception_formatter", dev.plain_traceback)


@pytest.fixture(autouse=True)
def nothing_hidden_is_stored(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a secret in its database (`support.secrecy`)."""
    from support.databases import KINDS
    from support.secrecy import assert_hidden, everything_in, secrets_of

    hidden = secrets_of(request.module)
    names = {"database", *(f"{kind}_database" for kind in KINDS)}.intersection(request.fixturenames)
    databases = [request.getfixturevalue(name) for name in names if hidden]
    yield
    for database in databases:
        assert_hidden(hidden, everything_in(database), "its database")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The one PostgreSQL that most tests share. A test that stops or freezes a server takes `private_postgres`."""
    from support.postgres import PostgresServer

    with running(PostgresServer()) as server:
        yield server


@pytest.fixture
def private_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """`private_postgres({"fsync": "on"})`: a started server that the test may stop, kill and freeze."""
    from support.postgres import PostgresServer

    servers: list[PostgresServer] = []

    def start(settings: Mapping[str, object] | None = None, **options: Any) -> PostgresServer:
        server = PostgresServer(settings, **options)
        servers.append(server)
        server.start()
        return server

    try:
        yield start
    finally:
        for server in servers:
            server.remove()


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitServer]:
    """The one RabbitMQ of this run."""
    from support.rabbitmq import RabbitServer

    with running(RabbitServer()) as server:
        yield server


@pytest.fixture
def rabbitmq(rabbitmq_server: RabbitServer) -> Iterator[RabbitServer]:
    """RabbitMQ with nothing in it. A test may stop, kill and freeze it: the next test finds it working again."""
    with lent(rabbitmq_server) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The one Redis of this run."""
    from support.redis import RedisServer

    with running(RedisServer()) as server:
        yield server


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """Redis with nothing in it. A test may stop, kill and freeze it: the next test finds it working again."""
    with lent(redis_server) as server:
        yield server


@pytest.fixture(scope="session")
def recent_redis_server() -> Iterator[RecentRedis]:
    """The one Redis of this run that has idempotent publishing."""
    from support.redis import RecentRedis

    with running(RecentRedis()) as server:
        yield server


@pytest.fixture
def recent_redis(recent_redis_server: RecentRedis) -> Iterator[RecentRedis]:
    """Redis 8.6 or newer with nothing in it. A test may stop, kill and freeze it."""
    with lent(recent_redis_server) as server:
        yield server


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """The one NATS server of this run."""
    from support.nats import NatsServer

    with running(NatsServer()) as server:
        yield server


@pytest.fixture
def nats(nats_server: NatsServer) -> Iterator[NatsServer]:
    """NATS with one empty stream. A test may stop, kill and freeze it: the next test finds it working again."""
    with lent(nats_server) as server:
        yield server


@pytest.fixture(scope="session", params=["Tansu", "Noida", "MockCluster"])
def kafka_server(request: pytest.FixtureRequest) -> Iterator[KafkaServer]:
    """Each of the brokers that speak Kafka's protocol."""
    from support import kafka

    with running(getattr(kafka, request.param)()) as server:
        yield server


@pytest.fixture
def kafka(kafka_server: KafkaServer) -> Iterator[KafkaServer]:
    """A broker: the test runs once on each. It may stop, kill and freeze it: the next test finds it working again."""
    with lent(kafka_server) as server:
        yield server


@pytest.fixture
def model_examples() -> int:
    """The number of lives of the model test, on PostgreSQL: OUTBOX_TEST_MODEL_EXAMPLES raises it for longer runs."""
    return MODEL_EXAMPLES


@pytest.fixture
def life_seeds() -> Sequence[int]:
    """The seeds of the simulated lives: as many as OUTBOX_TEST_LIVES says, or the one of OUTBOX_TEST_LIFE."""
    return range(LIVES) if ONLY_LIFE is None else [int(ONLY_LIFE)]


@pytest.fixture
def spawn(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Spawner]:
    """`spawn("outbox", "relay", env={…})` starts real processes; see `support.processes`.

    pytest shows their output when the test fails.
    """
    from support.secrecy import assert_hidden, secrets_of

    spawner = Spawner(tmp_path)
    try:
        yield spawner
    finally:
        try:
            print(spawner.report())
        finally:
            spawner.end_all()
    assert_hidden(secrets_of(request.module), spawner.said, "what its processes printed")
