"""Real handshakes with one member's ports: who is let in, who is not, and which certificate is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from steps.core import pki, profiles
from steps.core.handshake import Handshake, probe
from steps.core.store import Pair

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
    """Both ports refuse a client without a certificate with an alert; the peer port takes every other member's pair and
    the client port the operator's; both show the certificate that was last issued.
    """
    found = Found()
    ports = {"client": node.client_port, "peer": node.peer_port}
    for kind, port in ports.items():
        bare = _shake(ctx, node, port, None)
        if bare.outcome == "unreachable":
            found.warnings.append(f"port {port} was not checked from here: {bare.detail}")
            return found
        if bare.outcome != "refused":
            found.problems.append(f"{kind} port {port}: without a certificate {_said(bare)}, an alert was expected")
    for kind, name, pair in _welcome(ctx, node):
        shaken = _shake(ctx, node, ports[kind], pair)
        if not shaken.accepted:
            found.problems.append(f"{kind} port {ports[kind]} does not take the certificate of {name}: {_said(shaken)}")
            continue
        if kind == "client":
            found.not_after = shaken.not_after
        live = ctx.store.pair(profiles.leaf_name(ctx.cluster, node))
        if live is not None and shaken.serial != pki.read(live.cert)[0].serial_number:
            found.problems.append(f"{kind} port {ports[kind]} shows another certificate than the one last issued")
    return found


def _welcome(ctx: Context, node: Node) -> Iterator[tuple[str, str, Pair]]:
    """Whom each port must take: kind of port, whose certificate, the pair."""
    operator = ctx.store.pair(profiles.operator(ctx.cluster).name)
    if operator is not None:
        yield "client", "the operator", operator
    for other in ctx.cluster.nodes:
        pair = ctx.store.pair(profiles.leaf_name(ctx.cluster, other))
        if other is not node and pair is not None:
            yield "peer", other.name, pair


def _shake(ctx: Context, node: Node, port: int, pair: Pair | None) -> Handshake:
    cert: Path | None = pair.cert_file if pair else None
    key: Path | None = pair.key_file if pair else None
    return probe(
        lambda _deadline: ctx.dial(node, port),
        ca=ctx.store.ca() or b"",
        cert=cert,
        key=key,
        server_name=node.ip,
        deadline=DEADLINE,
    )


def _said(shaken: Handshake) -> str:
    return f"it {shaken.outcome}" + (f" ({shaken.detail})" if shaken.detail else "")
