"""What was found of a cluster's health, and what it means: healthy, degraded, lost, unhealthy or unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from steps.core.base.errors import StepsError, Unhealthy, Unknown
from steps.core.base.problem import SCHEMA, Problem
from steps.core.config.model import Cluster

HEAD = ("MEMBER", "ENDPOINT", "ROLE", "HEALTH", "VERSION", "CERT EXPIRES")
_UNHEALTHY = {
    "degraded": "the cluster is not healthy: degraded, it has a quorum",
    "lost": "the cluster is not healthy: it has lost its quorum, nothing can be written",
    "unhealthy": "the cluster is not healthy; whether it has a quorum is unknown",
}


@dataclass(frozen=True)
class MemberHealth:
    """One row of the closing table. `expires`: notAfter of the served certificate; None without TLS or unseen.

    `checked`: its host was asked, and not another member about it.
    """

    name: str
    endpoint: str
    role: str
    health: str
    version: str
    expires: datetime | None = None
    checked: bool = True

    @property
    def silent(self) -> bool:
        """Whether its host was asked and the member itself said nothing."""
        return self.checked and not self.version


@dataclass
class Health:
    """`problems` make the cluster unhealthy; `unknown`: what could not be asked; `warnings` do neither.

    `unknown` and `warnings` are lines that begin with the node, if any. `quorum`: None where it is unknown.
    `hints`: what to do about `unknown`.
    """

    members: list[MemberHealth] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    quorum: bool | None = None
    hints: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """Return healthy, degraded (it has a quorum), lost (it has none), unhealthy (that is unknown), or unknown."""
        if self.problems:
            return {True: "degraded", False: "lost", None: "unhealthy"}[self.quorum]
        return "unknown" if self.unknown else "healthy"

    def rows(self) -> list[list[str]]:
        return [
            [m.name, m.endpoint, m.role, m.health, m.version or "-", f"{m.expires:%Y-%m-%d}" if m.expires else "-"]
            for m in self.members
        ]

    def as_json(self, cluster: Cluster) -> dict[str, Any]:
        members = [{**asdict(m), "expires": m.expires.isoformat() if m.expires else None} for m in self.members]
        return {
            "schema": SCHEMA,
            "cluster": cluster.name,
            "healthy": self.state == "healthy",
            "state": self.state,
            "quorum": self.quorum,
            "members": members,
            "problems": [problem.as_json() for problem in self.problems],
            "unknown": self.unknown,
            "warnings": self.warnings,
        }

    def error(self, next_step: str) -> StepsError | None:
        """Return what `status` and `verify` end with; None where all is healthy. Known-unhealthy beats unknown.

        `next_step`: the hint where something is wrong.
        """
        unchecked = [f"not checked: {line}" for line in self.unknown]
        if self.problems:
            lines = [*map(str, self.problems), *unchecked]
            return Unhealthy(_listed(_UNHEALTHY[self.state], lines), hint=next_step, problems=self.problems)
        if not self.unknown:
            return None
        answering = any(member.version for member in self.members)
        known = "what could be asked is healthy" if answering else "no member could be asked"
        hints = dict.fromkeys(hint for hint in self.hints if hint)
        return Unknown(_listed(f"the cluster's health is unknown: {known}", unchecked), hint="\n".join(hints))


def _listed(title: str, lines: Sequence[str]) -> str:
    return "\n  ".join([title, *lines])
