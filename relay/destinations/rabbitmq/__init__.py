"""A destination on RabbitMQ: what is delivered was confirmed by the broker, and put into at least one queue."""

from relay.destinations.rabbitmq.destination import RabbitDestination

__all__ = ["RabbitDestination"]
