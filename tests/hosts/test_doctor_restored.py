"""What people do by hand to a cluster of this tool: the doctor names it, and doing what it says ends it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest
from deploy import Deployed, three
from host import broken
from lab import Lab
from releases import Releases
from test_doctor import Findings, doctor, known_by, logged, until

DATA, WAL = "/data/etcd/data", "/data/etcd/wal"


@pytest.fixture(scope="module")
def made(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return three(lab, tmp_path_factory.mktemp("restored"), etcd={"version": releases.versions[-1]})


@pytest.fixture
def cluster(made: Deployed) -> Iterator[Deployed]:
    yield made
    made.wait_healthy()


def follow(cluster: Deployed, finding: dict[str, str]) -> None:
    """Do what the finding says, in its order: shell on a node after `on NODE: `, else one of our commands."""
    for part in finding["mend"].split("; "):
        step = part.removeprefix("then: ").removeprefix("then ")
        if step.startswith("on "):
            name, _, script = step.removeprefix("on ").partition(": ")
            next(host for host in cluster.hosts if host.name == name).sh(script)
        else:
            cluster.invoke(*shlex.split(step)[1:])


@pytest.mark.parametrize("user", ["exists", "was removed"])
def test_root_owned_member_is_writable_again_after_what_doctor_says(cluster: Deployed, user: str) -> None:
    """As after `etcdutl snapshot restore` by root: what lies below the data directories is root's."""
    host = cluster.hosts[2]
    removed = "userdel etcd; " if user == "was removed" else ""
    host.sh(f"systemctl stop etcd; {removed}chown -R root:root {DATA}/member")
    host.sh("systemctl start --no-block etcd", check=False)
    until(host, "[ $(systemctl show etcd -P ActiveState) != active ]")
    found = doctor(cluster)
    finding = found["etcd-3: not-writable"]
    assert f"{DATA}/member (and 2 more below it) belongs to root:root" in known_by(finding)
    host.sh("systemctl stop etcd")
    follow(cluster, finding)
    assert doctor(cluster) == {}
    assert host.sh(f"stat -c %U {DATA}/member {DATA}/member/snap {DATA}/member/snap/db {WAL}") == "etcd\n" * 4


def test_snapshot_restored_without_its_wal_directory_is_named_and_not_started(cluster: Deployed) -> None:
    host, kept = cluster.hosts[2], "/data/kept"
    inside = f"{DATA}/member/wal"
    spoilt = f"systemctl stop etcd; cp -a {DATA} {kept}; cp -a {WAL} {inside}"
    with broken(host, spoilt, f"systemctl stop etcd; rm -r {DATA}; mv {kept} {DATA}; systemctl start etcd"):
        found = doctor(cluster)
        assert inside in known_by(found["etcd-3: two-wals"])
        for task in ("plan", "start"):
            refused = cluster.invoke(task, code=3)
            assert f"etcd-3: there is a WAL in {inside} next to the one in {WAL}" in refused.stderr
        host.sh("systemctl start etcd")
        assert set(doctor(cluster)) == {"etcd-3: two-wals"}, "it lives, and the restore has no effect"
        assert cluster.invoke("doctor", code=5).stdout.count("it had no effect") == 1


def quoted_by(found: Findings, name: str) -> str:
    assert name in found, found
    return known_by(found[name])


def test_the_line_that_says_why_it_does_not_start_is_shown(cluster: Deployed) -> None:
    host = cluster.hosts[1]
    start = "systemctl restart --no-block etcd"
    for how, back, words, failure in (
        ("chmod 700 /data", "chmod 755 /data", "Failed at step CHDIR", "closed-directory"),
        ("chmod 644 /usr/local/bin/etcd", "chmod 755 /usr/local/bin/etcd", "Failed at step EXEC", "not-executable"),
    ):
        with broken(host, f"{how}; {start}", f"{back}; systemctl reset-failed etcd; systemctl restart etcd"):
            logged(host, "status=2")
            found = doctor(cluster)
            said = cluster.invoke("doctor", code=5).stdout
        assert f"etcd-2: {failure}" in found
        assert words in quoted_by(found, f"etcd-2: {failure}")
        assert words in said
    cluster.wait_healthy()
    assert doctor(cluster) == {}, "what earlier starts said is no evidence any more"


def test_words_of_a_client_in_the_log_are_no_evidence(cluster: Deployed) -> None:
    """A user without rights puts keys that are named like failures; then a member hangs for another reason."""
    environment, host = cluster.work / "environment.sh", cluster.hosts[1]
    pair = cluster.config.parent / "mallory"
    cluster.invoke("client", "mallory", "--out", str(pair))
    members = [host.name for host in cluster.hosts]
    for name in ("root", *members):
        cluster.etcdctl("user", "add", name, "--no-password")
        cluster.etcdctl("user", "grant-role", name, "root")
    cluster.etcdctl("user", "add", "mallory", "--no-password")
    cluster.etcdctl("auth", "enable")
    try:
        keys = ("permission denied", "/data/x: permission denied", "/data/x: no space left on device")
        pem = f"ETCDCTL_CERT={pair}/mallory.pem ETCDCTL_KEY={pair}/mallory-key.pem"
        mallory = (
            f'. {shlex.quote(str(environment))}; {pem} ETCDCTL_ENDPOINTS=https://{host.ip}:2379 etcdctl put "$0" x'
        )
        for key in keys:
            assert cluster.lab.run(["bash", "-c", mallory, key], check=False).returncode == 1
        assert "permission denied" in host.sh("journalctl --sync; journalctl -u etcd -o cat")
        with broken(host, "systemctl kill --signal=STOP etcd", "systemctl kill --signal=CONT etcd"):
            found = doctor(cluster)
        assert set(found) == {"etcd-2: not-serving"}
    finally:
        cluster.etcdctl("auth", "disable")


def test_auth_that_keeps_the_members_out_is_said_and_ended_by_what_doctor_says(cluster: Deployed) -> None:
    for name in ("root", *(host.name for host in cluster.hosts)):
        cluster.lab.run(["bash", "-c", f". {cluster.work}/environment.sh; etcdctl user delete {name}"], check=False)
    cluster.etcdctl("user", "add", "root", "--no-password")
    cluster.etcdctl("user", "grant-role", "root", "root")
    cluster.etcdctl("auth", "enable")
    said = "auth is on, and etcd-1's certificate (CN=etcd-1) is no user with role root"
    try:
        for task, code in (("status", 6), ("verify", 6), ("plan", 3), ("doctor", 6)):
            done = cluster.invoke(task, code=code)
            assert said in done.stdout + done.stderr
            assert "does not answer" not in done.stdout + done.stderr
        found = json.loads(cluster.invoke("doctor", "--json", code=6).stdout)["findings"]
        assert {each["failure"] for each in found} == {"no-root-role"}
        way = found[0]["mend"].partition("): ")[2]
        cluster.lab.output(["bash", "-c", way])
        cluster.wait_healthy()
        cluster.invoke("verify")
        cluster.invoke("plan")
        assert doctor(cluster) == {}
    finally:
        cluster.etcdctl("auth", "disable")
