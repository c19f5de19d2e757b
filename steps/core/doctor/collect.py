"""Collects what is known of a cluster: two scripts and the handshakes on every node, and what the cluster says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from steps.core.base.errors import StepsError
from steps.core.base.frames import Damaged, frames, printable
from steps.core.base.shell import quoted
from steps.core.checks import ports
from steps.core.doctor.evidence import Evidence, NodeEvidence
from steps.core.etcd import instances
from steps.core.etcd.client import ask_script, parse
from steps.core.etcd.identity import known_id
from steps.core.etcd.logs import last_start, read
from steps.core.etcd.views import View
from steps.core.node.paths import wal_parent
from steps.core.node.resources import File, Promise, User
from steps.core.node.service import State, log_script, parse_state, state_script
from steps.core.procedures import data_holders
from steps.core.procedures.data_holders import holders_script
from steps.core.transport.node_lock import not_root

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context
    from steps.core.etcd.instances import Instance
    from steps.core.node.facts import Look

LOG_LINES = 120  # enough for two starts that failed


def gather(ctx: Context, nodes: Sequence[Node]) -> Evidence:
    """Two scripts and the handshakes on every node, in parallel, and one more script where the cluster is asked.

    A node that cannot be reached is evidence, too.
    """
    cases = ctx.each(nodes, lambda node: _case(ctx, node))
    serving = any(case.serves(ctx.cluster) for case in cases.values())
    cases = ctx.each(nodes, lambda node: _shaken(ctx, cases[node.name], serving=serving))
    return Evidence(
        ctx.serving,
        tuple(cases[node.name] for node in nodes),
        _spoken(ctx, cases),
        datetime.now(timezone.utc),
        cluster_id=known_id(ctx.cluster),
        ca=ctx.store.ca(),
    )


def _case(ctx: Context, node: Node) -> NodeEvidence:
    cert = node.paths.cert
    pair = [File(f"{cert}/etcd.pem", Promise("")), File(f"{cert}/etcd-key.pem", Promise(""), secret=True)]
    try:
        look = ctx.look_at(node, [*pair, User(ctx.cluster.hosts.run_as)])
        if ctx.cluster.systemd and look.facts.uid:
            raise not_root(node, str(look.facts.uid))
        if instances.ours(ctx.cluster, node, look):  # asked where it listens now, and etcd.toml may say otherwise
            ctx.looks[node.name] = look
            node = ctx.serving.node(node.name)
        said = examined(ctx, node)
        foreign = _asked(ctx, node, instances.foreign(ctx.cluster, node, look, said.instances))
        taken = () if foreign else tuple(ports.ports(ctx, node, look))
    except StepsError as error:
        return NodeEvidence(node, unreachable=error.message, hint=error.hint or "is the host up?")
    own = {look.pid, said.state.pid}
    return NodeEvidence(
        node,
        look=look,
        state=said.state,
        log=last_start(read(said.log), restarting=_restarting(look, said.state)),
        view=said.view,
        ports=taken,
        others={pid: line for pid, line in said.holders.items() if pid not in own},
        instances=said.instances,
        foreign=foreign,
        owners=dict(_owners(ctx.cluster, said.owners)),
    )


@dataclass(frozen=True)
class Said:
    """What `script` printed on a node. `holders`: as data_holders.parse returns them; `owners`: as stat printed it."""

    state: State
    log: str
    view: View
    holders: Mapping[int, str]
    instances: tuple[Instance, ...]
    owners: str


def examined(ctx: Context, node: Node) -> Said:
    """Run `script` on the node. Raises Refused and NodeFailed."""
    return ctx.answer(node, script(ctx.cluster, node), _said, deadline=120)


def _said(output: str) -> Said:
    parts = _parts(output)
    return Said(
        state=parse_state(parts["state"]),
        log=parts["log"],
        view=parse(parts["etcd"]),
        holders=data_holders.parse(parts["others"]),
        instances=tuple(instances.parse(parts["instances"])),
        owners=parts["owners"],
    )


def _asked(ctx: Context, node: Node, instance: Instance | None) -> tuple[Instance, View] | None:
    """What an etcd that is not this tool's says of itself."""
    if instance is None:
        return None
    return instance, parse(ctx.sh(node, instances.ask_script(instance)).out)


def owners_script(node: Node) -> str:
    """Print `user:group path` of what a member must be able to write; its user alone makes and needs it."""
    data, wal = quoted([node.paths.data]), quoted([node.paths.wal])
    inside = f"{data}/member {data}/member/* {data}/member/snap/* {wal}/*"
    return f"stat -c '%U:%G %n' -- {quoted([wal_parent(node)])} {data} {wal} {inside} 2>/dev/null\n"


def _owners(cluster: Cluster, output: str) -> Iterator[tuple[str, str]]:
    """What belongs to another user; a group of another name is harmless."""
    for line in output.splitlines() if cluster.systemd and cluster.hosts.run_as != "root" else ():
        owner, _, path = line.partition(" ")
        if path.startswith("/") and owner.partition(":")[0] != cluster.hosts.run_as:
            yield path, owner


def _restarting(look: Look, state: State) -> bool:
    """Whether systemd tries again and again; between the look and `state` it may have begun the next try."""
    waits = "auto-restart" in (look.unit.get("SubState"), state.active.rpartition("/")[2])
    return waits or (look.unit.get("SubState") == "start" and look.unit.get("NRestarts", "0") != "0")


def script(cluster: Cluster, node: Node) -> str:
    """Everything besides the look. Each part is framed, for what etcd and its log say could look like another one's."""
    # etcdctl takes long to find out that nobody listens: a member that is not ready does not.
    ready = '[ "${s%%[!a-z-]*}" = running ] || exit 0\n' if cluster.systemd else '[ "$p" != 0 ] || exit 0\n'
    running = state_script(cluster, node) + ready
    parts = {
        "state": state_script(cluster, node),
        "log": log_script(cluster, node, LOG_LINES),
        "etcd": running + ask_script(cluster, node, [cluster.client_url(node)], members=False),
        "others": holders_script(node),
        "instances": instances.script(),
        "owners": owners_script(node),
    }
    return "".join(_FRAME.format(script=text, name=name) for name, text in parts.items()) + "true\n"


_FRAME = """\
o=$( ( {script} ) 2>&1; echo .); o=${{o%.}}
printf 'part %s %s\\n%s\\n' {name} "${{#o}}" "$o"
"""
_PARTS = ("state", "log", "etcd", "others", "instances", "owners")


def _parts(output: str) -> dict[str, str]:
    """Return what each part of `script` printed. Raises Damaged where one is missing."""
    parts = {name: printable(text) for (name,), text in frames(output, "part", words=1)}
    if missing := [name for name in _PARTS if name not in parts]:
        raise Damaged(f"it does not say {', '.join(missing)}")
    return parts


def _shaken(ctx: Context, case: NodeEvidence, *, serving: bool) -> NodeEvidence:
    """With the pair that was issued for the node, and with what is wrong with the handshakes.

    `serving`: somebody serves. Then a member that does not is told of without its handshakes, each of which may hang.
    """
    if not ctx.cluster.tls.enabled or case.look is None or case.foreign is not None:
        return case
    from steps.core.health.tls_probe import check
    from steps.core.tls import profiles

    asked = case.serves(ctx.cluster) or (case.state.pid and not serving)
    try:
        pair = ctx.store.pair(profiles.leaf_name(ctx.cluster, case.node))
        problems = check(ctx, case.node).problems if asked and pair is not None else ()
    except StepsError as error:
        return replace(case, tls=(": ".join(filter(None, (error.message, error.hint))),))
    return replace(case, tls=tuple(map(str, problems)), issued=(pair.cert, pair.key) if pair is not None else None)


def _hashes(ctx: Context, asker: Node, cases: Mapping[str, NodeEvidence]) -> View:
    """The members' hashes at one revision. A difference counts only if it lasts: a compaction may be under way."""
    own = ctx.cluster.client_url(asker)
    seen = {url: status for case in cases.values() for url, status in case.view.statuses.items()}
    if own not in seen:
        return View()  # where auth is on, a member may commit and yet say nothing of itself
    same = {url for url, status in seen.items() if status.cluster_id == seen[own].cluster_id}
    urls = [url for node in ctx.serving.nodes if (url := ctx.cluster.client_url(node)) in same]
    revision = min(seen[url].revision for url in urls)
    for seconds in (0, 2):
        view = ctx.etcd.hashes(asker, urls, revision, after=seconds)
        if len(set(view.hashes.values())) <= 1:
            return View(errors=view.errors)
    return view


def _spoken(ctx: Context, cases: Mapping[str, NodeEvidence]) -> View:
    """Member list, alarms and differing hashes through a member that serves: without a quorum nobody tells them."""
    for case in cases.values():
        if case.serves(ctx.cluster):
            try:
                others = [each.node for each in cases.values() if each.unreachable]  # their members may answer this one
                view = ctx.etcd.ask(case.node, [ctx.cluster.client_url(node) for node in (case.node, *others)])
                hashes = _hashes(ctx, case.node, cases)
                return replace(view, hashes=hashes.hashes, errors={**hashes.errors, **view.errors})
            except StepsError:  # it served a moment ago: another one may tell
                continue
    return View()
