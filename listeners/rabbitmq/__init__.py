"""Consume events from a RabbitMQ queue: process each event once, and acknowledge it after the commit."""

from listeners.rabbitmq.consumer import Consumer
from listeners.rabbitmq.session import Limits, Source

__all__ = ["Consumer", "Limits", "Source"]
