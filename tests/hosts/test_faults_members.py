"""Faults of members in a cluster that serves: a wrong flag, wiped and foreign data, overrides, alarms."""

from __future__ import annotations

import json

import pytest
from conftest import Writing
from deploy import Deployed, outages, pids
from host import Host, each
from invariants import intact
from lab import Lab
from releases import Releases
from runs import described

DROPIN = "/etc/systemd/system/etcd.service.d"
# Another cluster's member, made by running one for a moment.
FOREIGN = """
mkdir -p /data/etcd; chown etcd:etcd /data/etcd; chmod 700 /data/etcd; cd /data/etcd
setpriv --reuid=etcd --regid=etcd --clear-groups env -i /usr/local/bin/etcd --name=other --data-dir=/data/etcd/data \
  --wal-dir=/data/etcd/wal --listen-client-urls=http://127.0.0.1:12379 --advertise-client-urls=http://127.0.0.1:12379 \
  --listen-peer-urls=http://127.0.0.1:12380 --initial-advertise-peer-urls=http://127.0.0.1:12380 \
  --initial-cluster=other=http://127.0.0.1:12380 --log-outputs=/dev/null >/dev/null 2>&1 &
p=$!; until [ -s /data/etcd/data/member/snap/db ] && [ "$(ls /data/etcd/wal/*.wal 2>/dev/null)" ]; do
  kill -0 $p || exit 1; done
kill $p; wait $p || true
"""


@pytest.fixture(scope="module")
def cluster(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Tests leave it healthy, and nothing to do for `all`."""
    made = described(lab, tmp_path_factory.mktemp("members"))
    made.invoke("all")
    return made


def follower(cluster: Deployed) -> Host:
    leader = cluster.leader()
    return next(host for host in reversed(cluster.hosts) if host.name != leader)


def test_an_unknown_flag_is_caught_before_any_restart(cluster: Deployed, writing: Writing) -> None:
    config = cluster.config.read_text()
    cluster.edit(etcd={"flags": {"no-such-flag": "1"}})
    with intact(cluster, writing, still=cluster.hosts):
        said = cluster.invoke("all", code=3).stderr
        cluster.config.write_text(config)
    assert "flag provided but not defined: -no-such-flag" in said
    assert all(f"{host.name}: units failed at: /etc/systemd/system/etcd.service" in said for host in cluster.hosts)


def test_a_bad_value_fails_on_the_first_member_and_on_no_other(cluster: Deployed, writing: Writing) -> None:
    config, leader = cluster.config.read_text(), cluster.leader()
    first = next(host for host in cluster.hosts if host.name != leader)
    others = [host for host in cluster.hosts if host != first]
    old, before = pids(others), len(outages(others))
    cluster.edit(etcd={"flags": {"log-level": "nonsense"}})
    with intact(cluster, writing):
        said = cluster.invoke("all", code=1).stderr
        assert f"error: {first.name}: etcd did not stay up" in said
        assert "nonsense" in said.partition("etcd did not stay up")[2], said  # the journal's tail
        assert (
            f"  {', '.join(host.name for host in others)}: the former unit is back: a reboot starts what runs" in said
        )
        assert "not done: start" in said
        assert pids(others) == old
        assert len(outages(others)) == before
        cluster.config.write_text(config)
        cluster.invoke("all")
    assert pids(others) == old


def test_a_wiped_member_is_not_started_empty(cluster: Deployed, writing: Writing) -> None:
    host = follower(cluster)
    host.sh("systemctl stop etcd; mv /data/etcd /root/kept")
    with intact(cluster, writing, still=cluster.hosts):
        for task in ("all", "start"):
            said = cluster.invoke(task, code=3).stderr
            assert f"{host.name}: no member's data in /data/etcd/data and /data/etcd/wal" in said
            assert "replace the member: remove it from the cluster, then add it anew" in said
        assert "restore" not in said
    host.sh("mv /root/kept /data/etcd")
    cluster.invoke("start")


def test_two_wiped_members_are_a_case_for_a_snapshot(cluster: Deployed) -> None:
    lost = cluster.hosts[1:]
    each(lambda host: host.sh("systemctl stop etcd; mv /data/etcd /root/kept"), lost)
    with intact(cluster, still=cluster.hosts):
        said = cluster.invoke("all", code=3).stderr
    assert "2 of 3 members have lost their data (etcd-2, etcd-3): without a quorum none can be replaced" in said
    assert "Find the data first" in said
    assert "restore a snapshot on all members" in said
    each(lambda host: host.sh("mv /root/kept /data/etcd"), lost)
    cluster.invoke("start")


def test_data_of_another_cluster_is_not_started(cluster: Deployed, writing: Writing) -> None:
    host, known = follower(cluster), (cluster.work / "cluster-id").read_text().strip()
    host.sh("systemctl stop etcd; mv /data/etcd /root/kept")
    host.sh(FOREIGN)
    with intact(cluster, writing, still=cluster.hosts):
        for task in ("all", "start"):
            said = cluster.invoke(task, code=3).stderr
            assert f"{host.name}: a foreign cluster: the ID in /data/etcd/wal is " in said
            assert f"this cluster's is {known}" in said
            assert "find this member's own data" in said
    host.sh("rm -r /data/etcd; mv /root/kept /data/etcd")
    cluster.invoke("start")


def test_a_foreign_cluster_answers(cluster: Deployed, writing: Writing) -> None:
    """As the controller sees it when the addresses in etcd.toml are another cluster's."""
    file, config = cluster.work / "cluster-id", cluster.config.read_text()
    own = file.read_text()
    file.write_text("abcdef0123456789\n")
    cluster.edit(etcd={"flags": {"heartbeat-interval": 300}})
    with intact(cluster, writing, still=cluster.hosts):
        said = cluster.invoke("all", code=3).stderr
        assert f"is {own.strip()}, this cluster's is abcdef0123456789" in said
        assert "Compare the addresses in etcd.toml" in said
        said = cluster.invoke("verify", code=5).stderr
        assert f"a foreign cluster answers: its ID is {own.strip()}" in said
    file.write_text(own)
    cluster.config.write_text(config)


def test_what_overrides_the_unit_is_listed(cluster: Deployed, writing: Writing) -> None:
    host = cluster.hosts[1]
    host.sh(f"mkdir {DROPIN}; printf '[Service]\\nEnvironment=ETCD_LOG_LEVEL=debug\\n' > {DROPIN}/override.conf")
    host.sh(f"printf '[Service]\\nEnvironmentFile=-/etc/default/etcd\\n' > {DROPIN}/more.conf; systemctl daemon-reload")
    with intact(cluster, writing, still=cluster.hosts):
        said = cluster.invoke("all", code=3).stderr
        assert f"{host.name}: etcd.service is overridden by " in said
        for file in (f"{DROPIN}/override.conf", f"{DROPIN}/more.conf", "/etc/default/etcd"):
            assert file in said
    host.sh(f"rm -r {DROPIN}; systemctl daemon-reload")


@pytest.mark.parametrize("alarm", ["NOSPACE", "CORRUPT"])
def test_an_alarm_is_no_health(cluster: Deployed, alarm: str) -> None:
    """Raised as etcd raises it, by a request to all members; under NOSPACE 3.4 calls itself healthy."""
    member = json.loads(cluster.etcdctl("-w", "json", "member", "list"))["members"][0]["ID"]
    request = {"action": "ACTIVATE", "memberID": str(member), "alarm": alarm}
    files = cluster.operator
    ask = ["curl", "-sS", "--fail", "--cacert", files["ca"], "--cert", files["cert"], "--key", files["key"]]
    url = f"https://{cluster.hosts[0].ip}:2379/v3/maintenance/alarm"
    config = cluster.config.read_text()
    with intact(cluster):
        cluster.lab.output([str(word) for word in [*ask, "-d", json.dumps(request), url]])
        try:
            for task in ("status", "verify"):
                assert f"alarm {alarm} on {member:x}" in cluster.invoke(task, code=5).stderr
            old = pids(cluster.hosts)
            cluster.edit(etcd={"flags": {"heartbeat-interval": 300}})
            said = cluster.invoke("units", "start", code=5).stderr
            assert f"no member was restarted: alarm {alarm} on {member:x}" in said
            assert pids(cluster.hosts) == old
        finally:
            cluster.config.write_text(config)
            cluster.etcdctl("alarm", "disarm")
        cluster.invoke("all")
