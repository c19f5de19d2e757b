"""What a rule yields: a clue for a failure that is known by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from steps.core.checks import prepared
from steps.core.doctor.evidence import Evidence, NodeEvidence
from steps.core.node.paths import unit_file


@dataclass(frozen=True)
class Clue:
    """`id`: of the member or process that the mending command names; `say`: that command, where it is not fixed."""

    failure: str
    evidence: str
    id: str = ""
    say: str = ""


NodeCheck = Callable[[Evidence, NodeEvidence], Iterator[Clue]]


def deployed(evidence: Evidence, case: NodeEvidence) -> bool:
    """Return whether the unit is there, and not left behind by a reset of the cluster."""
    if case.look is None or unit_file(evidence.cluster, case.node) not in case.look.entries:
        return False
    starting = evidence.cluster_id or case.look.member or case.look.process is not None
    return bool(starting) or not prepared.missing(evidence.cluster, case.node, case.look)
