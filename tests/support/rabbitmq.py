"""A private RabbitMQ broker for the test run, which a test can stop, kill, freeze, or make short of memory.

One node serves the whole run, because starting one takes seconds; `RabbitServer.recover` resets it for each
test. It has its own data, cookie, log and ports, on the loopback address, beside any other broker on the machine. Only
the program is the machine's: without `rabbitmq-server` these tests are skipped, and say so; CI installs it.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import aio_pika
import pika
import psutil
import pytest
import trustme
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity

from support.guardian import guardian
from support.memory import memory
from support.ports import free_port
from support.waiting import await_standstill, eventually

EXCHANGE = "extraction.events"
QUEUE = "extraction.completed"
DEAD = "extraction.completed.dead"

# The package's inner scripts: those on the path change to the machine's broker's account, and drop our environment.
_DEBIAN = Path("/usr/lib/rabbitmq/bin")
_START_S = 90

Result = TypeVar("Result")


@cache
def programs() -> Path:
    """Return the folder of `rabbitmq-server`; skip the test without one."""
    if (_DEBIAN / "rabbitmq-server").exists():
        return _DEBIAN
    found = shutil.which("rabbitmq-server")
    if found is None:
        pytest.skip("there is no rabbitmq-server on this machine: install it (apt-get install rabbitmq-server)")
    return Path(found).resolve().parent


class RabbitServer:
    """One node, which a test can stop, kill, freeze and start again on the same data and ports.

    Args:
        config: Further lines of `rabbitmq.conf`: ``{"max_message_size": 1000}``.
    """

    def __init__(self, config: Mapping[str, object] | None = None) -> None:
        self._programs = programs()
        self.directory = Path(tempfile.mkdtemp(prefix="outbox-rabbitmq-", dir=memory()))
        guardian().remove(self.directory)
        self.port = free_port()
        self.tls_port = free_port()
        self.ca_file = self.directory / "ca.pem"
        self._epmd_port = free_port()
        self._distribution_port = free_port()
        self._config = {
            "listeners.tcp.default": f"127.0.0.1:{self.port}",
            "listeners.ssl.default": f"127.0.0.1:{self.tls_port}",
            "ssl_options.cacertfile": self.ca_file,
            "ssl_options.certfile": self.directory / "server.pem",
            "ssl_options.keyfile": self.directory / "server.pem",
            "loopback_users": "none",
            "log.console.level": "warning",
            "disk_free_limit.absolute": "1MB",
            "max_message_size": 300_000,  # longer than any event's data may be
            **(config or {}),
        }
        _write_certificates(self.ca_file, self.directory / "server.pem")
        self._epmd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False
        self.log_path = self.directory / "log"

    # ------------------------------------------------------------------ life

    @property
    def url(self) -> str:
        """What a user would put into AMQP_URL."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def tls_url(self) -> str:
        """The same with TLS; its certificate is valid for clients that trust `ca_file`."""
        return f"amqps://guest:guest@127.0.0.1:{self.tls_port}/"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and return when the broker takes connections."""
        if self._is_stopped:
            self._is_stopped = False
            self.evaluate("rabbit:start()")
        else:
            self._start_process()
        eventually(self._takes_connections, deadline_s=_START_S, what=f"RabbitMQ at {self.url}", ignoring=(OSError,))

    def _start_process(self) -> None:
        self._start_epmd()
        (self.directory / "rabbitmq.conf").write_text("".join(f"{k} = {v}\n" for k, v in self._config.items()))
        (self.directory / "enabled_plugins").write_text("[].\n")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "rabbitmq-server"],
                env=self._environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        guardian().watch(self._process.pid)

    def stop(self) -> None:
        """Stop in order, as in an upgrade: connections are closed with a reason, durable objects are kept.

        The virtual machine stays, as after `rabbitmqctl stop_app`: to load all modules again would take seconds.
        """
        self.evaluate("rabbit:stop()")
        self._is_stopped = True

    def kill(self) -> None:
        """SIGKILL: nothing is closed, nothing is flushed."""
        assert self._process is not None
        self._is_stopped = False
        family = self._beam().children(recursive=True)
        self._process.kill()
        self._process.wait(60)
        for straggler in psutil.wait_procs(family, timeout=10)[1]:
            straggler.kill()
        guardian().forget(self._process.pid)

    def freeze(self) -> None:
        """SIGSTOP the broker: connections stay open without an answer."""
        self._beam().suspend()
        await_standstill(self._beam().pid)

    def thaw(self) -> None:
        if self.is_running:
            self._beam().resume()

    def recover(self) -> None:
        """Make it run, thawed, with nothing declared or waiting from an earlier test."""
        self.thaw()
        if self._is_stopped or not self.is_running:
            self.start()
        self.reset()

    def remove(self) -> None:
        """End the node in any state, and remove its files."""
        self.thaw()
        if self.is_running:
            self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            guardian().forget(self._epmd.pid)
        shutil.rmtree(self.directory, ignore_errors=True)

    def evaluate(self, expression: str) -> str:
        """Evaluate Erlang in the broker, in milliseconds; `rabbitmqctl` takes a second to start."""
        program = shutil.which("erl_call")
        assert program is not None, "rabbitmq-server is there and Erlang's erl_call is not on the path"
        cookie = (self.directory / ".erlang.cookie").read_text()
        done = subprocess.run(
            [program, "-n", self._node, "-c", cookie, "-timeout", "60", "-e"],
            input=f"{expression}.\n",
            env=self._environment(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.startswith("{ok, "), f"{expression}: {done.stdout}{done.stderr}"
        return done.stdout.removeprefix("{ok, ").rstrip().removesuffix("}")

    @contextmanager
    def away(self) -> Iterator[None]:
        """Cut all connections and refuse new ones inside the block, as if the broker were killed."""
        self.evaluate("rabbit_maintenance:suspend_all_client_listeners()")
        self.evaluate("[exit(Each, kill) || Each <- rabbit_networking:local_connections()]")
        try:
            yield
        finally:
            self.evaluate("rabbit_maintenance:resume_all_client_listeners()")

    def raise_memory_alarm(self) -> None:
        """Block publishers from now on."""
        self.evaluate('vm_memory_monitor:set_vm_memory_high_watermark({absolute, "1000"})')

    def clear_memory_alarm(self) -> None:
        self.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.9)")

    # ------------------------------------------------------------- what is in it

    def reset(self) -> None:
        """Remove everything that is declared or waiting."""
        self.use(_delete_everything_ours)

    def use(self, work: Callable[[AbstractChannel], Awaitable[Result]]) -> Result:
        """Run an action on a new channel, from a test that is not async."""
        return asyncio.run(on_channel(self.url, work))

    def publish(self, body: bytes, *, exchange: str = "", routing_key: str = QUEUE, **properties: Any) -> None:
        """Put a message into a queue, or publish it to an exchange, with only the given properties.

        Through pika: aio-pika gives every message an id.
        """
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        made = pika.BasicProperties(delivery_mode=2, **properties)
        connection.channel().basic_publish(exchange, routing_key, body, made)
        connection.close()

    async def publish_async(self, body: bytes, **more: Any) -> None:
        await asyncio.to_thread(partial(self.publish, body, **more))

    def take_all(self, queue: str = QUEUE) -> list[AbstractIncomingMessage]:
        """Take all messages from a queue."""
        return self.use(lambda channel: drained(channel, queue))

    def depth(self, queue: str) -> int:
        """Return the number of ready messages in a queue; -1 if the queue does not exist."""
        return self._declared(queue, "message_count")

    def has_consumers(self, queue: str) -> bool:
        """Return whether a queue has a consumer."""
        return self._declared(queue, "consumer_count") > 0

    def is_drained(self, queue: str) -> bool:
        """Return whether a queue has no waiting and no unacknowledged messages."""
        name = f'rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)'
        found = self.evaluate(f"rabbit_amqqueue:info(element(2, rabbit_amqqueue:lookup({name})), [messages])")
        return found == "[{messages, 0}]"

    def _declared(self, queue: str, count: str) -> int:
        async def work(channel: AbstractChannel) -> int:
            try:
                found = await channel.declare_queue(queue, passive=True)
            except ChannelNotFoundEntity:
                return -1
            return int(getattr(found.declaration_result, count) or 0)

        return self.use(work)

    # ------------------------------------------------------------------ inside

    @property
    def _node(self) -> str:
        return f"outbox-{self.port}@localhost"

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.directory),  # the cookie is there
            "LANG": "C.UTF-8",
            "RUNNING_UNDER_SYSTEMD": "1",  # the script becomes the broker, which then gets the signals directly
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(self.directory),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _start_epmd(self) -> None:
        """A private name server of Erlang, so that none is left behind."""
        if self._epmd is None:
            epmd = shutil.which("epmd")
            assert epmd is not None, "rabbitmq-server is there and Erlang's epmd is not on the path"
            self._epmd = subprocess.Popen(
                [epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            guardian().watch(self._epmd.pid)

    def _takes_connections(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"RabbitMQ ended with {self._process.returncode}:\n{self.log[-4000:]}")
        socket.create_connection(("127.0.0.1", self.port), 1).close()  # aiormq would log every failure
        try:
            self.use(_nothing)
        except AMQPError:
            return False
        return True

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def _beam(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)


def _write_certificates(ca_file: Path, server_file: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(ca_file)
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(server_file)


async def on_channel(url: str, work: Callable[[AbstractChannel], Awaitable[Result]]) -> Result:
    """Run an action on a new channel."""
    async with await aio_pika.connect(url, timeout=30) as connection, connection.channel() as channel:
        return await work(channel)


async def drained(channel: AbstractChannel, queue: str) -> list[AbstractIncomingMessage]:
    """Consume a queue until it is empty: one by one, each message would cost a round trip."""
    messages: list[AbstractIncomingMessage] = []
    has_come = asyncio.Event()

    async def take(message: AbstractIncomingMessage) -> None:
        messages.append(message)
        has_come.set()

    found = await channel.declare_queue(queue, passive=True)
    while found.declaration_result.message_count:
        wanted = len(messages) + found.declaration_result.message_count
        tag = await found.consume(take, no_ack=True)
        while len(messages) < wanted:
            has_come.clear()
            await asyncio.wait_for(has_come.wait(), 30)
        await found.cancel(tag)
        found = await channel.declare_queue(queue, passive=True)
    return messages


async def _nothing(_: AbstractChannel) -> None:
    """Do nothing: to be let in is enough."""


async def _delete_everything_ours(channel: AbstractChannel) -> None:
    await channel.exchange_delete(EXCHANGE)
    for queue in (QUEUE, DEAD, "extraction.failed", "everything", "other"):
        await channel.queue_delete(queue)
