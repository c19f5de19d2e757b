"""ca: one CA for the cluster, created once, never replaced; its certificate on the nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from steps.core.node import ca_key
from steps.core.node.paths import ca_key_files, cert_directory
from steps.core.node.resources import File, Promise, Resource
from steps.core.pipeline.step import Step

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context


class CA(Step):
    """Create the CA once; bring ca.pem to the nodes"""

    name = "ca"

    def ahead(self, cluster: Cluster, ctx: Context) -> None:
        """What reads certificates is loaded."""
        if cluster.tls.enabled:
            ctx.store.ca()

    def prepare(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        tls = cluster.tls
        if said := ca_key.warning(cluster, [node for node in nodes if ctx.look(node).facts.has_ca_key]):
            ctx.warn(said)
        if not tls.enabled:
            ctx.say("TLS is off")
        elif not ctx.dry:
            fresh = ctx.store.ca() is None
            ctx.authority.ca()
            if fresh:
                ctx.change(
                    f"CA {tls.ca_cn} created by {tls.backend} in {cluster.work / 'ca'}: back it up, nothing replaces it"
                )
        elif ctx.store.ca() is None:
            ctx.change(f"CA will be created by {tls.backend}: CN={tls.ca_cn}, {tls.key}, {tls.ca_days} days")

    def desired(self, ctx: Context, node: Node) -> Iterator[Resource]:
        cluster = ctx.cluster
        if not cluster.tls.enabled:
            return
        yield cert_directory(cluster, node)
        ca = cluster.work / "ca" / "ca.pem"
        yield File(f"{node.paths.cert}/ca.pem", ca.read_bytes() if ca.exists() else Promise("the CA's certificate"))
        if cluster.tls.distribute_ca_key:
            yield from ca_key_files(cluster, node)
