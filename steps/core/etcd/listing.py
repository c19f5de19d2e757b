"""The live member list, asked for while a node is inspected."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

from steps.core.base.frames import Answer, head, unreadable
from steps.core.etcd.client import members_script, parse
from steps.core.etcd.views import Member
from steps.core.node.service import state_script

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node

_KIND = "listing"  # of the frame, in front of all else, with what the member said meanwhile
_ARGV = 'head -c 65536 "/proc/${p%%[!0-9]*}/cmdline" 2>/dev/null | tr "\\0" "\\n"'  # of the pid in $p


def argv_script(cluster: Cluster, node: Node) -> str:
    """The command line of the node's living member, a word a line; nothing where none lives."""
    return f"{state_script(cluster, node)}{_ARGV}\n"


def listing_script(cluster: Cluster, node: Node) -> str:
    """The member list through the node's own member, which must be ready and listen where etcd.toml says.

    etcdctl takes seconds to find out that a port is closed. Needs nothing that was seen before.
    """
    url = cluster.client_url(node)
    ready = (
        f"{state_script(cluster, node)}"
        '[ "${p%%[!0-9]*}" != 0 ] || exit 0\n'
        + ('[ "${s%%[!a-z-]*}" = running ] || exit 0\n' if cluster.systemd else "")
        + f"{_ARGV} | grep -qF {quote(url)} || exit 0\n"
    )
    return ready + members_script(cluster, node, [url])


def with_listing(cluster: Cluster, node: Node, script: str) -> str:
    """`script`, and meanwhile the node's member is asked for the member list: `listed` takes the two apart."""
    asking = f"b=$( {{\n{listing_script(cluster, node)}}} </dev/null )"
    return f'{{\n{script}}} | {{\n{asking}\nprintf \'{_KIND} %s\\n%s\\n\' "${{#b}}" "$b"; cat; }}\n'


def listed(output: str) -> tuple[str, tuple[Member, ...] | None]:
    """Return what the script itself printed, and the member list; None where the member gave none. Raises Damaged."""
    answer = Answer(output)
    line = answer.line()
    found = head(line)
    if found is None or found.words != (_KIND,):
        raise unreadable(line)
    members = parse(f"{answer.text(found.size)}\n").members  # the shell took the newline of the last frame away
    return answer.rest(), members
