"""What the answers of hosts and members mean for the cluster's health. Pure: everything was asked before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from steps.core.base import versions
from steps.core.base.hints import invoke
from steps.core.base.problem import Problem
from steps.core.etcd import auth, listeners
from steps.core.etcd.client import own_urls
from steps.core.etcd.identity import known_id
from steps.core.etcd.views import View
from steps.core.health import gate
from steps.core.health.verdict import MemberHealth
from steps.core.node.service import State
from steps.core.transport.shell_session import Result

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node


def services(nodes: Sequence[Node], states: Mapping[str, State]) -> Iterator[Problem]:
    for node in nodes:
        state = states.get(node.name)
        if state is not None and state.active not in ("active/running", "running"):
            yield Problem("health.not-running", f"etcd is not running ({state.active})", node=node.name)


def members(cluster: Cluster, nodes: Sequence[Node], views: Mapping[str, View], speaker: str) -> Iterator[Problem]:
    """The gate's own judgement over what all nodes said, then what only a thorough look asks for."""
    statuses = {url: status for view in views.values() for url, status in view.statuses.items()}
    spoken = views.get(speaker, View())
    chosen = {cluster.client_url(node) for node in nodes}
    expected = gate.expected(cluster)
    asked = [member for member in expected if member.client_url in chosen]
    main = {url: status for url, status in statuses.items() if url in chosen}
    healths = {url: wrong for view in views.values() for url, wrong in view.health.items()}
    yield from gate.member_problems(View(statuses=main, health=healths), asked)
    yield from gate.cluster_problems(replace(spoken, statuses=main), expected)
    if spoken.written and not auth.refused(spoken):
        yield Problem("health.write-failed", f"a write and a read through {speaker} failed: {spoken.written}")
    if len(set(spoken.hashes.values())) > 1:
        said = f"members hold different data at one revision: {dict(spoken.hashes)}"
        yield Problem("health.different-data", said)


def listeners_silent(cluster: Cluster, nodes: Sequence[Node], views: Mapping[str, View]) -> Iterator[Problem]:
    """Where a node's own member does not answer at another URL than the one that the others use."""
    for node in nodes:
        for url in own_urls(cluster, node):
            wrong = views[node.name].health.get(url, "no answer")
            if wrong and url != cluster.client_url(node):
                said = f"does not answer at {url}: {wrong}"
                yield Problem("health.listener-silent", said, node=node.name, joint=" ")


def listeners_unexplained(cluster: Cluster, asked: Mapping[str, Result]) -> Iterator[Problem]:
    for name, answer in asked.items():
        node = cluster.node(name)
        urls = (*own_urls(cluster, node), cluster.peer_url(node))
        for place in listeners.unexplained(cluster, node, answer.out, urls):
            said = f"etcd listens on {place} too, and nothing in etcd.toml says so"
            yield Problem("health.unexplained-listener", said, node=name)


def identity(cluster: Cluster, views: Mapping[str, View]) -> Iterator[Problem]:
    """Whether it is the cluster of the first healthy start that answers."""
    seen = {status.cluster_id for view in views.values() for status in view.statuses.values()}
    known = known_id(cluster)
    if known and (foreign := seen - {known}):
        said = f"a foreign cluster answers: its ID is {', '.join(sorted(foreign))}, this one's is {known}"
        yield Problem("health.foreign-cluster", said)


def quorum(cluster: Cluster, views: Mapping[str, View], states: Mapping[str, State]) -> bool | None:
    """Whether a majority of the members serves; None where it is unknown.

    A member that is healthy has committed a read. One under an alarm is not, and follows a leader all the same.
    """
    known = known_id(cluster)
    statuses = [
        (view, url, status)
        for view in views.values()
        for url, status in view.statuses.items()
        if not known or status.cluster_id == known
    ]
    if any(view.health.get(url) == "" for view, url, _ in statuses):
        return True
    led = {status.id for _, _, status in statuses if status.leader != "0"}
    if len(led) >= cluster.quorum:
        return True
    down = {name for name in states if not any(status.leader != "0" for status in views[name].statuses.values())}
    return False if len(cluster.nodes) - len(down) < cluster.quorum else None


def elsewhere(cluster: Cluster, serving: Cluster, nodes: Sequence[Node]) -> Iterator[str]:
    """Members that answer, and not where etcd.toml says."""
    for node in nodes:
        now, then = serving.client_url(serving.node(node.name)), cluster.client_url(node)
        if now != then:
            yield f"{node.name} serves at {now}, etcd.toml says {then}: see {invoke('plan')}"


def row(cluster: Cluster, node: Node, view: View | None, expires: datetime | None, *, checked: bool) -> MemberHealth:
    """`checked`: the host itself was asked; else another member said this of it, or nothing is known."""
    url = cluster.client_url(node)
    status = view.statuses.get(url) if view else None
    if view is None or status is None:
        said = "unknown" if view is None or auth.refused(view) else "no answer"
        return MemberHealth(node.name, url, "-", said, "", expires, checked)
    role = "learner" if status.learner else "leader" if status.leader == status.id else "follower"
    said = "healthy" if view.health.get(url) == "" else "unhealthy"
    said = said if checked else f"{said}, host not checked"
    return MemberHealth(node.name, url, role, said, status.version, expires, checked)


def releases(cluster: Cluster, members: Sequence[MemberHealth] = ()) -> list[str]:
    """What is known against the releases that run, or else against the configured one."""
    running = {member.version for member in members if member.version} or {cluster.version}
    return [said for version in sorted(running) if (said := versions.warning(version))]
