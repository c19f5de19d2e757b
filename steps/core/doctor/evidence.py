"""What was found of a cluster, before anybody says what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from steps.core.base.problem import Problem
from steps.core.config.model import Cluster, Node
from steps.core.etcd.instances import Instance
from steps.core.etcd.logs import Line
from steps.core.etcd.views import View
from steps.core.node.facts import Look
from steps.core.node.service import State

NOWHERE = State("unknown", 0)


@dataclass(frozen=True)
class NodeEvidence:
    """What was found of one node. `unreachable`: why it was not asked, `hint`: what to do; then all else is empty.

    `log`: of the last start. `ports`: what the preflight says of taken ports. `others`: pid → "pid N (name)" of
    each other process that may write the member's database. `tls`: what came of the handshakes. `issued`: the
    certificate and the key, PEM, that this controller has for the node. `instances`: the living etcds, whoever started
    them; `foreign`: the one that has the node's ports and is not this tool's, with what it answered. `owners`: path →
    "user:group" of each of the member's files and directories that do not belong to its user.
    """

    node: Node
    unreachable: str = ""
    hint: str = ""
    look: Look | None = None
    state: State = NOWHERE
    log: tuple[Line, ...] = ()
    view: View = field(default_factory=View)
    ports: tuple[Problem, ...] = ()
    others: Mapping[int, str] = field(default_factory=dict)
    tls: tuple[str, ...] = ()
    issued: tuple[bytes, bytes] | None = None
    instances: tuple[Instance, ...] = ()
    foreign: tuple[Instance, View] | None = None
    owners: Mapping[str, str] = field(default_factory=dict)

    def serves(self, cluster: Cluster) -> bool:
        """Whether it is this tool's and commits: from 3.5 on a member under an alarm is called unhealthy, too."""
        if self.foreign is not None:
            return False
        health = self.view.health.get(cluster.client_url(self.node), "no answer")
        return self.state.ready and (not health or health.startswith("Active Alarm"))


@dataclass(frozen=True)
class Evidence:
    """All that was found. `view`: the member list and the alarms, as one that serves tells them; hashes if they differ.

    `cluster_id`: of the first healthy start, hex, "" where there was none. `ca`: what this controller trusts.
    """

    cluster: Cluster
    nodes: tuple[NodeEvidence, ...]
    view: View
    now: datetime
    cluster_id: str = ""
    ca: bytes | None = None
