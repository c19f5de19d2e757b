"""The shipped etcd.toml on ports of its own."""

from __future__ import annotations

import random
import re
import socket
from itertools import islice
from pathlib import Path

CONFIG = Path(__file__).parents[2] / "etcd.toml"
OURS = range(10_000, 32_000)  # below those that the kernel lends to outgoing connections, which come and go meanwhile


def free_ports(count: int) -> list[int]:
    return list(islice(filter(_free, random.sample(OURS, len(OURS))), count))


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def moved() -> tuple[str, list[int]]:
    """Its text, and the ports that it has now."""
    ports = free_ports(6)
    rest = iter(ports)
    text = re.sub(r"(?m)^(client_port|peer_port) = \d+", lambda match: f"{match[1]} = {next(rest)}", CONFIG.read_text())
    return text, ports
