"""From evidence to findings: what is wrong with a cluster, how that is known, and which command mends it. Pure.

Each failure is known by a name, and each check is a small function that yields clues for such names; clues of one
failure on one node become one finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.core.base.digest import digest
from steps.core.base.hints import etcdctl, invoke
from steps.core.base.problem import Problem
from steps.core.checks import ground, node_checks, prepared
from steps.core.doctor.advice import ADVICE, Situation, elsewhere, member_of, unit_paths
from steps.core.doctor.evidence import Evidence, NodeEvidence
from steps.core.doctor.failures import FAILURES, LOG_LINES, NOTICES
from steps.core.etcd import auth
from steps.core.etcd.instances import Instance
from steps.core.etcd.logs import telling
from steps.core.etcd.views import View
from steps.core.node.paths import unit_file, wal_parent

if TYPE_CHECKING:
    from steps.core.config.model import Node

WAL_SEGMENT = 64 << 20  # bytes that etcd preallocates for each next piece of its WAL
SHOWN = 300  # characters of a line of the log


@dataclass(frozen=True)
class Finding:
    """One known failure, where it is ("" for the whole cluster), how it is known, and the command that mends it."""

    failure: str
    node: str
    what: str
    evidence: tuple[str, ...]
    mend: str

    @property
    def code(self) -> int:
        """What `invoke doctor` exits with because of it."""
        return FAILURES[self.failure].code

    @property
    def problem(self) -> Problem:
        return Problem(f"doctor.{self.failure}", self.what, hint=self.mend, node=self.node)


@dataclass(frozen=True)
class Clue:
    """`id`: of the member or process that the mending command names; `say`: that command, where it is not fixed."""

    failure: str
    evidence: str
    id: str = ""
    say: str = ""


NodeCheck = Callable[[Evidence, NodeEvidence], Iterator[Clue]]


def diagnose(evidence: Evidence) -> list[Finding]:
    """The findings, node by node, and last what concerns the whole cluster; empty where all is well."""
    clues = {case.node.name: _clues(evidence, case) for case in evidence.nodes}
    clues[""] = [*_foreign_members(evidence), *_undecided(evidence), *_ca(evidence), *_quorum(evidence)]
    for case in evidence.nodes:
        if not _explained(clues[case.node.name]):
            clues[case.node.name] += [clue for check in GENERAL for clue in check(evidence, case)]
    if not any(_explained(found) for found in clues.values()):
        for case in evidence.nodes:
            clues[case.node.name] += [Clue("tls-refused", problem) for problem in case.tls]
    failures = {name: {clue.failure for clue in found} for name, found in clues.items()}
    return [finding for name, found in clues.items() for finding in _findings(evidence, name, found, failures)]


def _explained(clues: list[Clue]) -> bool:
    """Whether there is one that tells why a member does not serve."""
    return any(not FAILURES[clue.failure].aside for clue in clues)


def _clues(evidence: Evidence, case: NodeEvidence) -> list[Clue]:
    if case.look is None:
        return [_unasked(evidence, case)]
    if case.foreign is not None:
        return [*_foreign(case.foreign), *_clock(evidence, case)]
    return [clue for check in NODE_CHECKS for clue in check(evidence, case)]


def _unasked(evidence: Evidence, case: NodeEvidence) -> Clue:
    """A host that could not be asked; the member that speaks for the cluster may have asked its member."""
    url = evidence.cluster.client_url(case.node)
    asked = evidence.view.health.get(url)
    if asked is None:
        return Clue("host-unreachable", case.unreachable, say=case.hint)
    if url in evidence.view.statuses and not asked:
        return Clue("host-unreachable", f"{case.unreachable}; its member answers the others", say=case.hint)
    return Clue("no-answer", f"{case.unreachable}; its member, asked from another: {asked}", say=case.hint)


def _foreign(found: tuple[Instance, View]) -> Iterator[Clue]:
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


def _findings(
    evidence: Evidence, name: str, clues: list[Clue], failures: Mapping[str, Collection[str]]
) -> Iterator[Finding]:
    cluster = evidence.cluster
    case = next((case for case in evidence.nodes if case.node.name == name), None)
    fields = {"node": name, "ctl": etcdctl(cluster.work, "").rstrip(), "ca": str(cluster.work / "ca")}
    fields |= {"cluster": cluster.name}
    if name:
        node = cluster.node(name)
        fields |= {"cert": node.paths.cert, "data": node.paths.data, "wal": node.paths.wal, "bin": node.paths.bin}
        fields |= {"parent": wal_parent(node), "run_as": cluster.hosts.run_as, "id": _member_id(evidence, node)}
    for failure in dict.fromkeys(clue.failure for clue in clues):
        same = [clue for clue in clues if clue.failure == failure]
        more = {key: next((value for clue in same if (value := getattr(clue, key))), "") for key in ("id", "say")}
        words = fields | {key: value for key, value in more.items() if value}
        if failure in ADVICE and not more["say"]:
            words["say"] = ADVICE[failure](Situation(evidence, case, failures, fields["ctl"], more["id"]))
        known = FAILURES[failure]
        seen = tuple(dict.fromkeys(clue.evidence for clue in same))
        yield Finding(failure, name, known.what, seen, known.mend.format(**{"id": "ID", "say": "", **words}))


# -- one node -----------------------------------------------------------------------------------------------------


def _deployed(evidence: Evidence, case: NodeEvidence) -> bool:
    """Return whether the unit is there, and not left behind by a reset of the cluster."""
    if case.look is None or unit_file(evidence.cluster, case.node) not in case.look.entries:
        return False
    starting = evidence.cluster_id or case.look.member or case.look.process is not None
    return bool(starting) or not prepared.missing(evidence.cluster, case.node, case.look)


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
    if not evidence.cluster_id and case.look is not None and not case.look.member and not _deployed(evidence, case):
        unit = unit_file(evidence.cluster, case.node)
        lacks = [unit] if unit not in case.look.entries else prepared.missing(evidence.cluster, case.node, case.look)
        yield Clue("not-deployed", f"there is no {', '.join(lacks)}")
    known = case.look is not None and case.look.facts.cluster_id == evidence.cluster_id != ""
    if known and case.look is not None and case.look.member and not _deployed(evidence, case):
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
    if case.look is None or not _deployed(evidence, case):
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
        space = case.look.space.get(path) if case.look and _deployed(evidence, case) else None
        if space is not None and space.free < WAL_SEGMENT:
            yield Clue("disk-full", f"{path}: {space.free >> 20} MB free of {space.total >> 20} MB")


def _clock(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    problems = node_checks.clock(evidence.cluster, case.node, case.look) if case.look else ()
    yield from (Clue("clock-skew", problem.message) for problem in problems)


def _enabled(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    state = case.look.unit.get("UnitFileState", "") if case.look else ""
    if evidence.cluster.systemd and _deployed(evidence, case) and state not in ("enabled", "enabled-runtime"):
        yield Clue("not-enabled", f"systemd: UnitFileState={state or 'unknown'}")


def _certificate(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """The certificate that lies on the node, judged as every new one is; its key by the digest alone."""
    if not evidence.cluster.tls.enabled or evidence.ca is None or case.look is None or not _deployed(evidence, case):
        return
    if any(_ca(evidence)):
        return  # no certificate is better than its CA, and none can be issued
    from steps.core.base.errors import CertificateError
    from steps.core.tls import pki, profiles, validate

    home = case.node.paths.cert
    entry, key = (case.look.entries.get(f"{home}/{name}") for name in ("etcd.pem", "etcd-key.pem"))
    if entry is None or entry.content is None or case.issued is None:
        none = next(iter(case.tls), "this controller has issued none for it")  # or what it has is damaged
        missing = f"{home}/etcd.pem is not there" if case.issued else none
        yield Clue("wrong-certificate", missing)
        return
    pem, (cert, issued_key) = entry.content.encode("utf-8", "surrogateescape"), case.issued
    try:
        # Is the key on the node the issued one, the certificate must be its other half; else nobody can tell from here.
        same = key is not None and key.digest == digest(issued_key)
        mine = issued_key if same else pem
        problems = validate.leaf_problems(
            pem, ca_pem=evidence.ca, key=mine, profile=profiles.member(evidence.cluster, case.node), now=evidence.now
        )
        if not same and pki.read(pem)[0] == pki.read(cert)[0]:
            said = "public key: the key on the node is not the one that was issued with it"
            problems.append(Problem("certificate.other-key", said))
    except CertificateError as error:
        problems = [error.problem("certificate.unreadable", "")]
    for problem in problems:
        failure = _FAILURES.get(problem.code, "wrong-certificate")
        say = _own_ca(case) if failure == "ca-mismatch" else ""
        yield Clue(failure, f"{home}/etcd.pem: {problem.message}", say=say)


_FAILURES = {
    "certificate.expired": "expired-certificate",
    "certificate.not-yet-valid": "expired-certificate",
    "certificate.other-key": "key-mismatch",
    "certificate.other-issuer": "ca-mismatch",
}


def _own_ca(case: NodeEvidence) -> str:
    return invoke(f"ca certs start --node {case.node.name}")


def _trusted(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """Where the other nodes trust this controller's CA, the node's file is wrong; else the controller is."""
    if case.look is None or evidence.ca is None:
        return
    if said := node_checks.trusts_another(evidence.cluster, case.node, case.look, evidence.ca):
        others = [each for each in evidence.nodes if each is not case and each.look is not None]
        wrong_here = any(
            f"{each.node.paths.cert}/ca.pem" in each.look.entries
            and not node_checks.trusts_another(evidence.cluster, each.node, each.look, evidence.ca)
            for each in others
            if each.look is not None
        )
        home = case.node.paths.cert
        aside = f"on {case.node.name}: mv {home}/ca.pem {home}/ca.pem.foreign, then: {_own_ca(case)}"
        copy = f"copy {evidence.cluster.work / 'ca'} and certs from the controller that made the cluster"
        yield Clue("ca-mismatch", said, say=aside if wrong_here else copy)


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
        kind, _, owner = alarm.partition(" on ")
        if member is not None and owner == member.id:
            yield Clue({"NOSPACE": "no-space-alarm"}.get(kind, "corrupt"), f"alarm {alarm}")


def _hashes(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """What most members have at one revision is right; without a strict majority none is accused."""
    hashes = evidence.view.hashes
    own = hashes.get(evidence.cluster.client_url(case.node))
    most = _majority(hashes)
    if own is not None and most is not None and own != most:
        yield Clue("corrupt", f"at one revision the hash of its data is {own}, the other members' is {most}")


def _majority(hashes: Mapping[str, int]) -> int | None:
    """The hash that more than half of the members have; None where there is no such one."""
    values = list(hashes.values())
    most = max(values, key=values.count, default=None)
    return most if most is not None and 2 * values.count(most) > len(values) else None


def _undecided(evidence: Evidence) -> Iterator[Clue]:
    hashes = evidence.view.hashes
    if len(set(hashes.values())) > 1 and _majority(hashes) is None:
        yield Clue("hashes-differ", ", ".join(f"{url} has {value}" for url, value in hashes.items()))


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
    _clock,
    _enabled,
    _certificate,
    _trusted,
    _membership,
    _alarms,
    _hashes,
    _cluster_ids,
)


def _not_up(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    if case.look is None or case.state.ready or not _deployed(evidence, case):
        return
    said = f"{'systemd' if evidence.cluster.systemd else 'the process'}: {case.state.active}"
    if case.state.active in ("inactive/dead", "dead"):
        yield Clue("stopped", said)
        return
    yield Clue("not-running", said)
    yield from _told("not-running", case)


def _not_serving(evidence: Evidence, case: NodeEvidence) -> Iterator[Clue]:
    """Without a quorum no member serves: then that is what is said."""
    if not case.state.ready or case.serves(evidence.cluster) or list(_quorum(evidence)):
        return
    url = evidence.cluster.client_url(case.node)
    yield Clue("not-serving", f"{url}: {case.view.health.get(url) or case.view.errors.get('health') or 'no answer'}")
    yield from _told("not-serving", case)


def _told(failure: str, case: NodeEvidence) -> Iterator[Clue]:
    yield from (Clue(failure, f"its log: {line[:SHOWN]}") for line in telling(case.log, otherwise=3))


GENERAL: tuple[NodeCheck, ...] = (_not_up, _not_serving)  # asked where nothing else explains it


# -- the whole cluster --------------------------------------------------------------------------------------------


def _member_id(evidence: Evidence, node: Node) -> str:
    member = member_of(evidence, node)
    return member.id if member else "ID"


def _foreign_members(evidence: Evidence) -> Iterator[Clue]:
    """One that has a node's name is that node at another address: see moved-member."""
    wanted = {evidence.cluster.peer_url(node) for node in evidence.cluster.nodes}
    moved = [elsewhere(evidence, node) for node in evidence.cluster.nodes]
    for member in evidence.view.members or ():
        if not wanted & set(member.peer_urls) and member not in moved:
            where = f"{member.name or 'a member without a name'} ({member.id}) at {', '.join(member.peer_urls)}"
            yield Clue("foreign-member", f"the member list has {where}", id=member.id)


def _ca(evidence: Evidence) -> Iterator[Clue]:
    if not evidence.cluster.tls.enabled:
        return
    if evidence.ca is None:
        trusting = [c.node.name for c in evidence.nodes if c.look and f"{c.node.paths.cert}/ca.pem" in c.look.entries]
        if trusting:
            yield Clue("no-ca", f"{', '.join(trusting)} trust one, and {evidence.cluster.work / 'ca'} has none")
    else:
        from steps.core.tls import validate

        for problem in validate.ca_problems(evidence.ca, now=evidence.now):
            yield Clue("ca-expired" if problem.code == "ca.expired" else "ca-unfit", problem.message)


def _quorum(evidence: Evidence) -> Iterator[Clue]:
    """A member that serves has committed a read, so there is a quorum; a selection says nothing of the others.

    Nor is there one to lose where nothing is installed, or where this controller reaches nobody.
    """
    if len(evidence.nodes) < len(evidence.cluster.nodes) or not any(
        _deployed(evidence, case) and case.foreign is None for case in evidence.nodes
    ):
        return
    if any(case.serves(evidence.cluster) for case in evidence.nodes):
        return
    asked = [case for case in evidence.nodes if not case.unreachable]
    if len(evidence.nodes) - len(asked) >= evidence.cluster.quorum:
        return  # those that could not be asked may have one
    for case in asked:
        reason = case.view.health.get(evidence.cluster.client_url(case.node)) or case.state.active
        yield Clue("no-quorum", f"{case.node.name} does not serve: {reason}")
