"""The cluster's health from end to end: what systemd says, what etcd answers, what a real client meets."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from steps.core import versions
from steps.core.errors import StepsError
from steps.core.etcd import gate
from steps.core.etcd.ask import View, ask_script, own_urls, parse
from steps.core.etcd.rolling import known_id
from steps.core.hints import invoke
from steps.core.node import ca_key
from steps.core.node.service import State, parse_state, state_script
from steps.core.node.session import Result

if TYPE_CHECKING:
    from steps.core.context import Context
    from steps.core.model import Cluster, Node
    from steps.core.tls.check import Found

PROBE = "etcd-steps/verify/"


@dataclass(frozen=True)
class MemberHealth:
    """One row of the closing table. `expires`: notAfter of the served certificate; None without TLS or unseen."""

    name: str
    endpoint: str
    role: str
    health: str
    version: str
    expires: datetime | None = None


@dataclass
class Health:
    """`problems` make the cluster unhealthy, `warnings` do not. Lines begin with the node, if any."""

    members: list[MemberHealth] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def rows(self) -> list[list[str]]:
        return [
            [m.name, m.endpoint, m.role, m.health, m.version or "-", f"{m.expires:%Y-%m-%d}" if m.expires else "-"]
            for m in self.members
        ]

    def as_json(self, cluster: Cluster) -> dict[str, Any]:
        members = [{**asdict(m), "expires": m.expires.isoformat() if m.expires else None} for m in self.members]
        return {
            "cluster": cluster.name,
            "healthy": not self.problems,
            "members": members,
            "problems": self.problems,
            "warnings": self.warnings,
        }


HEAD = ("MEMBER", "ENDPOINT", "ROLE", "HEALTH", "VERSION", "CERTIFICATE UNTIL")


def gather(ctx: Context, nodes: Sequence[Node], *, thorough: bool) -> Health:
    """Asks every node once, in parallel; a node that cannot be reached is a problem, not an end.

    `thorough`: also a write, a read and hashes through the first node that answers, and real TLS handshakes.
    """
    cluster, health = ctx.cluster, Health()
    first = nodes[0].name
    answers = ctx.each(nodes, lambda node: _meet(ctx, node, speaks=node.name == first, thorough=thorough))
    views: dict[str, View] = {}
    states: dict[str, State] = {}
    copies: list[Node] = []  # those that have a CA key
    for node in nodes:
        answer = answers[node.name][0]
        if isinstance(answer, StepsError):
            health.problems.append(
                answer.message if gate.of(node.name, answer.message) else f"{node.name}: {answer.message}"
            )
            continue
        views[node.name], states[node.name] = parse(answer.out), parse_state(answer.out)
        if answer.out.startswith(f"{ca_key.FACT}="):
            copies.append(node)
    speaker = _speaker(ctx, nodes, views, first, thorough=thorough)
    health.problems += _services(nodes, states)
    health.problems += _etcd(cluster, nodes, views, speaker)
    health.problems += _identity(cluster, views)
    seen: dict[str, datetime | None] = {}
    for node in nodes if cluster.tls.enabled else ():
        if node.name in views:
            seen[node.name] = _certificate(ctx, node, answers[node.name][1], health)
    health.members = [_member(cluster, node, views.get(node.name), seen.get(node.name)) for node in nodes]
    health.warnings += [*releases(cluster, health.members), *filter(None, [ca_key.warning(cluster, copies)])]
    return health


def glance(ctx: Context, nodes: Sequence[Node]) -> Health:
    """What one member says of all of `nodes`, where all are known to run: etcdctl waits long for one that does not."""
    if any(node.name not in ctx.looks or ctx.look(node).process is None for node in nodes):
        return gather(ctx, nodes, thorough=False)
    cluster, asker, health = ctx.cluster, nodes[0], Health()
    view = gate.ask(ctx, asker, [cluster.client_url(node) for node in nodes])
    health.problems += gate.member_problems(replace(cluster, nodes=tuple(nodes)), view)
    health.problems += gate.cluster_problems(cluster, view)
    health.problems += _identity(cluster, {asker.name: view})
    ends = {node.name: _certificate(ctx, node, None, health) for node in nodes} if cluster.tls.enabled else {}
    health.members = [_member(cluster, node, view, ends.get(node.name)) for node in nodes]
    health.warnings += releases(cluster, health.members)
    return health


def releases(cluster: Cluster, members: Sequence[MemberHealth] = ()) -> list[str]:
    """What is known against the releases that run, or else against the configured one."""
    running = {member.version for member in members if member.version} or {cluster.version}
    return [said for version in sorted(running) if (said := versions.warning(version))]


def _meet(ctx: Context, node: Node, *, speaks: bool, thorough: bool) -> tuple[Result | StepsError, Found | None]:
    """What the node's script said and, where asked for, what its ports did; both at the same time."""
    try:
        ctx.hosts.open(node)  # once: a node that is down would cost both of them its deadline
    except StepsError as error:
        return error, None
    with ThreadPoolExecutor(1) as pool:
        shaking = None
        if thorough and ctx.cluster.tls.enabled:
            from steps.core.tls.check import check

            shaking = pool.submit(check, ctx, node)
        answer = _ask(ctx, node, probe=thorough and speaks, members=speaks)
        return answer, shaking.result() if shaking else None


def _ask(ctx: Context, node: Node, *, probe: bool, members: bool) -> Result | StepsError:
    cluster = ctx.cluster
    key = PROBE + secrets.token_hex(4) if probe else ""
    asked = ask_script(cluster, node, own_urls(cluster, node), members=members, probe=key)
    # etcdctl takes half a minute to find out that nobody listens.
    script = (
        ca_key.seen_script(node) + "\n" + state_script(cluster, node) + '[ "${p%%[!0-9]*}" != 0 ] || exit 0\n' + asked
    )
    try:
        return ctx.sh(node, script, deadline=120)
    except StepsError as error:
        return error


def _speaker(ctx: Context, nodes: Sequence[Node], views: dict[str, View], first: str, *, thorough: bool) -> str:
    """The node that spoke for the cluster; another one is asked where the first could not."""
    if first in views and views[first].members is not None:
        return first
    for node in nodes:
        if node.name == first or node.name not in views or not views[node.name].statuses:
            continue
        answer = _ask(ctx, node, probe=thorough, members=True)
        if isinstance(answer, Result) and (view := parse(answer.out)).members is not None:
            views[node.name] = view
            return node.name
    return first


def _services(nodes: Sequence[Node], states: Mapping[str, State]) -> Iterator[str]:
    for node in nodes:
        state = states.get(node.name)
        if state is not None and state.active not in ("active/running", "running"):
            yield f"{node.name}: etcd is not running ({state.active})"


def _etcd(cluster: Cluster, nodes: Sequence[Node], views: Mapping[str, View], speaker: str) -> Iterator[str]:
    """The gate's own judgement over what all nodes said, then what only a thorough look asks for."""
    statuses = {url: status for view in views.values() for url, status in view.statuses.items()}
    spoken = views.get(speaker, View())
    chosen = {cluster.client_url(node) for node in nodes}
    asked = replace(cluster, nodes=tuple(node for node in cluster.nodes if cluster.client_url(node) in chosen))
    main = {url: status for url, status in statuses.items() if url in chosen}
    healths = {url: wrong for view in views.values() for url, wrong in view.health.items()}
    yield from gate.member_problems(asked, View(statuses=main, health=healths))
    yield from gate.cluster_problems(cluster, replace(spoken, statuses=main))
    for node in nodes:
        for url in own_urls(cluster, node):
            if url not in chosen and node.name in views and views[node.name].health.get(url) != "":
                yield f"{node.name} does not answer at {url}: {views[node.name].health.get(url) or 'no answer'}"
    if spoken.written:
        yield f"a write and a read through {speaker} failed: {spoken.written}"
    if len(set(spoken.hashes.values())) > 1:
        yield f"members hold different data at one revision: {dict(spoken.hashes)}"


def _identity(cluster: Cluster, views: Mapping[str, View]) -> Iterator[str]:
    """Whether it is the cluster of the first healthy start that answers."""
    seen = {status.cluster_id for view in views.values() for status in view.statuses.values()}
    known = known_id(cluster)
    if known and (foreign := seen - {known}):
        yield f"a foreign cluster answers: its ID is {', '.join(sorted(foreign))}, this one's is {known}"


def _member(cluster: Cluster, node: Node, view: View | None, expires: datetime | None) -> MemberHealth:
    url = cluster.client_url(node)
    status = view.statuses.get(url) if view else None
    if view is None or status is None:
        return MemberHealth(node.name, url, "-", "unreachable" if view is None else "no answer", "", expires)
    role = "learner" if status.learner else "leader" if status.leader == status.id else "follower"
    return MemberHealth(
        node.name, url, role, "healthy" if view.health.get(url) == "" else "unhealthy", status.version, expires
    )


def _certificate(ctx: Context, node: Node, found: Found | None, health: Health) -> datetime | None:
    """When the member's certificate ends, as served or else as issued; what is wrong with it goes to `health`."""
    from steps.core.tls import pki, profiles

    if found is not None:
        health.problems += [f"{node.name}: {problem}" for problem in found.problems]
        health.warnings += [f"{node.name}: {warning}" for warning in found.warnings]
    now = datetime.now(timezone.utc)
    pair = ctx.store.pair(profiles.leaf_name(ctx.cluster, node))
    issued = pki.read(pair.cert)[0].not_valid_after_utc if pair else None
    ends = (found.not_after if found else None) or issued
    if ends is not None and ends <= now:
        health.problems.append(
            f"{node.name}: its certificate expired on {ends:%Y-%m-%d}: {invoke(f'certs --node {node.name}')}"
        )
    elif pair is not None and pki.due(pair.cert, ctx.cluster.tls.renew_days, now):
        health.warnings.append(
            f"{node.name}: its certificate is due for renewal (until {ends:%Y-%m-%d}): {invoke('certs')}"
        )
    return ends
