"""stop: members are stopped, nothing is removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steps.core.base.option import NODE
from steps.core.cli.confirm import confirmed
from steps.core.cli.options import task
from steps.core.health.gate import expected, healthy
from steps.core.node.service import stop_script
from steps.core.procedures.scripts import end

if TYPE_CHECKING:
    from steps.core.cli.invocation import TaskContext
    from steps.core.config.model import Node
    from steps.core.context.context import Context


@task(writes=True, options=(NODE,), yes="the cluster's name, instead of typing it: stopping takes the quorum away")
def stop(c: TaskContext, yes: str = "") -> None:
    """Stop the members; data, certificates and units stay. `invoke start` starts them again"""
    command = c.command
    cluster, nodes, ctx = command.cluster, command.nodes, command.open()
    if not ctx.dry and cluster.systemd and takes_quorum(ctx, nodes):
        confirmed(cluster, yes, f"stops {', '.join(each.name for each in nodes)}: the cluster will have no quorum")
    end(ctx, nodes, "stop", lambda each: stop_script(cluster, each), plan="will be stopped", done="stopped")


def takes_quorum(ctx: Context, nodes: Sequence[Node]) -> bool:
    """Whether too few members serve without `nodes`; others may be down already."""
    cluster = ctx.cluster
    if len(cluster.nodes) - len(nodes) < cluster.quorum:
        return True
    view = ctx.etcd.ask(nodes[0])
    if len(view.statuses) < len(cluster.nodes):  # down, or etcd.toml has other ports than those at which they serve
        ctx.etcd.learn(nodes[0])
        ctx.members = ctx.etcd.ask(nodes[0]).members
        view = ctx.etcd.ask(nodes[0])
    return len(healthy(view, expected(ctx.serving)) - {node.name for node in nodes}) < cluster.quorum
