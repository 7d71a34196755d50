"""Ports for servers that tests start."""

import os
import random
import socket
from functools import cache

# Below the range that Linux gives to outgoing connections (32768 and up): in that range, a connection of some client
# could take the port of a stopped server before it starts again.
_LOWEST, _HIGHEST = 15_000, 32_000

# Each process of a run takes every n-th pair of ports: otherwise two could choose the same one between the check and
# the start of a server. The second port of a pair is for the second server of a test that needs neighbours.
_OF = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_OWN = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that no process listens on, and that no outgoing connection will get.

    The next port is free, too. No call returns a port of an earlier one: its server may not have started yet, or may
    start again.
    """
    while ports := _left():
        port = ports.pop()
        with socket.socket() as probe, socket.socket() as next_probe:
            try:
                probe.bind((host, port))
                next_probe.bind((host, port + 1))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port is left between {_LOWEST} and {_HIGHEST} on {host}")


@cache
def _left() -> list[int]:
    """Return the ports that no call has returned yet, in an order of their own that Hypothesis cannot repeat."""
    ports = list(range(_LOWEST + 2 * _OWN, _HIGHEST, 2 * _OF))
    random.SystemRandom().shuffle(ports)
    return ports
