"""etcd as a run asks it: one client for everything that the members of the cluster are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from steps.core.base.versions import is_release
from steps.core.etcd import client, listing, living

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.etcd.views import Auth, Member, View
    from steps.core.node.facts import Look
    from steps.core.transport.pool import Hosts
    from steps.core.transport.shell_session import Result, Sink

ASK_DEADLINE = 120  # seconds of one script in which etcdctl runs several times, with a deadline each
SAVE_DEADLINE = 1800  # seconds: `snapshot save` knows no deadline of its own (etcd-io/etcd#10298)


class Asked(Protocol):
    """What the client needs of a run: what was seen on the nodes, and a way to run a script there."""

    @property
    def cluster(self) -> Cluster: ...

    @property
    def looks(self) -> Mapping[str, Look]: ...

    @property
    def members(self) -> Sequence[Member] | None: ...

    @property
    def hosts(self) -> Hosts: ...

    def sh(self, node: Node, script: str, *, deadline: float = 60) -> Result: ...


class EtcdClient:
    """Asks the members of the cluster, each question through the etcdctl of one node.

    It knows where members listen now: from their own command lines, else from the member list, else from etcd.toml. A
    node asks with its own certificate, and its etcdctl is of its release, so it speaks that member's dialect. Each call
    of etcdctl has a deadline. Its JSON becomes dataclasses (`etcd/views.py`); what it logs is never data: it is the
    reason in `View.errors` why a call failed.

    `node` is one of etcd.toml, `endpoints` are client URLs. All methods raise NodeFailed where the node is lost; that a
    member does not answer stands in what they return. Where a question is part of a longer script, so that it costs no
    round trip, the method is called `…_script` and returns the text.
    """

    def __init__(self, run: Asked) -> None:
        self._run = run
        self.ports: dict[str, int] = {}  # client ports of living members, where no look says them

    @property
    def serving(self) -> Cluster:
        """The cluster with the client ports at which its members answer now; etcd.toml's are true after a restart."""
        return living.serving(self._run.cluster, self._run.looks, self.ports, self._run.members)

    def learn(self, node: Node) -> None:
        """Note at which client port the node's living process listens, for `serving`."""
        argv = self._run.sh(node, listing.argv_script(self._run.cluster, node)).out.splitlines()
        urls = living.options(argv).get("listen-client-urls", "").split(",")
        self.ports[node.name] = living.listens(node, urls)

    def ask(self, node: Node, endpoints: Sequence[str] = ()) -> View:
        """Return status and health of `endpoints` (of all members, if none is named), member list and alarms."""
        cluster = self.serving
        urls = endpoints or [cluster.client_url(each) for each in cluster.nodes]
        script = client.ask_script(cluster, cluster.node(node.name), urls, members=True)
        return client.parse(self._run.sh(node, script, deadline=ASK_DEADLINE).out)

    def own_script(self, node: Node, *, members: bool, probe: str = "") -> str:
        """Return a script that asks the node's own member at every URL it listens on. See client.ask_script."""
        cluster = self.serving
        now = cluster.node(node.name)
        return client.ask_script(cluster, now, client.own_urls(cluster, now), members=members, probe=probe)

    def status(self, node: Node, endpoints: Sequence[str]) -> View:
        """Return status and health of other members, most of which may be down: each gets STATUS_TIMEOUT."""
        cluster = self.serving
        return client.parse(self._run.sh(node, client.peers_script(cluster, cluster.node(node.name), endpoints)).out)

    def version(self, node: Node) -> str:
        """Return the release that the node's own member runs; "" where it does not say, or says no release."""
        cluster = self.serving
        now = cluster.node(node.name)
        status = client.parse(self._run.sh(node, client.version_script(cluster, now)).out).statuses.get(
            cluster.client_url(now)
        )
        return status.version if status is not None and is_release(status.version) else ""

    def members(self, node: Node, endpoints: Sequence[str] = ()) -> tuple[Member, ...] | None:
        """Return the member list as one of `endpoints`, else the node's own member, gives it; None where none does."""
        cluster = self.serving
        now = cluster.node(node.name)
        script = client.members_script(cluster, now, endpoints or [cluster.client_url(now)])
        return client.parse(self._run.sh(node, script).out).members

    def members_if_ready(self, node: Node) -> tuple[Member, ...] | None:
        """Return the member list of a node of which nothing was seen; None where its member is not ready."""
        return client.parse(self._run.sh(node, listing.listing_script(self._run.cluster, node)).out).members

    def hashes(self, node: Node, endpoints: Sequence[str], revision: int, *, after: int = 0) -> View:
        """Return the hash of each member's data at one revision, asked `after` so many seconds. Only reads."""
        cluster = self.serving
        pause = f"sleep {after}\n" if after else ""
        script = client.hashes_script(cluster, cluster.node(node.name), endpoints, revision)
        return client.parse(self._run.sh(node, pause + script).out)

    def auth(self, node: Node) -> Auth:
        """Return whether auth is on. Only reads."""
        cluster = self.serving
        return client.parse_auth(self._run.sh(node, client.auth_script(cluster, cluster.node(node.name))).out)

    def move_leader_script(self, node: Node, to: str) -> str:
        """Return the start of a script: the node's member, the leader, hands that over to `to` (an ID), or it ends."""
        cluster = self.serving
        return client.move_leader_script(cluster, cluster.node(node.name), to)

    def snapshot_save(self, node: Node, sink: Sink) -> Result:
        """Save the data of the node's member on the node, and send it to `sink`; there it is removed again."""
        cluster = self.serving
        script = client.snapshot_script(cluster, cluster.node(node.name), SAVE_DEADLINE)
        return self._run.hosts.run(node, script, deadline=SAVE_DEADLINE, sink=sink)
