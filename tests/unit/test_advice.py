"""No advice of the doctor may cost data that may still be right."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clusters import on_hosts
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from journal import entry
from test_diagnosis import CLUSTER, NOW, TWO, down, found, members, names, state, well

from steps.core.base.hints import Hints
from steps.core.checks import prepared
from steps.core.config.model import Cluster
from steps.core.doctor.failures import FAILURES
from steps.core.doctor.rules import Finding
from steps.core.etcd.instances import Instance
from steps.core.etcd.logs import read
from steps.core.etcd.views import Alarm, Member, Status, View
from steps.core.node.facts import Entry, NodeFacts
from steps.core.node.paths import unit_file

STOPPED = state("inactive/dead")
GONE = {"member": False, "wal": False}


def said(finding: Finding) -> str:
    return Hints().shown(finding.mend)


def known(tmp_path: Path, more: str = "[tls]\nenabled = false\n") -> Cluster:
    """A cluster whose first healthy start this controller has seen."""
    cluster = on_hosts(more, file=tmp_path / "etcd.toml")
    cluster.work.mkdir(parents=True)
    (cluster.work / "cluster-id").write_text("c1\n")
    return cluster


def test_fixed_advice_never_destroys() -> None:
    """What depends on what was found is advice.py's, and tested below."""
    for name, failure in FAILURES.items():
        assert not re.search(r"\b(?:mv|rm|kill|restore a snapshot)\b|set \[paths\]", failure.mend), name


def test_wiped_member_is_looked_for_first(tmp_path: Path) -> None:
    cluster = known(tmp_path)
    (finding,) = found(down(TWO, STOPPED, look=GONE), cluster=cluster)
    assert said(finding).startswith("find the data first: is a disk of etcd-2 not mounted")
    assert "If it is lost for good: " in said(finding)
    assert "etcdctl member remove a2" in said(finding)


def test_wiped_member_without_a_quorum_is_not_removed(tmp_path: Path) -> None:
    cluster = known(tmp_path)
    one, two, _ = CLUSTER.nodes
    for view in (View(), View(members=members(CLUSTER))):
        findings = found(*(down(node, STOPPED, look=GONE) for node in (one, two)), cluster=cluster, view=view)
        for finding in findings:
            assert "member remove" not in said(finding)
        assert "Remove no member" in said(findings[0])


def test_wiped_member_whose_paths_were_changed_gets_them_back(tmp_path: Path) -> None:
    """etcd.toml names another directory than the unit that is on the node: the data is where the unit says."""
    cluster = known(tmp_path)
    unit = "[Service]\nExecStart=/usr/local/bin/etcd --name=etcd-2 --data-dir=/old/data --wal-dir=/old/wal\n"
    look = {**GONE, "entries": {unit_file(cluster, TWO): Entry("file", content=unit)}}
    (finding,) = found(down(TWO, STOPPED, look=look), cluster=cluster)
    assert said(finding) == (
        "the unit on etcd-2 has its data in /old/data and its WAL in /old/wal: [paths] in etcd.toml must say so"
    )


def test_corrupt_member_is_named_only_by_a_majority() -> None:
    urls = [CLUSTER.client_url(node) for node in CLUSTER.nodes]
    view = View(members=members(CLUSTER), hashes=dict(zip(urls, (7, 8, 7), strict=True)))
    (finding,) = found(view=view)
    assert "etcdctl member remove a2" in said(finding)
    view = View(members=members(CLUSTER), hashes=dict(zip(urls, (7, 8, 9), strict=True)))
    (finding,) = found(view=view)
    assert finding.failure == "hashes-differ"
    assert said(finding).startswith("replace no member")
    view = View(members=members(CLUSTER), hashes=dict(zip(urls[:2], (7, 8), strict=True)))
    assert names(found(view=view)) == {"cluster: hashes-differ"}


def test_corrupt_alarms_on_most_members_remove_none() -> None:
    view = View(members=members(CLUSTER), alarms=(Alarm("CORRUPT", "a1"), Alarm("CORRUPT", "a2")))
    for finding in found(view=view):
        assert "member remove" not in said(finding)


def test_no_quorum_needs_no_restore_while_the_data_is_there(tmp_path: Path) -> None:
    stopped = [down(node, STOPPED) for node in CLUSTER.nodes]
    *_, quorum = found(*stopped, view=View())
    assert quorum.failure == "no-quorum"
    assert "restore a snapshot" not in said(quorum)
    assert "no data is lost" in said(quorum)
    cluster = known(tmp_path)
    wiped = [down(node, STOPPED, look=GONE) for node in CLUSTER.nodes]
    *_, quorum = found(*wiped, cluster=cluster, view=View())
    assert said(quorum).startswith("find the data of etcd-1, etcd-2, etcd-3 first")


def test_not_writable_owner_is_given_back_below_the_directories() -> None:
    case = down(TWO, owners={"/data/etcd/data/member": "root:root"}, look={"users": frozenset({"etcd"})})
    (finding,) = found(case)
    assert finding.failure == "not-writable"
    assert finding.evidence == ("/data/etcd/data/member belongs to root:root, and etcd runs as etcd",)
    assert said(finding) == (
        "on etcd-2: chown etcd:etcd /data/etcd /data/etcd/data /data/etcd/wal && "
        "chown -R etcd:etcd /data/etcd/data/member /data/etcd/wal; "
        "then: invoke start --node etcd-2"
    )


def test_not_writable_without_the_user_makes_it_first() -> None:
    (finding,) = found(down(TWO, owners={"/data/etcd/data/member": "UNKNOWN:UNKNOWN"}))
    assert said(finding).startswith("invoke env --node etcd-2; then on etcd-2: chown etcd:etcd ")


def test_not_writable_parent_that_others_use_is_left_alone() -> None:
    owners = {"/data/etcd": "root:root"}
    look = {"users": frozenset({"etcd"}), "strangers": {"/data/etcd": "postgres"}}
    assert names(found(down(TWO, owners=owners, look=look))) == {"etcd-2: not-running"}
    (finding,) = found(down(TWO, owners={**owners, "/data/etcd/data/member": "root:root"}, look=look))
    assert "chown etcd:etcd /data/etcd/data /data/etcd/wal && " in said(finding)


def test_not_writable_parent_is_given_back_and_not_opened_to_all() -> None:
    log = tuple(read(entry("etcd.service: Failed at step CHDIR spawning /usr/local/bin/etcd", systemd=True)))
    assert names(found(down(TWO, log=log))) == {"etcd-2: closed-directory"}
    assert names(found(down(TWO, log=log, owners={"/data/etcd": "root:root"}))) == {"etcd-2: not-writable"}


def test_not_writable_directory_that_is_empty_is_a_wiped_one(tmp_path: Path) -> None:
    owners = {"/data/etcd/wal": "root:root"}
    case = down(TWO, STOPPED, owners=owners, look={"wal": False})
    assert names(found(case, cluster=known(tmp_path))) == {"etcd-2: wiped-member"}


def test_second_etcd_is_stopped_by_its_unit() -> None:
    instance = Instance(77, "other.service", "/usr/local/bin/etcd", "/data/etcd/data", "/data/etcd/wal")
    (finding,) = found(well(CLUSTER, TWO, others={77: "pid 77 (etcd)"}, instances=(instance,)))
    assert "on etcd-2: systemctl stop other.service; then: invoke start --node etcd-2" in said(finding)
    assert "kill" not in said(finding)


def test_moved_member_is_no_removed_and_no_foreign_one() -> None:
    """`ip` was changed in etcd.toml: neither the member nor its data may be given up for that."""
    one, two, three = members(CLUSTER)
    there = Member(two.id, two.name, ("http://10.9.9.9:2380",), two.client_urls, learner=False)
    (finding,) = found(view=View(members=(one, there, three)))
    assert (finding.failure, finding.node) == ("moved-member", "etcd-2")
    assert said(finding) == "put http://10.9.9.9:2380 back into etcd.toml"


def test_cluster_made_anew_is_not_taken_for_foreign_data() -> None:
    def other(number: int) -> Any:
        node = CLUSTER.nodes[number - 1]
        url = CLUSTER.client_url(node)
        answer = Status(url, f"a{number}", "f0", "a1", "3.5.16", 5, 9, 9, learner=False, db_size=1, errors=())
        return well(CLUSTER, node, view=View(statuses={url: answer}, health={url: ""}))

    for finding in found(*(other(number) for number in (1, 2, 3))):
        assert "3 members have the ID f0" in said(finding)
        assert "systemctl stop" not in said(finding)
    (finding,) = found(other(2))
    assert "leave that data where it is" in said(finding)


def test_wal_mount_of_a_member_that_has_data_is_no_place_for_a_new_wal() -> None:
    facts = {"wal_is_mount": True, "systemd": 252}
    (finding,) = found(down(TWO, STOPPED, look={"wal": False, "facts": facts}))
    assert finding.failure == "wal-mountpoint"
    assert "set [paths]" not in said(finding) + "".join(finding.evidence)
    case = down(TWO, STOPPED, look={**GONE, "facts": facts})
    assert case.look is not None
    lacking = prepared.missing(CLUSTER, TWO, case.look)
    entries = {path: Entry("dir" if path.startswith("/data") else "file", owner="root") for path in lacking}
    prepared_look = replace(case.look, entries={**case.look.entries, **entries})
    (finding,) = found(replace(case, look=prepared_look), cluster_id="")
    assert "set [paths] wal to a directory below it" in said(finding)


def test_unit_that_is_missing_is_written_again_over_the_members_own_data(tmp_path: Path) -> None:
    cluster = known(tmp_path)
    facts = {"cluster_id": "c1", "systemd": 252}
    (finding,) = found(down(TWO, STOPPED, look={"entries": {}, "facts": facts}), cluster=cluster)
    assert (finding.failure, said(finding)) == ("no-unit", "invoke units start --node etcd-2")
    other = down(TWO, STOPPED, look={"entries": {}, "facts": {**facts, "cluster_id": "f0"}})
    assert names(found(other, cluster=cluster)) == {"etcd-2: foreign-data", "etcd-2: cluster-id-mismatch"}


def test_two_wals_are_named_and_stop_nothing() -> None:
    case = well(CLUSTER, TWO)
    assert case.look is not None
    look = replace(case.look, facts=NodeFacts(inner_wal=True))
    (finding,) = found(well(CLUSTER, TWO, look=look))
    assert finding.failure == "two-wals"
    assert "/data/etcd/data/member/wal" in finding.evidence[0]


def authority(*, days: int) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "etcd-ca")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(NOW - timedelta(days=9))
    builder = builder.not_valid_after(NOW + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # noqa: FBT003
    builder = builder.add_extension(usage, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def expired(cluster: Cluster, skew: int) -> Finding:
    cases = []
    for node in cluster.nodes:
        case = down(node, STOPPED)
        assert case.look is not None
        cases.append(well(CLUSTER, node, look=type(case.look)(**{**vars(case.look), "skew": skew}), view=View()))
    findings = found(*cases, cluster=cluster, ca=authority(days=-1), view=View())
    return next(finding for finding in findings if finding.failure == "ca-expired")


def test_expired_ca_is_kept() -> None:
    advice = said(expired(on_hosts(), 0))
    assert "on every node: mv /etc/etcd/cert/ca.pem /etc/etcd/cert/ca.pem.expired; here: mv " in advice
    assert " rm " not in advice


def test_expired_ca_by_a_wrong_clock_is_none() -> None:
    assert said(expired(on_hosts(), -400 * 86400)).endswith("set the clock here first")


def test_expired_ca_of_others_is_renewed_there() -> None:
    cluster = on_hosts('[tls]\nbackend = "csr"\nca_file = "ca.pem"\n')
    assert said(expired(cluster, 0)).startswith("have it renewed where it is made (csr)")


@pytest.mark.parametrize(
    ("view", "failure", "code"),
    [
        (View(health={"u": ""}, members=members(CLUSTER)), "foreign-cluster", 0),
        (View(health={"u": "context deadline exceeded"}), "foreign-unhealthy", 5),
        (View(), "foreign-unknown", 6),
    ],
)
def test_foreign_member_is_all_that_is_said_of_its_node(view: View, failure: str, code: int) -> None:
    instance = Instance(812, "etcd3.service", "/usr/bin/etcd", "/var/lib/etcd", "/var/lib/etcd/member/wal")
    others = {812: "pid 812 (etcd)"}
    look = {"entries": {}, "facts": {"systemd": 252, "wal_is_mount": True}, **GONE}
    case = down(TWO, STOPPED, foreign=(instance, view), others=others, look=look, ports=("port 2379 is taken",))
    (finding,) = found(case)
    assert (finding.failure, finding.node, finding.code) == (failure, "etcd-2", code)
    assert finding.evidence[0] == (
        "etcd3.service (pid 812, /usr/bin/etcd): data /var/lib/etcd, WAL /var/lib/etcd/member/wal"
    )


def test_auth_that_keeps_a_members_certificate_out_is_unknown() -> None:
    cluster = on_hosts()
    node = cluster.nodes[1]
    words = "Failed to get the status of endpoint https://10.0.0.2:2379 (etcdserver: user name not found)"
    view = View(health={cluster.client_url(node): ""}, errors={"status": words})
    (finding,) = [each for each in found(well(cluster, node, view=view), cluster=cluster) if each.node == "etcd-2"]
    assert (finding.failure, finding.code) == ("no-root-role", 6)
    assert finding.evidence == (
        "auth is on, and etcd-2's certificate (CN=etcd-2) is no user with role root: etcdserver: user name not found",
    )
    assert "etcdctl user add etcd-2 --no-password && etcdctl user grant-role etcd-2 root" in said(finding)
