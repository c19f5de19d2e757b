"""Faults at a start: foreign data, a member that fails or is cut off, one that somebody else runs, systemd's limit."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Writing
from deploy import Deployed, pids
from host import Host
from invariants import intact
from lab import Lab
from releases import Releases
from runs import described

BEFORE_START = ("env", "download", "distribute", "ca", "certs", "units")
PARTITION = """
add table inet cut
add chain inet cut in { type filter hook input priority 0; }
add chain inet cut out { type filter hook output priority 0; }
add rule inet cut in tcp dport 2380 drop
add rule inet cut in tcp sport 2380 drop
add rule inet cut out tcp dport 2380 drop
"""
# A second etcd on the same data, as somebody might start it by hand; frozen, for what it writes looks like a fault.
SECOND = """
nohup setpriv --reuid=etcd --regid=etcd --clear-groups env -i /usr/local/bin/etcd --name=again \
  --data-dir=/data/etcd/data --wal-dir=/data/etcd/wal --log-outputs=/dev/null \
  --listen-client-urls=http://127.0.0.1:12379 --advertise-client-urls=http://127.0.0.1:12379 \
  --listen-peer-urls=http://127.0.0.1:12380 >/dev/null 2>&1 </dev/null & echo $!
while flock --nonblock /data/etcd/data/member/snap/db true; do :; done
kill -STOP $!
"""
START_LIMIT = """
until [ "$(systemctl show etcd -P ActiveState)" = failed ]; do systemctl restart etcd 2>/dev/null || true; done
"""


def test_data_that_nobody_knows_is_found_before_a_first_start(lab: Lab, releases: Releases, tmp_path: Path) -> None:
    made = described(lab, tmp_path)
    made.hosts[1].sh("mkdir -p /data/etcd/data/member/snap; echo x > /data/etcd/data/member/snap/db")
    with intact(made, still=made.hosts):
        said = made.invoke("all", code=3).stderr
    assert "etcd-2: /data/etcd/data holds a member's data and there is no /etc/systemd/system/etcd.service" in said
    assert "this node can be used once nothing needs that data there" in said
    assert not (made.work / "ca").exists()


@pytest.fixture(scope="module")
def cluster(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Everything but the start. The first test starts it; tests leave it healthy."""
    made = described(lab, tmp_path_factory.mktemp("start"))
    made.invoke(*BEFORE_START)
    return made


def test_one_of_three_fails_at_the_first_start(cluster: Deployed) -> None:
    broken, *others = reversed(cluster.hosts)
    broken.sh("mv /etc/etcd/cert/live /etc/etcd/cert/gone")
    with intact(cluster):
        said = cluster.invoke("start", code=5).stderr
        assert "error: degraded: 2 of 3 members serve (etcd-1, etcd-2)" in said
        assert "etcd-3: etcd did not stay up" in said
        assert "/etc/etcd/cert/etcd.pem: no such file" in said  # the journal's tail
        old = pids(others)
        assert all(old)
        broken.sh("mv /etc/etcd/cert/gone /etc/etcd/cert/live")
        cluster.invoke("all")
    assert pids(others) == old


def test_a_second_etcd_has_the_data_open(cluster: Deployed, writing: Writing) -> None:
    host = follower(cluster)
    host.sh("systemctl stop etcd")
    second = host.sh(SECOND).strip()
    try:
        with intact(cluster, writing, still=cluster.hosts):
            said = cluster.invoke("start", code=5).stderr
        assert f"{host.name}: pid {second} (etcd) has /data/etcd/data open: a second etcd on the same data?" in said
        assert f"if nothing needs it, on {host.name}: kill {second}; then: invoke start --node {host.name}" in said
    finally:
        host.sh(f"kill -KILL {second}; while [ -d /proc/{second} ]; do :; done")
    cluster.invoke("start")


def test_systemds_start_limit_is_no_dead_end(cluster: Deployed, writing: Writing) -> None:
    """Each `invoke start` is one try, and says what is wrong; once that is mended, the limit holds nobody up."""
    host = follower(cluster)
    host.sh("systemctl stop etcd; mv /etc/etcd/cert/live /etc/etcd/cert/gone")
    host.sh(START_LIMIT)
    with intact(cluster, writing):
        said = cluster.invoke("start", code=5).stderr
        assert "degraded: 2 of 3 members serve" in said
        assert f"{host.name}: etcd did not stay up" in said
        assert "/etc/etcd/cert/etcd.pem: no such file" in said
        host.sh("systemctl stop etcd; systemctl reset-failed etcd")
        host.sh(START_LIMIT)
        host.sh("mv /etc/etcd/cert/gone /etc/etcd/cert/live")
        cluster.invoke("start")
    cluster.invoke("verify")


def test_a_member_is_cut_off_from_its_peers_while_it_starts(cluster: Deployed, writing: Writing) -> None:
    """The start does not block on it, and says after its patience who serves and who does not."""
    host = follower(cluster)
    host.sh("systemctl stop etcd")
    with intact(cluster, writing):
        host.net("nft", PARTITION)
        said = cluster.invoke("start", code=5).stderr
        assert "degraded: 2 of 3 members serve" in said
        assert f"{host.name}: not healthy after" in said
        host.heal()
        cluster.wait_healthy()
        assert "runs what is installed" in cluster.invoke("start").stdout
    cluster.invoke("verify")


def follower(cluster: Deployed) -> Host:
    leader = cluster.leader()
    return next(host for host in reversed(cluster.hosts) if host.name != leader)
