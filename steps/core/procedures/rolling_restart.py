"""Starting and restarting members so that at most one is down because of us."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from steps.core.base.errors import PluginError, Refused, StepFailed, StepsError, Unhealthy
from steps.core.base.hints import again, invoke
from steps.core.base.option import Option
from steps.core.base.problem import joined
from steps.core.etcd import auth, flags, unit_text
from steps.core.etcd.identity import vanished
from steps.core.etcd.views import View
from steps.core.health.gate import expected, healthy, problems, wait_open
from steps.core.node.facts import UNIT_DIGEST, Look
from steps.core.node.paths import unit_file
from steps.core.node.service import start_script
from steps.core.procedures import unit_changes
from steps.core.procedures.scripts import run_script

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context

HOW = "one member at a time, the leader last"
ACCEPT_DOWNTIME = Option(
    "accept_downtime", "restart a member although the rest has no quorum", default=False, in_all=True
)


def restart_reason(cluster: Cluster, node: Node, look: Look) -> str:
    """Why the living process is not what is installed; empty where it is. Nothing is remembered from earlier runs.

    Raises Refused where the installed command line cannot be read.
    """
    process = look.process
    unit = look.entries.get(unit_file(cluster, node))
    binary = look.entries.get(f"{node.paths.bin}/etcd")
    ca = look.entries.get(f"{node.paths.cert}/ca.pem")
    if process is None or unit is None or unit.content is None or binary is None:
        return ""
    if binary.digest != process.exe:
        return f"runs etcd {look.facts.running_version or '?'}, another binary is installed"
    if problem := unit_text.unreadable(cluster, node, look):
        raise Refused(problem, node=node.name, hint=invoke("doctor"))
    installed = unit_text.command(cluster, unit.content)
    changed = flags.lasting(installed) ^ flags.lasting(process.argv)
    if changed:
        names = sorted({word.partition("=")[0] for word in changed})
        return f"flags changed: {', '.join(names)}"
    if cluster.systemd and f"{UNIT_DIGEST}={look.facts.unit_digest or ''}\n" not in unit.content:
        return "the unit changed"
    if ca is not None and ca.mtime > process.started:
        return "the CA is newer than the process, which reads it only at its start"
    return ""


def order(cluster: Cluster, nodes: Sequence[Node], names: Collection[str], leader: str = "") -> list[Node]:
    """The nodes of `names` in etcd.toml's order, the leader's last."""
    chosen = [node for node in nodes if node.name in names]
    return sorted(chosen, key=lambda node: (node.name == leader, cluster.nodes.index(node)))


def restart(ctx: Context, nodes: Sequence[Node], reasons: Mapping[str, str]) -> None:
    """Rolls the nodes named in `reasons`; stops at the first failure, and then the others get back what they run.

    Raises Refused where the rest would have no quorum, or where data is missing under a living member, StepFailed where
    the cluster is not healthy to begin with, Unhealthy where an alarm is up.
    """
    _refuse_to_lose(ctx, [node for node in nodes if node.name in reasons])
    tried: set[str] = set()
    try:
        _roll(ctx, nodes, reasons, tried)
    except auth.KeptOut as error:  # until somebody grants a role no member can be restarted
        said = unit_changes.put_back(ctx, [node for node in nodes if node.name in reasons and node.name not in tried])
        error.add("\n".join(f"  {line}" for line in said.splitlines()))
        raise
    except (Refused, PluginError):  # before the next restart, not by one: the change has not failed
        raise
    except StepsError as error:
        waiting = [node for node in nodes if node.name in reasons and node.name not in tried]
        said = unit_changes.put_back(ctx, waiting) if tried and waiting else ""
        if said:
            error.add("\n".join(f"  {line}" for line in said.splitlines()))
            error.hint = (
                f"{invoke('doctor')}, then correct the change in etcd.toml or take it back, and: {invoke('all')}"
            )
        raise


def _roll(ctx: Context, nodes: Sequence[Node], reasons: Mapping[str, str], tried: set[str]) -> None:
    """As restart; `tried` gets the name of every node on which the member was stopped."""
    cluster = ctx.cluster
    asker = next(node for node in nodes if ctx.look(node).process is not None)
    view = ctx.etcd.ask(asker)
    if refused := auth.refuses(cluster, asker, view):
        raise refused
    if view.alarms:
        raise Unhealthy(
            f"no member was restarted: alarm {', '.join(map(str, view.alarms))}",
            hint=f"fix that first: {invoke('doctor')}",
        )
    well = healthy(view, expected(ctx.serving))
    if len(well) < cluster.quorum:
        _refuse_to_cut_off(ctx, nodes, view)
        _restart_together(ctx, order(cluster, nodes, reasons), reasons, tried)
        return
    sick = [node for node in order(cluster, nodes, reasons) if node.name not in well]
    if sick:
        view = _restart_together(ctx, sick, reasons, tried)
    for node in order(cluster, nodes, set(reasons) - {each.name for each in sick}, _leader(ctx.serving, view)):
        view = _through_gate(ctx, node)
        _keep_quorum(ctx, node, view)
        if ctx.plugins.before_restart(cluster, node):  # which may have taken its time
            view = _through_gate(ctx, node)
        tried.add(node.name)
        _restart_one(ctx, node, view, reasons[node.name])


def _refuse_to_lose(ctx: Context, nodes: Sequence[Node]) -> None:
    """Raise Refused for living members with missing data: they serve until they are stopped, and then never start."""
    gone = [f"{node.name}: {lost}" for node in nodes if (lost := vanished(node, ctx.look(node)))]
    if gone:
        raise Refused(
            "no member was restarted: a member that runs would not find its data again\n  " + "\n  ".join(gone),
            hint="find where the data is (see the process's --data-dir and --wal-dir): " + invoke("doctor"),
        )


def _refuse_to_cut_off(ctx: Context, nodes: Sequence[Node], view: View) -> None:
    """All that differ are restarted at once only where nobody is served, so that nothing is lost by it.

    A member with a leader serves reads at least; one that systemd calls active has served, and may answer others.
    """
    cluster = ctx.serving
    led = any(status.leader != "0" for status in view.statuses.values())
    mute = [node for node in nodes if cluster.client_url(cluster.node(node.name)) not in view.statuses]
    if led or any(ctx.look(node).unit.get("ActiveState") == "active" for node in mute):
        raise StepFailed(
            f"no member was restarted, for the cluster is not healthy: {joined(problems(view, expected(cluster)))}",
            hint=f"fix that first: {invoke('doctor')}",
        )


def _through_gate(ctx: Context, node: Node) -> View:
    """The gate as it is now, not as it was behind the last restart: output that nobody reads holds a run for hours."""
    view = ctx.etcd.ask(node)
    if refused := auth.refuses(ctx.cluster, node, view):
        raise refused
    if wrong := problems(view, expected(ctx.serving)):
        raise StepFailed(
            f"{node.name} was not restarted, for the cluster is not healthy: {joined(wrong)}",
            hint=f"fix that first: {invoke('doctor')}",
        )
    return view


def _restart_one(ctx: Context, node: Node, view: View, reason: str) -> None:
    cluster = ctx.serving
    script, url, old = start_script(ctx.cluster, node), cluster.client_url(cluster.node(node.name)), ctx.look(node).pid
    own = view.statuses[url]
    if own.id == own.leader and len(cluster.nodes) > 1:
        heir = next(status for status in view.statuses.values() if status.id != own.id)
        script = ctx.etcd.move_leader_script(node, heir.id) + script
    run_script(ctx, node, script)
    _runs_its_unit(ctx, node)
    wait_open(ctx, node, {node.name: old})
    ctx.change(f"restarted: {reason}", node)


def _restart_together(ctx: Context, nodes: Sequence[Node], reasons: Mapping[str, str], tried: set[str]) -> View:
    for node in nodes:
        ctx.plugins.before_restart(ctx.cluster, node)
    tried.update(node.name for node in nodes)
    ctx.each(nodes, lambda node: run_script(ctx, node, start_script(ctx.cluster, node)))
    for node in nodes:
        _runs_its_unit(ctx, node)
    view = wait_open(ctx, nodes[0], {node.name: ctx.look(node).pid for node in nodes})
    for node in nodes:
        ctx.change(f"was not healthy and is restarted: {reasons[node.name]}", node)
    return view


def _runs_its_unit(ctx: Context, node: Node) -> None:
    """From here on the member listens where the unit says. The pid stays the old one: the new one is waited for."""
    look = ctx.look(node)
    text = unit_text.installed(ctx.cluster, node, look)
    if look.process is not None and text and not unit_text.unreadable(ctx.cluster, node, look):
        argv = unit_text.command(ctx.cluster, text)
        ctx.looks[node.name] = dataclasses.replace(look, process=dataclasses.replace(look.process, argv=argv))


def _keep_quorum(ctx: Context, node: Node, view: View) -> None:
    """Refused where the members that stay cannot decide without this one."""
    cluster = ctx.serving
    if len(healthy(view, expected(cluster)) - {node.name}) >= cluster.quorum:
        return
    if ctx.option(ACCEPT_DOWNTIME):
        ctx.warn("restarted although the rest has no quorum: --accept-downtime", node)
        return
    raise Refused(
        f"{node.name}: restarting it would leave {len(cluster.nodes) - 1} of {len(cluster.nodes)} members, "
        f"fewer than the quorum of {cluster.quorum}: a downtime",
        hint=again("--accept-downtime"),
    )


def _leader(cluster: Cluster, view: View) -> str:
    ids = {status.id: status for status in view.statuses.values()}
    leader = next((ids[status.leader] for status in view.statuses.values() if status.leader in ids), None)
    return next((n.name for n in cluster.nodes if leader and cluster.client_url(n) == leader.endpoint), "")
