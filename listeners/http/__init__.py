"""Receive events over HTTP: the guide's endpoint as a guarded router, and an application with it."""

from listeners.http.app import Readiness, create_app
from listeners.http.receiver import Limits, Receiver

__all__ = ["Limits", "Readiness", "Receiver", "create_app"]
