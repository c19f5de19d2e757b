"""Whose data a node has: the cluster's ID, and whether a member lost its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steps.core.etcd import unit_text
from steps.core.node.facts import Look

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node

CLUSTER_ID = "cluster-id"
VANISHED = (
    "the cluster has had this member, so its data vanished; "
    "a member that starts empty under an old identity can corrupt the cluster"
)
REPLACE = "find the data (is a disk not mounted?), or replace the member: remove it from the cluster, then add it anew"


def vanished(node: Node, look: Look) -> str:
    """What is gone of a member's data; empty where nothing is. etcd takes a member without its WAL for a new one."""
    gone = [path for path, there in ((node.paths.data, look.member), (node.paths.wal, look.wal)) if not there]
    return f"no member's data in {' and '.join(gone)}" if gone else ""


def known_id(cluster: Cluster) -> str:
    """The cluster's ID, in hex, as of its first healthy start; "" where this controller has seen none."""
    file = cluster.work / CLUSTER_ID
    return file.read_text().strip() if file.exists() else ""


def was_healthy(cluster: Cluster, node: Node, look: Look) -> bool:
    """Whether the cluster was once healthy, as this controller or the node itself remembers it.

    The node's unit does, so that a controller which has the CA alone takes no empty member for a new one.
    """
    return bool(known_id(cluster)) or unit_text.is_guarded(cluster, unit_text.installed(cluster, node, look))
