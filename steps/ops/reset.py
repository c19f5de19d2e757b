"""reset: the cluster ends; its data is renamed, never deleted, and its CA stays."""

from __future__ import annotations

import time
from pathlib import PurePosixPath
from shlex import quote
from typing import TYPE_CHECKING

from steps.core.base.option import NODE
from steps.core.cli.confirm import confirmed
from steps.core.cli.options import task
from steps.core.etcd.identity import CLUSTER_ID
from steps.core.etcd.unit_text import unguard_script
from steps.core.node.guard import AS_OURSELVES, ENTER
from steps.core.node.service import disable_script, stop_script
from steps.core.procedures.scripts import end

if TYPE_CHECKING:
    from steps.core.cli.invocation import TaskContext
    from steps.core.config.model import Cluster, Node


@task(writes=True, options=(NODE,), yes="the cluster's name, instead of typing it")
def reset(c: TaskContext, yes: str = "") -> None:
    """Stop and disable the members and rename their data to .old-<time>; the CA and the certificates stay"""
    command = c.command
    cluster, nodes, ctx = command.cluster, command.nodes, command.open()
    if not ctx.dry:
        confirmed(cluster, yes, f"ends the members {', '.join(each.name for each in nodes)} of {cluster.name}")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    ends = len(nodes) == len(cluster.nodes)
    end(
        ctx,
        nodes,
        "reset",
        lambda each: reset_script(cluster, each, stamp, ends=ends),
        plan="will be stopped and disabled, its data renamed",
        done=f"stopped; data renamed to *.old-{stamp}",
    )
    if not ctx.dry and ends:
        (cluster.work / CLUSTER_ID).unlink(missing_ok=True)


def reset_script(cluster: Cluster, node: Node, stamp: str, *, ends: bool) -> str:
    """Stops, disables, renames. A member that is gone already is no error.

    Where etcd may put a link in the place of its data or of what is above it, nothing is stopped: it is not the data
    that would be renamed. `ends`: the whole cluster does, and the next one may begin without data: then, last of all,
    the guard goes.
    """
    paths = [PurePosixPath(path) for path in (node.paths.data, node.paths.wal)]
    there = [f"[ ! -e {quote(str(path))} ] || ( enter " for path in paths]
    checks = [f"{start}{quote(str(path))} ) || exit 1" for start, path in zip(there, paths, strict=True)]
    moves = [
        f"{start}{quote(str(path.parent))} && mv -T -- {quote(f'./{path.name}')} {quote(f'./{path.name}.old-{stamp}')}"
        " ) || exit 1"
        for start, path in zip(there, paths, strict=True)
    ]
    last = unguard_script(cluster, node) if ends else ""
    guard = ENTER if cluster.systemd else AS_OURSELVES
    return "\n".join([guard, *checks, stop_script(cluster, node), disable_script(cluster), *moves, last])
