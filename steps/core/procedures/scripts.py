"""Running what starts, enables or ends a member."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from steps.core.base.errors import StepsError

if TYPE_CHECKING:
    from steps.core.config.model import Node
    from steps.core.context.context import Context

ENDING = 150  # seconds in which a member is stopped: systemd gives it 90, and then kills it


def run_script(ctx: Context, node: Node, script: str, what: str = "start", *, deadline: float = 120) -> None:
    """Run `script`, which is there to `what` (one word, for people). Raises StepsError where it fails."""
    result = ctx.sh(node, script, deadline=deadline)
    if not result.ok:
        raise StepsError(f"{node.name}: {what}: {result.err.strip()[-400:] or f'exit code {result.code}'}")


def end(ctx: Context, nodes: Sequence[Node], what: str, script: Callable[[Node], str], *, plan: str, done: str) -> None:
    """End members on all of `nodes` at once, each by its own script. `plan` and `done` say of a node what is changed.

    Nothing is ended unless each of `nodes` can be reached: raises Refused. Raises StepsError where a script fails.
    """
    ctx.reach(nodes)

    def ended(node: Node) -> None:
        if not ctx.dry:
            run_script(ctx, node, script(node), what, deadline=ENDING)
        ctx.change(plan if ctx.dry else done, node)

    ctx.each(nodes, ended)
