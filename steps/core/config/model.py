"""The cluster as etcd.toml means it: every default decided, every path concrete. Nothing here is ever written back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steps.core.config import schema


@dataclass(frozen=True)
class NodePaths:
    """Absolute directories on the node."""

    bin: str
    cert: str
    data: str
    wal: str
    unit: str


@dataclass(frozen=True)
class Node:
    """One member and the host that it lives on. `flags` are this node's own, over the cluster's."""

    name: str
    ip: str
    client_port: int
    peer_port: int
    sans: tuple[str, ...]
    paths: NodePaths
    flags: Mapping[str, str]
    ssh: schema.NodeSsh

    @property
    def host(self) -> str:
        """The address as it stands in a URL: IPv6 in brackets."""
        return f"[{self.ip}]" if ":" in self.ip else self.ip


@dataclass(frozen=True)
class Cluster:
    """What etcd.toml says. The sections are the validated sections of the file; `nodes` have their defaults filled in.

    `flags` are etcd's flags for the whole cluster, defaults merged; `file` is etcd.toml, `work` the cluster's own work
    directory on the controller, `options` the tables [plugins.NAME], validated by each plugin's own model.
    """

    name: str
    token: str
    version: str
    allow_two_members: bool
    metrics_port: int
    flags: Mapping[str, str]
    nodes: tuple[Node, ...]
    release: schema.Release
    hosts: schema.Hosts
    ssh: schema.Ssh
    tls: schema.Tls
    file: Path
    work: Path
    disabled: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def scheme(self) -> str:
        return "https" if self.tls.enabled else "http"

    @property
    def systemd(self) -> bool:
        return self.hosts.service == "systemd"

    @property
    def quorum(self) -> int:
        return len(self.nodes) // 2 + 1

    def client_url(self, node: Node) -> str:
        return f"{self.scheme}://{node.host}:{node.client_port}"

    def peer_url(self, node: Node) -> str:
        return f"{self.scheme}://{node.host}:{node.peer_port}"

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)
