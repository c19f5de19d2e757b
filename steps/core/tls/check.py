"""Real handshakes with one member's ports: who is let in, who is not, and which certificate is shown."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from steps.core.node.hosts import NotForwarded
from steps.core.tls import pki, profiles
from steps.core.tls.handshake import Handshake, probe
from steps.core.tls.store import Pair

if TYPE_CHECKING:
    from steps.core.context import Context
    from steps.core.model import Node

DEADLINE = 5.0  # seconds of one handshake
NO_CA = "this controller has no CA, so no handshake was made: copy ca and certs from the one that made the cluster"
ABREAST = 24  # handshakes at a time, through all nodes of a large cluster together

_Wanted = tuple["Node", int, "Pair | None"]  # with whom, at which port, with which pair


@dataclass
class Found:
    """`rejected`: those of the problems that speak against the node's own pair, and not for a member that hangs.

    `unknown`: why nothing could be checked. `not_after`: of the certificate that the client port shows.
    """

    problems: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    not_after: datetime | None = None


def check(ctx: Context, node: Node) -> Found:
    """Both of the node's ports refuse a client without a certificate with an alert, take a good one, and show the
    certificate that was last issued; and every other member's peer port takes this node's pair.

    All as seen from the node: etcd's peer port also compares a client certificate's SANs with where it comes from.
    """
    if ctx.store.ca() is None:
        return Found(unknown=[NO_CA])
    node = ctx.serving.node(node.name)
    own = ctx.store.pair(profiles.leaf_name(ctx.cluster, node))
    operator = ctx.store.pair(profiles.operator(ctx.cluster).name)
    wanted: list[_Wanted] = [(node, node.client_port, None), (node, node.peer_port, None)]
    if operator is not None:
        wanted.append((node, node.client_port, operator))
    if own is not None:
        wanted += [(to, to.peer_port, own) for to in ctx.cluster.nodes]
    # Over a long way the round trips are what takes time; of many nodes, the controller.
    with ThreadPoolExecutor(max(1, ABREAST // len(ctx.cluster.nodes))) as pool:
        shaken = pool.map(lambda one: _shake(ctx, node, *one), wanted)
        met = {(to.name, port, pair is not None): came for (to, port, pair), came in zip(wanted, shaken, strict=True)}
    found = Found()
    serial = pki.read(own.cert)[0].serial_number if own is not None else None
    for kind, port in (("client", node.client_port), ("peer", node.peer_port)):
        _port(f"{kind} port {port}", met[node.name, port, False], met.get((node.name, port, True)), serial, found)
    served = met.get((node.name, node.client_port, True))
    found.not_after = served.not_after if served is not None else None
    others = [
        (to, met[to.name, to.peer_port, True]) for to in ctx.cluster.nodes if to.name != node.name and own is not None
    ]
    found.problems += [
        f"{to.name}'s peer port {to.peer_port} does not take its certificate: {_said(came)}"
        for to, came in others
        if not came.accepted and came.outcome != "not checked"
    ]
    if unchecked := [to.name for to, came in others if came.outcome == "not checked"]:
        found.warnings.append(f"whether {' and '.join(unchecked)} take its certificate was not checked either")
    return found


def _port(port: str, bare: Handshake, shaken: Handshake | None, serial: int | None, found: Found) -> None:
    """One of the node's own ports: what came of a handshake without a certificate, and of one with ours."""
    unchecked = next((each for each in (bare, shaken) if each and each.outcome in ("unreachable", "not checked")), None)
    if unchecked is not None:
        found.warnings.append(f"{port} was not checked: {unchecked.detail}")
    if bare.outcome not in ("refused", "unreachable", "not checked"):
        found.problems.append(f"{port}: without a certificate {_said(bare)}, an alert was expected")
    if shaken is None or unchecked is not None:
        return
    wrong = ""
    if not shaken.accepted:
        wrong = f"{port} does not take its certificate: {_said(shaken)}"
    elif serial is not None and shaken.serial != serial:
        wrong = f"{port} shows another certificate than the one last issued"
    if wrong:
        found.problems.append(wrong)
        if shaken.outcome in ("accepted", "refused", "untrusted"):
            found.rejected.append(wrong)


def _shake(ctx: Context, through: Node, to: Node, port: int, pair: Pair | None) -> Handshake:
    # Who calls from another address than the node's is no member: a member's own pair is shown from there alone.
    direct = port == through.client_port or pair is None
    try:
        return probe(
            lambda _deadline: ctx.dial(through, to.ip, port, direct=direct),
            ca=ctx.store.ca() or b"",
            cert=pair.cert_file if pair else None,
            key=pair.key_file if pair else None,
            server_name=to.ip,
            deadline=DEADLINE,
        )
    except NotForwarded as error:
        return Handshake("not checked", str(error))


def _said(shaken: Handshake) -> str:
    words = {"timed out": "it does not answer", "closed": "it closes the connection"}
    return words.get(shaken.outcome, f"it is {shaken.outcome}") + (f" ({shaken.detail})" if shaken.detail else "")
