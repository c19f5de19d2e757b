"""Asks what is compared with etcd.toml: the live member list, and where data is that etcd.toml has elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from steps.core.base.errors import StepsError
from steps.core.base.problem import Problem
from steps.core.etcd import differences, moves
from steps.core.etcd.views import Member
from steps.core.node.facts import Look

if TYPE_CHECKING:
    from steps.core.config.model import Node
    from steps.core.context.context import Context


def members(ctx: Context, nodes: Sequence[Node]) -> tuple[Member, ...] | None:
    """The live member list, as the first of `nodes` with a serving member says it; None where none does."""
    for node in nodes:
        if not _serves(ctx, ctx.look(node)):
            continue
        found = ctx.etcd.members(node)
        if found is not None:
            return found
    return None


def others(ctx: Context, nodes: Sequence[Node]) -> tuple[Member, ...] | None:
    """The list as one of the other nodes says it; they are asked and not changed, one that is down is passed over."""
    for node in ctx.cluster.nodes:
        if node in nodes:
            continue
        try:
            found = ctx.etcd.members_if_ready(node)
        except StepsError:
            continue
        if found is not None:
            return found
    return None


def problems(ctx: Context, nodes: Sequence[Node], *, starts: bool) -> list[Problem]:
    """What etcd.toml would do to members that live. `starts`: this run would start members. Changes nothing."""
    cluster = ctx.cluster
    found: list[Problem] = []
    for node in nodes:
        look = ctx.look(node)
        elsewhere = moves.of_node(cluster, node, look)
        if elsewhere:
            found += moves.problems(cluster, node, elsewhere, _states(ctx, node, elsewhere))
        found += differences.of_node(cluster, node, look, ctx.members)
    other_scheme = any(problem.code == differences.SCHEME for problem in found)
    if ctx.members is not None and not other_scheme:
        looks = {node.name: ctx.look(node) for node in nodes}
        found += differences.membership(cluster, looks, ctx.members, starts=starts)
    return list(dict.fromkeys(found))


def _states(ctx: Context, node: Node, elsewhere: Sequence[moves.Move]) -> Mapping[str, str]:
    said = ctx.sh(node, moves.script(elsewhere)).out.splitlines()
    return dict(line.split(" ", 1) for line in said if " " in line)


def _serves(ctx: Context, look: Look) -> bool:
    ready = not ctx.cluster.systemd or look.unit.get("ActiveState") == "active"
    return look.process is not None and ready
