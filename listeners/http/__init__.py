"""Receiving over HTTP: the guide's endpoint as a router, guarded, and an application around it."""

from listeners.http.app import create_app
from listeners.http.receiver import Limits, Receiver

__all__ = ["Limits", "Receiver", "create_app"]
