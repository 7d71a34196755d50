"""Ports for servers that tests start."""

import os
import random
import socket
from functools import cache

# Below the range that Linux gives to outgoing connections (32768 and up): in that range, a connection of some client
# could take the port of a stopped server before it starts again.
_LOWEST, _HIGHEST = 15_000, 32_000

# Each process of a run takes every n-th port: otherwise two could choose the same one between the check and the start
# of a server.
_OF = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_OWN = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that no process listens on, and that no outgoing connection will get.

    No call returns a port of an earlier one: its server may not have started yet, or may start again.
    """
    while ports := _left():
        port = ports.pop()
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port is left between {_LOWEST} and {_HIGHEST} on {host}")


@cache
def _left() -> list[int]:
    """Return the ports that no call has returned yet, in an order of their own that Hypothesis cannot repeat."""
    ports = list(range(_LOWEST + _OWN, _HIGHEST, _OF))
    random.SystemRandom().shuffle(ports)
    return ports
