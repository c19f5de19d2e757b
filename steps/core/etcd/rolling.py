"""Starting and restarting members so that at most one is down because of us."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING

from steps.core.errors import NodeFailed, PluginError, Refused, StepFailed, StepsError, Unhealthy
from steps.core.etcd import auth, flags, instances, unit_changes, unit_text
from steps.core.etcd.ask import View, ctl, members_script, parse
from steps.core.etcd.gate import ask, healthy, problems, wait_open
from steps.core.files import replace
from steps.core.hints import again, invoke
from steps.core.node.guard import ENTER
from steps.core.node.hosts import NotForwarded
from steps.core.node.look import UNIT_DIGEST, Look
from steps.core.node.places import unit_file
from steps.core.node.render import exec_argv, script_argv
from steps.core.node.service import enable_script, start_script

if TYPE_CHECKING:
    from steps.core.context import Context
    from steps.core.model import Cluster, Node

HOW = "one member at a time, the leader last"
CLUSTER_ID = "cluster-id"
VANISHED = (
    "the cluster has had this member, so its data vanished; "
    "a member that starts empty under an old identity can corrupt the cluster"
)
REPLACE = "find the data (is a disk not mounted?), or replace the member: remove it from the cluster, then add it anew"


def restart_reason(cluster: Cluster, node: Node, look: Look) -> str:
    """Why the living process is not what is installed; empty where it is. Nothing is remembered from earlier runs."""
    process = look.process
    unit = look.entries.get(unit_file(cluster, node))
    binary = look.entries.get(f"{node.paths.bin}/etcd")
    ca = look.entries.get(f"{node.paths.cert}/ca.pem")
    if process is None or unit is None or unit.content is None or binary is None:
        return ""
    if binary.digest != process.exe:
        return f"runs etcd {look.facts.get('living', '?')}, another binary is installed"
    installed = exec_argv(unit.content) if cluster.systemd else script_argv(unit.content)
    changed = flags.lasting(installed) ^ flags.lasting(process.argv)
    if changed:
        names = sorted({word.partition("=")[0] for word in changed})
        return f"flags changed: {', '.join(names)}"
    if cluster.systemd and f"{UNIT_DIGEST}={look.facts.get('digest', '')}\n" not in unit.content:
        return "the unit changed"
    if ca is not None and ca.mtime > process.started:
        return "the CA is newer than the process, which reads it only at its start"
    return ""


def order(cluster: Cluster, nodes: Sequence[Node], names: Collection[str], leader: str = "") -> list[Node]:
    """The nodes of `names` in etcd.toml's order, the leader's last."""
    chosen = [node for node in nodes if node.name in names]
    return sorted(chosen, key=lambda node: (node.name == leader, cluster.nodes.index(node)))


def enable(ctx: Context, nodes: Sequence[Node]) -> None:
    if not ctx.cluster.systemd:
        return
    for node in nodes:
        ctx.change("etcd.service is enabled" if not ctx.dry else "etcd.service will be enabled", node)
    if not ctx.dry and nodes:
        ctx.each(nodes, lambda node: _script(ctx, node, enable_script(ctx.cluster)))


def start(ctx: Context, nodes: Sequence[Node], stopped: Sequence[Node], starting: Sequence[Node]) -> None:
    """Starts what is stopped, all at once: members block until there is a quorum. Remembers the first health.

    `starting`: somebody else started them, a run that was interrupted, or systemd; they are waited for all the same.

    Raises Refused for a member whose data vanished, Unhealthy where members outside the selection are still missing,
    where somebody else has a member's data open, and where a member does not come up.
    """
    cluster = ctx.cluster
    _refuse_vanished(ctx, stopped)
    ctx.each(stopped, lambda node: _refuse_held(ctx, node))
    ctx.each(stopped, lambda node: _script(ctx, node, owned_script(cluster, node) + start_script(cluster, node)))
    for node in stopped:
        ctx.change("etcd is started", node)
    _refuse_to_wait_in_vain(ctx, nodes)
    try:
        view = wait_open(ctx, (stopped or nodes)[0], {node.name: 0 for node in (*stopped, *starting)})
    except NodeFailed as error:
        raise _degraded(ctx, nodes, error) from error
    _remember(ctx, view)


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
    view = ask(ctx, asker)
    if refused := auth.refuses(cluster, asker, view):
        raise refused
    if view.alarms:
        raise Unhealthy(
            f"no member was restarted: alarm {', '.join(view.alarms)}", hint=f"fix that first: {invoke('doctor')}"
        )
    well = healthy(ctx.serving, view)
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
            f"no member was restarted, for the cluster is not healthy: {'; '.join(problems(cluster, view))}",
            hint=f"fix that first: {invoke('doctor')}",
        )


def _through_gate(ctx: Context, node: Node) -> View:
    """The gate as it is now, not as it was behind the last restart: output that nobody reads holds a run for hours."""
    view = ask(ctx, node)
    if refused := auth.refuses(ctx.cluster, node, view):
        raise refused
    if wrong := problems(ctx.serving, view):
        raise StepFailed(
            f"{node.name} was not restarted, for the cluster is not healthy: {'; '.join(wrong)}",
            hint=f"fix that first: {invoke('doctor')}",
        )
    return view


def _restart_one(ctx: Context, node: Node, view: View, reason: str) -> None:
    cluster = ctx.serving
    script, url, old = start_script(ctx.cluster, node), cluster.client_url(cluster.node(node.name)), ctx.look(node).pid
    own = view.statuses[url]
    if own.id == own.leader and len(cluster.nodes) > 1:
        heir = next(status for status in view.statuses.values() if status.id != own.id)
        script = ctl(cluster, node) + f"ctl --endpoints={url} move-leader {heir.id} >&2 || exit 1\n" + script
    _script(ctx, node, script)
    _runs_its_unit(ctx, node)
    wait_open(ctx, node, {node.name: old})
    ctx.change(f"restarted: {reason}", node)


def _restart_together(ctx: Context, nodes: Sequence[Node], reasons: Mapping[str, str], tried: set[str]) -> View:
    for node in nodes:
        ctx.plugins.before_restart(ctx.cluster, node)
    tried.update(node.name for node in nodes)
    ctx.each(nodes, lambda node: _script(ctx, node, start_script(ctx.cluster, node)))
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
    if look.process is not None and text:
        argv = exec_argv(text) if ctx.cluster.systemd else script_argv(text)
        ctx.looks[node.name] = dataclasses.replace(look, process=dataclasses.replace(look.process, argv=argv))


def _keep_quorum(ctx: Context, node: Node, view: View) -> None:
    """Refused where the members that stay cannot decide without this one."""
    cluster = ctx.serving
    if len(healthy(cluster, view) - {node.name}) >= cluster.quorum:
        return
    if ctx.accept_downtime:
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


def vanished(node: Node, look: Look) -> str:
    """What is gone of a member's data; empty where nothing is. etcd takes a member without its WAL for a new one."""
    gone = [path for path, there in ((node.paths.data, look.member), (node.paths.wal, look.wal)) if not there]
    return f"no member's data in {' and '.join(gone)}" if gone else ""


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
    members = parse(ctx.sh(empty[0], members_script(cluster, empty[0], others)).out).members
    published = {member.name for member in members or () if member.client_urls}
    # systemd may have started it since the look: then its data is there now.
    lost = [node.name for node in empty if node.name in published and vanished(node, ctx.look_at(node))]
    if lost:
        raise Refused(f"{', '.join(lost)}: {VANISHED}", hint=REPLACE)


def _refuse_held(ctx: Context, node: Node) -> None:
    """etcd waits for ever for the lock on its database that a second etcd holds."""
    holders = ctx.sh(node, holders_script(node)).out.split("\n")[:-1]
    if holders:
        living = instances.parse(ctx.sh(node, instances.script()).out)
        ends = "; ".join(instances.end(living, int(holder.split()[1])) for holder in holders)
        raise Unhealthy(
            f"{node.name}: {', '.join(holders)} has {node.paths.data} open: a second etcd on the same data? "
            "It was not started",
            hint=f"if nothing needs it, on {node.name}: {ends}; then: {invoke(f'start --node {node.name}')}",
        )


def holders_script(node: Node) -> str:
    """Prints `pid N (name)` of each process that is not the unit's and may write the member's database."""
    database = quote(f"{node.paths.data}/member/snap/db")
    return f"""
[ -f {database} ] && [ ! -L {database} ] || exit 0
for f in /proc/[0-9]*/fd/*; do [ "$f" -ef {database} ] || continue
  p=${{f#/proc/}}; p=${{p%%/*}}; case $(cat /proc/$p/cgroup) in */etcd.service*) continue;; esac
  v=0; while read -r k v; do [ "$k" != flags: ] || break; done </proc/$p/fdinfo/${{f##*/}}
  case $v in *0) continue;; esac # a backup only reads
  read -r n </proc/$p/comm && echo "pid $p ($n)"; done 2>/dev/null
true
"""


def _degraded(ctx: Context, nodes: Sequence[Node], failure: NodeFailed) -> Unhealthy:
    """What the members do that did not fail. They may just be electing: etcdctl waits for that."""
    cluster = ctx.serving
    urls = [cluster.client_url(node) for node in cluster.nodes if node.name != failure.node]
    asker = next((node for node in nodes if node.name != failure.node), nodes[0])
    well = sorted(healthy(cluster, ask(ctx, asker, urls))) if urls else []
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


def known_id(cluster: Cluster) -> str:
    """The cluster's ID, in hex, as of its first healthy start; "" where this controller has seen none."""
    file = cluster.work / CLUSTER_ID
    return file.read_text().strip() if file.exists() else ""


def was_healthy(cluster: Cluster, node: Node, look: Look) -> bool:
    """Whether the cluster was once healthy, as this controller or the node itself remembers it.

    The node's unit does, so that a controller which has the CA alone takes no empty member for a new one.
    """
    return bool(known_id(cluster)) or unit_text.is_guarded(cluster, unit_text.installed(cluster, node, look))


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


def _script(ctx: Context, node: Node, script: str) -> None:
    result = ctx.sh(node, script, deadline=120)
    if not result.ok:
        raise StepsError(f"{node.name}: start: {result.err.strip()[-400:] or f'exit code {result.code}'}")
