"""How things stand, as one page in a browser: read-only, for whoever sits at this machine."""

from outbox_cli.dashboard.app import create_app

__all__ = ["create_app"]
