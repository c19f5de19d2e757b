"""Where things lie on a node, and to whom they belong: said once, used by phases and operations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from steps.core.config.model import Cluster, Node
from steps.core.node.resources import Block, Directory, File, Promise
from steps.core.tls import cfssl_policy

HOSTS = "/etc/hosts"
PROCESS_UNIT = "etcd.sh"  # what starts a member that is a plain process


def unit_file(cluster: Cluster, node: Node) -> str:
    return f"{node.paths.unit}/{'etcd.service' if cluster.systemd else PROCESS_UNIT}"


def wal_parent(node: Node) -> str:
    """etcd creates <wal>.tmp beside the WAL directory and renames it: the parent must be its own."""
    return str(PurePosixPath(node.paths.wal).parent)


def cert_directory(cluster: Cluster, node: Node) -> Directory:
    return Directory(node.paths.cert, 0o750, "root", cluster.hosts.run_as)


def data_directories(cluster: Cluster, node: Node) -> Iterator[Directory]:
    """0700, etcd's own (CIS Kubernetes 1.1.11 and 1.1.12)."""
    owner = cluster.hosts.run_as
    for path in dict.fromkeys((wal_parent(node), node.paths.data, node.paths.wal)):
        yield Directory(path, 0o700, owner, owner)


def hosts_block(cluster: Cluster) -> Iterator[Block]:
    """The members' names in /etc/hosts, where etcd.toml wants them there."""
    if cluster.hosts.manage_etc_hosts:
        lines = (f"{node.ip} {node.name}\n" for node in cluster.nodes)
        yield Block(HOSTS, f"etcd-steps {cluster.name}", "".join(lines))


def ca_key_files(cluster: Cluster, node: Node) -> Iterator[File]:
    """The CA's key and cfssl's configuration on a node: only where `distribute_ca_key` says so, by name."""
    home = cluster.work / "ca"
    key = home / cluster.tls.backend / "ca-key.pem"
    # Where there is a CA and no key, the backend keeps it elsewhere, or it was lost: the nodes go on without.
    if key.exists() or not (home / "ca.pem").exists():
        content = key.read_bytes() if key.exists() else Promise("the CA's private key")
        yield File(f"{node.paths.cert}/ca-key.pem", content, 0o600, secret=True)
    yield File(f"{node.paths.cert}/ca-config.json", cfssl_policy.text(cfssl_policy.policy(cluster)))
