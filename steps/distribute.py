"""distribute: etcd's binaries on every node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from steps.core.etcd import upgrade
from steps.core.release.binaries import BINARIES
from steps.core.resources import Content, File, Promise, Resource
from steps.core.step import Step

if TYPE_CHECKING:
    from steps.core.context import Context
    from steps.core.model import Cluster, Node
    from steps.core.node.look import Look
    from steps.core.release.releases import Staged


class Distribute(Step):
    """Bring the binaries to the nodes; each runs there once before it replaces anything"""

    name = "distribute"

    def __init__(self) -> None:
        self._staged: dict[str, Staged] = {}
        self._arch: dict[str, str] = {}  # by node

    def prepare(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        del cluster
        upgrade.secure(ctx, nodes)
        self._arch = {node.name: ctx.arch(node) for node in nodes}
        for arch in set(self._arch.values()):
            staged = ctx.release(arch) if ctx.dry else ctx.fetch(arch)
            if staged is not None:
                self._staged[arch] = staged

    def desired(self, cluster: Cluster, node: Node) -> Iterator[Resource]:
        staged = self._staged.get(self._arch.get(node.name, ""))
        for name in BINARIES:
            if staged is not None and name not in staged.binaries:
                continue
            yield File(
                f"{node.paths.bin}/{name}",
                partial(self._binary, cluster, name),
                mode=0o755,
                # The wrong glibc or architecture shows here, before anything is replaced.
                check=("env", "-i", "{}", "--version" if name == "etcd" else "version"),
            )

    def _binary(self, cluster: Cluster, name: str, look: Look) -> Content:
        staged = self._staged.get(look.arch)
        return staged.binaries[name] if staged else Promise(f"{name} {cluster.version}, once it is fetched")
