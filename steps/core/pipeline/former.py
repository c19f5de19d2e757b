"""What plugins that were written for 0.1 still do, and how it is understood. All of this ends with 1.0.

`desired(self, cluster, node)`: today it is `desired(self, ctx, node)`, and the cluster is `ctx.cluster`.
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from typing import Any

from steps.core.config.model import Node
from steps.core.context.context import Context
from steps.core.node.resources import Resource
from steps.core.pipeline.step import Step


def desired(step: Step, ctx: Context, node: Node) -> Iterable[Resource]:
    """Return what the step wants on the node. Raises what the step raises."""
    if _first_parameter(step) == "cluster":
        old: Any = step
        found: Iterable[Resource] = old.desired(ctx.cluster, node)
        return found
    return step.desired(ctx, node)


def problem(step: Step) -> str:
    """Return what is wrong with the parameters of the step's `desired`; "" where nothing is."""
    first = _first_parameter(step)
    if first in ("ctx", "cluster"):
        return ""
    return f"{type(step).__name__}.desired takes {first or 'nothing'!r} first; desired(self, ctx, node) was expected"


def _first_parameter(step: Step) -> str:
    return next(iter(signature(step.desired).parameters), "")
