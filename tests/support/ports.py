"""Ports for servers that tests start."""

import random
import socket

# Below the range that Linux hands to outgoing connections (32768 and up): there, a port that a stopped server
# means to take again could have become some client's own end in the meantime.
_LOWEST, _HIGHEST = 15_000, 32_000


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port on which nothing listens just now, and which no outgoing connection will be given."""
    for _ in range(200):
        port = random.randrange(_LOWEST, _HIGHEST)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {_LOWEST} and {_HIGHEST} on {host} after 200 tries")
