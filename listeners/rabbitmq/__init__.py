"""Consume events from a RabbitMQ queue: process each once, and acknowledge it after the commit."""

from listeners.rabbitmq.consumer import Consumer, Limits
from listeners.rabbitmq.session import Source

__all__ = ["Consumer", "Limits", "Source"]
