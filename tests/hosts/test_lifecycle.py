"""The first start in parts, a run that is killed, and the end: start, stop, status, reset on hosts with systemd."""

from __future__ import annotations

import hashlib
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy import Deployed, deploy, leftovers, outages, pids, state
from host import Host, broken, each
from lab import Lab
from releases import Releases
from runs import during, interrupting

UNIT = "/etc/systemd/system/etcd.service"
ACTIVE = "systemctl is-active etcd; systemctl is-enabled etcd"
BEFORE_START = ("env", "download", "distribute", "ca", "certs", "units")


@pytest.fixture
def fresh(lab: Lab, releases: Releases, tmp_path: Path) -> Deployed:
    return deploy(lab, tmp_path, "", nodes=[{"name": host.name, "ip": host.ip} for host in lab.hosts[:3]])


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_node_without_zstd_is_sent_what_gzip_unpacks(fresh: Deployed) -> None:
    with broken(fresh.hosts[2], "mv /usr/bin/zstd /root/", "mv /root/zstd /usr/bin/"):
        fresh.invoke("env", "download", "distribute")
    sums = each(lambda host: host.sh("sha256sum /usr/local/bin/etcd*"), fresh.hosts)
    assert len(sums[0].splitlines()) > 1
    assert sums == [sums[0]] * 3


PACKAGED = "/usr/lib/systemd/system/etcd.service"


def test_a_packages_unit_of_the_same_name_is_never_started(fresh: Deployed) -> None:
    """It is enabled and was stopped by hand: systemd knows it, and sees no reason to look for another one."""
    host, unit = fresh.hosts[1], "[Service]\\nExecStart=/bin/sleep inf\\n[Install]\\nWantedBy=multi-user.target\\n"
    make = f"printf '{unit}' >{PACKAGED}; systemctl --quiet enable --now etcd; systemctl stop etcd"
    with broken(host, make, f"rm {PACKAGED}"):
        fresh.invoke("all")
        assert fresh.invoke("plan").stdout.rstrip().endswith("nothing to do")
        assert "/usr/local/bin/etcd" in host.sh("systemctl show etcd -P ExecStart")


def test_a_cluster_may_be_bootstrapped_member_by_member(fresh: Deployed) -> None:
    fresh.invoke(*BEFORE_START)
    began = time.monotonic()
    said = fresh.invoke("start", "--node", "etcd-1", code=5)
    assert "started: etcd-1; still missing: etcd-2, etcd-3" in said.stderr
    assert "invoke start --node etcd-2,etcd-3" in said.stderr
    assert time.monotonic() - began < 15  # it does not wait for them
    assert [pid > 0 for pid in pids(fresh.hosts)] == [True, False, False]
    assert "started: etcd-2; still missing: etcd-3" in fresh.invoke("start", "--node", "etcd-2", code=5).stderr
    assert not (fresh.work / "cluster-id").exists()
    started = pids(fresh.hosts)[:2]
    fresh.invoke("start", "--node", "etcd-3")
    assert (fresh.work / "cluster-id").read_text().strip() == f"{fresh.cluster_id():x}"
    fresh.invoke("all")
    assert pids(fresh.hosts)[:2] == started
    assert not outages(fresh.hosts)
    assert fresh.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_a_first_start_in_parts_is_completed_by_all(fresh: Deployed) -> None:
    assert "still missing: etcd-2, etcd-3" in fresh.invoke("all", "--node", "etcd-1", code=5).stderr
    first = pids(fresh.hosts)[0]
    fresh.invoke("all")
    assert pids(fresh.hosts)[0] == first


def test_a_member_that_vanishes_before_the_id_is_known_is_found_by_its_peers(fresh: Deployed) -> None:
    fresh.invoke("all")
    (fresh.work / "cluster-id").unlink()  # as on a controller that has the CA alone
    host = fresh.hosts[2]
    host.sh(f"sed -i /^AssertDirectoryNotEmpty=/d {UNIT}; systemctl daemon-reload")  # an older version wrote it
    host.sh("systemctl stop etcd; mv /data/etcd /root; mkdir -p /data/etcd/data /data/etcd/wal")
    old = pids(fresh.hosts)
    assert "etcd-3: the cluster has had this member" in fresh.invoke("start", "--node", "etcd-3", code=3).stderr
    assert pids(fresh.hosts) == old
    assert host.sh("systemctl is-active etcd", check=False) == "inactive\n"
    host.sh("rm -r /data/etcd; mv /root/etcd /data/")
    fresh.invoke("all")


def test_stop_start_status_and_reset(fresh: Deployed) -> None:
    fresh.invoke("all")
    fresh.etcdctl("put", "kept", "yes")
    running = state(fresh.hosts)
    for words in (("stop",), ("stop", "--yes", "other"), ("reset",), ("reset", "--yes", "other", "--node", "etcd-1")):
        assert re.search(r"^next: invoke (stop|reset) .*--yes lab", fresh.invoke(*words, code=3).stderr, re.MULTILINE)
    assert state(fresh.hosts) == running

    fresh.invoke("stop", "--node", "etcd-3")  # the rest has a quorum: nothing to confirm
    assert fresh.hosts[2].sh(ACTIVE, check=False) == "inactive\nenabled\n"
    assert "etcd-3" in fresh.invoke("status", code=5).stderr
    refused = fresh.invoke("stop", "--node", "etcd-2", code=3).stderr  # one alone would not have
    assert "this stops etcd-2: the cluster will have no quorum" in refused
    assert fresh.hosts[1].sh(ACTIVE) == "active\nenabled\n"
    fresh.invoke("stop", "--yes", "lab")
    assert each(lambda host: host.sh(ACTIVE, check=False), fresh.hosts) == ["inactive\nenabled\n"] * 3
    assert "etcd-1: etcd is not running" in fresh.invoke("status", code=5).stderr
    fresh.invoke("start")
    assert fresh.etcdctl("get", "--print-value-only", "kept") == "yes\n"

    ca, client = (digest(fresh.work / name) for name in ("ca/ca.pem", "certs/operator/live/cert.pem"))
    sums = "cd /data/etcd/%s && find . -type f -name '*.snap' -o -name db | sort"
    fresh.invoke("stop", "--yes", "lab")
    data = each(lambda host: host.sh(sums % "data"), fresh.hosts)
    fresh.invoke("reset", "--yes", "lab")
    assert each(lambda host: host.sh(ACTIVE, check=False), fresh.hosts) == ["inactive\ndisabled\n"] * 3
    assert each(lambda host: host.sh(sums % "data.old-*"), fresh.hosts) == data
    assert each(lambda host: len(host.sh("ls -d /data/etcd/*.old-*").split()), fresh.hosts) == [2, 2, 2]
    assert not (fresh.work / "cluster-id").exists()
    assert (digest(fresh.work / "ca/ca.pem"), digest(fresh.work / "certs/operator/live/cert.pem")) == (ca, client)
    fresh.invoke("all")
    assert fresh.etcdctl("get", "--print-value-only", "kept") == ""
    assert digest(fresh.work / "ca/ca.pem") == ca
    assert fresh.hosts[0].sh("sha256sum </etc/etcd/cert/ca.pem").split()[0] == ca


def uploading(hosts: list[Host]) -> bool:
    return bool(hosts[0].sh("ls /usr/local/bin/.etcd-steps.* 2>/dev/null", check=False))


def starting(hosts: list[Host]) -> bool:
    return any(pids(hosts))


@pytest.mark.parametrize(
    ("phase", "moment"),
    [("distribute", uploading), ("certs", None), ("units", None), ("start", starting)],
    ids=["distribute", "certs", "units", "start"],
)
def test_a_killed_run_is_followed_by_one_that_converges(
    fresh: Deployed, phase: str, moment: Callable[[list[Host]], bool] | None
) -> None:
    def now(line: str) -> bool:
        if f"] {phase}" not in line:
            return False
        while moment and not moment(list(fresh.hosts)):
            pass
        return True

    during(fresh, now, interrupting(signal.SIGKILL), "all")
    fresh.invoke("all")
    assert not leftovers(fresh.hosts)
    assert not [file for file in fresh.work.rglob("*") if file.suffix in {".new", ".part", ".tmp"}]
    assert fresh.invoke("plan").stdout.rstrip().endswith("nothing to do")
