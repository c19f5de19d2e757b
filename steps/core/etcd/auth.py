"""etcd's auth, as far as this tool must know it: a member's certificate that may not ask its own member. Pure.

With auth on, a certificate's common name is a user of etcd. Without the role root it is refused the status (from 3.5.3x
on), hashes, snapshots and foreign keys: that says nothing of the cluster's health.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from shlex import quote

from steps.core.base.errors import Refused
from steps.core.config.model import Cluster, Node
from steps.core.etcd.views import View

# etcd's rpctypes and auth packages; a file's "permission denied" is neither's.
_REFUSED = re.compile(r"(?:etcdserver|auth): (user name not found|user not found|user name is empty|permission denied)")


def refused(view: View) -> str:
    """Return etcd's words where auth kept one of the answers of `view` back; else ""."""
    for words in (*view.errors.values(), *view.health.values(), view.written):
        if found := _REFUSED.search(words):
            return found[0]
    return ""


class KeptOut(Refused):
    """etcd's auth keeps back from the members' certificates what a restart needs to know."""


def refuses(cluster: Cluster, node: Node, view: View) -> Refused | None:
    """Return the refusal of what needs to know the health, where auth keeps it back from `node`."""
    words = refused(view)
    return KeptOut(f"{said(cluster, node)} ({words})", hint=way(cluster)) if words else None


def said(cluster: Cluster, node: Node) -> str:
    """Return what is known then, in one sentence."""
    if not cluster.tls.enabled:
        return f"auth is on, and {node.name} asks without a certificate, so as no user"
    return f"auth is on, and {node.name}'s certificate (CN={_user(cluster, node)}) is no user with role root"


def way(cluster: Cluster) -> str:
    """Return how the members' certificates become users that may ask, in etcd's own commands."""
    if not cluster.tls.enabled:
        return "with auth on, this tool needs [tls]: a user with role root is known by its certificate's CN"
    return (
        f"give the members' certificates the role root, as the operator (CN={cluster.tls.operator_cn}): "
        f". {quote(str(cluster.work / 'environment.sh'))} && {' && '.join(_commands(cluster))}"
    )


def _commands(cluster: Cluster) -> Iterator[str]:
    for name in dict.fromkeys(_user(cluster, node) for node in cluster.nodes):
        yield f"etcdctl user add {quote(name)} --no-password && etcdctl user grant-role {quote(name)} root"


def _user(cluster: Cluster, node: Node) -> str:
    from steps.core.tls import profiles

    return profiles.member(cluster, node).cn
