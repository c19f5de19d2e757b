"""start: a first bootstrap starts all members at once; a living cluster restarts one at a time, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steps.core.etcd import rolling
from steps.core.etcd.prepared import refuse_unprepared
from steps.core.etcd.unit_changes import assert_data
from steps.core.step import Step

if TYPE_CHECKING:
    from steps.core.context import Context
    from steps.core.model import Cluster, Node


class Start(Step):
    """Start what is stopped; restart, one by one, what differs from what is installed"""

    name = "start"

    def run(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        refuse_unprepared(ctx, nodes)
        stopped = [node for node in nodes if ctx.look(node).process is None]
        differing = {
            node.name: reason
            for node in nodes
            if node not in stopped and (reason := rolling.restart_reason(cluster, node, ctx.look(node)))
        }
        right = [node for node in nodes if node not in stopped and node.name not in differing]
        starting = [node for node in right if ctx.look(node).unit.get("ActiveState") == "activating"]
        for node in right:
            ctx.say("starts what is installed" if node in starting else "runs what is installed", node)
        rolling.enable(ctx, [node for node in nodes if ctx.look(node).unit.get("UnitFileState") != "enabled"])
        if ctx.dry:
            for node in stopped:
                ctx.change("will be started", node)
            for node in rolling.order(cluster, nodes, differing):
                ctx.change(f"will be restarted, {rolling.HOW}: {differing[node.name]}", node)
            if rolling.known_id(cluster) or len(nodes) == len(cluster.nodes):  # by then the cluster is healthy
                assert_data(ctx, nodes)
            return
        if stopped or starting or not rolling.known_id(cluster):
            rolling.start(ctx, nodes, stopped, starting)
        assert_data(ctx, nodes)
        if differing:
            rolling.restart(ctx, nodes, differing)
