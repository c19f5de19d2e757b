"""Is there anything to start? What a member needs on its node, and which command goes on from there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steps.core.base.errors import Refused, StepsError
from steps.core.base.hints import invoke
from steps.core.etcd.identity import vanished, was_healthy
from steps.core.node.paths import data_directories, unit_file

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context
    from steps.core.node.facts import Look


def missing(cluster: Cluster, node: Node, look: Look) -> list[str]:
    """Return the paths that the member needs at its next start and that are missing; a reset renames some of them."""
    needed = [f"{node.paths.bin}/etcd", unit_file(cluster, node)]
    if cluster.tls.enabled:
        pair, live = (f"{node.paths.cert}/{name}" for name in ("etcd.pem", "live/etcd.pem"))
        needed += [f"{node.paths.cert}/ca.pem", live if live in look.entries else pair]
    if look.process is None:
        needed += [directory.path for directory in data_directories(cluster, node)]
    return [path for path in needed if path not in look.entries]


def refuse_unprepared(ctx: Context, nodes: Sequence[Node]) -> None:
    """Raise Refused where a node lacks what its member needs: an enabled unit would fail again and again."""
    lacking = [
        f"{node.name}: {', '.join(paths)}" for node in nodes if (paths := missing(ctx.cluster, node, ctx.look(node)))
    ]
    if lacking:
        raise Refused(
            "nothing was started: not deployed, or reset. Missing:\n  " + "\n  ".join(lacking), hint=invoke("all")
        )


def next_command(ctx: Context, silent: Sequence[Node]) -> str:
    """Return the command that works in the state of the members that do not answer (`silent`)."""
    looks = {name: look for name, look in ctx.each(silent, lambda node: _seen(ctx, node)).items() if look}
    known = [(node, looks[node.name]) for node in silent if node.name in looks]
    if any(_lost(ctx.cluster, node, look) for node, look in known):
        return invoke("doctor")
    if any(missing(ctx.cluster, node, look) for node, look in known):
        return invoke("all")
    stopped = [
        node.name
        for node, look in known
        if look.process is None and look.unit.get("ActiveState", "inactive") == "inactive"
    ]
    if not stopped:
        return invoke("doctor")
    everyone = len(stopped) == len(ctx.cluster.nodes)
    return invoke("start" if everyone else f"start --node {','.join(stopped)}")  # others may be out of reach


def _seen(ctx: Context, node: Node) -> Look | None:
    try:
        return ctx.look_at(node)
    except StepsError:
        return None  # that it cannot be asked has been said


def _lost(cluster: Cluster, node: Node, look: Look) -> bool:
    """Return whether the node is a member with missing data, which no task starts."""
    return was_healthy(cluster, node, look) and bool(vanished(node, look))
