"""What a step is, and the order in which steps run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from steps.core.base.option import Option
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context
    from steps.core.node.resources import Resource


class Step:
    """One phase. Its docstring is its help; `after` or `before` names the step beside which it takes its place.

    `prepare` runs once on the controller, in real runs and in dry ones (`ctx.dry`: then it changes nothing and says
    what it would do); `desired` yields what a node should have, and asks `ctx` for what it needs to know: a step keeps
    nothing between the two. A step about the whole cluster has `run` instead.
    """

    name: ClassVar[str] = ""
    after: ClassVar[str] = ""
    before: ClassVar[str] = ""
    reads_only: ClassVar[bool] = False  # needs neither the look nor a lock
    options: ClassVar[tuple[Option[Any], ...]] = ()  # of its task, besides --node; `ctx.option` has what was given

    def ahead(self, cluster: Cluster, ctx: Context) -> None:
        """While the nodes are looked at, before anything is known of them: what only reads, and takes its time."""

    def prepare(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        """On the controller, before any node is compared."""

    def desired(self, ctx: Context, node: Node) -> Iterable[Resource]:
        """Return the node's resources, in the order in which they are made.

        Called for several nodes at once, and first before they are looked at, to know what to look at: then `ctx.looks`
        is empty. So what depends on the node is a File's content, which may be a function of its Look.
        """
        del ctx, node
        return ()

    def batches(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> Iterable[Sequence[Node]]:
        """Yield the nodes that will be changed, in the groups in which that happens: all at once, by default.

        What follows a `yield` runs once that group is changed: it raises where the change did not have its effect.
        """
        del cluster, ctx
        return (nodes,)

    def run(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        """The whole step, where it is not about what a node should have."""

    @property
    def runs(self) -> bool:
        return type(self).run is not Step.run
