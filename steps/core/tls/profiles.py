"""Which certificates a cluster needs, and what each of them says."""

from __future__ import annotations

from steps.core.config.model import Cluster, Node
from steps.core.tls.contracts import NO_HOST, LeafProfile

SHARED = "shared"
CLIENT_NAME = "operator"


def leaf_name(cluster: Cluster, node: Node) -> str:
    """The name in the store of the certificate that this node serves."""
    return SHARED if cluster.tls.layout == "shared" else node.name


def member(cluster: Cluster, node: Node) -> LeafProfile:
    """One node's leaf; with the shared layout the one of all nodes."""
    nodes = cluster.nodes if cluster.tls.layout == "shared" else (node,)
    names = [name for each in nodes for name in (each.ip, each.name, *each.sans)]
    name = leaf_name(cluster, node)
    return LeafProfile(
        name=name,
        kind="member",
        cn=cluster.tls.cn or ("etcd" if name == SHARED else node.name),
        subject=cluster.tls.subject,
        sans=tuple(dict.fromkeys([*names, "localhost", "127.0.0.1", "::1"])),
        days=cluster.tls.leaf_days,
    )


def client(cluster: Cluster, name: str, cn: str) -> LeafProfile:
    """A client's leaf. Its one SAN is no host's address, so that no member takes it for a peer's."""
    return LeafProfile(
        name=name, kind="client", cn=cn, subject=cluster.tls.subject, sans=(NO_HOST,), days=cluster.tls.leaf_days
    )


def operator(cluster: Cluster) -> LeafProfile:
    return client(cluster, CLIENT_NAME, cluster.tls.operator_cn)


def describe(profile: LeafProfile) -> str:
    """For plans: subject, SANs, lifetime."""
    sans = f", SAN {', '.join(profile.sans)}" if profile.sans else ""
    return f"{profile.kind} certificate CN={profile.cn}{sans}, {profile.days} days"
