"""Running what starts or enables a member."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steps.core.base.errors import StepsError

if TYPE_CHECKING:
    from steps.core.config.model import Node
    from steps.core.context.context import Context


def run_script(ctx: Context, node: Node, script: str) -> None:
    result = ctx.sh(node, script, deadline=120)
    if not result.ok:
        raise StepsError(f"{node.name}: start: {result.err.strip()[-400:] or f'exit code {result.code}'}")
