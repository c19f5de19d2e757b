"""systemd starts no empty member; a change that failed leaves what ran; a boot may bring things in any order."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Writing
from deploy import Deployed, leftovers, outages, pids, state
from host import Host, broken, each
from invariants import nothing_lost
from lab import Lab
from processes import wait
from releases import Releases
from runs import described

UNIT = "/etc/systemd/system/etcd.service"
GUARD = "AssertDirectoryNotEmpty=/data/etcd/data/member\nAssertDirectoryNotEmpty=/data/etcd/wal\n"
UNGUARD = f"sed -i /^AssertDirectoryNotEmpty=/d {UNIT}; systemctl daemon-reload"
ACTIVE = "systemctl show etcd -P ActiveState"
NAMES = ["etcd-1", "etcd-2", "etcd-3"]


def test_start_before_any_deployment_is_refused_and_touches_nothing(
    lab: Lab, releases: Releases, tmp_path: Path
) -> None:
    fresh = described(lab, tmp_path)
    before = state(fresh.hosts)
    for words in (("start",), ("--dry", "start"), ("start", "--node", "etcd-2")):
        said = fresh.invoke(*words, code=3).stderr
        assert (
            f"etcd-2: /usr/local/bin/etcd, {UNIT}, /etc/etcd/cert/ca.pem, /etc/etcd/cert/etcd.pem, /data/etcd" in said
        )
        assert "next: invoke all" in said
    assert "next: invoke all" in fresh.invoke("status", code=5).stderr
    assert state(fresh.hosts) == before


@pytest.fixture(scope="module")
def cluster(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Three members of the oldest version. Tests leave it healthy, and nothing to do for `all`."""
    made = described(lab, tmp_path_factory.mktemp("guards"))
    made.edit(etcd={"version": releases.versions[0]})
    planned = made.invoke("plan", code=4).stdout
    assert planned.count(f"{UNIT} will assert that data and WAL are there") == 3
    done = made.invoke("all").stdout
    assert done.count(f"{UNIT} asserts that data and WAL are there") == 3
    return made


def units(hosts: list[Host]) -> list[str]:
    return each(lambda host: host.sh(f"cat {UNIT}"), hosts)


REFUSED = "systemctl show etcd -P AssertResult -P ActiveState -P SubState; systemctl list-jobs --no-legend etcd.service"


def refused(host: Host) -> None:
    """Waits until systemd has refused a start, and waits for nothing more."""
    wait(lambda: host.sh(REFUSED) == "inactive\ndead\nno\n", 20, f"{host.name}: not refused: {host.sh(REFUSED)!r}")


def test_a_first_all_leaves_guarded_units_and_nothing_to_do(cluster: Deployed) -> None:
    assert all(GUARD in unit for unit in units(cluster.hosts))
    assert each(lambda host: host.sh("systemctl show etcd -P NeedDaemonReload"), cluster.hosts) == ["no\n"] * 3
    assert not outages(cluster.hosts)
    before = state(cluster.hosts)
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
    cluster.invoke("all")
    assert state(cluster.hosts) == before


@pytest.mark.parametrize("gone", ["data/member", "wal"])
@pytest.mark.parametrize("how", ["start", "restart", "crash"])
def test_systemd_starts_no_member_whose_data_is_missing(
    cluster: Deployed, writing: Writing, how: str, gone: str
) -> None:
    host = cluster.hosts[2]
    (pid,) = pids([host])
    aside = f"mv /data/etcd/{gone} /root/kept"
    with writing(**cluster.operator) as written:
        if how == "start":
            host.sh(f"systemctl stop etcd; {aside}; systemctl start etcd", check=False)
        elif how == "restart":
            host.sh(f"{aside}; systemctl restart etcd", check=False)
        else:
            host.sh(f"{aside}; kill -KILL {pid}")
        refused(host)
        assert host.sh(f"ls -A /data/etcd/{gone} 2>/dev/null", check=False) == "", "nothing was made anew"
        assert "etcd-3: no member's data" in cluster.invoke("start", code=3).stderr
        assert "next: invoke doctor" in cluster.invoke("status", code=5).stderr
        host.sh(f"rm -rf /data/etcd/{gone}; mv /root/kept /data/etcd/{gone}")
        cluster.invoke("start")
    nothing_lost(written)
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


@pytest.mark.parametrize("task", ["all", "start"])
def test_a_cluster_of_an_older_version_gets_the_guard_without_a_restart(cluster: Deployed, task: str) -> None:
    each(lambda host: host.sh(UNGUARD), cluster.hosts)
    old = pids(cluster.hosts)
    planned = cluster.invoke("plan", code=4).stdout
    assert all(f"+{line}" in planned for line in GUARD.splitlines()), planned
    assert "restarted" not in planned
    cluster.invoke(task)
    assert all(GUARD in unit for unit in units(cluster.hosts))
    assert pids(cluster.hosts) == old
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_a_controller_that_has_the_ca_alone_leaves_the_guard(cluster: Deployed, tmp_path: Path) -> None:
    second = Deployed(cluster.lab, tmp_path / "etcd.toml", cluster.hosts)
    second.config.write_text(cluster.config.read_text())
    for name in ("ca", "certs"):
        shutil.copytree(cluster.work / name, second.work / name, symlinks=True)
    assert second.invoke("--dry", "units").stdout.rstrip().endswith("nothing to do")


def test_start_of_a_node_that_lacks_something_is_refused_and_all_brings_it(cluster: Deployed) -> None:
    host = cluster.hosts[1]
    old = pids(cluster.hosts)
    host.sh("rm /usr/local/bin/etcd")
    before = state(cluster.hosts)
    said = cluster.invoke("start", code=3).stderr
    assert "etcd-2: /usr/local/bin/etcd\nnext: invoke all" in said
    assert state(cluster.hosts) == before
    cluster.invoke("all")
    assert pids(cluster.hosts) == old


# -- a change that fails ------------------------------------------------------------------------------------------


def parted(cluster: Deployed) -> tuple[Host, list[Host]]:
    """The host that is restarted first, and the others."""
    leader = cluster.leader()
    first = next(host for host in cluster.hosts if host.name != leader)
    return first, [host for host in cluster.hosts if host != first]


def rebooted(cluster: Deployed, host: Host) -> None:
    """Its member serves again after a reboot: with one more that runs it has the quorum."""
    host.reboot()
    wait(lambda: host.sh(ACTIVE) == "active\n", 60, f"{host.name} does not come back")
    assert {member["name"] for member in serving(cluster)} >= {host.name}


def serving(cluster: Deployed) -> list[dict[str, str]]:
    found = json.loads(cluster.invoke("status", "--json", code=5).stdout)
    return [member for member in found["members"] if member["health"] == "healthy"]


@pytest.mark.parametrize("chains", [("all",), ("units", "start")], ids=["one run", "two runs"])
def test_a_bad_value_leaves_the_other_members_the_units_that_they_run(
    cluster: Deployed, writing: Writing, chains: tuple[str, ...]
) -> None:
    config, (first, others) = cluster.config.read_text(), parted(cluster)
    old, before = units(others), pids(others)
    cluster.edit(etcd={"flags": {"log-level": "nonsense"}})
    with writing(**cluster.operator) as written:
        for task in chains[:-1]:
            cluster.invoke(task)
        said = cluster.invoke(chains[-1], code=1).stderr
    nothing_lost(written)
    assert f"error: {first.name}: etcd did not stay up" in said
    names = ", ".join(host.name for host in others)
    assert f"  {names}: the former unit is back: a reboot starts what runs\n" in said
    assert "then correct the change in etcd.toml or take it back, and: invoke all --config" in said
    assert units(others) == old
    assert each(lambda host: host.sh("systemctl show etcd -P NeedDaemonReload"), others) == ["no\n"] * 2
    assert pids(others) == before
    assert "log-level=nonsense" in first.sh(f"cat {UNIT}")
    assert "log-level=nonsense" in cluster.invoke("plan", code=4).stdout
    rebooted(cluster, others[0])
    cluster.config.write_text(config)
    cluster.invoke("all")
    assert pids(others[1:]) == before[1:]
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_an_upgrade_that_fails_leaves_the_other_members_their_binary(cluster: Deployed, releases: Releases) -> None:
    _, others = parted(cluster)
    digests = each(lambda host: host.sh("sha256sum /usr/local/bin/etcd"), others)
    old = units(others)
    cluster.edit(etcd={"version": releases.versions[1], "flags": {"log-level": "nonsense"}})
    said = cluster.invoke("all", code=1).stderr
    names = ", ".join(host.name for host in others)
    assert f"  {names}: the former unit and binary are back: a reboot starts what runs\n" in said
    assert each(lambda host: host.sh("sha256sum /usr/local/bin/etcd"), others) == digests
    assert units(others) == old
    assert not leftovers(cluster.hosts)
    rebooted(cluster, others[0])
    assert {member["version"] for member in serving(cluster)} == {releases.versions[0]}
    cluster.edit(etcd={"flags": {"log-level": "info"}})
    said = cluster.invoke("all").stdout
    assert "goes on with an upgrade that has begun; its snapshot is " in said
    assert len(list((cluster.work / "snapshots").iterdir())) == 1
    assert {member["version"] for member in cluster.status()["members"]} == {releases.versions[1]}
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


# -- boots --------------------------------------------------------------------------------------------------------

# A disk that is there some seconds after all else: nothing but what needs it waits for it.
LATE = """
printf '[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/sleep 6\n' >$u/late.service
printf '[Unit]\nDefaultDependencies=no\nRequires=late.service\nAfter=late.service\nConflicts=umount.target
Before=umount.target\n[Mount]\nWhat=/disk\nWhere=/data/etcd/wal\nType=none\nOptions=bind
[Install]\nWantedBy=multi-user.target\n' >$u/data-etcd-wal.mount
systemctl stop etcd; mv /data/etcd/wal /disk; install -d -o etcd -g etcd -m 0700 /data/etcd/wal
systemctl daemon-reload; systemctl --quiet enable data-etcd-wal.mount
"""
NO_DISK = """
systemctl stop etcd; systemctl --quiet disable data-etcd-wal.mount; systemctl stop data-etcd-wal.mount late.service
rmdir /data/etcd/wal; mv /disk /data/etcd/wal; rm $u/late.service $u/data-etcd-wal.mount; systemctl daemon-reload
"""


def test_a_disk_that_is_mounted_late_is_waited_for(cluster: Deployed) -> None:
    host, folder = cluster.hosts[2], "u=/etc/systemd/system\n"
    with broken(host, folder + LATE, folder + NO_DISK):
        host.reboot()
        cluster.wait_healthy()
        assert host.sh("systemctl show etcd -P NRestarts -P AssertResult") == "0\nyes\n"
        assert host.sh("mountpoint -q /data/etcd/wal && ls /data/etcd/wal/*.wal")
    cluster.invoke("start")
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_an_address_that_comes_late_is_outlasted(cluster: Deployed) -> None:
    """Longer than five starts in a row: an address that is missing for some minutes costs no member."""
    host = cluster.hosts[2]
    host.net("ip", "address", "del", f"{host.ip}/24", "dev", "host0")
    try:
        host.reboot()
        wait(lambda: int(host.sh("systemctl show etcd -P NRestarts")) > 6, 90, "it is not tried again and again")
    finally:
        host.net("ip", "address", "add", f"{host.ip}/24", "dev", "host0")
    cluster.wait_healthy()


# -- a member that is replaced, and the end -----------------------------------------------------------------------


def test_a_member_is_replaced_as_the_documentation_says(cluster: Deployed) -> None:
    host = next(host for host in reversed(cluster.hosts) if host.name != cluster.leader())
    cluster.etcdctl("put", "kept", "yes")
    host.sh("systemctl stop etcd; rm -r /data/etcd")
    listed = cluster.etcdctl("member", "list").splitlines()
    (own,) = [line.split(",")[0] for line in listed if f" {host.name}," in line]
    cluster.etcdctl("member", "remove", own)
    peer = f"--peer-urls=https://{host.ip}:2380"
    wait(lambda: bool(cluster.lab.run(added(cluster, host, peer), check=False).returncode == 0), 30, "it is not added")
    host.sh("install -d -o etcd -g etcd -m 0700 /data/etcd /data/etcd/data /data/etcd/wal")
    host.sh(f"sed -i -e s/state=new/state=existing/ -e /^AssertDirectoryNotEmpty=/d {UNIT}")
    host.sh("systemctl daemon-reload; systemctl start etcd")
    old = pids(cluster.hosts)
    cluster.invoke("all")
    assert pids(cluster.hosts) == old
    assert GUARD in host.sh(f"cat {UNIT}")
    assert cluster.etcdctl("get", "--print-value-only", "kept", asked=host) == "yes\n"


def added(cluster: Deployed, host: Host, peer: str) -> list[str]:
    script = f". {cluster.work}/environment.sh; exec etcdctl member add {host.name} {peer}"
    return ["bash", "-euc", script]


def test_after_a_reset_start_is_refused_and_all_makes_a_new_cluster(cluster: Deployed) -> None:
    cluster.invoke("reset", "--yes", "lab")
    assert not any(GUARD in unit for unit in units(cluster.hosts))
    assert "next: invoke all" in cluster.invoke("status", code=5).stderr
    before = state(cluster.hosts)
    said = cluster.invoke("start", code=3).stderr
    assert "etcd-1: /data/etcd/data, /data/etcd/wal\n" in said
    assert "next: invoke all" in said
    assert state(cluster.hosts) == before
    assert each(lambda host: host.sh("systemctl is-enabled etcd", check=False), cluster.hosts) == ["disabled\n"] * 3
    cluster.invoke("all")
    assert all(GUARD in unit for unit in units(cluster.hosts))
    cluster.invoke("stop", "--yes", "lab")
    assert "next: invoke start" in cluster.invoke("status", code=5).stderr
    cluster.invoke("start")
