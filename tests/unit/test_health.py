"""verify: everything that is asked counts, and what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from clusters import seen
from views import CLUSTER, FINE, URLS, status

from steps.core.base.errors import NodeFailed, Refused, Unhealthy
from steps.core.base.hints import Hints, invoke
from steps.core.base.problem import Problem
from steps.core.config.model import Cluster, Node
from steps.core.context.etcd_client import EtcdClient
from steps.core.etcd.client import own_urls
from steps.core.etcd.views import View
from steps.core.health import health, judge
from steps.core.health import tls_probe as tls
from steps.core.health.tls_probe import Found
from steps.core.health.verdict import MemberHealth
from steps.core.node.facts import Look, Process
from steps.core.transport.shell_session import Result
from steps.verify import Verify

LOOPBACK = "https://127.0.0.1:2379"
UNTIL = datetime.now(timezone.utc) + timedelta(days=300)
SPOKEN = replace(FINE, hashes=dict.fromkeys(URLS, 7))


@dataclass
class Ctx:
    """What each node says: a View, or the error that it is met with; and what its ports did."""

    says: Mapping[str, View | Exception]
    found: Mapping[str, Found] = field(default_factory=dict)
    cluster: Cluster = CLUSTER
    dry: bool = False
    looks: dict[str, Look] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    checks: Sequence[Any] = ()
    told: list[Any] = field(default_factory=list)
    differences: int = 0
    members: None = None

    @property
    def serving(self) -> Cluster:
        return self.etcd.serving

    def __post_init__(self) -> None:
        self.etcd = EtcdClient(self)  # type: ignore[arg-type]  # a stand-in
        self.hosts = SimpleNamespace(open=self.open)
        self.store = SimpleNamespace(pair=lambda _name: None, names=list)
        self.plugins = SimpleNamespace(checks=lambda _cluster, _node: self.checks)
        tell: Callable[..., None] = lambda *words: self.told.append(words)  # noqa: E731 - three names for it
        self.report = SimpleNamespace(
            data=lambda data: self.told.append(json.loads(json.dumps(data))),
            table=tell,
            tip=tell,
            warn=lambda *words, **_: tell(*words),
        )
        self.warn = tell

    def open(self, node: Node) -> None:
        said = self.says[node.name]
        if isinstance(said, Exception):
            raise said

    def look(self, node: Node) -> Look:
        return self.looks[node.name]

    def sh(self, node: Node, script: str, deadline: float = 0) -> Result:
        del deadline
        self.asked.append(node.name)
        return Result(0, f"{node.name}\nstate active/running 5\n{script}", "")

    @staticmethod
    def each(nodes: Sequence[Node], work: Callable[[Node], Any]) -> dict[str, Any]:
        return {node.name: work(node) for node in nodes}


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ctx]:
    """A context in which each node gives its own answers, and all others are as they should be."""

    def made(says: Mapping[str, View | Exception] | None = None, **more: Any) -> Ctx:
        usual = {node.name: own(node, FINE if node.name != "etcd-1" else SPOKEN) for node in CLUSTER.nodes}
        ctx = Ctx({**usual, **(says or {})}, **more)
        monkeypatch.setattr(health, "parse", lambda out: ctx.says[out.partition("\n")[0]])
        monkeypatch.setattr(judge, "known_id", lambda _cluster: "ff")
        monkeypatch.setattr(tls, "check", lambda _ctx, node: ctx.found.get(node.name, Found(not_after=UNTIL)))
        return ctx

    return made


def own(node: Node, view: View) -> View:
    """What is said through one node of its own endpoints."""
    url = CLUSTER.client_url(node)
    return replace(view, statuses={url: view.statuses[url]}, health=dict.fromkeys(own_urls(CLUSTER, node), ""))


FIRST, SECOND, _ = CLUSTER.nodes


def test_releases_with_known_defects_are_warned_of_once_each() -> None:
    members = [MemberHealth(n, "", "", "", v) for n, v in (("a", "3.5.16"), ("b", "3.5.16"), ("c", "3.5.33"))]
    (said,) = judge.releases(CLUSTER, members)
    assert said.startswith("etcd 3.5.16: ")
    assert said.endswith("use 3.5.33 or later")
    (configured,) = judge.releases(CLUSTER)
    assert configured.startswith(f"etcd {CLUSTER.version}: ")


def test_all_is_well(asking: Callable[..., Ctx]) -> None:
    ctx = asking()
    found = health.gather(ctx, CLUSTER.nodes, thorough=True)  # type: ignore[arg-type]  # a stand-in
    assert (found.problems, found.warnings) == ([], [])
    assert [(m.name, m.role, m.health, m.expires) for m in found.members] == [
        ("etcd-1", "leader", "healthy", UNTIL),
        ("etcd-2", "follower", "healthy", UNTIL),
        ("etcd-3", "follower", "healthy", UNTIL),
    ]


AUTH = "Failed to get the status of endpoint https://10.0.0.2:2379 (etcdserver: user name not found)"
KEPT = "auth is on, and etcd-2's certificate (CN=etcd-2) is no user with role root (etcdserver: user name not found)"


def test_gather_where_auth_keeps_a_status_back_is_unknown_and_no_silence(asking: Callable[..., Ctx]) -> None:
    """As 3.5.30 answers: the health is told, the status is not."""
    kept = replace(own(SECOND, FINE), statuses={}, errors={"status": AUTH})
    found = health.gather(asking({"etcd-2": kept}), CLUSTER.nodes, thorough=True)  # type: ignore[arg-type]
    assert (found.problems, found.unknown, found.state) == ([], [KEPT], "unknown")
    assert "etcdctl user grant-role etcd-2 root" in found.hints[0]
    assert found.members[1].health == "unknown"


def test_gather_where_auth_refuses_the_write_is_unknown(asking: Callable[..., Ctx]) -> None:
    """As 3.4 answers: all but foreign keys, hashes and snapshots."""
    kept = replace(
        own(FIRST, SPOKEN), written="etcdserver: permission denied", errors={"put": "etcdserver: permission denied"}
    )
    found = health.gather(asking({"etcd-1": kept}), CLUSTER.nodes, thorough=True)  # type: ignore[arg-type]
    assert found.problems == []
    assert found.unknown[0].startswith("auth is on, and etcd-1's certificate (CN=etcd-1) is no user with role root")


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "nothing can be written": (
        "health.write-failed",
        {"says": {"etcd-1": replace(own(FIRST, SPOKEN), written="etcdserver: no space")}},
        "a write and a read through etcd-1 failed: etcdserver: no space",
    ),
    "other data": (
        "health.different-data",
        {"says": {"etcd-1": replace(own(FIRST, SPOKEN), hashes={URLS[0]: 7, URLS[1]: 8, URLS[2]: 7})}},
        "members hold different data at one revision: ",
    ),
    "a listener is gone": (
        "health.listener-silent",
        {"says": {"etcd-2": replace(own(SECOND, FINE), health={URLS[1]: "", LOOPBACK: "connection refused"})}},
        f"etcd-2 does not answer at {LOOPBACK}: connection refused",
    ),
    "nobody there": (
        "health.unreachable",
        {"says": {"etcd-2": Refused("no route to host", node="etcd-2")}},
        "etcd-2: no route to host",
    ),
    "a foreign cluster": (
        "health.foreign-cluster",
        {"says": {"etcd-2": replace(own(SECOND, FINE), statuses={URLS[1]: status(1, cluster_id="ee")})}},
        "a foreign cluster answers: its ID is ee, this one's is ff",
    ),
    "a port": (
        "tls.not-taken",
        {"found": {"etcd-3": Found([Problem("tls.not-taken", "peer port 2380: it closes")])}},
        "etcd-3: peer port 2380: it closes",
    ),
    "expired": (
        "health.certificate-expired",
        {"found": {"etcd-2": Found(not_after=datetime(2020, 1, 2, tzinfo=timezone.utc))}},
        "etcd-2: its certificate expired on 2020-01-02: invoke certs --node etcd-2",
    ),
}


@pytest.mark.parametrize(("code", "given", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_a_problem(asking: Callable[..., Ctx], code: str, given: dict[str, Any], said: str) -> None:
    ctx = asking(**given)
    problems = health.gather(ctx, CLUSTER.nodes, thorough=True).problems  # type: ignore[arg-type]  # a stand-in
    (line,) = (Hints().shown(str(problem)) for problem in problems if problem.code == code)
    assert line.startswith(said)


def test_a_certificate_that_is_due_is_warned_of(asking: Callable[..., Ctx], monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = asking()
    leaf = SimpleNamespace(not_valid_after_utc=UNTIL)
    ctx.store = SimpleNamespace(pair=lambda _name: SimpleNamespace(cert=b""))
    monkeypatch.setattr("steps.core.tls.pki.read", lambda _pem: [leaf])
    monkeypatch.setattr("steps.core.tls.pki.due", lambda _pem, _days, _now: True)
    found = health.gather(ctx, CLUSTER.nodes, thorough=True)  # type: ignore[arg-type]  # a stand-in
    due = f"its certificate is due for renewal (until {UNTIL:%Y-%m-%d}): {invoke('certs')}"
    assert (found.problems, found.warnings) == ([], [f"{node.name}: {due}" for node in CLUSTER.nodes])


def test_another_member_speaks_where_the_first_cannot(asking: Callable[..., Ctx]) -> None:
    ctx = asking({"etcd-1": replace(own(FIRST, SPOKEN), members=None)})
    problems = health.gather(ctx, CLUSTER.nodes, thorough=True).problems  # type: ignore[arg-type]  # a stand-in
    assert ctx.asked.count("etcd-2") == 2
    assert problems == []


@pytest.mark.parametrize("stopped", ["etcd-2", None, "unseen"])
def test_a_plan_asks_one_where_all_are_known_to_run(
    asking: Callable[..., Ctx], monkeypatch: pytest.MonkeyPatch, stopped: str | None
) -> None:
    running = seen(CLUSTER, process=Process(5, "x", (), 0))
    looks = {node.name: running if node.name != stopped else seen(CLUSTER) for node in CLUSTER.nodes}
    ctx = asking(looks={} if stopped == "unseen" else looks)
    monkeypatch.setattr(ctx.etcd, "ask", lambda node, _urls: ctx.asked.append(f"{node.name} alone") or FINE)
    health.glance(ctx, CLUSTER.nodes)  # type: ignore[arg-type]  # a stand-in
    assert (ctx.asked == ["etcd-1 alone"]) == (stopped is None)


# -- the step -----------------------------------------------------------------------------------------------------


def verified(ctx: Ctx) -> tuple[str, dict[str, Any]]:
    """The message, empty where all is well, and what --json prints."""
    message = ""
    try:
        Verify().run(CLUSTER, CLUSTER.nodes, ctx)  # type: ignore[arg-type]  # a stand-in
    except Unhealthy as error:
        message = error.message
    return message, next(each for each in ctx.told if isinstance(each, dict))


def test_the_step_says_what_it_found(asking: Callable[..., Ctx]) -> None:
    message, told = verified(asking())
    assert (message, told["healthy"], len(told["members"])) == ("", True, 3)
    message, told = verified(asking(WRONG["a listener is gone"][1]["says"]))
    assert told["healthy"] is False
    assert message.startswith("the cluster is not healthy: degraded, it has a quorum\n  etcd-2 does not answer")


def test_a_plugins_check_that_fails_hides_nothing(asking: Callable[..., Ctx]) -> None:
    met: list[str] = []

    def run(_ctx: Any) -> str | None:
        met.append("asked")
        if len(met) == 1:
            raise NodeFailed("etcd-1", "plugin sysctl: lost")
        return "is not set"

    ctx = asking(
        {"etcd-2": Refused("no route to host", node="etcd-2")},
        checks=[SimpleNamespace(name="sysctl", run=run, plugin="kernel")],
    )
    message, told = verified(ctx)
    lines = [line.strip() for line in message.splitlines()]
    assert {"etcd-2: no route to host", "not checked: etcd-1: plugin sysctl: lost", "etcd-3: sysctl: is not set"} <= {
        *lines
    }
    assert len(met) == 2  # nobody asks a node that is not there
    assert "plugin.kernel" in {problem["code"] for problem in told["problems"]}
    assert [problem["text"] for problem in told["problems"]] + [
        f"not checked: {line}" for line in told["unknown"]
    ] == lines[1:]
