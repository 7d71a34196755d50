"""How things stand, in a browser, and a hand on it: `outbox dashboard`, or mounted in an application of yours."""

from outbox_cli.dashboard.access import Access, Person, Tokens
from outbox_cli.dashboard.app import create_app

__all__ = ["Access", "Person", "Tokens", "create_app"]
