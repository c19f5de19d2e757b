"""The health gate: what must be true of the whole cluster before and after a member is taken down."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from steps.core.base.errors import NodeFailed
from steps.core.base.hints import invoke
from steps.core.config.model import Cluster, Node
from steps.core.etcd import auth, logs
from steps.core.etcd.views import View
from steps.core.node.service import State, log_script, parse_state, settled_script

if TYPE_CHECKING:
    from steps.core.context.context import Context

LAG = 1000  # raft entries that a member under writes may still have to apply
PATIENCE = 90  # seconds that a member gets to come back


def problems(cluster: Cluster, view: View) -> list[str]:
    """What is wrong with the cluster, seen through one node; empty where the gate is open."""
    return [*member_problems(cluster, view), *cluster_problems(cluster, view)]


def cluster_problems(cluster: Cluster, view: View) -> list[str]:
    """What is wrong between the members: one cluster, one leader, the configured set, no alarm."""
    return [*_agreement(view), *_membership(cluster, view), *_alarms(view)]


def healthy(cluster: Cluster, view: View) -> set[str]:
    """The nodes whose member answers and commits."""
    return {node.name for node in cluster.nodes if view.health.get(cluster.client_url(node)) == ""}


def member_problems(cluster: Cluster, view: View) -> Iterator[str]:
    """What is wrong with each of the cluster's nodes by itself."""
    for node in cluster.nodes:
        url = cluster.client_url(node)
        status = view.statuses.get(url)
        if status is None:
            why = view.health.get(url) or view.errors.get("status") or "no answer"
            yield f"{node.name} does not answer at {url}: {why}"
            continue
        yield from (f"{node.name}: {error}" for error in status.errors)
        if status.learner:
            yield f"{node.name} is a learner"
        if status.raft_index - status.applied > LAG:
            yield f"{node.name} has {status.raft_index - status.applied} entries still to apply"
        if wrong := view.health.get(url, "no answer"):
            yield f"{node.name} is unhealthy: {wrong}"


def _agreement(view: View) -> Iterator[str]:
    statuses = view.statuses.values()
    if len(ids := {status.cluster_id for status in statuses}) > 1:
        yield f"members of different clusters: IDs {', '.join(sorted(ids))}"
    if len(leaders := {status.leader for status in statuses if status.leader != "0"}) > 1:
        yield f"members follow different leaders: {', '.join(sorted(leaders))}"
    if any(status.leader == "0" for status in statuses):
        yield "no leader"


def _membership(cluster: Cluster, view: View) -> Iterator[str]:
    if view.members is None:
        yield f"the member list is not to be had: {view.errors.get('members', 'no answer')}"
        return
    wanted = {cluster.peer_url(node): node.name for node in cluster.nodes}
    seen = {url: member for member in view.members for url in member.peer_urls}
    yield from (f"{name} ({url}) is not a member" for url, name in wanted.items() if url not in seen)
    for url, member in seen.items():
        if url not in wanted:
            yield f"member {member.name or member.id} ({url}) is not in etcd.toml"
        elif not member.started:
            yield f"{wanted[url]} was added and has not started"
        elif member.name != wanted[url]:
            yield f"{url} is {member.name}, not {wanted[url]}"
        elif member.learner:
            yield f"{wanted[url]} is a learner"


def _alarms(view: View) -> Iterator[str]:
    yield from (f"alarm {alarm}" for alarm in view.alarms)
    if why := view.errors.get("alarms"):
        yield f"the alarms are unknown: {why}"


def wait_open(ctx: Context, asker: Node, started: dict[str, int], *, patience: float = PATIENCE) -> View:
    """Polls until the gate is open and every node in `started` (name → the pid that it had) runs as another process.

    Raises NodeFailed, with the member's log, as soon as one has failed for good, or after `patience` seconds.
    """
    with ExitStack() as stack:
        for name in started:
            stack.enter_context(ctx.report.busy(name))
        return _poll(ctx, asker, started, patience)


def _poll(ctx: Context, asker: Node, started: dict[str, int], patience: float) -> View:
    cluster = ctx.cluster
    end = time.monotonic() + patience
    while True:
        states = _states(ctx, started)
        for name, state in states.items():
            if state.failed:
                raise _gave_up(ctx, cluster.node(name), f"etcd did not stay up ({state.active})", ended=True)
        late = time.monotonic() > end
        # etcdctl waits long for a member that does not listen: meanwhile its end would not be seen.
        if late or all(state.ready and state.pid != started[name] for name, state in states.items()):
            view = ctx.etcd.ask(asker)
            if refused := auth.refuses(cluster, asker, view):
                raise refused  # no patience would change it
            wrong = problems(ctx.serving, view)
            if not wrong:
                return view
        if late:
            culprit = next((name for name in started if any(of(name, problem) for problem in wrong)), asker.name)
            cause = f"not healthy after {patience:.0f} s: {'; '.join(wrong)}"
            raise _gave_up(ctx, cluster.node(culprit), cause, ended=False)


def of(name: str, problem: str) -> bool:
    """Return whether `problem` begins with that node's name, and not with one that only begins like it."""
    return re.match(rf"{re.escape(name)}(?![\w.-])", problem) is not None


def _states(ctx: Context, started: dict[str, int]) -> dict[str, State]:
    nodes = [ctx.cluster.node(name) for name in started]
    scripts = {node.name: settled_script(ctx.cluster, node, started[node.name]) for node in nodes}
    return ctx.each(nodes, lambda node: parse_state(ctx.sh(node, scripts[node.name]).out))


def _gave_up(ctx: Context, node: Node, cause: str, *, ended: bool) -> NodeFailed:
    lines = logs.read(ctx.sh(node, log_script(ctx.cluster, node, 200)).out)
    said = "\n".join(logs.telling(logs.last_start(lines, restarting=ended)))
    hint = f"the other members were left as they are; {invoke('doctor')}"
    return NodeFailed(node.name, cause, stderr=said, hint=hint)
