"""start: a first bootstrap starts all members at once; a living cluster restarts one at a time, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steps.core.checks.prepared import refuse_unprepared
from steps.core.etcd.identity import known_id
from steps.core.pipeline.step import Step
from steps.core.procedures import bootstrap, rolling_restart
from steps.core.procedures.unit_changes import assert_data

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context


class Start(Step):
    """Start what is stopped; restart, one by one, what differs from what is installed"""

    name = "start"
    options = (rolling_restart.ACCEPT_DOWNTIME,)

    def run(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        refuse_unprepared(ctx, nodes)
        stopped = [node for node in nodes if ctx.look(node).process is None]
        differing = {
            node.name: reason
            for node in nodes
            if node not in stopped and (reason := rolling_restart.restart_reason(cluster, node, ctx.look(node)))
        }
        right = [node for node in nodes if node not in stopped and node.name not in differing]
        starting = [node for node in right if ctx.look(node).unit.get("ActiveState") == "activating"]
        for node in right:
            ctx.say("starts what is installed" if node in starting else "runs what is installed", node)
        bootstrap.enable(ctx, [node for node in nodes if ctx.look(node).unit.get("UnitFileState") != "enabled"])
        if ctx.dry:
            for node in stopped:
                ctx.change("will be started", node)
            for node in rolling_restart.order(cluster, nodes, differing):
                ctx.change(f"will be restarted, {rolling_restart.HOW}: {differing[node.name]}", node)
            if known_id(cluster) or len(nodes) == len(cluster.nodes):  # by then the cluster is healthy
                assert_data(ctx, nodes)
            return
        if stopped or starting or not known_id(cluster):
            bootstrap.start(ctx, nodes, stopped, starting)
        assert_data(ctx, nodes)
        if differing:
            rolling_restart.restart(ctx, nodes, differing)
