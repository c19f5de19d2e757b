"""plan: what `invoke all` would change."""

from __future__ import annotations

from typing import Any

from steps.core.cli.options import task


@task(steps=("*",))
def plan(c: Any, node: list[str] | None = None) -> None:
    """What `all` would change, as diffs; exit 0: nothing, 4: something, 5: nothing, but the cluster is not healthy"""
    del node
    c.command.take(["*"])
