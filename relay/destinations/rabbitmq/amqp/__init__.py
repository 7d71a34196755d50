"""What publisher and consumer share: how to reach a RabbitMQ broker, and what has to exist there."""

from relay.destinations.rabbitmq.amqp.broker import TROUBLE, Broker, explained
from relay.destinations.rabbitmq.amqp.topology import bind, ensure_exchange, ensure_queue

__all__ = ["TROUBLE", "Broker", "bind", "ensure_exchange", "ensure_queue", "explained"]
