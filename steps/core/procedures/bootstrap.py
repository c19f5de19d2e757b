"""Starting members: all that are stopped at once, for they block until there is a quorum."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING

from steps.core.base.errors import NodeFailed, Refused, Unhealthy
from steps.core.base.files import replace
from steps.core.base.hints import invoke
from steps.core.etcd.views import View
from steps.core.health.gate import expected, healthy, wait_open
from steps.core.node.guard import ENTER
from steps.core.node.service import enable_script, start_script
from steps.core.transport.pool import NotForwarded

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context
from steps.core.etcd.identity import CLUSTER_ID, REPLACE, VANISHED, known_id, vanished
from steps.core.procedures.data_holders import refuse_held
from steps.core.procedures.scripts import run_script


def enable(ctx: Context, nodes: Sequence[Node]) -> None:
    if not ctx.cluster.systemd:
        return
    for node in nodes:
        ctx.change("etcd.service is enabled" if not ctx.dry else "etcd.service will be enabled", node)
    if not ctx.dry and nodes:
        ctx.each(nodes, lambda node: run_script(ctx, node, enable_script(ctx.cluster)))


def start(ctx: Context, nodes: Sequence[Node], stopped: Sequence[Node], starting: Sequence[Node]) -> None:
    """Starts what is stopped, all at once: members block until there is a quorum. Remembers the first health.

    `starting`: somebody else started them, a run that was interrupted, or systemd; they are waited for all the same.

    Raises Refused for a member whose data vanished, Unhealthy where members outside the selection are still missing,
    where somebody else has a member's data open, and where a member does not come up.
    """
    cluster = ctx.cluster
    _refuse_vanished(ctx, stopped)
    ctx.each(stopped, lambda node: refuse_held(ctx, node))
    ctx.each(stopped, lambda node: run_script(ctx, node, owned_script(cluster, node) + start_script(cluster, node)))
    for node in stopped:
        ctx.change("etcd is started", node)
    _refuse_to_wait_in_vain(ctx, nodes)
    try:
        view = wait_open(ctx, (stopped or nodes)[0], {node.name: 0 for node in (*stopped, *starting)})
    except NodeFailed as error:
        raise _degraded(ctx, nodes, error) from error
    _remember(ctx, view)


def _refuse_vanished(ctx: Context, stopped: Sequence[Node]) -> None:
    """An empty node is a new member only where the cluster does not know it yet.

    The preflight has refused it where the cluster was once healthy. Before that, a member that never started is known
    to the others without client URLs.
    """
    cluster = ctx.cluster
    empty = [node for node in stopped if vanished(node, ctx.look(node))]
    if not empty or len(stopped) == len(cluster.nodes):
        return
    names = {node.name for node in empty}
    others = [cluster.client_url(node) for node in ctx.serving.nodes if node.name not in names]
    members = ctx.etcd.members(empty[0], others)
    published = {member.name for member in members or () if member.client_urls}
    # systemd may have started it since the look: then its data is there now.
    lost = [node.name for node in empty if node.name in published and vanished(node, ctx.look_at(node))]
    if lost:
        raise Refused(f"{', '.join(lost)}: {VANISHED}", hint=REPLACE)


def _degraded(ctx: Context, nodes: Sequence[Node], failure: NodeFailed) -> Unhealthy:
    """What the members do that did not fail. They may just be electing: etcdctl waits for that."""
    cluster = ctx.serving
    urls = [cluster.client_url(node) for node in cluster.nodes if node.name != failure.node]
    asker = next((node for node in nodes if node.name != failure.node), nodes[0])
    well = sorted(healthy(ctx.etcd.ask(asker, urls), expected(cluster))) if urls else []
    serving = f"{len(well)} of {len(cluster.nodes)} members serve" + (f" ({', '.join(well)})" if well else "")
    return Unhealthy(f"degraded: {serving}\n{failure.message}", hint=failure.hint)


def owned_script(cluster: Cluster, node: Node) -> str:
    """Gives a stopped member's data to the user it will run as: run_as was changed, or root restored it.

    Below a directory that etcd may write to, root follows no link.
    """
    if not cluster.systemd:
        return ""
    owner = quote(f"{cluster.hosts.run_as}:{cluster.hosts.run_as}")
    places = ((node.paths.data, "member"), (node.paths.wal, "."))
    lines = [
        f"( enter {quote(path)} 2>/dev/null || exit 0; [ ! -d ./{name} ] || chown -RhP {owner} ./{name} ) || exit 1"
        for path, name in places
    ]
    return "\n".join([ENTER, *lines, ""])


def _refuse_to_wait_in_vain(ctx: Context, nodes: Sequence[Node]) -> None:
    """Members outside the selection that do not even listen for their peers are not waited for.

    Asked by connecting from the first node: without a quorum etcdctl would take half a minute to say less.
    """
    missing = []
    for node in ctx.cluster.nodes:
        if node in nodes:
            continue
        try:
            ctx.dial(nodes[0], node.ip, node.peer_port).close()
        except OSError:
            missing.append(node.name)
        except NotForwarded:
            continue  # it may well be there
    if missing:
        raise Unhealthy(
            f"started: {', '.join(node.name for node in nodes)}; still missing: {', '.join(missing)}",
            hint=invoke(f"start --node {','.join(missing)}"),
        )


def _remember(ctx: Context, view: View) -> None:
    """The ID of the first healthy start: from then on an empty node is a member that lost its data."""
    file, known = ctx.cluster.work / CLUSTER_ID, known_id(ctx.cluster)
    seen = next(iter(view.statuses.values())).cluster_id
    if not known:
        replace(file, f"{seen}\n".encode())
    elif known != seen:
        raise Refused(
            f"a foreign cluster answers: its ID is {seen}, this one's is {known}",
            hint=f"compare the addresses in etcd.toml; if the cluster was made anew by hand, remove {file}",
        )
