"""download: etcd's release, verified, in the controller's cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steps.core.pipeline.step import Step
from steps.core.release.binaries import own_arch

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context


class Download(Step):
    """Fetch and verify etcd's release, for every architecture that is needed"""

    name = "download"

    def ahead(self, cluster: Cluster, ctx: Context) -> None:
        """The cache's digests."""
        del cluster
        ctx.release(own_arch())

    def prepare(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        for arch in sorted({own_arch(), *(ctx.arch(node) for node in nodes)}):
            staged = ctx.release(arch)
            if staged is not None:
                ctx.say(f"etcd {cluster.version} ({arch}) is in the cache: {staged.origin}, {staged.verified_by}")
            elif ctx.dry:
                sources = ", ".join(cluster.release.sources)
                ctx.local(f"etcd {cluster.version} ({arch}) will be fetched (sources in order: {sources})")
            else:
                staged = ctx.fetch(arch)
                ctx.local(f"etcd {cluster.version} ({arch}) from {staged.origin}, {staged.verified_by}")
        own = ctx.release(own_arch())
        for name, blob in own.binaries.items() if own is not None else ():
            ctx.link(cluster.work / "bin" / name, blob.path)
