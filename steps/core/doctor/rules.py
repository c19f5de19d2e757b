"""From evidence to findings: what is wrong with a cluster, how that is known, and which command mends it. Pure.

Each failure is known by a name, and each check is a small function that yields clues for such names; clues of one
failure on one node become one finding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from steps.core.base.hints import etcdctl
from steps.core.base.problem import Problem
from steps.core.doctor.advice import ADVICE, Situation, member_of
from steps.core.doctor.clue import Clue
from steps.core.doctor.cluster_rules import CLUSTER_CHECKS
from steps.core.doctor.evidence import Evidence, NodeEvidence
from steps.core.doctor.failures import FAILURES
from steps.core.doctor.node_rules import GENERAL, NODE_CHECKS, clock, foreign, unasked
from steps.core.node.paths import wal_parent


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


def diagnose(evidence: Evidence) -> list[Finding]:
    """Return the findings, node by node, and last what concerns the whole cluster; empty where nothing is wrong."""
    clues = {case.node.name: _clues(evidence, case) for case in evidence.nodes}
    clues[""] = [clue for check in CLUSTER_CHECKS for clue in check(evidence)]
    for case in evidence.nodes:
        if not _explained(clues[case.node.name]):
            clues[case.node.name] += [clue for check in GENERAL for clue in check(evidence, case)]
    if not any(_explained(found) for found in clues.values()):
        for case in evidence.nodes:
            clues[case.node.name] += [Clue("tls-refused", problem) for problem in case.tls]
    failures = {name: {clue.failure for clue in found} for name, found in clues.items()}
    return [finding for name, found in clues.items() for finding in _findings(evidence, name, found, failures)]


def _explained(clues: list[Clue]) -> bool:
    """Return whether there is one that says why a member does not serve."""
    return any(not FAILURES[clue.failure].aside for clue in clues)


def _clues(evidence: Evidence, case: NodeEvidence) -> list[Clue]:
    if case.look is None:
        return [unasked(evidence, case)]
    if case.foreign is not None:
        return [*foreign(case.foreign), *clock(evidence, case)]
    return [clue for check in NODE_CHECKS for clue in check(evidence, case)]


def _findings(
    evidence: Evidence, name: str, clues: list[Clue], failures: Mapping[str, Collection[str]]
) -> Iterator[Finding]:
    """Yield one finding for each failure of a node (`name`; "": of the whole cluster)."""
    words = _words(evidence, name)
    case = next((case for case in evidence.nodes if case.node.name == name), None)
    for failure in dict.fromkeys(clue.failure for clue in clues):
        same = [clue for clue in clues if clue.failure == failure]
        identifier = next((clue.id for clue in same if clue.id), "")
        say = next((clue.say for clue in same if clue.say), "")
        if failure in ADVICE and not say:
            say = ADVICE[failure](Situation(evidence, case, failures, words["ctl"], identifier))
        known = FAILURES[failure]
        mend = known.mend.format(**{**words, "id": identifier or words["id"], "say": say})
        yield Finding(failure, name, known.what, tuple(dict.fromkeys(clue.evidence for clue in same)), mend)


def _words(evidence: Evidence, name: str) -> dict[str, str]:
    """Return what a mending command may name, of a node (`name`; "": of the whole cluster)."""
    cluster = evidence.cluster
    words = {
        "node": name,
        "cluster": cluster.name,
        "ctl": etcdctl(cluster.work, "").rstrip(),
        "ca": str(cluster.work / "ca"),
        "id": "ID",
    }
    if not name:
        return words
    node = cluster.node(name)
    paths = {"cert": node.paths.cert, "data": node.paths.data, "wal": node.paths.wal, "bin": node.paths.bin}
    member = member_of(evidence, node)
    identifier = member.id if member is not None else "ID"
    return {**words, **paths, "parent": wal_parent(node), "run_as": cluster.hosts.run_as, "id": identifier}
