"""From evidence to findings, with what etcd and systemd really said."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clusters import on_hosts, on_loopback, seen
from journal import entry, zap

from steps.core.base.errors import UNHEALTHY, UNKNOWN, Unhealthy
from steps.core.base.frames import Damaged
from steps.core.base.hints import Hints
from steps.core.config.model import Cluster, Node
from steps.core.doctor.collect import _parts, _restarting, script
from steps.core.doctor.evidence import Evidence, NodeEvidence
from steps.core.doctor.failures import FAILURES, LOG_LINES, NOTICES
from steps.core.doctor.rules import Finding, diagnose
from steps.core.etcd.logs import read
from steps.core.etcd.views import Alarm, Member, Status, View
from steps.core.node.facts import Entry, Process, Space
from steps.core.node.paths import unit_file
from steps.core.node.service import State
from steps.ops.doctor import doctor, shown

CLUSTER = on_hosts("[tls]\nenabled = false\n")
NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
UP, RESTARTING = State("active/running", 10), State("activating/auto-restart", 0)


def members(cluster: Cluster) -> tuple[Member, ...]:
    return tuple(
        Member(f"a{number}", node.name, (cluster.peer_url(node),), (cluster.client_url(node),), learner=False)
        for number, node in enumerate(cluster.nodes, 1)
    )


def well(cluster: Cluster, node: Node, **changes: Any) -> NodeEvidence:
    """A member that serves."""
    url = cluster.client_url(node)
    number = cluster.nodes.index(node) + 1
    status = Status(url, f"a{number}", "c1", "a1", "3.5.16", 5, 9, 9, learner=False, db_size=1, errors=())
    look = seen(
        cluster,
        entries={unit_file(cluster, node): Entry("file")},
        unit={"UnitFileState": "enabled"},
        process=Process(10, "x", (), 0),
        member=True,
        wal=True,
    )
    usual = {"look": look, "state": UP, "view": View(statuses={url: status}, health={url: ""})}
    return NodeEvidence(node, **{**usual, **changes})


def down(node: Node, state: State = RESTARTING, **changes: Any) -> NodeEvidence:
    case = well(CLUSTER, node)
    assert case.look is not None
    look = changes.pop("look", {})
    facts = replace(case.look.facts, **look.get("facts", {}))
    stopped = replace(case.look, process=None, **{**look, "facts": facts})
    return well(CLUSTER, node, look=stopped, state=state, view=View(), **changes)


def found(*cases: NodeEvidence, cluster: Cluster = CLUSTER, **changes: Any) -> list[Finding]:
    """`cases` replace the nodes of their names in a healthy cluster."""
    named = {case.node.name: case for case in cases}
    nodes = tuple(named.get(node.name) or well(cluster, node) for node in cluster.nodes)
    usual = {"view": View(members=members(cluster)), "now": NOW, "cluster_id": "c1"}
    return diagnose(Evidence(cluster, nodes, **{**usual, **changes}))


def names(findings: list[Finding]) -> set[str]:
    return {f"{finding.node or 'cluster'}: {finding.failure}" for finding in findings}


TWO = CLUSTER.nodes[1]


def test_a_healthy_cluster_has_nothing() -> None:
    assert found() == []
    assert found(cluster_id="") == []
    assert found(cluster=on_loopback(more="[tls]\nenabled = false")) == []


TIME = "2026-11-26 09:07:19.809720"
# as etcd 3.4 and 3.5, Go and systemd say it
SAID = [
    ("port-taken", zap("fatal", "discovery failed", "listen tcp 10.0.0.2:2380: bind: address already in use")),
    ("port-taken", f"{TIME} C | etcdmain: listen tcp 127.0.0.1:2379: bind: address already in use"),
    ("unknown-flag", "flag provided but not defined: -no-such-flag"),
    ("bad-flag", 'invalid value "abc" for flag -heartbeat-interval: parse error'),
    ("bad-flag", zap("warn", "failed to verify flags", "--election-timeout[1s] should be at least as 5 times as …")),
    ("bad-flag", f"{TIME} E | etcdmain: error verifying flags, --election-timeout[1s] should be at least as 5 times"),
    ("overridden", zap("fatal", "conflicting environment variable is shadowed by corresponding command-line flag")),
    ("wal-mountpoint", "panic: rename /data/etcd/wal.tmp /data/etcd/wal: device or resource busy"),
    ("not-writable", zap("fatal", "failed", "cannot access data directory: open /data/etcd/.touch: permission denied")),
    (
        "not-writable",
        f"{TIME} C | etcdserver: create snapshot directory error: mkdir /d/member/snap: permission denied",
    ),
    ("unreadable-certificate", zap("fatal", "failed", "open /etc/etcd/cert/etcd-key.pem: permission denied")),
    ("disk-full", zap("fatal", "failed", "write /data/etcd/wal/0.tmp: no space left on device")),
    ("second-etcd", zap("info", "db file is flocked by another process, or taking too long", took="10.001s")),
    ("wiped-member", zap("fatal", "discovery failed", "member a2 has already been bootstrapped")),
    ("wiped-member", zap("panic", "tocommit(11) is out of range [lastIndex(0)]. Was the raft log corrupted or lost?")),
    ("cluster-id-mismatch", zap("warn", "request cluster ID mismatch", **{"remote-peer-id": "a1"})),
    ("removed-member", zap("warn", "the member has been permanently removed from the cluster")),
    ("corrupt", zap("fatal", "checkInitialHashKV failed", "a2 found data inconsistency with peers")),
    # as 3.5.35, 3.6.16 and 3.7.3 say it
    ("bad-flag", zap("warn", "failed to verify flags", "cannot set --experimental-x and --x at the same time")),
    ("newer-data", zap("fatal", "invalid downgrade; server version is lower than determined cluster version")),
    ("newer-data", zap("error", "Failed to validate schema", 'version "3.7.0" is not supported')),
    ("newer-data", zap("fatal", "discovery failed", 'version "3.7.0" is not supported')),
    ("v2-content", "panic: detected disallowed v2 WAL for stage --v2-deprecation=write-only [recovered]"),
    (
        "v2-entries",
        "panic: unmarshal should never fail (proto:\u00a0cannot parse invalid wire-format data) [recovered]",
    ),
    ("closed-directory", entry("etcd.service: Main process exited, code=exited, status=200/CHDIR", systemd=True)),
    ("not-executable", entry("etcd.service: Main process exited, code=exited, status=203/EXEC", systemd=True)),
    ("no-namespace", entry("etcd.service: Main process exited, code=exited, status=226/NAMESPACE", systemd=True)),
]


@pytest.mark.parametrize(("failure", "line"), SAID)
def test_the_log_of_a_member_that_does_not_serve(failure: str, line: str) -> None:
    log = read(f"before\n{line}\nafter")
    finding, *more = found(down(TWO, log=tuple(log)))
    assert {each.failure for each in more} == ({"not-running"} if FAILURES[failure].aside else set())
    assert (finding.failure, finding.node) == (failure, "etcd-2")
    assert finding.evidence == (f"its log: {log[1].text[:300]}",)


# What a client alone decides: its keys, its user's name, what etcd answers it.
HOSTILE = [
    "permission denied",
    "/x: permission denied",
    "/x: no space left on device",
    "no space left on device",
    "bind: address already in use",
    "request cluster ID mismatch",
    "has already been bootstrapped",
    "flag provided but not defined: -x",
    "panic: data corruption detected",
    "status=200/CHDIR",
]


@pytest.mark.parametrize("word", HOSTILE)
def test_log_with_words_of_a_client_names_no_failure(word: str) -> None:
    request = f'header:<ID:7 username:"{word}" > put:<key:"{word}" value_size:1 >'
    as_34 = f'failed to apply request "{request}" with response "" took (1s) to execute, err is auth: {word}'
    for line in (
        zap("warn", "failed to apply request", "auth: permission denied", request=request),
        zap("warn", "failed to apply request", f"auth: {word}", request=request),
        zap("warn", "rejected connection", f"tls: {word}", **{"server-name": word}),
        zap("error", "failed to serve", "auth: permission denied", request=request),
        f"{TIME} W | etcdserver: {as_34}",
        entry(as_34, priority=4, transport="journal"),
        entry(zap("warn", "failed to apply request", "auth: permission denied", request=request)),
    ):
        (finding,) = found(well(CLUSTER, TWO, view=View(), log=tuple(read(line))))
        assert finding.failure == "not-serving", line


def test_log_of_a_member_that_serves_counts_for_nothing() -> None:
    log = tuple(read("panic: tocommit(5) is out of range [lastIndex(0)]"))
    assert found(well(CLUSTER, TWO, log=log)) == []


def test_not_running_quotes_the_line_that_says_why() -> None:
    panic = "panic: assertion failed: Page expected to be: 4"
    said = [panic, *(f"goroutine {number}" for number in range(9)), entry("etcd.service: Failed.", systemd=True)]
    (finding,) = found(down(TWO, log=tuple(read("\n".join(said)))))
    assert finding.failure == "not-running"
    assert f"its log: {panic}" in finding.evidence


def test_every_failure_of_the_log_is_known() -> None:
    assert {failure for failure, _ in LOG_LINES} <= set(FAILURES)
    assert {failure for failure, _ in NOTICES} <= {failure for failure, _ in LOG_LINES}


def state(name: str) -> State:
    return State(name, 10 if name == "active/running" else 0)


@pytest.mark.parametrize(
    ("active", "failure"),
    [
        ("inactive/dead", "stopped"),
        ("failed/failed", "not-running"),
        ("activating/start", "not-running"),
        ("active/running", "not-serving"),
    ],
)
def test_what_nothing_else_explains_is_told_with_the_logs_last_lines(active: str, failure: str) -> None:
    (finding,) = found(down(TWO, state(active), log=tuple(read("1\n2\n3\nodd"))))
    assert finding.failure == failure
    assert (finding.evidence[-1] == "its log: odd") is (failure != "stopped")


def test_a_host_that_is_not_there() -> None:
    (finding,) = found(NodeEvidence(TWO, unreachable="etcd-2: no route", hint="is the host up?"))
    assert (finding.failure, finding.evidence, finding.mend) == (
        "host-unreachable",
        ("etcd-2: no route",),
        "is the host up?",
    )


def test_diagnose_of_an_unasked_host_says_what_the_others_say_of_its_member() -> None:
    one, url = CLUSTER.nodes[0], CLUSTER.client_url(TWO)
    serving, unasked = well(CLUSTER, one), NodeEvidence(TWO, unreachable="etcd-2: no route", hint="is the host up?")
    (finding,) = found(
        serving, unasked, view=View(statuses={url: well(CLUSTER, TWO).view.statuses[url]}, health={url: ""})
    )
    assert (finding.failure, finding.code) == ("host-unreachable", UNKNOWN)
    assert finding.evidence == ("etcd-2: no route; its member answers the others",)
    (finding,) = found(serving, unasked, view=View(health={url: "connection refused"}))
    assert (finding.failure, finding.code) == ("no-answer", UNHEALTHY)


def test_diagnose_calls_no_quorum_lost_that_hosts_unasked_may_have() -> None:
    one, two, three = CLUSTER.nodes
    unasked = [
        NodeEvidence(node, unreachable=f"{node.name}: refused the login", hint="log in") for node in (two, three)
    ]
    findings = found(down(one, state("inactive/dead")), *unasked)
    assert names(findings) == {"etcd-1: stopped", "etcd-2: host-unreachable", "etcd-3: host-unreachable"}


def test_doctor_json_has_the_findings_as_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    one, *others = CLUSTER.nodes
    cases = (down(one, State("inactive/dead", 0)), *(well(CLUSTER, node) for node in others))
    evidence = Evidence(CLUSTER, cases, View(members=members(CLUSTER)), NOW, cluster_id="c1")
    monkeypatch.setattr(sys.modules["steps.ops.doctor"], "gather", lambda _ctx, _nodes: evidence)
    said: list[Any] = []
    report = SimpleNamespace(data=said.append, line=lambda _line: None, warn=said.append)
    command = SimpleNamespace(open=lambda: None, nodes=CLUSTER.nodes, cluster=CLUSTER, report=report)
    with pytest.raises(Unhealthy) as caught:
        doctor(SimpleNamespace(command=command))
    (document,) = said
    assert (document["schema"], document["state"], document["well"]) == (1, "unhealthy", False)
    (problem,) = document["problems"]
    assert (problem["code"], problem["node"]) == ("doctor.stopped", "etcd-1")
    assert problem["hint"] == document["findings"][0]["mend"]
    assert [each.code for each in caught.value.problems] == ["doctor.stopped"]


def test_diagnose_without_a_ca_here_checks_no_certificate() -> None:
    cluster = on_hosts()
    cases = [well(cluster, node) for node in cluster.nodes]
    trusting = []
    for case in cases:
        assert case.look is not None
        entries = {**case.look.entries, f"{case.node.paths.cert}/ca.pem": Entry("file", content="x")}
        trusting.append(replace(case, look=replace(case.look, entries=entries)))
    (finding,) = diagnose(Evidence(cluster, tuple(trusting), View(members=members(cluster)), NOW, ca=None))
    assert (finding.failure, finding.code) == ("no-ca", UNKNOWN)


def test_diagnose_after_a_reset_names_the_command_that_deploys() -> None:
    """The unit stays and the data was renamed: `invoke start` would be refused, and there is no quorum to lose."""
    cases = [down(node, state("inactive/dead"), look={"member": False, "wal": False}) for node in CLUSTER.nodes]
    findings = found(*cases, view=View(), cluster_id="")
    assert names(findings) == {f"{node.name}: not-deployed" for node in CLUSTER.nodes}
    assert Hints().shown(findings[0].mend) == "invoke all"


def test_the_quorum_is_lost_only_where_nobody_serves() -> None:
    one, two, three = CLUSTER.nodes
    stopped = [down(node, state("inactive/dead")) for node in (one, two)]
    assert names(found(*stopped)) == {"etcd-1: stopped", "etcd-2: stopped"}
    silent = well(CLUSTER, three, view=View(health={CLUSTER.client_url(three): "context deadline exceeded"}))
    findings = found(*stopped, silent, view=View())
    assert names(findings) == {"etcd-1: stopped", "etcd-2: stopped", "cluster: no-quorum"}
    assert "etcd-3 does not serve: context deadline exceeded" in findings[-1].evidence


def test_wiped_and_what_replaces_it(tmp_path: Path) -> None:
    cluster = on_hosts("[tls]\nenabled = false\n", file=tmp_path / "etcd.toml")
    cluster.work.mkdir(parents=True)
    (cluster.work / "cluster-id").write_text("c1\n")
    gone = {"member": False, "wal": False}
    case = down(TWO, state("inactive/dead"), look=gone)
    (finding,) = found(case, cluster=cluster)
    assert found(down(TWO, state("inactive/dead"), look={**gone, "entries": {}}), cluster=cluster) == [finding]
    assert finding.failure == "wiped-member"
    assert "no member's data in /data/etcd/data and /data/etcd/wal" in finding.evidence[0]
    assert "etcdctl member remove a2" in finding.mend


def test_members_and_alarms() -> None:
    one, two, three = members(CLUSTER)
    stranger = Member("ff", "", ("http://10.9.9.9:2380",), (), learner=True)
    learner = Member("a2", "etcd-2", two.peer_urls, two.client_urls, learner=True)
    unstarted = Member("a3", "", three.peer_urls, (), learner=True)
    view = View(members=(one, learner, unstarted, stranger), alarms=(Alarm("NOSPACE", "a1"), Alarm("CORRUPT", "a2")))
    findings = found(view=view)
    assert names(findings) == {
        "etcd-1: no-space-alarm",
        "etcd-2: learner",
        "etcd-2: corrupt",
        "etcd-3: never-started",
        "cluster: foreign-member",
    }
    assert findings[-1].mend.endswith("etcdctl member remove ff")
    assert names(found(view=View(members=(one, two)))) == {"etcd-3: removed-member"}


def test_another_clusters_member() -> None:
    url = CLUSTER.client_url(TWO)
    status = Status(url, "a2", "f0", "a2", "3.5.16", 5, 9, 9, learner=False, db_size=1, errors=())
    case = well(CLUSTER, TWO, view=View(statuses={url: status}, health={url: ""}))
    for known in ("c1", ""):
        (finding,) = found(case, cluster_id=known)
        assert finding.evidence == ("it answers with the cluster ID f0, this cluster's is c1",)


def test_whose_data_it_is_stands_in_its_wal() -> None:
    log = tuple(read('{"level":"warn","msg":"request cluster ID mismatch"}'))
    ours = down(TWO, look={"facts": {"cluster_id": "c1"}}, log=log)
    assert names(found(ours)) == {"etcd-2: not-running"}
    (finding,) = found(down(TWO, look={"facts": {"cluster_id": "f0"}}, log=log))
    assert finding.failure == "cluster-id-mismatch"
    assert "its WAL has the cluster ID f0, this cluster's is c1" in finding.evidence


def test_the_member_whose_data_differs() -> None:
    urls = [CLUSTER.client_url(node) for node in CLUSTER.nodes]
    view = View(members=members(CLUSTER), hashes=dict(zip(urls, (7, 8, 7), strict=True)))
    (finding,) = found(view=view)
    assert (finding.failure, finding.node) == ("corrupt", "etcd-2")
    assert finding.evidence == ("at one revision the hash of its data is 8, the other members' is 7",)


def test_what_does_not_stop_a_member() -> None:
    healthy = well(CLUSTER, TWO).look
    assert healthy is not None
    full = {path: Space(5 << 20, 100 << 20, "1", writable=True) for path in healthy.space}
    unit = {"UnitFileState": "disabled", "DropInPaths": "/etc/systemd/system/etcd.service.d/x.conf"}
    look = type(healthy)(**{**vars(healthy), "unit": unit, "skew": -7, "space": full})
    findings = found(well(CLUSTER, TWO, look=look, others={77: "pid 77 (etcd)"}))
    by = {finding.failure: finding for finding in findings}
    assert set(by) == {"overridden", "not-enabled", "clock-skew", "disk-full", "second-etcd"}
    assert by["clock-skew"].evidence == ("its clock is 7 s behind this controller's",)
    assert by["disk-full"].evidence[0] == "/data/etcd/data: 5 MB free of 100 MB"
    assert by["second-etcd"].evidence == ("pid 77 (etcd) has /data/etcd/data open; the member is pid 10",)
    assert "kill 77" in by["second-etcd"].mend


@pytest.mark.parametrize("case", [well(CLUSTER, TWO), down(TWO)])
def test_diagnose_unit_with_an_open_quote_is_a_finding(case: NodeEvidence) -> None:
    assert case.look is not None
    unit = {unit_file(CLUSTER, TWO): Entry("file", content="ExecStart=/bin/etcd '--data-dir=/elsewhere\n")}
    (finding, *_) = found(replace(case, look=replace(case.look, entries=unit)))
    assert (finding.failure, finding.node) == ("unreadable-unit", "etcd-2")
    assert finding.evidence[0].startswith("/etc/systemd/system/etcd.service: its command line cannot be read")
    assert (
        Hints().shown(finding.mend)
        == "correct the quotes in that file on etcd-2, then: invoke units start --node etcd-2"
    )


def test_handshakes_are_told_where_nothing_else_is_wrong() -> None:
    shaken = well(CLUSTER, TWO, tls=("client port 2379 does not take its certificate: it refused",))
    (finding,) = found(shaken)
    assert finding.failure == "tls-refused"
    stopped = down(CLUSTER.nodes[0], state("inactive/dead"))
    assert names(found(shaken, stopped)) == {"etcd-1: stopped"}


def test_a_finding_as_it_is_shown() -> None:
    (finding,) = found(down(TWO, state("inactive/dead")))
    assert Hints().shown(shown(finding)) == (
        "etcd-2: etcd is stopped  [stopped]\n    known by: systemd: inactive/dead\n"
        "    mended by: invoke start --node etcd-2"
    )


@pytest.mark.parametrize(
    ("unit", "active", "expected"),
    [
        ({"SubState": "auto-restart", "NRestarts": "0"}, "activating/start", True),
        ({"SubState": "start", "NRestarts": "3"}, "activating/start", True),
        ({"SubState": "dead", "NRestarts": "0"}, "activating/auto-restart", True),
        ({"SubState": "start", "NRestarts": "0"}, "activating/start", False),
        ({"SubState": "running", "NRestarts": "3"}, "active/running", False),
    ],
)
def test_restarting_counts_tries_of_one_series(unit: dict[str, str], active: str, expected: bool) -> None:  # noqa: FBT001
    assert _restarting(seen(CLUSTER, unit=unit), State(active, 0)) is expected


# -- the scripts --------------------------------------------------------------------------------------------------


def test_parts_are_read_by_their_size() -> None:
    said = {"state": "a\nb\n", "log": "", "etcd": "part x 1\n", "others": "é", "instances": "", "owners": "x"}
    output = "".join(f"part {name} {len(text.encode())}\n{text}\n" for name, text in said.items())
    assert _parts(output) == said
    with pytest.raises(Damaged, match="does not say owners"):
        _parts(output.rpartition("part")[0])


@pytest.mark.parametrize("cluster", [CLUSTER, on_hosts(), on_loopback()])
def test_the_script_is_posix_shell(cluster: Cluster) -> None:
    text = script(cluster, cluster.nodes[0])
    assert subprocess.run(["sh", "-n", "-c", text], check=False).returncode == 0
