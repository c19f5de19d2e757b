"""What a step is, and the order in which steps run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context
    from steps.core.node.resources import Resource


class Step:
    """One phase. Its docstring is its help; `after` or `before` names the step beside which it takes its place.

    `prepare` runs once on the controller, in real runs and in dry ones (`ctx.dry`: then it changes nothing and says
    what it would do); `desired` yields what a node should have. A step about the whole cluster has `run` instead.
    """

    name: ClassVar[str] = ""
    after: ClassVar[str] = ""
    before: ClassVar[str] = ""
    reads_only: ClassVar[bool] = False  # needs neither the look nor a lock

    def ahead(self, cluster: Cluster, ctx: Context) -> None:
        """While the nodes are looked at, before anything is known of them: what only reads, and takes its time."""

    def prepare(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        """On the controller, before any node is compared."""

    def desired(self, cluster: Cluster, node: Node) -> Iterable[Resource]:
        """The node's resources, in the order in which they are made."""
        del cluster, node
        return ()

    def batches(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> Iterable[Sequence[Node]]:
        """The nodes that will be changed, in the groups in which that happens: all at once, if not said otherwise."""
        del cluster, ctx
        return (nodes,)

    def settle(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        """After each batch: raises where the change did not have the effect that it should have."""

    def run(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        """The whole step, where it is not about what a node should have."""

    @property
    def runs(self) -> bool:
        return type(self).run is not Step.run
