"""``outbox consume``: run a listener for the messages of a RabbitMQ queue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.commands import RUN, app, examples
from outbox_cli.terminal.options import HealthHost, HealthPort
from outbox_cli.terminal.settings import health_port, put_current_directory_on_path, start_logging
from outbox_cli.terminal.shutdown import stop_on_signals
from relay.platform.guide import BASELINE_LISTENER, COMPLETED

if TYPE_CHECKING:
    from listeners.rabbitmq import Consumer
    from relay.destinations.rabbitmq.settings import RabbitSettings
    from relay.settings import Settings

QUEUE = COMPLETED
MOST_BYTES = 250  # the most bytes of a name: that of the dead-letter queue must not exceed AMQP's 255


@app.command(
    rich_help_panel=RUN,
    epilog=examples(
        "AMQP_URL=amqp://guest:guest@localhost/ outbox consume",
        "outbox consume --queue report.wanted --listener my_app.reports:on_wanted",
    )
    + "\n\nA message that is unreadable, rejected, or fails too often moves to QUEUE.dead; its headers say why. "
    "SIGTERM and Ctrl-C stop it in order, a second signal stops it at once: nothing is lost.\n\n" + exits.HELP,
)
def consume(
    queue: Annotated[str, typer.Option(help="The queue; its name is also the routing key of its binding.")] = QUEUE,
    destination: Annotated[
        str | None, typer.Option(help="The configured destination of kind rabbitmq whose broker is used.")
    ] = None,
    listener: Annotated[str, typer.Option(metavar="MODULE:CALLABLE", help="The listener to run.")] = BASELINE_LISTENER,
    prefetch: Annotated[int, typer.Option(min=1, max=10_000, help="Unacknowledged messages, at most.")] = 64,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Messages processed at the same time.")] = 8,
    max_attempts: Annotated[
        int, typer.Option(min=1, max=1000, help="The number of failures that make a message a dead letter.")
    ] = 5,
    health_host: HealthHost = None,
    health_port: HealthPort = None,
    max_body_bytes: Annotated[
        int,
        typer.Option(min=1024, max=64 * 1024 * 1024, help="A longer message becomes a dead letter without being read."),
    ] = 1024 * 1024,
) -> None:
    """Run a listener once for each event from RabbitMQ. AMQP_URL names the broker. Several consumers may run."""
    from listeners.rabbitmq import Consumer, Limits, Source
    from relay.admin.access.opening import opened
    from relay.databases.rights import BASELINE, RELAY
    from relay.decide.backoff import Policy
    from relay.destinations.rabbitmq.amqp import Broker
    from relay.destinations.rabbitmq.settings import NAME
    from relay.observe import tracing
    from relay.settings import load

    if not 0 < len(queue) <= MOST_BYTES or queue.startswith("amq.") or not NAME.fullmatch(queue):
        # For "" RabbitMQ would create a durable queue with a generated name, and another one at each attempt to
        # consume.
        raise typer.BadParameter(
            f"--queue {queue}: a name has at most {MOST_BYTES} letters, digits, blanks and - _ . : @ # , / +, and does "
            "not begin with amq."
        )
    settings = load({"health_host": health_host, "health_port": health_port})
    start_logging(settings)
    tracing.configure(children=settings.trace_children)
    put_current_directory_on_path()
    rabbit = _broker(settings, destination)
    limits = Limits(
        prefetch=prefetch,
        concurrency=min(concurrency, prefetch),
        max_body_bytes=max_body_bytes,
        retry=Policy(max_attempts=max_attempts, backoff_s=1.0, backoff_max_s=60.0),
        grace_s=settings.grace_s,
    )
    consumer = Consumer(
        Broker.of(rabbit, f"outbox consume: {queue}"),
        settings.database,
        listener=listener,
        source=Source(queue, rabbit.exchange, rabbit.queue_type),
        limits=limits,
    )
    needs = RELAY + BASELINE if listener == BASELINE_LISTENER else RELAY
    with opened(settings, needs=needs):  # checks that it exists, answers, and has our schema
        asyncio.run(_run(consumer, settings))


def _broker(settings: Settings, name: str | None) -> RabbitSettings:
    from outbox.errors import SettingsError
    from relay.destinations.rabbitmq.settings import RabbitSettings

    found = {key: each for key, each in settings.destinations.items() if isinstance(each, RabbitSettings)}
    if name is not None and name not in found:
        raise SettingsError(f"--destination {name}: there is no destination of kind rabbitmq with this name")
    if name is None and len(found) != 1:
        raise SettingsError(
            f"several destinations are of kind rabbitmq: choose with --destination {'|'.join(found)}"
            if found
            else "no RabbitMQ broker is configured: set AMQP_URL to amqp://user:password@host/vhost"
            + "".join(f"; {name} is set, but has no effect: {why}" for name, why in settings.ignored.items())
        )
    return found[name] if name is not None else next(iter(found.values()))


async def _run(consumer: Consumer, settings: Settings) -> None:
    from relay.observe import process
    from relay.observe.health import HealthServer

    stop_on_signals(consumer.stop)
    async with HealthServer(consumer, health_port(settings), host=settings.health_host, metrics=process.text):
        await consumer.run()
