"""Ports for servers that tests start."""

import os
import random
import socket

# Below the range that Linux hands to outgoing connections (32768 and up): there, a port that a stopped server
# means to take again could have become some client's own end in the meantime.
_LOWEST, _HIGHEST = 15_000, 32_000

# Each process of a run takes every n-th: two could agree on one between the look and the start of a server, and would
# wherever Hypothesis has seeded chance in both.
_OF = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_OWN = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that no process listens on, and that no outgoing connection will get."""
    for _ in range(200):
        port = random.randrange(_LOWEST + _OWN, _HIGHEST, _OF)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {_LOWEST} and {_HIGHEST} on {host} after 200 tries")
