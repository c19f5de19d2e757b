"""A copy of the CA's key that a node still has although etcd.toml keeps it on the controller."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from steps.core.base.hints import invoke
from steps.core.config.model import Cluster, Node

NAME = "ca-key.pem"
FACT = "cakey"  # as `FACT=1` in what a look prints


def key_path(node: Node) -> str:
    return f"{node.paths.cert}/{NAME}"


def seen_script(node: Node) -> str:
    """Prints the fact where the file is there. Nothing of it is read."""
    path = quote(key_path(node))
    return f"if [ -e {path} ] || [ -h {path} ]; then echo {FACT}=1; fi"


def warning(cluster: Cluster, nodes: Sequence[Node]) -> str:
    """Return what is said of nodes that have the file; "" where there is none, or where it belongs there."""
    if not nodes or cluster.tls.distribute_ca_key or not cluster.tls.enabled:
        return ""
    names, paths = ", ".join(node.name for node in nodes), ", ".join(dict.fromkeys(map(key_path, nodes)))
    has = "has" if len(nodes) == 1 else "have"
    selected = "" if len(nodes) == len(cluster.nodes) else f" --node {','.join(node.name for node in nodes)}"
    removes = invoke(f"remove-ca-key{selected}")
    return f"{names} still {has} a CA key, {paths}: who reads it can sign anything. {removes} removes it"
