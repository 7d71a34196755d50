"""Ports for servers that tests start."""

import os
import random
import socket

# Below the range that Linux gives to outgoing connections (32768 and up): in that range, a connection of some client
# could take the port of a stopped server before it starts again.
_LOWEST, _HIGHEST = 15_000, 32_000

# Each process of a run takes every n-th port: otherwise two could choose the same one between the check and the start
# of a server, and would if Hypothesis has given both the same random seed.
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
