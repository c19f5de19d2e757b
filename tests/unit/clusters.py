"""Clusters as etcd.toml would make them, and looks at their nodes, for tests that need one and no host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steps.core.config.load import parse
from steps.core.config.model import Cluster
from steps.core.node.facts import Look, NodeFacts, Space

FILE = Path("/clusters/etcd.toml")
PLENTY = 500 << 30


def on_hosts(more: str = "", *, count: int = 3, version: str = "3.5.16", file: Path = FILE) -> Cluster:
    """Members etcd-1 … at 10.0.0.1 …, over SSH and under systemd."""
    nodes = "".join(f'[[nodes]]\nname = "etcd-{n}"\nip = "10.0.0.{n}"\n' for n in range(1, count + 1))
    return parse(f'[cluster]\nname = "demo"\n[etcd]\nversion = "{version}"\n{more}\n{nodes}'.encode(), file)


def on_loopback(file: Path = FILE, *, port: int = 2379, count: int = 3, more: str = "") -> Cluster:
    """Plain processes of this machine."""
    nodes = "".join(
        f'[[nodes]]\nname = "etcd-{n + 1}"\nip = "127.0.0.1"\nclient_port = {at}\npeer_port = {at + 1}\n'
        for n, at in enumerate(range(port, port + 100 * count, 100))
    )
    text = f'[cluster]\nname = "demo"\n[etcd]\nversion = "3.5.16"\n[hosts]\ntransport = "local"\n{more}\n{nodes}'
    return parse(text.encode(), file)


def seen(cluster: Cluster, **changes: Any) -> Look:
    """A healthy host with nothing of ours on it, except `changes`; `facts` are merged over the usual ones."""
    paths = {path for node in cluster.nodes for path in vars(node.paths).values()} | {"/etc"}
    facts: dict[str, Any] = {"cpu": "x86_64", "uid": 0, "machine_id": "m", "boot_id": "b", "clock": 0}
    facts |= {"systemd": 252} if cluster.systemd else {}
    space = {path: Space(PLENTY, PLENTY, "1", writable=True) for path in paths}
    usual = {"entries": {}, "unit": {}, "space": space}
    return Look(**{**usual, **changes, "facts": NodeFacts(**{**facts, **changes.get("facts", {})})})
