"""Before another minor release of etcd replaces the one that runs: the cluster is healthy, and its data is saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steps.core import versions
from steps.core.errors import Refused
from steps.core.etcd.gate import ask, problems
from steps.core.hints import invoke

if TYPE_CHECKING:
    from steps.core.context import Context
    from steps.core.etcd.ask import View
    from steps.core.model import Node


def secure(ctx: Context, nodes: Sequence[Node]) -> None:
    """Saves a snapshot on the controller, if binaries of another minor release are about to be replaced.

    Called before they are: a member that crashes in between would come up with what is installed. A run that goes on
    with an interrupted upgrade finds the new binaries in place, and the snapshot that the first run saved.
    Raises Refused where the cluster is not healthy.
    """
    wanted = versions.minor(ctx.cluster.version)
    olds = [node for node in nodes if _minor(ctx, node, "living") not in (None, wanted)]
    ahead = [node for node in olds if _minor(ctx, node, "version") != wanted]
    if not ahead:
        return
    view = ask(ctx, ahead[0])
    wrong = problems(ctx.cluster, view) or _too_old(view, ctx.cluster.version)
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


def _minor(ctx: Context, node: Node, fact: str) -> tuple[int, int] | None:
    version = ctx.look(node).facts.get(fact)
    return versions.minor(version) if version else None
