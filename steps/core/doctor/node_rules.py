"""What is wrong with one node and its member. Pure: each check is a small function that yields clues."""

from __future__ import annotations

import re
from collections.abc import Iterator

from steps.core.checks import ground, node_checks, prepared
from steps.core.doctor.advice import elsewhere, member_of, unit_paths
from steps.core.doctor.certificate_rules import certificate, trusted
from steps.core.doctor.clue import Clue, NodeCheck, deployed
from steps.core.doctor.cluster_rules import majority, no_quorum
from steps.core.doctor.evidence import Evidence, NodeEvidence
from steps.core.doctor.failures import LOG_LINES, NOTICES
from steps.core.etcd import auth
from steps.core.etcd.instances import Instance
from steps.core.etcd.logs import telling
from steps.core.etcd.views import View
from steps.core.node.paths import unit_file, wal_parent

WAL_SEGMENT = 64 << 20  # bytes that etcd preallocates for each next piece of its WAL
SHOWN = 300  # characters of a line of the log


def unasked(evidence: Evidence, case: NodeEvidence) -> Clue:
    """A host that could not be asked; the member that speaks for the cluster may have asked its member."""
    url = evidence.cluster.client_url(case.node)
    asked = evidence.view.health.get(url)
    if asked is None:
        return Clue("host-unreachable", case.unreachable, say=case.hint)
    if url in evidence.view.statuses and not asked:
        return Clue("host-unreachable", f"{case.unreachable}; its member answers the others", say=case.hint)
    return Clue("no-answer", f"{case.unreachable}; its member, asked from another: {asked}", say=case.hint)


def foreign(found: tuple[Instance, View]) -> Iterator[Clue]:
    instance, view = found
    names = ", ".join(sorted(member.name or member.id for member in view.members or ()))
    wrong = next(iter(view.health.values()), None)
    if wrong is None:
        failure, said = "foreign-unknown", next(iter(view.errors.values()), "it has no etcdctl next to it, or no URL")
    else:
        failure = "foreign-unhealthy" if wrong else "foreign-cluster"
        said = f"{wrong or 'healthy'}, {len(view.members or ())} members: {names}" if names else wrong or "healthy"
    yield Clue(failure, instance.described)
    yield Clue(failure, said)


def _preflight(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """The preflight's own questions, each for the failure that it knows."""
    cluster, node, look = evidence.cluster, case.node, case.look
    assert look is not None  # noqa: S101  NODE_CHECKS are asked of nodes that were looked at
    for failure, check in (
        ("overridden", node_checks.overrides),
        ("unreadable-unit", node_checks.unreadable_unit),
        ("wal-mountpoint", node_checks.wal_mount),
        ("two-wals", node_checks.two_wals),
        ("not-writable", node_checks.inhabited),
        ("not-writable", ground.read_only),
        ("planted", node_checks.planted),
        ("changeable", node_checks.changeable),
        ("foreign-data", node_checks.foreign_data),
        ("wiped-member", node_checks.vanished_data),
    ):
        yield from (Clue(failure, problem.message) for problem in check(cluster, node, look))
    yield from (Clue("port-taken", problem.message) for problem in case.ports)


def _installed(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """Where the cluster was once healthy, what is empty is a wiped member, which `invoke all` refuses."""
    if not evidence.cluster_id and case.look is not None and not case.look.member and not deployed(evidence, case):
        unit = unit_file(evidence.cluster, case.node)
        lacks = [unit] if unit not in case.look.entries else prepared.missing(evidence.cluster, case.node, case.look)
        yield Clue("not-deployed", f"there is no {', '.join(lacks)}")
    known = case.look is not None and case.look.facts.cluster_id == evidence.cluster_id != ""
    if known and case.look is not None and case.look.member and not deployed(evidence, case):
        yield Clue("no-unit", f"there is no {unit_file(evidence.cluster, case.node)}")


def _log(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """Only of a member that does not serve: one that does has overcome what it once complained of."""
    if case.serves(evidence.cluster):
        return
    known = case.look is not None and case.look.facts.cluster_id == evidence.cluster_id != ""
    for failure, pattern, notice in _PATTERNS:
        if failure == "cluster-id-mismatch" and known:
            continue  # its data is ours: it is the others that it complains of
        if failure == "closed-directory" and any(_owners(evidence, case)):
            continue  # the owner is what is wrong: its mode needs no opening
        lines = [line for line in case.log if (notice.match if line.level == "minor" else pattern.search)(line.said)]
        # systemd says the cause in one line and the code in another
        last = lines[-2:] if lines and lines[-1].level == "systemd" else lines[-1:]
        yield from (Clue(failure, f"its log: {line.text[:SHOWN]}") for line in last)


_NEVER = "(?!)"


_PATTERNS = [(name, re.compile(said), re.compile(dict(NOTICES).get(name, _NEVER))) for name, said in LOG_LINES]


def _owners(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """What root restored or moved by hand: etcd may not open it at its next start.

    Where a link or another's file was planted, a chown would give that away: it is looked at first.
    """
    user, paths = evidence.cluster.hosts.run_as, case.node.paths
    if case.look is None or not deployed(evidence, case):
        return
    if any(node_checks.planted(evidence.cluster, case.node, case.look)):
        return
    if unit_paths(evidence.cluster, case) != (paths.data, paths.wal):
        return  # etcd.toml names other directories than the member has
    parent, member, wal = wal_parent(case.node), case.look.member, case.look.wal
    others = {parent: parent in case.look.strangers, paths.data: not member, paths.wal: not wal}
    owners = {path: owner for path, owner in case.owners.items() if not others.get(path)}
    for owner in dict.fromkeys(owners.values()):
        mine = [path for path, other in owners.items() if other == owner]
        more = f" (and {len(mine) - 1} more below it)" if len(mine) > 1 else ""
        yield Clue("not-writable", f"{mine[0]}{more} belongs to {owner}, and etcd runs as {user}")


def _auth(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """Said once, by the first member that may not ask: its certificate is as good as the others'."""
    if words := auth.refused(case.view):
        yield Clue("no-root-role", f"{auth.said(evidence.cluster, case.node)}: {words}")


def _start_limit(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    del evidence
    result = case.look.unit.get("Result") if case.look else ""
    if result == "start-limit-hit" or any(
        line.level == "systemd" and "Start request repeated too quickly" in line.said for line in case.log
    ):
        yield Clue("start-limit", "systemd: Result=start-limit-hit, start request repeated too quickly")


def _second(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    del evidence
    ours = f"the member is pid {case.state.pid}" if case.state.pid else "the member does not run"
    for pid, who in case.others.items():
        yield Clue("second-etcd", f"{who} has {case.node.paths.data} open; {ours}", id=str(pid))


def _disk(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """etcd preallocates each next segment of its WAL: with less than that it stops at the next one."""
    for path in (case.node.paths.data, case.node.paths.wal):
        space = case.look.space.get(path) if case.look and deployed(evidence, case) else None
        if space is not None and space.free < WAL_SEGMENT:
            yield Clue("disk-full", f"{path}: {space.free >> 20} MB free of {space.total >> 20} MB")


def clock(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    problems = node_checks.clock(evidence.cluster, case.node, case.look) if case.look else ()
    yield from (Clue("clock-skew", problem.message) for problem in problems)


def _enabled(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    state = case.look.unit.get("UnitFileState", "") if case.look else ""
    if evidence.cluster.systemd and deployed(evidence, case) and state not in ("enabled", "enabled-runtime"):
        yield Clue("not-enabled", f"systemd: UnitFileState={state or 'unknown'}")


def _membership(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    if evidence.view.members is None:
        return
    member = member_of(evidence, case.node)
    url = evidence.cluster.peer_url(case.node)
    if moved := elsewhere(evidence, case.node):
        there = ", ".join(moved.peer_urls)
        yield Clue("moved-member", f"etcd.toml says {url}, the member list has {there}", id=there)
    elif member is None:
        yield Clue("removed-member", f"the member list has none at {url}")
    elif not member.started:
        yield Clue("never-started", f"member {member.id} at {url} has no name yet", id=member.id)
    elif member.learner:
        yield Clue("learner", f"the member list calls {member.id} a learner", id=member.id)


def _alarms(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    member = member_of(evidence, case.node)
    for alarm in evidence.view.alarms:
        if member is not None and alarm.member == member.id:
            yield Clue("no-space-alarm" if alarm.kind == "NOSPACE" else "corrupt", f"alarm {alarm}")


def _hashes(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """What most members have at one revision is right; without a strict majority none is accused."""
    hashes = evidence.view.hashes
    own = hashes.get(evidence.cluster.client_url(case.node))
    most = majority(hashes)
    if own is not None and most is not None and own != most:
        yield Clue("corrupt", f"at one revision the hash of its data is {own}, the other members' is {most}")


def _cluster_ids(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    status = case.view.statuses.get(evidence.cluster.client_url(case.node))
    known = evidence.cluster_id or _common_id(evidence)
    written = case.look.facts.cluster_id if case.look else None
    for found, what in ((status.cluster_id if status else "", "it answers with"), (written, "its WAL has")):
        if found and known and found != known:
            yield Clue("cluster-id-mismatch", f"{what} the cluster ID {found}, this cluster's is {known}")


def _common_id(evidence: Evidence) -> str:
    ids = [status.cluster_id for case in evidence.nodes for status in case.view.statuses.values()]
    return max(ids, key=ids.count, default="")


NODE_CHECKS: tuple[NodeCheck, ...] = (
    _installed,
    _preflight,
    _owners,
    _log,
    _start_limit,
    _auth,
    _second,
    _disk,
    clock,
    _enabled,
    certificate,
    trusted,
    _membership,
    _alarms,
    _hashes,
    _cluster_ids,
)


def _not_up(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    if case.look is None or case.state.ready or not deployed(evidence, case):
        return
    said = f"{'systemd' if evidence.cluster.systemd else 'the process'}: {case.state.active}"
    if case.state.active in ("inactive/dead", "dead"):
        yield Clue("stopped", said)
        return
    yield Clue("not-running", said)
    yield from _told("not-running", case)


def _not_serving(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """Without a quorum no member serves: then that is what is said."""
    if not case.state.ready or case.serves(evidence.cluster) or list(no_quorum(evidence)):
        return
    url = evidence.cluster.client_url(case.node)
    yield Clue("not-serving", f"{url}: {case.view.health.get(url) or case.view.errors.get('health') or 'no answer'}")
    yield from _told("not-serving", case)


def _told(failure: str, case: NodeEvidence) -> Iterator[Clue]:
    yield from (Clue(failure, f"its log: {line[:SHOWN]}") for line in telling(case.log, otherwise=3))


GENERAL: tuple[NodeCheck, ...] = (_not_up, _not_serving)  # asked where nothing else explains it
