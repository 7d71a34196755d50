"""Receives events from a RabbitMQ queue, does its work once for each, and acknowledges what is committed."""

from listeners.rabbitmq.consumer import Consumer, Limits
from listeners.rabbitmq.session import Source

__all__ = ["Consumer", "Limits", "Source"]
