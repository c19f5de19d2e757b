"""Before another minor release of etcd replaces the one that runs: the cluster is healthy, and its data is saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steps.core import versions
from steps.core.errors import Refused
from steps.core.etcd.gate import ask, problems
from steps.core.hints import invoke

if TYPE_CHECKING:
    from pathlib import Path

    from steps.core.context import Context
    from steps.core.etcd.ask import View
    from steps.core.model import Node


def secure(ctx: Context, nodes: Sequence[Node]) -> None:
    """Saves a snapshot on the controller, if binaries of another minor release are about to be replaced.

    Called before they are: a member that crashes in between would come up with what is installed. A run that goes on
    with an interrupted upgrade finds the new binaries in place, and the snapshot that the first run saved. Where the
    first member failed, it alone has the new binary and is why the cluster is not healthy: that is no reason to stop.

    Raises Refused where the cluster is not healthy and no upgrade to this version has begun.
    """
    wanted = versions.minor(ctx.cluster.version)
    olds = [node for node in nodes if _minor(ctx, node, "living") not in (None, wanted)]
    ahead = [node for node in olds if _minor(ctx, node, "version") != wanted]
    if not ahead:
        return
    view = ask(ctx, ahead[0])
    wrong, too_old = problems(ctx.cluster, view), _too_old(view, ctx.cluster.version)
    if wrong and not too_old and (saved := _begun(ctx, nodes)):
        ctx.say(f"goes on with an upgrade that has begun; its snapshot is {saved}")
        return
    wrong = wrong or too_old
    if wrong:
        raise Refused(
            f"no upgrade to {ctx.cluster.version}, for the cluster is not ready for it: {'; '.join(wrong)}",
            hint=f"fix that with the version that runs: {invoke('verify')}",
        )
    file = ctx.cluster.work / "snapshots" / f"before-{ctx.cluster.version}-{ctx.now()}.db"
    if ctx.dry:
        ctx.change(f"a snapshot of the data will be saved in {file.parent}")
        return
    from steps.core.etcd.snapshot import save

    save(ctx, ahead[0], file)
    ctx.change(f"snapshot of the data, as etcd {ctx.look(ahead[0]).facts['living']} has it: {file}")


def _too_old(view: View, wanted: str) -> list[str]:
    """What keeps the members from following the new release, those outside the selection too."""
    seen = {status.version for status in view.statuses.values()}
    older = [version for version in sorted(seen) if versions.number(version) < versions.number(wanted)]
    return [problem for version in older if (problem := versions.step(version, wanted))]


def _begun(ctx: Context, nodes: Sequence[Node]) -> Path | None:
    """The newest snapshot of an upgrade to this release that a node has the binary of already."""
    wanted = versions.minor(ctx.cluster.version)
    saved = sorted((ctx.cluster.work / "snapshots").glob(f"before-{ctx.cluster.version}-*.db"))
    return saved[-1] if saved and any(_minor(ctx, node, "version") == wanted for node in nodes) else None


def _minor(ctx: Context, node: Node, fact: str) -> tuple[int, int] | None:
    version = ctx.look(node).facts.get(fact)
    return versions.minor(version) if version else None
