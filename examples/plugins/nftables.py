"""Firewall openings: etcd's ports for the members, and the client port for the networks that may ask.

    [plugins.nftables]
    clients = ["10.20.0.0/16", "fd00:20::/32"]

It owns one nftables table, `inet etcd`, and nothing else: what is not for etcd's ports passes through it untouched.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING

from steps.api import Cluster, File, Node, Resource, Step, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel

    from steps.api import Context

PATH = "/etc/nftables.d/etcd.nft"


class Nftables(Step):
    """Open etcd's ports to the members and to [plugins.nftables] clients, to nobody else"""

    name = "nftables"
    before = "start"

    def desired(self, ctx: Context, node: Node) -> Iterator[Resource]:
        # -f replaces the whole table in one transaction: there is no moment without it
        rules = ruleset(ctx.cluster, node)
        yield File(PATH, rules, mode=0o600, on_change=(f"nft -f {PATH}",), check=("nft", "-cf", "{}"))


def ruleset(cluster: Cluster, node: Node) -> str:
    members = [each.ip for each in cluster.nodes]
    lines = [
        _accept([*members, *cluster.options["nftables"].clients], node.client_port),
        _accept(members, node.peer_port),
    ]
    rules = "\n".join(f"    {line}" for group in lines for line in group)
    return f"""\
table inet etcd
delete table inet etcd
table inet etcd {{
  chain input {{
    type filter hook input priority filter; policy accept;
    iif "lo" accept
{rules}
    tcp dport {{ {node.client_port}, {node.peer_port} }} drop
  }}
}}
"""


def _accept(sources: list[str], port: int) -> Iterator[str]:
    for version, word in ((4, "ip"), (6, "ip6")):
        chosen = [text for text in dict.fromkeys(sources) if ipaddress.ip_network(text).version == version]
        if chosen:
            yield f"{word} saddr {{ {', '.join(chosen)} }} tcp dport {port} accept"


@hookimpl
def etcd_steps() -> list[Step]:
    return [Nftables()]


@hookimpl
def etcd_options() -> type[BaseModel]:
    from pydantic import BaseModel, ConfigDict

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        clients: list[str] = []

    return Options


@hookimpl
def etcd_validate(cluster: Cluster) -> list[str]:
    problems = []
    for text in cluster.options["nftables"].clients:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            problems.append(f"clients: {error}")
    return problems
