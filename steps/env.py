"""env: are the hosts fit, and what do the controller and they need besides etcd?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shlex import quote
from typing import TYPE_CHECKING

from steps.core.node.paths import hosts_block
from steps.core.node.resources import Resource, User
from steps.core.pipeline.step import Step
from steps.core.tls.profiles import CLIENT_NAME

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context


class Env(Step):
    """Check the hosts; write environment.sh; keep /etc/hosts; create etcd's user"""

    name = "env"

    def prepare(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        # The preflight itself has passed: it guards every chain that changes something, right after the look.
        for node in nodes:
            facts = ctx.look(node).facts
            systemd = f", systemd {facts.systemd}" if facts.systemd is not None else ""
            installed = f", etcd {facts.installed_version}" if facts.installed_version is not None else ""
            ctx.say(f"fit ({facts.cpu}{systemd}{installed})", node)
        ctx.write(cluster.work / "environment.sh", environment(cluster))

    def desired(self, ctx: Context, node: Node) -> Iterator[Resource]:
        del node
        cluster = ctx.cluster
        if cluster.systemd and cluster.hosts.run_as != "root":
            yield User(cluster.hosts.run_as)
        yield from hosts_block(cluster)


def environment(cluster: Cluster) -> str:
    """environment.sh, for bash: the how-to's variables as plain ones, and exported only what etcdctl reads."""
    work = cluster.work
    nodes = cluster.nodes
    endpoints = ",".join(cluster.client_url(node) for node in nodes)
    members = ",".join(f"{node.name}={cluster.peer_url(node)}" for node in nodes)
    live = work / "certs" / CLIENT_NAME / "live"
    lines = [
        f"# The cluster {cluster.name}: `. {work / 'environment.sh'}`, then etcdctl just works. Made by invoke env.",
        f"VER={quote(cluster.version)}",
        f"NODE_IPS=({' '.join(quote(node.ip) for node in nodes)})",
        f"NODE_NAMES=({' '.join(quote(node.name) for node in nodes)})",
        f"ETCD_ENDPOINTS={quote(endpoints)}",
        f"ETCD_NODES={quote(members)}",
        f"ETCD_DATA_DIR={quote(nodes[0].paths.data)}",
        f"ETCD_WAL_DIR={quote(nodes[0].paths.wal)}",
        f"case :$PATH: in *:{quote(str(work / 'bin'))}:*) ;; *) export PATH={quote(str(work / 'bin'))}:$PATH;; esac",
        f"export ETCDCTL_ENDPOINTS={quote(endpoints)}",
    ]
    if cluster.tls.enabled:
        lines += [
            f"export ETCDCTL_CACERT={quote(str(work / 'ca' / 'ca.pem'))}",
            f"export ETCDCTL_CERT={quote(str(live / 'cert.pem'))}",
            f"export ETCDCTL_KEY={quote(str(live / 'key.pem'))}",
        ]
    else:
        lines.append("unset ETCDCTL_CACERT ETCDCTL_CERT ETCDCTL_KEY")
    return "\n".join(lines) + "\n"
