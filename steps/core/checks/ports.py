"""Whether a node's ports are free, and who has them where they are not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from steps.core.base.problem import Problem
from steps.core.config.model import Node
from steps.core.node.facts import Look

if TYPE_CHECKING:
    from steps.core.context.context import Context


def ports(ctx: Context, node: Node, look: Look) -> Iterator[Problem]:
    """The node's ports are free, or its own etcd has them: it was told so."""
    own = " ".join(look.process.argv) if look.process is not None else ""
    wanted = (node.client_port, node.peer_port, ctx.cluster.metrics_port)
    taken = [port for port in wanted if port in look.listening and not re.search(rf":{port}\b", own)]
    if not taken:
        return
    owners = owners_script([inode for port in taken for _, inode in look.listening[port]])
    holders = dict(line.split(" ", 1) for line in ctx.sh(node, owners).out.splitlines() if " " in line)
    for port in taken:
        inodes = [inode for _, inode in look.listening[port]]
        who = next(
            (holders[inode] for inode in inodes if inode in holders), f"a process of uid {look.listening[port][0][0]}"
        )
        yield Problem("node.port-taken", f"port {port} is taken by {who}", node=node.name)


def owners_script(inodes: Sequence[str]) -> str:
    """Prints `inode pid N (name)` for each socket inode whose process can be seen."""
    pattern = "|".join(f"*'-> socket:[{inode}]'" for inode in inodes)
    # One process lists all descriptors: a readlink for each takes seconds. -b: a file's name cannot look like a line.
    return f"""
ls -lb /proc/[0-9]*/fd 2>/dev/null | while read -r l; do case $l in
  /proc/*) p=${{l#/proc/}}; p=${{p%%/*}};;
  {pattern}) read -r n 2>/dev/null </proc/$p/comm || continue; i=${{l##*[}}; echo "${{i%]}} pid $p ($n)";;
esac; done
true
"""
