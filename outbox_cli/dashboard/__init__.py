"""The dashboard: `outbox dashboard` serves it, or an application mounts it."""

from outbox_cli.dashboard.access import Access, Person, Tokens
from outbox_cli.dashboard.app import create_app

__all__ = ["Access", "Person", "Tokens", "create_app"]
