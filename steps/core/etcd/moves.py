"""Directories of members that etcd.toml has elsewhere, and whether a start there would be harm. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import quote

from steps.core.base.hints import invoke
from steps.core.base.problem import Problem
from steps.core.config.model import Cluster, Node
from steps.core.etcd import living
from steps.core.node.facts import Look, NodeFacts
from steps.core.node.paths import wal_parent


def one_by_one(
    cluster: Cluster, node: Node, *between: str, then: str = "the same for the next member"
) -> tuple[str, ...]:
    """One member is stopped, changed and started while the others serve; then the next."""
    sure = f" --yes {cluster.name}" if len(cluster.nodes) - 1 < cluster.quorum else ""
    lines = (invoke(f"stop --node {node.name}{sure}"), *between, invoke(f"all --node {node.name}"))
    others = (then,) if len(cluster.nodes) > 1 else ()
    return (*lines, *others)


@dataclass(frozen=True)
class Move:
    """A directory of a member that etcd.toml has elsewhere. `living`: its process has the old one open."""

    key: str  # data or wal, as in [paths]
    old: str
    new: str
    living: bool


def of_node(cluster: Cluster, node: Node, look: Look) -> list[Move]:
    """The directories that the member has elsewhere than etcd.toml says. The WAL comes first: it may be inside."""
    alive = look.process is not None
    data, wal = living.directories(living.present(cluster, node, look), look.facts if alive else NodeFacts())
    if not alive and look.facts.inner_wal and not look.wal:  # whatever the unit says by now
        wal = f"{node.paths.data}/member/wal"
    pairs = (("wal", wal, node.paths.wal), ("data", data, node.paths.data))
    return [Move(key, old, new, alive) for key, old, new in pairs if old and old != str(PurePosixPath(new))]


def script(found: Sequence[Move]) -> str:
    """Prints `KEY STATE` for each: same (both paths are one directory), old, new, both or none (where data lies)."""
    lines = ['holds() { for f in "$1"/member "$1"/*.wal; do [ ! -e "$f" ] || return 0; done; return 1; }']
    lines += [
        f"if [ {quote(move.old)} -ef {quote(move.new)} ]; then s=same\n"
        f"elif holds {quote(move.old)}; then s=old; ! holds {quote(move.new)} || s=both\n"
        f"else s=none; ! holds {quote(move.new)} || s=new; fi; echo {move.key} $s"
        for move in found
    ]
    return "\n".join([*lines, "true", ""])


def problems(cluster: Cluster, node: Node, found: Sequence[Move], states: Mapping[str, str]) -> Iterator[Problem]:
    """`states`: what `script` printed. What was moved by hand, stopped, is at the new path only."""
    harmful = [move for move in found if _harms(move, states.get(move.key, ""))]
    if not harmful:
        return
    twice = [move for move in harmful if not move.living and states.get(move.key) == "both"]
    if twice:
        said = "; ".join(f"a member's {_WHAT[move.key]} is in {move.old} and in {move.new}" for move in twice)
        way = "move aside the copy that is not the last one used: mv -T DIRECTORY DIRECTORY.old"
        yield Problem("living.data-twice", said, hint=way, node=node.name)
        return
    said = " and ".join(f"its {_WHAT[move.key]} is in {move.old}, etcd.toml says {move.new}" for move in harmful)
    way = "\n".join(_moving(cluster, node, harmful))
    yield Problem("living.data-elsewhere", f"{said}: there it would start empty", hint=way, node=node.name)


def _harms(move: Move, state: str) -> bool:
    """What is not known of a directory counts as harm."""
    return state not in (("same",) if move.living else ("same", "new", "none"))


_WHAT = {"data": "data", "wal": "WAL"}


def _moving(cluster: Cluster, node: Node, found: Sequence[Move]) -> tuple[str, ...]:
    owner = cluster.hosts.run_as if cluster.systemd else ""
    parent = wal_parent(node)
    made = [f"install -d -o {owner} -g {owner} -m 0700 {quote(parent)}" if owner else f"mkdir -p {quote(parent)}"]
    if (home := str(PurePosixPath(node.paths.data).parent)) != parent:
        made.append(f"mkdir -p {quote(home)}")
    made += [f"mv -T {quote(move.old)} {quote(move.new)}" for move in found]
    keys = ", ".join(f'{move.key} = "{move.old}"' for move in found if not move.old.endswith("/member/wal"))
    back = (f"or leave the data where it is: [paths] {keys}",) if keys else ()
    return (*one_by_one(cluster, node, f"on its host: {' && '.join(made)}"), *back)
