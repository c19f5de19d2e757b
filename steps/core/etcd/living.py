"""What lives on a node, and where: the options of a living process or of its unit, its data, where it listens.

Pure: no host is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from steps.core.config.model import Cluster, Node
from steps.core.etcd import unit_text
from steps.core.etcd.views import Member
from steps.core.node.facts import Look, NodeFacts

ANY = ("0.0.0.0", "::")  # noqa: S104  listening on every address


def options(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Flags by name without dashes, as Go reads them (`--a=b`, `-a b`); below them, the ETCD_… variables."""
    found = {name.removeprefix("ETCD_").lower().replace("_", "-"): value for name, value in (environment or {}).items()}
    words = list(argv[1:])
    while words:
        name, separator, value = words.pop(0).partition("=")
        if not name.startswith("-"):
            continue
        if not separator and words and not words[0].startswith("-"):
            value = words.pop(0)
        found[name.lstrip("-")] = value
    return found


def present(cluster: Cluster, node: Node, look: Look) -> dict[str, str]:
    """The options of the living process; where none lives, of the unit that is on the node."""
    return (
        installed(cluster, node, look) if look.process is None else options(look.process.argv, look.facts.environment)
    )


def installed(cluster: Cluster, node: Node, look: Look) -> dict[str, str]:
    """The options of the unit that is on the node; empty where there is none, or where it cannot be read."""
    if unit_text.unreadable(cluster, node, look):  # which the preflight refuses
        return {}
    return options(unit_text.command(cluster, unit_text.installed(cluster, node, look)))


def directories(found: Mapping[str, str], facts: NodeFacts) -> tuple[str, str]:
    """Where a member with these options has its data and its WAL, normalised; "" where that is not known.

    What the process has open counts first. Without --wal-dir etcd has the WAL inside the data directory.
    """
    data, wal = found.get("data-dir", ""), found.get("wal-dir", "")
    if facts.open_database:
        data = facts.open_database.removesuffix("/member/snap/db")
    if facts.open_segment:
        wal = str(PurePosixPath(facts.open_segment).parent)
    data = data if data.startswith("/") and "$" not in data else ""
    if not wal and data and not found.get("config-file"):
        wal = f"{data}/member/wal"
    wal = wal if wal.startswith("/") and "$" not in wal else ""
    return (str(PurePosixPath(data)) if data else ""), (str(PurePosixPath(wal)) if wal else "")


def member_of(cluster: Cluster, node: Node, members: Sequence[Member] | None) -> Member | None:
    """Return the node's member: who has its peer URL, else who has its name."""
    url = cluster.peer_url(node)
    found = [member for member in members or () if url in member.peer_urls]
    return next(iter([*found, *(member for member in members or () if member.name == node.name)]), None)


def unborn(cluster: Cluster, members: Sequence[Member] | None) -> set[str]:
    """The nodes that the cluster has never had as started members: empty, they have lost nothing."""
    if members is None:
        return set()
    found = {node.name: member_of(cluster, node, members) for node in cluster.nodes}
    return {name for name, member in found.items() if member is None or not member.started}


def published(cluster: Cluster, members: Sequence[Member] | None) -> set[str]:
    """The nodes with a member that has served: empty, they have lost their data, whatever this controller remembers."""
    listed = {node.name: member_of(cluster, node, members) for node in cluster.nodes}
    return {name for name, member in listed.items() if member is not None and member.started and member.client_urls}


def serving(
    cluster: Cluster,
    looks: Mapping[str, Look],
    known: Mapping[str, int] | None = None,
    members: Sequence[Member] | None = None,
) -> Cluster:
    """The cluster with each member's client port as it is now: its process's, else the `known` one, else the list's.

    What is asked of the members is asked of these URLs; etcd.toml's are true once each was restarted.
    """
    ports = {
        node.name: known[node.name]
        if known and node.name in known and node.name not in looks
        else _port(cluster, node, looks.get(node.name), members)
        for node in cluster.nodes
    }
    if all(ports[node.name] == node.client_port for node in cluster.nodes):
        return cluster
    return replace(cluster, nodes=tuple(replace(node, client_port=ports[node.name]) for node in cluster.nodes))


def _port(cluster: Cluster, node: Node, look: Look | None, members: Sequence[Member] | None) -> int:
    if look is not None:
        found = options(look.process.argv, look.facts.environment) if look.process is not None else {}
        return listens(node, found.get("listen-client-urls", "").split(","))
    member = member_of(cluster, node, members)
    return listens(node, member.client_urls if member is not None else ())


def listens(node: Node, urls: Collection[str]) -> int:
    """The client port at the node's own address, of these URLs; etcd.toml's where it is among them, or none is."""
    found = [urlsplit(url.strip()) for url in urls if "://" in url]
    ports = [url.port for url in found if url.port and url.hostname in (node.ip, *ANY)]
    return node.client_port if node.client_port in ports or not ports else ports[0]
