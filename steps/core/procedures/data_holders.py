"""Who has a member's database open: etcd waits for ever for a lock that a second etcd holds."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from steps.core.base.errors import Unhealthy
from steps.core.base.frames import number, unreadable
from steps.core.base.hints import invoke
from steps.core.etcd import instances

if TYPE_CHECKING:
    from steps.core.config.model import Node
    from steps.core.context.context import Context


def refuse_held(ctx: Context, node: Node) -> None:
    """etcd waits for ever for the lock on its database that a second etcd holds."""
    holders = ctx.answer(node, holders_script(node), parse)
    if holders:
        living = ctx.answer(node, instances.script(), instances.parse)
        ends = "; ".join(instances.end(living, pid) for pid in holders)
        raise Unhealthy(
            f"{node.name}: {', '.join(holders.values())} has {node.paths.data} open: a second etcd on the same data? "
            "It was not started",
            hint=f"if nothing needs it, on {node.name}: {ends}; then: {invoke(f'start --node {node.name}')}",
        )


def parse(output: str) -> dict[int, str]:
    """Return `pid N (name)` by pid, as `holders_script` prints it. Raises Damaged."""
    holders = {}
    for line in output.splitlines():
        word, _, named = line.partition(" ")
        pid, _, name = named.partition(" ")
        if word != "pid" or not name:
            raise unreadable(line)
        holders[number(pid)] = line
    return holders


def holders_script(node: Node) -> str:
    """Prints `pid N (name)` of each process that is not the unit's and may write the member's database."""
    database = quote(f"{node.paths.data}/member/snap/db")
    return f"""
[ -f {database} ] && [ ! -L {database} ] || exit 0
for f in /proc/[0-9]*/fd/*; do [ "$f" -ef {database} ] || continue
  p=${{f#/proc/}}; p=${{p%%/*}}; case $(cat /proc/$p/cgroup) in */etcd.service*) continue;; esac
  v=0; while read -r k v; do [ "$k" != flags: ] || break; done </proc/$p/fdinfo/${{f##*/}}
  case $v in *0) continue;; esac # a backup only reads
  read -r n </proc/$p/comm && echo "pid $p ($n)"; done 2>/dev/null
true
"""
