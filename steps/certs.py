"""certs: a certificate for every member and one for the operator, validated before any node sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from steps.core import profiles
from steps.core.contracts import LeafProfile
from steps.core.errors import Refused
from steps.core.places import cert_directory
from steps.core.resources import Directory, File, Promise, Resource, Symlink
from steps.core.step import Step

if TYPE_CHECKING:
    from steps.core.context import Context
    from steps.core.model import Cluster, Node


class Certs(Step):
    """Issue what is missing, changed or due; swap it in on the nodes without a restart"""

    name = "certs"

    def __init__(self) -> None:
        self._promised: set[str] = set()

    def prepare(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        if not cluster.tls.enabled:
            return
        wanted = {profile.name: profile for profile in (profiles.member(cluster, node) for node in nodes)}
        wanted[profiles.operator(cluster).name] = profiles.operator(cluster)
        due = [(profile, reason) for profile in wanted.values() if (reason := ctx.authority.reason(profile))]
        if len(nodes) < len(cluster.nodes) and any(profile.name == profiles.SHARED for profile, _ in due):
            raise Refused(
                "the certificate is shared by all nodes, so a new one for some of them would part them",
                hint="invoke certs (without --node)",
            )
        for profile, reason in due:
            self._issue(profile, reason, ctx)

    def _issue(self, profile: LeafProfile, reason: str, ctx: Context) -> None:
        what = profiles.describe(profile)
        if ctx.dry:
            ctx.change(f"{profile.name}: will be issued ({reason}): {what}")
            self._promised.add(profile.name)
            return
        pair = ctx.authority.issue(profile)
        ctx.change(f"{profile.name}: issued ({reason}): {what}")
        for warning in pair.warnings:
            ctx.warn(f"{profile.name}: {warning}")

    def desired(self, cluster: Cluster, node: Node) -> Iterator[Resource]:
        if not cluster.tls.enabled:
            return
        from steps.core.store import Store

        home, owner = node.paths.cert, cluster.hosts.run_as
        name = profiles.leaf_name(cluster, node)
        pair = Store(cluster.work).pair(name)
        yield cert_directory(cluster, node)
        if pair is None or name in self._promised:
            yield File(f"{home}/live/etcd.pem", Promise(profiles.describe(profiles.member(cluster, node))))
            return
        generation = f"gen-{pair.generation}"
        yield Directory(f"{home}/{generation}", 0o750, "root", owner)
        yield File(f"{home}/{generation}/etcd.pem", pair.cert)
        yield File(f"{home}/{generation}/etcd-key.pem", pair.key, 0o600, owner, owner, secret=True)
        # Certificate and key are read separately at each handshake: one rename of one link keeps them a pair.
        yield Symlink(f"{home}/live", generation)
        yield Symlink(f"{home}/etcd.pem", "live/etcd.pem")
        yield Symlink(f"{home}/etcd-key.pem", "live/etcd-key.pem")
