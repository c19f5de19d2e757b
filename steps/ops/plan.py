"""plan: what `invoke all` would change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steps.core.base.option import NODE
from steps.core.cli.options import task

if TYPE_CHECKING:
    from steps.core.cli.invocation import TaskContext


@task(steps=("*",), options=(NODE,))
def plan(c: TaskContext) -> None:
    """What `all` would change, as diffs; exit 0: nothing, 4: something, 5: nothing, but the cluster is not healthy"""
    c.command.take(["*"])
