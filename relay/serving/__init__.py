"""Serving HTTP to strangers: how many may be connected, how long they may take, how much they may send."""

from relay.serving.clients import client_of
from relay.serving.server import Server, listen, make_server, serve

__all__ = ["Server", "client_of", "listen", "make_server", "serve"]
