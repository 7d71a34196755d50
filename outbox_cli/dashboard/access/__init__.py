"""Authentication and permissions."""

from outbox_cli.dashboard.access.people import Access, Person, Refused, TooManyTries
from outbox_cli.dashboard.access.tokens import Tokens

__all__ = ["Access", "Person", "Refused", "Tokens", "TooManyTries"]
