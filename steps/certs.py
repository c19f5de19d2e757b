"""certs: a certificate for every member and one for the operator, validated before any node sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shlex import quote
from typing import TYPE_CHECKING

from steps.core.base.errors import NodeFailed, Pending, Refused
from steps.core.base.hints import again, invoke
from steps.core.base.option import Option
from steps.core.base.problem import Problem, joined
from steps.core.health.gate import expected, problems
from steps.core.node.paths import cert_directory
from steps.core.node.resources import Directory, File, Promise, Resource, Symlink
from steps.core.pipeline.step import Step
from steps.core.tls import profiles
from steps.core.tls.contracts import LeafProfile
from steps.core.transport.pool import collected

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context

BACKDATE = 300  # seconds: what the signer that backdates the least does (cfssl); the built-in one takes 1800
RENEW = Option("renew", "issue new certificates now, due or not; they are swapped in without a restart", default=False)


class Certs(Step):
    """Issue what is missing, changed or due; swap it in on the nodes without a restart"""

    name = "certs"
    options = (RENEW,)

    def prepare(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        if not cluster.tls.enabled:
            return
        wanted = {profile.name: profile for profile in (profiles.member(cluster, node) for node in nodes)}
        wanted[profiles.operator(cluster).name] = profiles.operator(cluster)
        due = [(profile, reason) for profile in wanted.values() if (reason := _reason(ctx, profile))]
        if len(nodes) < len(cluster.nodes) and any(profile.name == profiles.SHARED for profile, _ in due):
            raise Refused(
                "the certificate is shared by all nodes, so a new one for some of them would part them",
                hint=f"{invoke('certs')} (without --node)",
            )
        if due:
            _refuse_apart(nodes, ctx)
        waiting: list[Pending] = []
        for profile, reason in due:
            try:
                self._issue(profile, reason, ctx)
            except Pending as pending:  # somebody else signs: the other requests go out as well
                waiting.append(pending)
        if waiting:
            raise collected(waiting)

    def _issue(self, profile: LeafProfile, reason: str, ctx: Context) -> None:
        what = profiles.describe(profile)
        if ctx.dry:
            ctx.change(f"{profile.name}: will be issued ({reason}): {what}")
            return
        pair = ctx.authority.issue(profile)
        ctx.change(f"{profile.name}: issued ({reason}): {what}")
        for warning in pair.warnings:
            ctx.warn(f"{profile.name}: {warning}")

    def batches(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> Iterator[Sequence[Node]]:
        """One by one where members live, so that a certificate that does not serve is seen on one member only.

        Also on the member that got its own in a run before, which may have ended for that very reason. After each
        batch both ports show the new certificate (etcd reads the pair at each handshake); the gate is open if it was.
        """
        from steps.core.health.tls_probe import check

        living = [node for node in cluster.nodes if node.name in ctx.looks and ctx.look(node).process is not None]
        for node in living:
            if node not in nodes:
                self._serves(node, check(ctx, node).rejected)
        if not living:
            yield nodes
            return
        guarded = not problems(ctx.etcd.ask(living[0]), expected(ctx.serving))
        for node in nodes:
            yield (node,)
            if ctx.look(node).process is None:
                continue
            found = check(ctx, node)
            self._serves(node, found.rejected)
            if guarded:
                self._serves(node, found.problems or problems(ctx.etcd.ask(node), expected(ctx.serving)))
            for warning in found.warnings:
                ctx.warn(warning, node)
            if not found.warnings:
                ctx.say("the new certificate is served on both ports", node)

    @staticmethod
    def _serves(node: Node, wrong: Sequence[Problem]) -> None:
        if wrong:
            raise NodeFailed(node.name, f"its new certificate does not serve: {joined(wrong)}", hint=invoke("verify"))

    def desired(self, ctx: Context, node: Node) -> Iterator[Resource]:
        cluster = ctx.cluster
        if not cluster.tls.enabled:
            return
        home, owner = node.paths.cert, cluster.hosts.run_as
        profile = profiles.member(cluster, node)
        pair = ctx.store.pair(profile.name)
        yield cert_directory(cluster, node)
        if pair is None or (ctx.dry and _reason(ctx, profile)):  # a real run has issued it before nodes are compared
            yield File(f"{home}/live/etcd.pem", Promise(profiles.describe(profile)))
            return
        generation = f"gen-{pair.generation}"
        yield Directory(f"{home}/{generation}", 0o750, "root", owner)
        yield File(f"{home}/{generation}/etcd.pem", pair.cert, on_change=(prune(home),))
        yield File(f"{home}/{generation}/etcd-key.pem", pair.key, 0o600, owner, owner, secret=True)
        # Certificate and key are read separately at each handshake: one rename of one link keeps them a pair.
        yield Symlink(f"{home}/live", generation)
        yield Symlink(f"{home}/etcd.pem", "live/etcd.pem")
        yield Symlink(f"{home}/etcd-key.pem", "live/etcd-key.pem")


def _reason(ctx: Context, profile: LeafProfile) -> str | None:
    """Return why a certificate is to be issued now, None where it is not."""
    return ctx.authority.reason(profile) or ("its renewal was asked for" if ctx.option(RENEW) else None)


def _refuse_apart(nodes: Sequence[Node], ctx: Context) -> None:
    """Raise Refused where a clock is further from ours than a new certificate is backdated.

    It would not be valid yet there, or would end long before it should; and what is due is judged by our clock.
    """
    apart = [node for node in nodes if abs(ctx.look(node).skew) > BACKDATE]
    if apart:
        listed = ", ".join(f"{node.name}'s by {ctx.look(node).skew:+d} s" for node in apart)
        raise Refused(
            f"certs: no certificate was issued, for the clocks differ from this machine's by more than {BACKDATE} s: "
            f"{listed}",
            hint=f"set the clocks (timedatectl, NTP), this machine's too, then: {again()}",
        )


def prune(home: str) -> str:
    """Keeps the two newest generations: the live one, and the one before it for whoever wants to look."""
    # Not by age alone: a clock that was set back makes the live one look old.
    return f"""(cd {quote(home)} && l=$(readlink live) && n=0 && for g in $(ls -1dt gen-*); do
  [ "$g" = "$l" ] || {{ n=$((n + 1)); [ $n = 1 ] || rm -rf -- "$g"; }}; done) || true"""
