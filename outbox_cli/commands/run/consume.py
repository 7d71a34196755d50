"""``outbox consume``: run the baseline listener for what comes out of a RabbitMQ queue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from outbox_cli.terminal import exits
from outbox_cli.terminal.examples import examples
from outbox_cli.terminal.health import HealthHost, HealthPort
from outbox_cli.terminal.shutdown import stop_on_signals
from relay.platform.guide import BASELINE_LISTENER, COMPLETED

if TYPE_CHECKING:
    from listeners.rabbitmq import Consumer
    from relay.settings import RabbitSettings, Settings

QUEUE = COMPLETED
MOST_BYTES = 250  # of a name, so that its dead letters' queue has one of the 255 that AMQP allows


def register(app: typer.Typer, panel: str) -> None:
    app.command(
        rich_help_panel=panel,
        epilog=examples(
            "AMQP_URL=amqp://guest:guest@localhost/ outbox consume",
            "outbox consume --queue report.wanted --listener my_app.reports:on_wanted",
        )
        + "\n\nWhat cannot be read, is rejected, or fails too often ends in QUEUE.dead, the reason in its headers. "
        "SIGTERM and Ctrl-C stop it in order, a second one at once: nothing is lost.\n\n" + exits.HELP,
    )(consume)


def consume(
    queue: Annotated[str, typer.Option(help="The queue, and the routing key it is bound with.")] = QUEUE,
    destination: Annotated[
        str | None, typer.Option(help="Which configured destination of kind rabbitmq names the broker.")
    ] = None,
    listener: Annotated[str, typer.Option(metavar="MODULE:CALLABLE", help="What to run.")] = BASELINE_LISTENER,
    prefetch: Annotated[int, typer.Option(min=1, max=10_000, help="Messages held unacknowledged at most.")] = 64,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="How many of them are worked on at once.")] = 8,
    max_attempts: Annotated[int, typer.Option(min=1, max=1000, help="Failures before it is a dead letter.")] = 5,
    health_host: HealthHost = None,
    health_port: HealthPort = None,
    max_body_bytes: Annotated[
        int, typer.Option(min=1024, max=64 * 1024 * 1024, help="A longer message is a dead letter, unread.")
    ] = 1024 * 1024,
) -> None:
    """Receive events from RabbitMQ and run a listener once for each. AMQP_URL says where; run one, or many."""
    from listeners.rabbitmq import Consumer, Limits, Source
    from outbox_cli.terminal.settings import put_current_directory_on_path
    from relay.admin.access.opening import opened
    from relay.decide.backoff import Policy
    from relay.destinations.rabbitmq.amqp import Broker
    from relay.destinations.rabbitmq.settings import NAME
    from relay.observe import tracing
    from relay.observe.logging import configure
    from relay.platform.rights import BASELINE, RELAY
    from relay.settings import load

    if not 0 < len(queue) <= MOST_BYTES or queue.startswith("amq.") or not NAME.fullmatch(queue):
        # RabbitMQ would make a queue of another name for "", durable, and with each attempt to consume one more.
        raise typer.BadParameter(
            f"--queue {queue}: name a queue in at most {MOST_BYTES} letters, digits, blanks and - _ . : @ # , / +, not "
            "beginning with amq."
        )
    settings = load({"health_host": health_host, "health_port": health_port})
    configure(log_format=settings.log_format, level=settings.log_level, secrets=settings.secrets())
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
    with opened(settings, needs=needs):  # exists, answers, has our schema
        asyncio.run(_run(consumer, settings))
    raise typer.Exit(exits.OK)


def _broker(settings: Settings, name: str | None) -> RabbitSettings:
    from outbox.errors import SettingsError
    from relay.settings import RabbitSettings

    found = {key: each for key, each in settings.destinations.items() if isinstance(each, RabbitSettings)}
    if name is not None and name not in found:
        raise SettingsError(f"--destination {name}: there is no destination of kind rabbitmq with this name")
    if name is None and len(found) != 1:
        raise SettingsError(
            f"several destinations are of kind rabbitmq: choose with --destination {'|'.join(found)}"
            if found
            else "no RabbitMQ broker is configured: set AMQP_URL to amqp://user:password@host/vhost"
            + "".join(f"; {name} is set, and is ignored: {why}" for name, why in settings.ignored.items())
        )
    return found[name] if name is not None else next(iter(found.values()))


async def _run(consumer: Consumer, settings: Settings) -> None:
    """Consume. Its health is shown where it is asked for: by default the port is the relay's on the same machine."""
    from relay.observe import process
    from relay.observe.health import HealthServer

    stop_on_signals(consumer.stop)
    port = 0 if settings.origin("health_port") == "the default" else settings.health_port
    async with HealthServer(consumer, port, host=settings.health_host, metrics=process.text):
        await consumer.run()
