"""What handshakes with a member's ports mean, and whether its certificate may be left there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from clusters import seen
from views import CLUSTER, FINE

from steps.certs import Certs, prune
from steps.core.base.errors import NodeFailed, Refused
from steps.core.base.problem import Problem
from steps.core.config.model import Node
from steps.core.health import tls_probe as check
from steps.core.health.tls_probe import Found
from steps.core.node.facts import Look, Process
from steps.core.node.resources import File
from steps.core.procedures import bootstrap as rolling
from steps.core.tls.handshake import Handshake
from steps.core.transport.pool import Hosts, NotForwarded

FIRST, SECOND, THIRD = CLUSTER.nodes
GOOD, ALERT = Handshake("accepted", "200", serial=7), Handshake("refused", "certificate required")
CLOSED = Handshake("closed", "by the server, without a TLS alert")
FORBIDDEN = NotForwarded("the sshd of etcd-1 forbids forwarding (AllowTcpForwarding)")


Met = Mapping[tuple[str, int, str], Handshake | Exception]


def shaken(monkeypatch: pytest.MonkeyPatch, over: Met, *, no_san: bool = False) -> Found:
    """What is found on etcd-1: `over` are (host, port, owner of the certificate or "") that answer differently.

    `no_san`: the operator's certificate is one that an older release issued.
    """

    def probe(connect: Callable[[float], tuple[str, int]], *, cert: Path | None, **_more: object) -> Handshake:
        host, port = connect(0)
        who = cert.parent.name if cert else ""
        usual = {"": ALERT, "member": GOOD, "operator": CLOSED if port == 2380 else GOOD}[who]
        met = over.get((host, port, who), usual)
        if isinstance(met, Exception):
            raise met
        return met

    def pair(name: str) -> SimpleNamespace:
        home = Path("operator" if name == "operator" else "member")
        return SimpleNamespace(cert=b"", cert_file=home / "cert.pem", key_file=home / "key.pem")

    store = SimpleNamespace(pair=pair, ca=lambda: b"ca")
    ctx = SimpleNamespace(
        cluster=CLUSTER, serving=CLUSTER, store=store, dial=lambda _through, ip, port, direct: (ip, port)
    )
    monkeypatch.setattr(check, "probe", probe)
    monkeypatch.setattr(check.pki, "read", lambda _pem: [SimpleNamespace(serial_number=7)])
    monkeypatch.setattr(check.validate, "peer_from_anywhere", lambda _pem: no_san)
    return check.check(ctx, FIRST)  # type: ignore[arg-type]  # a stand-in


def test_all_ports_are_as_they_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shaken(monkeypatch, {})
    assert (found.problems, found.rejected, found.warnings) == ([], [], [])


OTHER = Handshake("accepted", "200", serial=8)
SILENT = Handshake("timed out", "")
MET: dict[str, tuple[Met, str, bool]] = {
    "anybody is let in": (
        {(FIRST.ip, 2379, ""): GOOD},
        "client port 2379: without a certificate it is accepted",
        False,
    ),
    "another certificate": ({(FIRST.ip, 2380, "member"): OTHER}, "peer port 2380 shows another certificate", True),
    "a client is let in": (
        {(FIRST.ip, 2380, "operator"): GOOD},
        "peer port 2380 takes a client's certificate, the operator's",
        False,
    ),
    "not taken": ({(FIRST.ip, 2379, "operator"): ALERT}, "client port 2379 does not take its certificate", True),
    "it hangs": ({(FIRST.ip, 2379, "operator"): SILENT}, "does not take its certificate: it does not answer", False),
    "a peer does not take it": ({(SECOND.ip, 2380, "member"): ALERT}, "etcd-2's peer port 2380 does not take", False),
    "a peer is gone": (
        {(THIRD.ip, 2380, "member"): Handshake("unreachable", "connect failed")},
        "etcd-3's peer port 2380 cannot be reached: connect failed",
        False,
    ),
}


@pytest.mark.parametrize(("over", "said", "rejected"), MET.values(), ids=MET)
def test_what_a_port_does_wrong(
    monkeypatch: pytest.MonkeyPatch,
    over: Met,
    said: str,
    rejected: bool,  # noqa: FBT001 - a column
) -> None:
    found = shaken(monkeypatch, over)
    (problem,) = found.problems
    assert said in problem.message
    assert found.rejected == ([problem] if rejected else [])


def test_check_operator_without_san_is_not_shown_to_the_peer_port(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shaken(monkeypatch, {(FIRST.ip, 2380, "operator"): GOOD}, no_san=True)
    assert (found.problems, found.warnings) == ([], [])


def test_what_nobody_can_see_is_named_and_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {(node.ip, 2380, "member"): FORBIDDEN for node in CLUSTER.nodes}
    found = shaken(monkeypatch, own)
    assert found.problems == []
    assert found.warnings == [
        f"peer port 2380 was not checked: {FORBIDDEN}",
        "whether etcd-2 and etcd-3 take its certificate was not checked either",
    ]


def test_a_controller_without_the_ca_says_so() -> None:
    ctx = SimpleNamespace(cluster=CLUSTER, serving=CLUSTER, store=SimpleNamespace(ca=lambda: None))
    (problem,) = check.check(ctx, FIRST).unknown  # type: ignore[arg-type]  # a stand-in
    assert problem.startswith("this controller has no CA")


# -- where sshd forbids forwarding --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "direct", "kind"),
    [
        (paramiko.ChannelException(1, "Administratively prohibited"), False, NotForwarded),
        (paramiko.ChannelException(1, "Administratively prohibited"), True, NotForwarded),  # nobody listens here
        (paramiko.ChannelException(2, "Connect failed"), True, ConnectionRefusedError),
        (paramiko.SSHException("SSH session not active"), True, ConnectionRefusedError),
        (EOFError(), True, ConnectionRefusedError),
    ],
)
def test_why_there_is_no_channel(
    raised: Exception,
    direct: bool,  # noqa: FBT001 - a column
    kind: type[Exception],
) -> None:
    def dial(*_words: object) -> None:
        raise raised

    hosts = Hosts(CLUSTER, locked=False)
    hosts._ssh = SimpleNamespace(dial=dial)  # type: ignore[assignment]
    with pytest.raises(kind):
        hosts.dial(FIRST, ("127.0.0.1", 9), direct=direct)


def test_a_channel_that_failed_without_a_reason_is_opened_again() -> None:
    """paramiko keeps one reason for all that fail at the same time."""
    came: list[Exception] = [paramiko.SSHException("Unable to open channel.")] * 2
    came += [paramiko.ChannelException(1, "Administratively prohibited")]

    def dial(*_words: object) -> None:
        raise came.pop(0)

    hosts = Hosts(CLUSTER, locked=False)
    hosts._ssh = SimpleNamespace(dial=dial)  # type: ignore[assignment]
    with pytest.raises(NotForwarded):
        hosts.dial(FIRST, (FIRST.ip, 2380), direct=False)
    assert came == []


def test_who_cannot_be_asked_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def dial(_through: Node, ip: str, _port: int) -> None:
        raise FORBIDDEN if ip == SECOND.ip else ConnectionRefusedError

    ctx: Any = SimpleNamespace(cluster=CLUSTER, serving=CLUSTER, dial=dial)
    with pytest.raises(rolling.Unhealthy, match=r"still missing: etcd-3$"):
        rolling._refuse_to_wait_in_vain(ctx, [FIRST])


# -- a rotation ---------------------------------------------------------------------------------------------------


@dataclass
class Ctx:
    """Members of which those in `living` run; `found`: what their ports do; `shut`: what keeps the gate shut."""

    living: Sequence[str]
    found: Mapping[str, Found] = field(default_factory=dict)
    cluster: Any = CLUSTER
    serving: Any = CLUSTER
    said: list[str] = field(default_factory=list)
    etcd: Any = field(default_factory=lambda: SimpleNamespace(ask=lambda _node: FINE))

    @property
    def looks(self) -> dict[str, Look]:
        return {node.name: self.look(node) for node in CLUSTER.nodes}

    def look(self, node: Node) -> Look:
        return seen(CLUSTER, process=Process(5, "x", (), 0) if node.name in self.living else None)

    def say(self, message: str, node: Node) -> None:
        self.said.append(f"{node.name}: {message}")

    warn = say


def rotate(
    monkeypatch: pytest.MonkeyPatch, ctx: Ctx, changing: Sequence[Node], problems: Sequence[str] = ()
) -> list[list[str]]:
    """The batches that were swapped in."""
    monkeypatch.setattr(check, "check", lambda _ctx, node: ctx.found.get(node.name, Found()))
    found = [Problem("gate.unhealthy", said) for said in problems]
    monkeypatch.setattr("steps.certs.problems", lambda _view, _members: found)
    step, done = Certs(), []
    for batch in step.batches(CLUSTER, changing, ctx):  # type: ignore[arg-type]  # a stand-in
        done.append([node.name for node in batch])
        ctx.found = {
            **ctx.found,
            **{name: found for name, found in getattr(ctx, "then", {}).items() if name in done[-1]},
        }
    return done


NOT_TAKEN = Problem("tls.not-taken", "peer port 2380 does not take its certificate")
REJECTED = Found([NOT_TAKEN], [NOT_TAKEN])
NAMES = [node.name for node in CLUSTER.nodes]


def test_one_by_one_where_members_live_and_at_once_where_none_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = Ctx(NAMES)
    assert rotate(monkeypatch, ctx, CLUSTER.nodes) == [["etcd-1"], ["etcd-2"], ["etcd-3"]]
    assert ctx.said == [f"{name}: the new certificate is served on both ports" for name in NAMES]
    assert rotate(monkeypatch, Ctx([]), CLUSTER.nodes) == [NAMES]


@pytest.mark.parametrize("shut", [[], ["etcd-1 is unhealthy"]], ids=["the gate looks open", "the gate is shut"])
def test_a_run_after_one_that_stopped_goes_no_further(monkeypatch: pytest.MonkeyPatch, shut: list[str]) -> None:
    with pytest.raises(NodeFailed, match="etcd-1: its new certificate does not serve"):
        rotate(monkeypatch, Ctx(NAMES, {"etcd-1": REJECTED}), [SECOND, THIRD], shut)


def test_a_member_that_hangs_does_not_keep_the_others_from_a_new_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "client port 2379 does not take its certificate: it does not answer"
    hangs = Found([Problem("tls.not-taken", said)])
    ctx = Ctx(NAMES, {"etcd-1": hangs})
    assert len(rotate(monkeypatch, ctx, CLUSTER.nodes, ["etcd-1 does not answer"])) == 3
    with pytest.raises(NodeFailed, match="it does not answer"):  # but on a healthy cluster one that hangs is new
        rotate(monkeypatch, ctx, CLUSTER.nodes)


def test_what_was_not_checked_is_not_said_to_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = Ctx(NAMES, {name: Found(warnings=["peer port 2380 was not checked"]) for name in NAMES})
    rotate(monkeypatch, ctx, CLUSTER.nodes)
    assert ctx.said == [f"{name}: peer port 2380 was not checked" for name in NAMES]


def test_the_live_generation_stays_whatever_the_clock_says(tmp_path: Path) -> None:
    import os
    import subprocess

    for age, name in enumerate(("gen-live", "gen-b", "gen-a")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    (tmp_path / "live").symlink_to("gen-live")
    subprocess.run(["sh", "-euc", prune(str(tmp_path))], check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"live", "gen-live", "gen-a"}


@pytest.mark.parametrize(("skew", "refused"), [(0, False), (300, False), (-301, True), (400 * 86400, True)])
def test_certs_nothing_is_issued_while_clocks_are_apart(skew: int, refused: bool) -> None:  # noqa: FBT001 - a column
    issued: list[str] = []
    authority = SimpleNamespace(
        reason=lambda _profile: "due", issue=lambda profile: issued.append(profile.name) or SimpleNamespace(warnings=())
    )
    ctx = SimpleNamespace(
        authority=authority,
        option=lambda option: option.default,
        dry=False,
        change=lambda *_words: None,
        look=lambda node: seen(CLUSTER, skew=skew if node is SECOND else 0),
    )
    if refused:
        with pytest.raises(Refused, match=f"etcd-2's by {skew:+d} s".replace("+", r"\+")):
            Certs().prepare(CLUSTER, CLUSTER.nodes, ctx)  # type: ignore[arg-type]  # a stand-in
        assert issued == []
    else:
        Certs().prepare(CLUSTER, CLUSTER.nodes, ctx)  # type: ignore[arg-type]  # a stand-in
        assert issued == ["etcd-1", "etcd-2", "etcd-3", "operator"]


@pytest.mark.parametrize(
    ("dry", "reason", "promised"), [(True, "due", True), (True, None, False), (False, "due", False)]
)
def test_certs_dry_run_promises_what_a_real_run_would_issue(dry: bool, reason: str | None, promised: bool) -> None:  # noqa: FBT001 - columns
    pair = SimpleNamespace(generation="1", cert=b"", key=b"")
    ctx: Any = SimpleNamespace(
        cluster=CLUSTER,
        dry=dry,
        option=lambda option: option.default,
        authority=SimpleNamespace(reason=lambda _profile: reason),
        store=SimpleNamespace(pair=lambda _name: pair),
    )
    paths = [each.path for each in Certs().desired(ctx, SECOND) if isinstance(each, File)]
    assert ("/etc/etcd/cert/live/etcd.pem" in paths) is promised
    assert ("/etc/etcd/cert/gen-1/etcd.pem" in paths) is not promised
