"""The shipped etcd.toml on ports of its own, and its own ports held, as while the demo runs on this machine."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "etcd.toml"
_PORT = re.compile(r"(?m)^(client_port|peer_port) = (\d+)")
DEMO = tuple(int(port) for _, port in _PORT.findall(CONFIG.read_text(encoding="utf-8")))
OURS = sorted({*range(10_000, 32_000)} - {*DEMO})  # below those that the kernel lends to outgoing connections


def free_ports(count: int) -> list[int]:
    return list(islice(filter(_free, random.sample(OURS, len(OURS))), count))


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def moved() -> tuple[str, list[int]]:
    """Its text, and the ports that it has now."""
    ports = free_ports(len(DEMO))
    rest = iter(ports)
    return _PORT.sub(lambda match: f"{match[1]} = {next(rest)}", CONFIG.read_text(encoding="utf-8")), ports


@contextmanager
def demo_ports_taken() -> Iterator[None]:
    """While the block runs, something listens on every port of the demo: this process, the demo, another test run."""
    with ExitStack() as held:
        for port in DEMO:
            with suppress(OSError):  # another process listens there already
                held.enter_context(socket.create_server(("127.0.0.1", port)))
        yield
