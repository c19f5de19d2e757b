"""Real handshakes with one member's ports: who is let in, who is not, and which certificate is shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from steps.core.tls import pki, profiles
from steps.core.tls.handshake import Handshake, probe
from steps.core.tls.store import Pair

if TYPE_CHECKING:
    from steps.core.context import Context
    from steps.core.model import Node

DEADLINE = 5.0  # seconds of one handshake


@dataclass
class Found:
    """`not_after`: of the certificate that the client port shows."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    not_after: datetime | None = None


def check(ctx: Context, node: Node) -> Found:
    """Both of the node's ports refuse a client without a certificate with an alert, take a good one, and show the
    certificate that was last issued; and every other member's peer port takes this node's pair.

    All as seen from the node: etcd's peer port also compares a client certificate's SANs with where it comes from.
    """
    found = Found()
    own = ctx.store.pair(profiles.leaf_name(ctx.cluster, node))
    operator = ctx.store.pair(profiles.operator(ctx.cluster).name)
    found.not_after = _port(ctx, node, node.client_port, operator, found)
    _port(ctx, node, node.peer_port, own, found)
    for other in ctx.cluster.nodes:
        if other is node or own is None:
            continue
        shaken = _shake(ctx, node, other, other.peer_port, own)
        if not shaken.accepted:
            refusal = f"does not take its certificate: {_said(shaken)}"
            found.problems.append(f"{other.name}'s peer port {other.peer_port} {refusal}")
    return found


def _port(ctx: Context, node: Node, port: int, pair: Pair | None, found: Found) -> datetime | None:
    """One of the node's own ports, without a certificate and then with `pair`. Returns the shown one's notAfter."""
    kind = "client" if port == node.client_port else "peer"
    bare = _shake(ctx, node, node, port, None)
    if bare.outcome == "unreachable":
        found.warnings.append(f"{kind} port {port} was not checked: {bare.detail}")
        return None
    if bare.outcome != "refused":
        found.problems.append(f"{kind} port {port}: without a certificate {_said(bare)}, an alert was expected")
    if pair is None:
        return None
    shaken = _shake(ctx, node, node, port, pair)
    own = ctx.store.pair(profiles.leaf_name(ctx.cluster, node))
    if not shaken.accepted:
        found.problems.append(f"{kind} port {port} does not take its certificate: {_said(shaken)}")
    elif own is not None and shaken.serial != pki.read(own.cert)[0].serial_number:
        found.problems.append(f"{kind} port {port} shows another certificate than the one last issued")
    return shaken.not_after


def _shake(ctx: Context, through: Node, node: Node, port: int, pair: Pair | None) -> Handshake:
    cert: Path | None = pair.cert_file if pair else None
    key: Path | None = pair.key_file if pair else None
    return probe(
        lambda _deadline: ctx.dial(through, node.ip, port),
        ca=ctx.store.ca() or b"",
        cert=cert,
        key=key,
        server_name=node.ip,
        deadline=DEADLINE,
    )


def _said(shaken: Handshake) -> str:
    words = {"timed out": "it does not answer", "closed": "it closes the connection"}
    return words.get(shaken.outcome, f"it is {shaken.outcome}") + (f" ({shaken.detail})" if shaken.detail else "")
