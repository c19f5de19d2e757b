"""distribute: etcd's binaries on every node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from steps.core.base.hints import invoke
from steps.core.node.resources import Content, File, Promise, Resource
from steps.core.pipeline.step import Step
from steps.core.procedures import upgrade
from steps.core.release.binaries import BINARIES, REQUIRED

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context
    from steps.core.node.facts import Look
    from steps.core.release.releases import Staged


class Distribute(Step):
    """Bring the binaries to the nodes; each runs there once before it replaces anything"""

    name = "distribute"

    def __init__(self) -> None:
        self._staged: dict[str, Staged] = {}
        self._recorded: dict[str, Mapping[str, str]] = {}  # by architecture: digests of what this controller lacks
        self._unknown: set[str] = set()  # nodes with the right version, of which nothing more can be said here
        self._arch: dict[str, str] = {}  # by node

    def prepare(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        upgrade.secure(ctx, nodes)
        self._arch = {node.name: ctx.arch(node) for node in nodes}
        for arch in sorted(set(self._arch.values())):
            staged = ctx.release(arch) if ctx.dry else ctx.fetch(arch)
            if staged is None:
                self._recorded[arch] = ctx.recorded(arch)
                continue
            self._staged[arch] = staged
            if not ctx.dry:
                ctx.record(staged)
        for node in nodes:
            known = self._staged.get(self._arch[node.name]) or self._recorded.get(self._arch[node.name])
            if known or ctx.look(node).facts.installed_version != cluster.version:
                continue
            self._unknown.add(node.name)
            what = f"has etcd {cluster.version}; whether its binaries are the release's is not known"
            ctx.say(f"{what}, for this controller has not fetched it: {invoke('download')}", node)

    def desired(self, cluster: Cluster, node: Node) -> Iterator[Resource]:
        for name in self._names(node):
            yield File(
                f"{node.paths.bin}/{name}",
                partial(self._binary, cluster, node, name),
                mode=0o755,
                # The wrong glibc or architecture shows here, before anything is replaced.
                check=("plain", "{}", "--version" if name == "etcd" else "version"),
            )

    def _names(self, node: Node) -> Sequence[str]:
        """The binaries that this node should have, as far as that is known."""
        arch = self._arch.get(node.name, "")
        staged, recorded = self._staged.get(arch), self._recorded.get(arch)
        known = staged.binaries if staged is not None else recorded
        if known:
            return [name for name in BINARIES if name in known]
        return REQUIRED if node.name in self._unknown else BINARIES

    def _binary(self, cluster: Cluster, node: Node, name: str, look: Look) -> Content:
        staged = self._staged.get(look.arch)
        if staged is not None:
            return staged.binaries[name]
        digest = self._recorded.get(look.arch, {}).get(name, "")
        entry = look.entries.get(f"{node.paths.bin}/{name}")
        if node.name in self._unknown and entry is not None:
            digest = entry.digest  # what is not known is no difference
        return Promise(f"{name} {cluster.version}, once it is fetched", digest)
