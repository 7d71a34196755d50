"""Serve HTTP to untrusted clients, with limits on their connections, time and data."""

from relay.serving.clients import client_of
from relay.serving.server import Server, listen, make_server, serve, url_of

__all__ = ["Server", "client_of", "listen", "make_server", "serve", "url_of"]
