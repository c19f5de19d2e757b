"""The health gate: what must be true of the whole cluster before and after a member is taken down."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from steps.core.base.errors import NodeFailed
from steps.core.base.hints import invoke
from steps.core.base.problem import Problem, joined
from steps.core.config.model import Cluster, Node
from steps.core.etcd import auth, logs
from steps.core.etcd.views import ExpectedMember, Member, Status, View
from steps.core.node.service import State, log_script, parse_state, settled_script

if TYPE_CHECKING:
    from steps.core.context.context import Context

LAG = 1000  # raft entries that a member under writes may still have to apply
PATIENCE = 90  # seconds that a member gets to come back


def expected(cluster: Cluster) -> tuple[ExpectedMember, ...]:
    """Return the members that there should be, as etcd.toml has them; of `ctx.serving`, where they listen now."""
    return tuple(ExpectedMember(n.name, cluster.peer_url(n), cluster.client_url(n)) for n in cluster.nodes)


def problems(view: View, members: Sequence[ExpectedMember]) -> list[Problem]:
    """Return what is wrong with the cluster, seen through one node; empty where the gate is open.

    `members`: all that there should be, and no others. Pure.
    """
    return [*member_problems(view, members), *cluster_problems(view, members)]


def cluster_problems(view: View, members: Sequence[ExpectedMember]) -> list[Problem]:
    """Return what is wrong between the members: one cluster, one leader, the expected set, no alarm."""
    return [*_agreement(view), *_membership(view, members), *_alarms(view)]


def healthy(view: View, members: Sequence[ExpectedMember]) -> set[str]:
    """Return the names of the members that answer and commit."""
    return {member.name for member in members if view.health.get(member.client_url) == ""}


def member_problems(view: View, members: Sequence[ExpectedMember]) -> Iterator[Problem]:
    """Yield what is wrong with each of the members by itself."""
    for member in members:
        status = view.statuses.get(member.client_url)
        if status is None:
            yield _no_answer(view, member)
        else:
            yield from _complaints(view, member, status)


def _no_answer(view: View, member: ExpectedMember) -> Problem:
    url = member.client_url
    why = view.health.get(url) or view.errors.get("status") or "no answer"
    return Problem("gate.no-answer", f"does not answer at {url}: {why}", node=member.name, joint=" ")


def _complaints(view: View, member: ExpectedMember, status: Status) -> Iterator[Problem]:
    name = member.name
    for error in status.errors:
        yield Problem("gate.member-error", error, node=name)
    if status.learner:
        yield Problem("gate.learner", "is a learner", node=name, joint=" ")
    behind = status.raft_index - status.applied
    if behind > LAG:
        yield Problem("gate.lagging", f"has {behind} entries still to apply", node=name, joint=" ")
    if wrong := view.health.get(member.client_url, "no answer"):
        yield Problem("gate.unhealthy", f"is unhealthy: {wrong}", node=name, joint=" ")


def _agreement(view: View) -> Iterator[Problem]:
    statuses = view.statuses.values()
    ids = {status.cluster_id for status in statuses}
    if len(ids) > 1:
        yield Problem("gate.different-clusters", f"members of different clusters: IDs {', '.join(sorted(ids))}")
    leaders = {status.leader for status in statuses if status.leader != "0"}
    if len(leaders) > 1:
        yield Problem("gate.different-leaders", f"members follow different leaders: {', '.join(sorted(leaders))}")
    if any(status.leader == "0" for status in statuses):
        yield Problem("gate.no-leader", "no leader")


def _membership(view: View, members: Sequence[ExpectedMember]) -> Iterator[Problem]:
    if view.members is None:
        why = view.errors.get("members", "no answer")
        yield Problem("gate.no-member-list", f"the member list is not to be had: {why}")
        return
    wanted = {member.peer_url: member for member in members}
    seen = {url: member for member in view.members for url in member.peer_urls}
    for url, member in wanted.items():
        if url not in seen:
            yield Problem("gate.not-a-member", f"({url}) is not a member", node=member.name, joint=" ")
    for url, found in seen.items():
        if url in wanted:
            yield from _listed(found, url, wanted[url].name)
        else:
            said = f"member {found.name or found.id} ({url}) is not in etcd.toml"
            yield Problem("gate.foreign-member", said)


def _listed(found: Member, url: str, name: str) -> Iterator[Problem]:
    """What the member list says of the expected member `name`."""
    if not found.started:
        yield Problem("gate.unstarted", "was added and has not started", node=name, joint=" ")
    elif found.name != name:
        yield Problem("gate.other-name", f"{url} is {found.name}, not {name}")
    elif found.learner:
        yield Problem("gate.learner", "is a learner", node=name, joint=" ")


def _alarms(view: View) -> Iterator[Problem]:
    for alarm in view.alarms:
        yield Problem("gate.alarm", f"alarm {alarm}")
    if why := view.errors.get("alarms"):
        yield Problem("gate.alarms-unknown", f"the alarms are unknown: {why}")


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
            wrong = problems(view, expected(ctx.serving))
            if not wrong:
                return view
        if late:
            blamed = {problem.node for problem in wrong}
            culprit = next((name for name in started if name in blamed), asker.name)
            cause = f"not healthy after {patience:.0f} s: {joined(wrong)}"
            raise _gave_up(ctx, cluster.node(culprit), cause, ended=False)


def _states(ctx: Context, started: dict[str, int]) -> dict[str, State]:
    nodes = [ctx.cluster.node(name) for name in started]
    scripts = {node.name: settled_script(ctx.cluster, node, started[node.name]) for node in nodes}
    return ctx.each(nodes, lambda node: parse_state(ctx.sh(node, scripts[node.name]).out))


def _gave_up(ctx: Context, node: Node, cause: str, *, ended: bool) -> NodeFailed:
    lines = logs.read(ctx.sh(node, log_script(ctx.cluster, node, 200)).out)
    said = "\n".join(logs.telling(logs.last_start(lines, restarting=ended)))
    hint = f"the other members were left as they are; {invoke('doctor')}"
    return NodeFailed(node.name, cause, stderr=said, hint=hint)
