"""The cluster's health from end to end: what systemd says, what etcd answers, what a real client meets."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from steps.core.base.errors import StepsError
from steps.core.base.hints import invoke
from steps.core.base.problem import Problem
from steps.core.etcd import auth, listeners
from steps.core.etcd.client import parse
from steps.core.etcd.views import View
from steps.core.health import gate, judge
from steps.core.health.verdict import Health
from steps.core.node import ca_key
from steps.core.node.service import parse_state, root_script, state_script, without_root
from steps.core.transport.shell_session import Result

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context
    from steps.core.health.tls_probe import Found

PROBE = "etcd-steps/verify/"


def gather(ctx: Context, nodes: Sequence[Node], *, thorough: bool) -> Health:
    """Asks every node once, in parallel; a node that cannot be reached is unknown, not an end.

    `thorough`: also a write, a read and hashes through the first node that answers, and real TLS handshakes.
    """
    health = Health()
    first = nodes[0].name
    answers = ctx.each(nodes, lambda node: _meet(ctx, node, speaks=node.name == first, thorough=thorough))
    asked, unasked = _sorted(answers)
    views = {name: parse(answer.out) for name, answer in asked.items()}
    states = {name: parse_state(answer.out) for name, answer in asked.items()}
    copies = [node for node in nodes if node.name in asked and asked[node.name].out.startswith(f"{ca_key.FACT}=")]
    speaker = _speaker(ctx, nodes, views, first, thorough=thorough)
    cluster = ctx.serving
    health.warnings += judge.elsewhere(ctx.cluster, cluster, nodes)
    nodes = [cluster.node(node.name) for node in nodes]
    reached = [node for node in nodes if node.name in asked]
    confirmed = _confirmed(ctx, [node for node in nodes if node.name in unasked], views, speaker)
    known = {**views, **confirmed}
    _note_unasked(cluster, unasked, confirmed, speaker, health)
    health.problems += judge.services(nodes, states)
    kept = _note_auth(cluster, nodes, views, health)
    if known:
        judged = [node for node in nodes if node.name in known and node.name not in kept]
        health.problems += judge.members(cluster, judged, known, speaker)
    health.problems += judge.listeners_silent(cluster, reached, views)
    health.problems += judge.listeners_unexplained(ctx.serving, asked)
    health.problems += judge.identity(cluster, known)
    health.quorum = judge.quorum(cluster, known, states)
    ends: dict[str, datetime | None] = {}
    if cluster.tls.enabled:
        ends = {node.name: _certificate(ctx, node, answers[node.name][1], health) for node in reached}
    for node in nodes:
        row = judge.row(cluster, node, known.get(node.name), ends.get(node.name), checked=node.name in asked)
        health.members.append(row)
    health.warnings += judge.releases(cluster, health.members)
    if said := ca_key.warning(cluster, copies):
        health.warnings.append(said)
    return health


def _sorted(
    answers: Mapping[str, tuple[Result | StepsError, Found | None]],
) -> tuple[dict[str, Result], dict[str, StepsError]]:
    """What the nodes answered, and why others could not be asked."""
    asked: dict[str, Result] = {}
    unasked: dict[str, StepsError] = {}
    for name, (answer, _) in answers.items():
        if isinstance(answer, StepsError):
            unasked[name] = answer
        else:
            asked[name] = answer
    return asked, unasked


def glance(ctx: Context, nodes: Sequence[Node]) -> Health:
    """What one member says of all of `nodes`, where all are known to run: etcdctl waits long for one that does not."""
    if any(node.name not in ctx.looks or ctx.look(node).process is None for node in nodes):
        return gather(ctx, nodes, thorough=False)
    cluster, asker, health = ctx.serving, nodes[0], Health()
    nodes = [cluster.node(node.name) for node in nodes]
    view = ctx.etcd.ask(asker, [cluster.client_url(node) for node in nodes])
    kept = _note_auth(cluster, [asker], {asker.name: view}, health)
    judged = [node for node in nodes if not kept or cluster.client_url(node) in view.statuses]
    names = {node.name for node in judged}
    members = gate.expected(cluster)
    health.problems += gate.member_problems(view, [member for member in members if member.name in names])
    health.problems += gate.cluster_problems(view, members)
    health.problems += judge.identity(cluster, {asker.name: view})
    health.quorum = judge.quorum(cluster, {asker.name: view}, {})
    ends = {node.name: _certificate(ctx, node, None, health) for node in nodes} if cluster.tls.enabled else {}
    health.members = [judge.row(cluster, node, view, ends.get(node.name), checked=True) for node in nodes]
    health.warnings += judge.releases(cluster, health.members)
    return health


def _meet(ctx: Context, node: Node, *, speaks: bool, thorough: bool) -> tuple[Result | StepsError, Found | None]:
    """What the node's script said and, where asked for, what its ports did; both at the same time."""
    try:
        ctx.hosts.open(node)  # once: a node that is down would cost both of them its deadline
    except StepsError as error:
        return error, None
    with ThreadPoolExecutor(1) as pool:
        shaking = None
        if thorough and ctx.cluster.tls.enabled:
            from steps.core.health.tls_probe import check

            shaking = pool.submit(check, ctx, node)
        before = listeners.SCRIPT if thorough else ""
        answer = _ask(ctx, node, probe=thorough and speaks, members=speaks, before=before)
        found = shaking.result() if shaking else None
        if isinstance(answer, Result) and _learned(ctx, node, answer):
            answer = _ask(ctx, node, probe=thorough and speaks, members=speaks, before=before)
            found = check(ctx, node) if shaking else None
        return answer, found


def _ask(ctx: Context, node: Node, *, probe: bool, members: bool, before: str = "") -> Result | StepsError:
    """`before`: a script for once the member's pid is in $p; what it prints precedes the answers."""
    cluster = ctx.cluster
    key = PROBE + secrets.token_hex(4) if probe else ""
    asked = ctx.etcd.own_script(node, members=members, probe=key)
    # etcdctl takes half a minute to find out that nobody listens.
    running = 'p=${p%%[!0-9]*}; [ "$p" != 0 ] || exit 0\n' + before
    script = root_script(cluster) + ca_key.seen_script(node) + "\n" + state_script(cluster, node) + running + asked
    try:
        answer = ctx.sh(node, script, deadline=120)
        return without_root(node, answer.out) or answer
    except StepsError as error:
        return error


def _learned(ctx: Context, node: Node, answer: Result) -> bool:
    """Whether a member that runs and did not answer turns out to listen at another port than was asked.

    Only then is its process looked at: most answer.
    """
    before = ctx.serving.node(node.name)
    if not parse_state(answer.out).pid or ctx.serving.client_url(before) in parse(answer.out).statuses:
        return False
    try:
        ctx.etcd.learn(node)
    except StepsError:  # it is lost meanwhile, and what it answered counts
        return False
    return ctx.serving.node(node.name).client_port != before.client_port


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


def _confirmed(ctx: Context, nodes: Sequence[Node], views: Mapping[str, View], speaker: str) -> dict[str, View]:
    """What the speaker says of the members of `nodes`, whose hosts could not be asked; {} where it cannot say.

    Without a quorum it may itself be the one that is cut off from the others.
    """
    cluster = ctx.serving
    if not nodes or speaker not in views or speaker not in gate.healthy(views[speaker], gate.expected(cluster)):
        return {}
    urls = {node.name: cluster.client_url(node) for node in nodes}
    try:
        view = ctx.etcd.status(cluster.node(speaker), [*urls.values()])
    except StepsError:  # it answered a moment ago; then the others stay unknown
        return {}
    return {name: _only(view, url) for name, url in urls.items()}


def _only(view: View, url: str) -> View:
    status = view.statuses.get(url)
    return View(statuses={url: status} if status else {}, health={url: view.health.get(url, "no answer")})


def _note_unasked(
    cluster: Cluster, unasked: Mapping[str, StepsError], confirmed: Mapping[str, View], speaker: str, health: Health
) -> None:
    """A host that could not be asked is a problem only where its member does not answer the others, either."""
    for name, error in unasked.items():
        problem = error.problem("health.unreachable", name)
        health.hints.append(error.hint)
        view = confirmed.get(name)
        if view is None:
            health.unknown.append(str(problem))
        elif name in gate.healthy(view, gate.expected(cluster)):
            health.unknown.append(f"{problem}; its member answers {speaker} and is healthy")
        else:
            health.problems.append(problem)


def _note_auth(cluster: Cluster, nodes: Sequence[Node], views: Mapping[str, View], health: Health) -> set[str]:
    """The nodes of whose member auth keeps the status back; that is unknown, and no silence of the member's."""
    kept = set()
    for node in nodes:
        view = views.get(node.name, View())
        if refused := auth.refuses(cluster, node, view):
            health.unknown.append(refused.message)
            health.hints.append(refused.hint)
            if cluster.client_url(node) not in view.statuses:
                kept.add(node.name)
    return kept


def _certificate(ctx: Context, node: Node, found: Found | None, health: Health) -> datetime | None:
    """When the member's certificate ends, as served or else as issued; what is wrong with it goes to `health`."""
    from steps.core.tls import pki, profiles

    if found is not None:
        health.problems += [replace(problem, node=node.name) for problem in found.problems]
        health.warnings += [f"{node.name}: {warning}" for warning in found.warnings]
        health.unknown += [line for line in found.unknown if line not in health.unknown]
    now = datetime.now(timezone.utc)
    pair = ctx.store.pair(profiles.leaf_name(ctx.cluster, node))
    issued = pki.read(pair.cert)[0].not_valid_after_utc if pair else None
    ends = (found.not_after if found else None) or issued
    if ends is not None and ends <= now:
        renew = invoke(f"certs --node {node.name}")
        said = f"its certificate expired on {ends:%Y-%m-%d}: {renew}"
        health.problems.append(Problem("health.certificate-expired", said, hint=renew, node=node.name))
    elif pair is not None and pki.due(pair.cert, ctx.cluster.tls.renew_days, now):
        health.warnings.append(
            f"{node.name}: its certificate is due for renewal (until {ends:%Y-%m-%d}): {invoke('certs')}"
        )
    return ends
