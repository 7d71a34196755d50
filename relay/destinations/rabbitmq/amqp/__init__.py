"""Code that publisher and consumer share: connecting to a RabbitMQ broker, and its topology."""

from relay.destinations.rabbitmq.amqp.broker import TROUBLE, Broker, explained
from relay.destinations.rabbitmq.amqp.topology import ensure_queue, ensure_topology

__all__ = ["TROUBLE", "Broker", "ensure_queue", "ensure_topology", "explained"]
