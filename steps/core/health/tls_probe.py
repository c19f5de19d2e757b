"""Real handshakes with one member's ports: who is let in, who is not, and which certificate is shown."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from shlex import quote
from typing import TYPE_CHECKING, Literal

from steps.core.base.hints import invoke
from steps.core.base.problem import Problem
from steps.core.tls import pki, profiles, validate
from steps.core.tls.handshake import Handshake, probe
from steps.core.tls.profiles import CLIENT_NAME
from steps.core.tls.store import Pair, Store
from steps.core.transport.pool import NotForwarded

if TYPE_CHECKING:
    from steps.core.config.model import Node
    from steps.core.context.context import Context

DEADLINE = 5.0  # seconds of one handshake
NO_CA = "this controller has no CA, so no handshake was made: copy ca and certs from the one that made the cluster"
ABREAST = 24  # handshakes at a time, through all nodes of a large cluster together

_Who = Literal["", "member", "operator"]  # whose pair is shown; "": none
_Wanted = tuple["Node", int, _Who]


@dataclass
class Found:
    """What came of one node's handshakes; its problems do not name it.

    `rejected`: those that speak against the node's own pair, and not for a member that hangs.

    `unknown`: why nothing could be checked. `not_after`: of the certificate that the client port shows.
    """

    problems: list[Problem] = field(default_factory=list)
    rejected: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    not_after: datetime | None = None


def passing_for_peers(store: Store) -> list[str]:
    """Return a warning for each client's certificate in the store that the members' peer ports take from any address.

    So are those that were issued without a SAN, by an older release of this program.
    """
    warnings = []
    for name in store.names():
        pair = store.pair(name)
        if pair is None or not validate.peer_from_anywhere(pair.cert):
            continue
        again = invoke("certs") if name == CLIENT_NAME else invoke(f"client {quote(name)} --out DIRECTORY")
        ends = pki.read(pair.cert)[0].not_valid_after_utc
        warnings.append(
            f"the client certificate {name} has no SAN, so each peer port takes it for a member's: issue it again with "
            f"{again}; copies of the old one pass for a member's until {ends:%Y-%m-%d}, or until the CA is replaced"
        )
    return warnings


def check(ctx: Context, node: Node) -> Found:
    """Both of the node's ports refuse a client without a certificate with an alert, take a good one, and show the
    certificate that was last issued; the peer port takes no client's certificate, and every other member's peer port
    takes this node's pair.

    All as seen from the node: etcd's peer port also compares a client certificate's SANs with where it comes from.
    """
    if ctx.store.ca() is None:
        return Found(unknown=[NO_CA])
    node = ctx.serving.node(node.name)
    own = ctx.store.pair(profiles.leaf_name(ctx.cluster, node))
    operator = ctx.store.pair(profiles.operator(ctx.cluster).name)
    pairs: dict[_Who, Pair | None] = {"": None, "member": own, "operator": operator}
    wanted: list[_Wanted] = [(node, node.client_port, ""), (node, node.peer_port, "")]
    if operator is not None:
        wanted.append((node, node.client_port, "operator"))
        if not validate.peer_from_anywhere(operator.cert):  # that is said of it by itself
            wanted.append((node, node.peer_port, "operator"))
    if own is not None:
        wanted += [(to, to.peer_port, "member") for to in ctx.cluster.nodes]
    # Over a long way the round trips are what takes time; of many nodes, the controller.
    with ThreadPoolExecutor(max(1, ABREAST // len(ctx.cluster.nodes))) as pool:
        shaken = pool.map(lambda one: _shake(ctx, node, one[0], one[1], pairs[one[2]]), wanted)
        met = {(to.name, port, who): came for (to, port, who), came in zip(wanted, shaken, strict=True)}
    found = Found()
    serial = pki.read(own.cert)[0].serial_number if own is not None else None
    served = met.get((node.name, node.client_port, "operator"))
    shown = met.get((node.name, node.peer_port, "member"))
    _port(f"client port {node.client_port}", met[node.name, node.client_port, ""], served, serial, found)
    _port(f"peer port {node.peer_port}", met[node.name, node.peer_port, ""], shown, serial, found)
    client = met.get((node.name, node.peer_port, "operator"))
    if client is not None and client.accepted:
        said = f"peer port {node.peer_port} takes a client's certificate, the operator's"
        found.problems.append(Problem("tls.client-as-peer", said))
    found.not_after = served.not_after if served is not None else None
    others = [
        (to, met[to.name, to.peer_port, "member"])
        for to in ctx.cluster.nodes
        if to.name != node.name and own is not None
    ]
    for to, came in others:
        port = f"{to.name}'s peer port {to.peer_port}"
        if came.outcome == "unreachable":
            said = f"{port} cannot be reached: {came.detail}"
            found.problems.append(Problem("tls.peer-unreachable", said))
        elif not came.accepted and came.outcome != "not checked":
            said = f"{port} does not take its certificate: {_said(came)}"
            found.problems.append(Problem("tls.not-taken", said))
    if unchecked := [to.name for to, came in others if came.outcome == "not checked"]:
        found.warnings.append(f"whether {' and '.join(unchecked)} take its certificate was not checked either")
    return found


def _port(port: str, bare: Handshake, shaken: Handshake | None, serial: int | None, found: Found) -> None:
    """One of the node's own ports: what came of a handshake without a certificate, and of one with ours."""
    unchecked = next((each for each in (bare, shaken) if each and each.outcome in ("unreachable", "not checked")), None)
    if unchecked is not None:
        found.warnings.append(f"{port} was not checked: {unchecked.detail}")
    if bare.outcome not in ("refused", "unreachable", "not checked"):
        said = f"{port}: without a certificate {_said(bare)}, an alert was expected"
        found.problems.append(Problem("tls.open-to-all", said))
    if shaken is None or unchecked is not None:
        return
    if not shaken.accepted:
        wrong = Problem("tls.not-taken", f"{port} does not take its certificate: {_said(shaken)}")
    elif serial is not None and shaken.serial != serial:
        said = f"{port} shows another certificate than the one last issued"
        wrong = Problem("tls.other-certificate", said)
    else:
        return
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
