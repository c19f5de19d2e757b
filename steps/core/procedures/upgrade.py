"""Before another release of etcd replaces the one that runs: it can read the data, which a new minor saves first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from steps.core.base import versions
from steps.core.base.errors import Refused
from steps.core.base.hints import invoke
from steps.core.base.problem import Problem, joined
from steps.core.base.versions import Version
from steps.core.health.gate import expected, problems
from steps.core.node.wal_header import v2_left, v2_script

if TYPE_CHECKING:
    from pathlib import Path

    from steps.core.config.model import Node
    from steps.core.context.context import Context
    from steps.core.etcd.views import View
    from steps.core.node.facts import Look


def refusals(ctx: Context, node: Node, look: Look) -> Iterator[Problem]:
    """A lower version, a skipped minor, and 3.4 → 3.5 with auth on: refused before any binary is replaced."""
    # Data that no process has open was last written by what is installed.
    seen = look.facts.running_version or (look.facts.installed_version if look.member else None)
    wanted = ctx.cluster.version
    if not seen or seen == wanted:
        return
    now, then = versions.series(seen), versions.series(wanted)
    if _still_old(ctx, node, now, then):
        ctx.warn(f"etcd {seen} -> {wanted}: back, which works while another member runs {wanted}", node)
    elif reason := versions.step(seen, wanted):
        yield Problem("upgrade.step", reason, node=node.name)
    elif now == then:
        if Version.parse(wanted) < Version.parse(seen):
            ctx.warn(f"etcd {seen} -> {wanted}: a lower patch release", node)
    elif look.process is None:
        said = f"etcd {seen} -> {wanted} while this member is stopped: start it with {seen}, to save a snapshot"
        yield Problem("upgrade.stopped-member", said, node=node.name)
    elif (now, then) == ((3, 4), (3, 5)):
        yield from _auth(ctx, node)
    elif (now, then) == ((3, 6), (3, 7)) and v2_left(ctx.sh(node, v2_script(node)).out):
        said = (
            f"etcd {wanted} would panic on what 3.5 has left in its WAL, which no snapshot covers yet. Keep {seen} and "
            "set [etcd.flags] snapshot-count = 10: members take one when they restart. Then take it out, and upgrade"
        )
        yield Problem("upgrade.v2-entries", said, node=node.name)


def _still_old(ctx: Context, node: Node, now: versions.Minor, then: versions.Minor) -> bool:
    """Whether an upgrade by one minor can be taken back: as long as one member runs the old one, the data is old too.

    Source: etcd-io/website, docs/v3.6/upgrades/upgrade_3_6, "Rollback".
    """
    if then != (now.major, now.minor - 1):
        return False
    others = (look.facts.running_version for name, look in ctx.looks.items() if name != node.name)
    return any(version and versions.series(version) == then for version in others)


def _auth(ctx: Context, node: Node) -> Iterator[Problem]:
    """Whether auth is on: an upgrade with it is refused, and one of which that is unknown."""
    auth = ctx.etcd.auth(node)
    if auth.on:
        said = "auth is on, and 3.4 -> 3.5 with auth on can lose users' rights: turn it off for the upgrade"
        yield Problem("upgrade.auth-on", said, node=node.name)
    elif auth.on is None:
        said = f"whether auth is on is unknown, and 3.4 -> 3.5 is safe only without it: {auth.why}"
        yield Problem("upgrade.auth-unknown", said, node=node.name)


def secure(ctx: Context, nodes: Sequence[Node]) -> None:
    """Saves a snapshot on the controller, if binaries of another minor release are about to be replaced.

    Called before they are: a member that crashes in between would come up with what is installed. A run that goes on
    with an interrupted upgrade finds the new binaries in place, and the snapshot that the first run saved. Where the
    first member failed, it alone has the new binary and is why the cluster is not healthy: that is no reason to stop.

    Raises Refused where the cluster is not healthy and no upgrade to this version has begun.
    """
    wanted = versions.series(ctx.cluster.version)
    living = [node for node in nodes if ctx.look(node).process is not None]
    olds = [
        node for node in living if _minor(ctx.look(node).facts.running_version) != wanted
    ]  # or one that does not say what it is
    ahead = [node for node in olds if _minor(ctx.look(node).facts.installed_version) != wanted]
    if not ahead:
        return
    view = ctx.etcd.ask(ahead[0])
    wrong, too_old = problems(view, expected(ctx.serving)), _too_old(view, ctx.cluster.version)
    if wrong and not too_old and (saved := _begun(ctx, nodes)):
        ctx.say(f"goes on with an upgrade that has begun; its snapshot is {saved}")
        return
    wrong = wrong or too_old
    if wrong:
        raise Refused(
            f"no upgrade to {ctx.cluster.version}, for the cluster is not ready for it: {joined(wrong)}",
            hint=f"fix that with the version that runs: {invoke('verify')}",
        )
    file = ctx.cluster.work / "snapshots" / f"before-{ctx.cluster.version}-{ctx.now()}.db"
    if ctx.dry:
        ctx.change(f"a snapshot of the data will be saved in {file.parent}")
        return
    from steps.core.procedures.snapshot import save

    save(ctx, ahead[0], file)
    ctx.change(f"snapshot of the data, as etcd {ctx.look(ahead[0]).facts.running_version or '?'} has it: {file}")


def _too_old(view: View, wanted: str) -> list[Problem]:
    """What keeps the members from following the new release, those outside the selection too."""
    seen = {status.version for status in view.statuses.values()}
    older = [version for version in sorted(seen, key=Version.parse) if Version.parse(version) < Version.parse(wanted)]
    reasons = [versions.step(version, wanted) for version in older]
    return [Problem("upgrade.member-too-old", reason) for reason in reasons if reason]


def _begun(ctx: Context, nodes: Sequence[Node]) -> Path | None:
    """The newest snapshot of an upgrade to this release that a node has the binary of already."""
    wanted = versions.series(ctx.cluster.version)
    saved = sorted((ctx.cluster.work / "snapshots").glob(f"before-{ctx.cluster.version}-*.db"))
    return (
        saved[-1] if saved and any(_minor(ctx.look(node).facts.installed_version) == wanted for node in nodes) else None
    )


def _minor(version: str | None) -> versions.Minor | None:
    return versions.series(version) if version else None
