"""distribute: etcd's binaries on every node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


class Distribute(Step):
    """Bring the binaries to the nodes; each runs there once before it replaces anything"""

    name = "distribute"

    def prepare(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        upgrade.secure(ctx, nodes)
        for arch in sorted({ctx.arch(node) for node in nodes}):
            if not ctx.dry:
                ctx.record(ctx.fetch(arch))
        for node in nodes:
            if _is_unknown(ctx, ctx.look(node)):
                what = f"has etcd {cluster.version}; whether its binaries are the release's is not known"
                ctx.say(f"{what}, for this controller has not fetched it: {invoke('download')}", node)

    def desired(self, ctx: Context, node: Node) -> Iterator[Resource]:
        look = ctx.looks.get(node.name)
        for name in BINARIES if look is None else _names(ctx, look):
            path = f"{node.paths.bin}/{name}"
            yield File(
                path,
                partial(_binary, ctx, path, name),
                mode=0o755,
                # The wrong glibc or architecture shows here, before anything is replaced.
                check=("plain", "{}", "--version" if name == "etcd" else "version"),
            )


def _names(ctx: Context, look: Look) -> Sequence[str]:
    """Return the binaries that this node should have, as far as that is known."""
    staged = ctx.release(look.arch)
    known = staged.binaries if staged is not None else ctx.recorded(look.arch)
    if known:
        return [name for name in BINARIES if name in known]
    return REQUIRED if _is_unknown(ctx, look) else BINARIES


def _is_unknown(ctx: Context, look: Look) -> bool:
    """Whether the node has the right version, of which nothing more can be said here."""
    if ctx.release(look.arch) is not None or ctx.recorded(look.arch):
        return False
    return look.facts.installed_version == ctx.cluster.version


def _binary(ctx: Context, path: str, name: str, look: Look) -> Content:
    staged = ctx.release(look.arch)
    if staged is not None:
        return staged.binaries[name]
    digest = ctx.recorded(look.arch).get(name, "")
    entry = look.entries.get(path)
    if entry is not None and _is_unknown(ctx, look):
        digest = entry.digest  # what is not known is no difference
    return Promise(f"{name} {ctx.cluster.version}, once it is fetched", digest)
