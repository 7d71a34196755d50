"""Code that publisher and consumer share: connecting to a RabbitMQ broker, and its topology."""

from relay.destinations.rabbitmq.amqp.broker import TROUBLE, Broker, explained
from relay.destinations.rabbitmq.amqp.topology import bind, ensure_exchange, ensure_queue

__all__ = ["TROUBLE", "Broker", "bind", "ensure_exchange", "ensure_queue", "explained"]
