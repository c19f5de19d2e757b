"""What is wrong with the cluster as a whole. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from steps.core.doctor.advice import elsewhere
from steps.core.doctor.clue import Clue, deployed
from steps.core.doctor.evidence import Evidence


def foreign_members(evidence: Evidence) -> Iterator[Clue]:
    """One that has a node's name is that node at another address: see moved-member."""
    wanted = {evidence.cluster.peer_url(node) for node in evidence.cluster.nodes}
    moved = [elsewhere(evidence, node) for node in evidence.cluster.nodes]
    for member in evidence.view.members or ():
        if not wanted & set(member.peer_urls) and member not in moved:
            where = f"{member.name or 'a member without a name'} ({member.id}) at {', '.join(member.peer_urls)}"
            yield Clue("foreign-member", f"the member list has {where}", id=member.id)


def majority(hashes: Mapping[str, int]) -> int | None:
    """The hash that more than half of the members have; None where there is no such one."""
    values = list(hashes.values())
    most = max(values, key=values.count, default=None)
    return most if most is not None and 2 * values.count(most) > len(values) else None


def undecided(evidence: Evidence) -> Iterator[Clue]:
    hashes = evidence.view.hashes
    if len(set(hashes.values())) > 1 and majority(hashes) is None:
        yield Clue("hashes-differ", ", ".join(f"{url} has {value}" for url, value in hashes.items()))


def ca(evidence: Evidence) -> Iterator[Clue]:
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


def no_quorum(evidence: Evidence) -> Iterator[Clue]:
    """A member that serves has committed a read, so there is a quorum; a selection says nothing of the others.

    Nor is there one to lose where nothing is installed, or where this controller reaches nobody.
    """
    if len(evidence.nodes) < len(evidence.cluster.nodes) or not any(
        deployed(evidence, case) and case.foreign is None for case in evidence.nodes
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


CLUSTER_CHECKS: tuple[Callable[[Evidence], Iterator[Clue]], ...] = (foreign_members, undecided, ca, no_quorum)
