"""May anything be changed at all? Asked of what was seen on every selected node, before the first change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from steps.core.base.errors import Refused, StepFailed
from steps.core.base.hints import again
from steps.core.base.pages import FOREIGN_CLUSTER
from steps.core.base.problem import Problem
from steps.core.checks import ground
from steps.core.checks.node_checks import (
    CHECKS,
    SKEW,
    clock,
    foreign_ca,
    vanished_data,
)
from steps.core.checks.ports import ports
from steps.core.config.model import Cluster, Node
from steps.core.etcd import differences, instances, living
from steps.core.etcd.identity import CLUSTER_ID, known_id
from steps.core.etcd.views import Member
from steps.core.health import current
from steps.core.node.facts import Look
from steps.core.node.paths import unit_file
from steps.core.procedures import upgrade
from steps.core.release.binaries import own_arch

if TYPE_CHECKING:
    from steps.core.context.context import Context

BACKDATED = 3600  # seconds before its making at which a certificate starts, at most


def preflight(ctx: Context, nodes: Sequence[Node], *, fetches: bool = False, starts: bool = True) -> None:
    """Raises Refused with every node's problems; warns of what may stay. Changes nothing on any node.

    `fetches`: whether this run may fetch a release; `starts`: whether it may start members.
    """
    cluster = ctx.cluster
    general = [*_twins(ctx, nodes), *_clusters(ctx, nodes)]
    ctx.members = _listed(ctx, nodes)
    unborn = living.unborn(cluster, ctx.members)
    foreign = {node.name: problem for node in nodes if (problem := _foreign(ctx, node, ctx.look(node)))}
    compared = current.problems(ctx, [node for node in nodes if node.name not in foreign], starts=starts)
    served = living.published(cluster, ctx.members)
    explained = unborn | {problem.node for problem in compared}  # why nothing is where etcd.toml says
    found: list[Problem] = []
    for node in nodes:
        if node.name in foreign:
            found.append(foreign[node.name])
        else:
            found += _one(ctx, node, explained=node.name in explained, served=node.name in served)
    found += _majority_lost(ctx, [node for node in nodes if node.name not in explained])
    if fetches and not (general or compared or found):
        found += _unserved(ctx, nodes)
    if general or compared or found:
        lines = [*map(str, general), *differences.lines(compared), *map(str, found)]
        raise Refused(
            "\n  ".join(["preflight: nothing was changed", *lines]),
            hint=f"fix these, then: {again()}",
            problems=[*general, *compared, *found],
        )


def _one(ctx: Context, node: Node, *, explained: bool, served: bool) -> Iterator[Problem]:
    """What is wrong with one node. `explained`: why its data is not where etcd.toml says is said already."""
    cluster, look = ctx.cluster, ctx.look(node)
    for check in CHECKS:
        yield from check(cluster, node, look)
    yield from ground.problems(ctx, node, look)
    if not explained:
        yield from vanished_data(cluster, node, look, served=served)
    yield from ports(ctx, node, look)
    yield from upgrade.refusals(ctx, node, look)
    yield from foreign_ca(cluster, node, look, ctx.store.ca())
    yield from _not_yet_valid(ctx, node, look)
    for warning in _warnings(cluster, node, look):
        ctx.warn(warning.message, node)


def _foreign(ctx: Context, node: Node, look: Look) -> Problem | None:
    """An etcd that this tool did not deploy has the node's ports: its cluster is left alone.

    One that etcd.service itself runs, as the member and on the data that etcd.toml names, may become this tool's.
    """
    cluster = ctx.cluster
    living = look.process is not None
    taken = any(port in look.listening for port in (node.client_port, node.peer_port))
    if not cluster.systemd or not taken or (living and instances.ours(cluster, node, look)):
        return None
    instance = instances.foreign(cluster, node, look, ctx.answer(node, instances.script(), instances.parse))
    if instance is None:
        return None
    replaced = look.unit.get("FragmentPath") == unit_file(cluster, node) and not look.unit.get("EnvironmentFiles")
    same = (instance.data, instance.wal, instance.options.get("name")) == (node.paths.data, node.paths.wal, node.name)
    if instance.pid == look.pid and replaced and same:
        return None
    said = (
        f"{instance.described}. This tool has not deployed it, and does not take it over. To have its keys in a "
        f"cluster of this tool: {FOREIGN_CLUSTER}"
    )
    return Problem("node.foreign-etcd", said, node=node.name)


def _listed(ctx: Context, nodes: Sequence[Node]) -> tuple[Member, ...] | None:
    """The live member list. One of the other nodes is asked for it where it decides over a stopped member:

    whether one that is empty has lost anything, and whether an address that was edited is the one its peers know.
    """
    found = ctx.members if ctx.members is not None else current.members(ctx, nodes)
    if found is not None or len(nodes) == len(ctx.cluster.nodes):
        return found
    for node in nodes:
        look = ctx.look(node)
        if any(vanished_data(ctx.cluster, node, look)) or any(differences.of_node(ctx.cluster, node, look, None)):
            return current.others(ctx, nodes)
    return None


def _twins(ctx: Context, nodes: Sequence[Node]) -> Iterator[Problem]:
    """Cloned machines share a machine-id; one machine under two names shares its boot, too."""
    if ctx.cluster.hosts.transport == "local":
        return
    seen: dict[str, Node] = {}
    for node in nodes:
        facts = ctx.look(node).facts
        twin = seen.setdefault(facts.machine_id or node.name, node)
        if twin is node:
            continue
        if ctx.look(twin).facts.boot_id == facts.boot_id:
            said = f"{twin.name} and {node.name} are the same machine (one machine-id, one boot)"
            yield Problem("preflight.same-machine", said)
        else:
            ctx.warn(f"has the machine-id of {twin.name}: a cloned machine should get its own", node)


def _clusters(ctx: Context, nodes: Sequence[Node]) -> Iterator[Problem]:
    """Data that another cluster has written: etcd would run with it, unready for ever ("cluster ID mismatch")."""
    known = known_id(ctx.cluster)
    seen = {node.name: cluster for node in nodes if (cluster := ctx.look(node).facts.cluster_id)}
    if not known:
        if len(set(seen.values())) > 1:
            listed = ", ".join(f"{name}: {cluster}" for name, cluster in seen.items())
            said = f"the members' data is of different clusters ({listed}): find out which of them is this one"
            yield Problem("preflight.different-clusters", said)
        return
    for node in nodes:
        if (found := seen.get(node.name, known)) != known:
            said = (
                f"a foreign cluster: the ID in {node.paths.wal} is {found}, this cluster's is {known}. "
                f"Compare the addresses in etcd.toml, find this member's own data; if the cluster was made anew by "
                f"hand, remove {ctx.cluster.work / CLUSTER_ID}"
            )
            yield Problem("preflight.foreign-cluster", said, node=node.name)


def _majority_lost(ctx: Context, nodes: Sequence[Node]) -> Iterator[Problem]:
    """Members are replaced one by one only while the others have a quorum."""
    cluster = ctx.cluster
    lost = [node.name for node in nodes if any(vanished_data(cluster, node, ctx.look(node)))]
    if len(cluster.nodes) - len(lost) < cluster.quorum:
        said = (
            f"{len(lost)} of {len(cluster.nodes)} members have lost their data ({', '.join(lost)}): without a quorum "
            "none can be replaced. Find the data first: are disks not mounted, were [paths] changed? Only where it is "
            "lost for good, restore a snapshot on all members"
        )
        yield Problem("preflight.majority-lost", said)


def _unserved(ctx: Context, nodes: Sequence[Node]) -> Iterator[Problem]:
    """For a CPU that is not the controller's, not every source has a release: it is fetched before the first change."""
    for arch in sorted({ctx.arch(node) for node in nodes} - {own_arch()}):
        try:
            if ctx.release(arch) is None:
                ctx.fetch(arch)
        except StepFailed as error:
            names = ", ".join(node.name for node in nodes if ctx.arch(node) == arch)
            yield Problem("preflight.no-release", f"{names}: no etcd for this CPU: {error.message}")


def _not_yet_valid(ctx: Context, node: Node, look: Look) -> Iterator[Problem]:
    """Before its notBefore a certificate is worth nothing: on a node whose clock is that far behind."""
    if not ctx.cluster.tls.enabled or look.skew >= -SKEW:
        return
    from steps.core.tls import pki, profiles

    pair, ca = ctx.store.pair(profiles.leaf_name(ctx.cluster, node)), ctx.store.ca()
    starts = [pki.read(pem)[0].not_valid_before_utc.timestamp() for pem in (ca, pair.cert if pair else None) if pem]
    if pair is None or ca is None:
        starts.append(ctx.now() - BACKDATED)
    if ctx.now() + look.skew < max(starts):
        said = f"its clock is {-look.skew} s behind: there its certificate is not valid yet. Set the clock (NTP)"
        yield Problem("preflight.certificate-not-yet-valid", said, node=node.name)


def _warnings(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    yield from clock(cluster, node, look)
    yield from ground.written_in_place(cluster, node, look)
    token = living.installed(cluster, node, look).get("initial-cluster-token", cluster.token)
    if look.member and token != cluster.token:
        said = f"[cluster] token was {token}: etcd reads it at its first start only, its members keep theirs"
        yield Problem("preflight.token", said, node=node.name)
    total = look.space[node.paths.data].total
    quota = int(cluster.flags.get("quota-backend-bytes", "0"))
    if total < quota:
        said = f"{node.paths.data} is on {total >> 20} MB, less than quota-backend-bytes ({quota >> 20} MB)"
        yield Problem("preflight.less-than-quota", said, node=node.name)
