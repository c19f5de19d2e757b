"""What to do about a failure where that depends on what was found. Pure.

No advice may cost data that may still be right: a member is replaced only by a quorum, data is moved only by its
owner, and a path in etcd.toml follows the data that exists.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from shlex import quote

from steps.core.base.hints import invoke
from steps.core.base.pages import REPLACE_A_MEMBER
from steps.core.base.shell import quoted
from steps.core.config.model import Cluster, Node
from steps.core.doctor.evidence import Evidence, NodeEvidence
from steps.core.etcd import auth, living
from steps.core.etcd.instances import end
from steps.core.etcd.views import Member
from steps.core.node.paths import wal_parent

DAY = 86400  # seconds


@dataclass(frozen=True)
class Situation:
    """A failure on one node (`case`; None: of the whole cluster) and what was found of all: node → failures.

    `ctl`: the words that run etcdctl on the controller; `id`: of the member or process that the clue names.
    """

    evidence: Evidence
    case: NodeEvidence | None
    failures: Mapping[str, Collection[str]]
    ctl: str
    id: str = ""

    @property
    def node(self) -> Node:
        assert self.case is not None  # noqa: S101  asked only for failures of nodes
        return self.case.node

    def lost(self) -> list[str]:
        """The nodes that have no data, or data that is wrong."""
        return [name for name, found in self.failures.items() if {"wiped-member", "corrupt"} & set(found)]


def member_of(evidence: Evidence, node: Node) -> Member | None:
    """Return the node's member in the live list, by its peer URL."""
    url = evidence.cluster.peer_url(node)
    return next((member for member in evidence.view.members or () if url in member.peer_urls), None)


def elsewhere(evidence: Evidence, node: Node) -> Member | None:
    """Return the member that has the node's name at another peer URL: etcd.toml gives it a new address."""
    if member_of(evidence, node) is not None:
        return None
    return next((member for member in evidence.view.members or () if member.name == node.name), None)


def _replace(at: Situation) -> str:
    """A member whose data is gone or corrupt; what is not there may only not be mounted."""
    node, evidence = at.node, at.evidence
    data, wal = unit_paths(evidence.cluster, at.case) if at.case else (node.paths.data, node.paths.wal)
    if (data, wal) != (node.paths.data, node.paths.wal):
        return f"the unit on {node.name} has its data in {data} and its WAL in {wal}: [paths] in etcd.toml must say so"
    find = ""
    if "wiped-member" in at.failures.get(node.name, ()):
        find = f"find the data first: is a disk of {node.name} not mounted (findmnt; ls -d {quote(data)}*)? "
    if evidence.view.members is None or len(evidence.cluster.nodes) - len(at.lost()) < evidence.cluster.quorum:
        return find + "Remove no member: without a quorum none can be replaced, and what is left may be needed"
    member = member_of(evidence, node)
    remove = f"{at.ctl} member remove {member.id if member else 'ID'}, then add it anew: {REPLACE_A_MEMBER}"
    return f"{find}If it is lost for good: {remove}" if find else remove


def unit_paths(cluster: Cluster, case: NodeEvidence) -> tuple[str, str]:
    """Return where the unit on the node has data and WAL; what etcd.toml says where there is none."""
    node, look = case.node, case.look
    said = living.installed(cluster, node, look) if look else {}
    return said.get("data-dir", node.paths.data), said.get("wal-dir", node.paths.wal)


def _owner(at: Situation) -> str:
    """All of the member's files become its user's, and nothing else that lies there; `env` makes a missing user."""
    node, user = at.node, at.evidence.cluster.hosts.run_as
    look = at.case.look if at.case else None
    if look is not None and any(not space.writable for space in look.space.values()):
        return f"see findmnt -T {quote(node.paths.data)} on {node.name}: mount it read-write, then: {_start(node)}"
    made = "" if look is None or user in look.users else f"{invoke(f'env --node {node.name}')}; then "
    parent = [] if look is not None and wal_parent(node) in look.strangers else [wal_parent(node)]
    own = f"chown {user}:{user} {quoted([*parent, node.paths.data, node.paths.wal])}"
    inside = [f"{node.paths.data}/member", *([] if look is not None and not look.wal else [node.paths.wal])]
    return f"{made}on {node.name}: {own} && chown -R {user}:{user} {quoted(inside)}; then: {_start(node)}"


def _second(at: Situation) -> str:
    if not at.id:  # its log alone says so: whoever it was has gone, or is not seen
        database = quote(f"{at.node.paths.data}/member/snap/db")
        return f"find out which process has {database} open on {at.node.name}, then: {_start(at.node)}"
    stop = end(at.case.instances if at.case else (), int(at.id))
    return f"if nothing needs that etcd, end it in order: on {at.node.name}: {stop}; then: {_start(at.node)}"


def _overridden(at: Situation) -> str:
    node, look = at.node, at.case.look if at.case else None
    paths = {"data-dir": node.paths.data, "wal-dir": node.paths.wal}
    argv = look.process.argv if look and look.process else ()
    said = dict(word.lstrip("-").partition("=")[::2] for word in argv)
    first = "move what they say into etcd.toml"
    if any(said.get(name, path) != path for name, path in paths.items()):
        first += " (above all where the data is: it stays there)"
    units = invoke(f"units start --node {node.name}")
    return f"{first}, remove them, on {node.name}: systemctl daemon-reload, then: {units}"


def _mounted(at: Situation) -> str:
    node, look = at.node, at.case.look if at.case else None
    higher = f"mount that filesystem one level higher, so that {node.paths.wal} is a directory in it"
    if at.evidence.cluster_id or (look is not None and look.member):
        return (
            f"find the WAL that belongs to the data in {node.paths.data}; {higher}, with that WAL; then: {_start(node)}"
        )
    units = invoke(f"units start --node {node.name}")
    return f"{higher}, or set [paths] wal to a directory below it, then: {units}"


def _identity(at: Situation) -> str:
    """Where most members have another ID, it is this controller that is behind; else the node is another cluster's."""
    cluster, known = at.evidence.cluster, at.evidence.cluster_id
    ids = [status.cluster_id for case in at.evidence.nodes for status in case.view.statuses.values()]
    other = max(ids, key=ids.count, default="")
    if known and other != known and ids.count(other) >= cluster.quorum:
        file = quote(str(cluster.work / "cluster-id"))
        return (
            f"{ids.count(other)} members have the ID {other}: compare the addresses in etcd.toml; only if the cluster "
            f"was made anew by hand, remove {file}"
        )
    return (
        "compare the addresses in etcd.toml; if its data is another cluster's, on "
        f"{at.node.name}: systemctl stop etcd; leave that data where it is, and find this member's own"
    )


def _expired(at: Situation) -> str:
    """A new CA costs a downtime and every client's trust: never for a wrong clock, nor where others make it."""
    cluster = at.evidence.cluster
    looks = [case.look for case in at.evidence.nodes if case.look is not None]
    if looks and all(abs(look.skew) > DAY for look in looks):
        return "the nodes' clocks are more than a day away from this controller's: set the clock here first"
    if cluster.tls.backend != "builtin":
        return f"have it renewed where it is made ({cluster.tls.backend}), then: {invoke('ca certs')}"
    files = dict.fromkeys(quote(f"{node.paths.cert}/ca.pem") for node in cluster.nodes)
    keep = " && ".join(f"mv {file} {file}.expired" for file in files)
    ca = quote(str(cluster.work / "ca"))
    return (
        f"a new CA is needed; the old one and all data are kept: on every node: {keep}; here: mv {ca} {ca}.expired; "
        f"then: {invoke(f'stop --yes {cluster.name} all')} (clients need new certificates and the new ca.pem)"
    )


def _quorum(at: Situation) -> str:
    cluster, lost = at.evidence.cluster, at.lost()
    if len(cluster.nodes) - len(lost) >= cluster.quorum:
        return "bring back the members that are down, as said of each: no data is lost, and none needs to be restored"
    return (
        f"find the data of {', '.join(lost)} first (disks that are not mounted?); only where the data of most members "
        'is lost for good, restore a snapshot (etcd\'s documentation, "Disaster recovery")'
    )


def _start(node: Node) -> str:
    return invoke(f"start --node {node.name}")


ADVICE: Mapping[str, Callable[[Situation], str]] = {
    "wiped-member": _replace,
    "corrupt": _replace,
    "not-writable": _owner,
    "second-etcd": _second,
    "overridden": _overridden,
    "wal-mountpoint": _mounted,
    "cluster-id-mismatch": _identity,
    "ca-expired": _expired,
    "no-quorum": _quorum,
    "no-root-role": lambda at: auth.way(at.evidence.cluster),
}
