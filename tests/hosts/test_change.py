"""A change of heart: what differs is restarted, one member at a time, the leader last, and a writer loses nothing."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
from conftest import Writing, Written
from deploy import Deployed, deploy, leftovers, outages, pids, rolled, state
from host import each
from lab import Lab
from releases import Releases
from runs import during, interrupting

UNIT = "/etc/systemd/system/etcd.service"
NAMES = ["etcd-1", "etcd-2", "etcd-3"]


@pytest.fixture(scope="module")
def cluster(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Three members of the oldest version. Tests leave it healthy, and nothing to do for `all`."""
    made = deploy(lab, tmp_path_factory.mktemp("change"), "", nodes=nodes(lab), etcd={"version": releases.versions[0]})
    made.invoke("all")
    return made


def nodes(lab: Lab) -> list[dict[str, str]]:
    return [{"name": host.name, "ip": host.ip} for host in lab.hosts[:3]]


def nothing_lost(written: Written) -> None:
    assert written.result["acknowledged"] > 50, written.result
    assert (written.result["lost"], written.result["missing"]) == (0, 0), written.result


def followers_first(leader: str) -> list[str]:
    return [*(name for name in NAMES if name != leader), leader]


def told(said: str, pattern: str) -> list[str]:
    """The nodes of which a line says `pattern`."""
    lines = re.findall(rf"^  (etcd-\d(?:, etcd-\d)*): {pattern}", said, re.MULTILINE)
    return sorted(name for names in lines for name in names.split(", "))


def flag(cluster: Deployed, name: str) -> list[str]:
    """The flag as each living process has it."""
    script = f"tr '\\0' '\\n' </proc/$(systemctl show etcd -P MainPID)/cmdline | grep -e '^--{name}='"
    return each(lambda host: host.sh(script).strip().partition("=")[2], cluster.hosts)


def test_a_flag_is_edited_and_the_plan_is_what_happens(cluster: Deployed, writing: Writing) -> None:
    before, leader, old = len(outages(cluster.hosts)), cluster.leader(), state(cluster.hosts)
    cluster.edit(etcd={"flags": {"heartbeat-interval": 300}})
    planned = cluster.invoke("plan", code=4).stdout
    assert told(planned, f"{UNIT} is replaced") == NAMES
    assert told(planned, "will be restarted, one member at a time.*flags changed: --heartbeat-interval") == NAMES
    assert planned.rstrip().endswith("6 changes")
    diff = re.findall(r"^      ([-+] .*)$", planned, re.MULTILINE)
    assert {line.split()[1] for line in diff} == {"--heartbeat-interval=250", "--heartbeat-interval=300"}, diff
    assert state(cluster.hosts) == old

    with writing(**cluster.operator) as written:
        done = cluster.invoke("all").stdout
    nothing_lost(written)
    assert told(done, f"{UNIT} is replaced") == NAMES
    assert told(done, "restarted: flags changed: --heartbeat-interval") == NAMES
    assert len(re.findall("is replaced|is created|restarted|enabled|issued|is written", done)) == 6, done
    assert rolled(cluster.hosts, before) == followers_first(leader)
    assert flag(cluster, "heartbeat-interval") == ["300"] * 3
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_units_now_and_start_later_restart_what_changed(cluster: Deployed) -> None:
    before, leader, old = len(outages(cluster.hosts)), cluster.leader(), pids(cluster.hosts)
    cluster.edit(etcd={"flags": {"election-timeout": 2500}})
    cluster.invoke("units")
    assert pids(cluster.hosts) == old
    assert flag(cluster, "election-timeout") == ["2000"] * 3
    cluster.invoke("start", "--node", "etcd-2")
    assert rolled(cluster.hosts, before) == ["etcd-2"]
    leader = cluster.leader()
    cluster.invoke("start")
    assert rolled(cluster.hosts, before)[1:] == [name for name in followers_first(leader) if name != "etcd-2"]
    assert flag(cluster, "election-timeout") == ["2500"] * 3
    old = pids(cluster.hosts)
    cluster.invoke("start")
    assert pids(cluster.hosts) == old


def test_a_flag_that_this_etcd_does_not_know_changes_no_unit(cluster: Deployed) -> None:
    old = state(cluster.hosts)
    config = cluster.config.read_text()
    cluster.edit(etcd={"flags": {"no-such-flag": "1"}})
    try:
        said = cluster.invoke("units", code=3).stderr
        assert "no-such-flag" in said
    finally:
        cluster.config.write_text(config)
    assert state(cluster.hosts)[0].split("\n")[:4] == old[0].split("\n")[:4]
    assert not leftovers(cluster.hosts)
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_a_controller_that_dies_while_it_restarts_is_followed_by_one_that_goes_on(
    cluster: Deployed, writing: Writing
) -> None:
    before = len(outages(cluster.hosts))
    cluster.edit(etcd={"flags": {"heartbeat-interval": 350}})
    with writing(**cluster.operator) as written:
        during(cluster, "restarted: ", interrupting(signal.SIGKILL), "all")
        cluster.wait_healthy()
        cluster.invoke("all")
    nothing_lost(written)
    order = rolled(cluster.hosts, before)
    assert sorted(order) == NAMES, order
    assert flag(cluster, "heartbeat-interval") == ["350"] * 3
    assert not leftovers(cluster.hosts)


def test_upgrade_from_3_4_is_refused_while_auth_is_on(cluster: Deployed, releases: Releases) -> None:
    """3.4's etcdctl has no `auth status`, and members' certificates are no users."""
    config, old = cluster.config.read_text(), state(cluster.hosts)
    for words in ("user add root --no-password", "role add root", "user grant-role root root", "auth enable"):
        cluster.etcdctl(*words.split())
    cluster.edit(etcd={"version": releases.versions[1]})
    try:
        for task in ("plan", "all"):
            said = cluster.invoke(task, code=3).stderr
            assert said.count("auth is on, and 3.4 -> 3.5 with auth on can lose users' rights") == 3, said
        assert state(cluster.hosts) == old
    finally:
        cluster.config.write_text(config)
        for words in ("auth disable", "user delete root", "role delete root"):
            cluster.etcdctl(*words.split())
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


def test_versions_go_up_without_a_loss_and_never_down(
    cluster: Deployed, releases: Releases, writing: Writing, tmp_path: Path
) -> None:
    oldest = releases.versions[0]
    cluster.etcdctl("put", "before", "the upgrade")
    for version in releases.versions[1:]:
        before, leader = len(outages(cluster.hosts)), cluster.leader()
        cluster.edit(etcd={"version": version})
        planned = cluster.invoke("plan", code=4).stdout
        assert told(planned, "will be restarted") == NAMES
        with writing(**cluster.operator) as written:
            done = cluster.invoke("all").stdout
        nothing_lost(written)
        assert told(done, "restarted: runs etcd") == NAMES
        assert rolled(cluster.hosts, before) == followers_first(leader)
        assert {member["version"] for member in cluster.status()["members"]} == {version}
    old = state(cluster.hosts)
    cluster.edit(etcd={"version": oldest})
    for task in ("env", "all", "plan", "distribute"):
        said = cluster.invoke(task, code=3).stderr
        assert said.count(f"{oldest} cannot read it") == 3, said
    assert state(cluster.hosts) == old
    cluster.edit(etcd={"version": releases.versions[-1]})
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
    (snapshot,) = (cluster.work / "snapshots").iterdir()  # of the one minor upgrade
    restored(cluster, snapshot, tmp_path)


def restored(cluster: Deployed, snapshot: Path, tmp_path: Path) -> None:
    """The snapshot is private, and a member that is restored from it has what was written before."""
    assert oct(snapshot.stat().st_mode & 0o777) == "0o600"
    assert oct(snapshot.parent.stat().st_mode & 0o777) == "0o700"
    binaries, data, url = cluster.work / "bin", tmp_path / "restored", "http://127.0.0.1:12379"
    cluster.lab.output([str(binaries / "etcdutl"), "snapshot", "restore", str(snapshot), f"--data-dir={data}"])
    peers = ["--listen-peer-urls=http://127.0.0.1:12380", "--log-outputs=/dev/null"]
    clients = [f"--listen-client-urls={url}", f"--advertise-client-urls={url}"]
    with cluster.lab.popen([str(binaries / "etcd"), f"--data-dir={data}", *peers, *clients]) as etcd:
        try:
            ask = [str(binaries / "etcdctl"), f"--endpoints={url}", "get", "--print-value-only", "before"]
            end = time.monotonic() + 20
            while (answer := cluster.lab.run(ask, check=False)).returncode:
                assert time.monotonic() < end, answer.stderr
            assert answer.stdout == "the upgrade\n"
        finally:
            etcd.terminate()


def test_a_skipped_minor_is_refused(cluster: Deployed, releases: Releases) -> None:
    """A member that was stopped, whose installed binary says that it is two minors behind."""
    host = cluster.hosts[2]
    host.sh("systemctl stop etcd; cp -p /usr/local/bin/etcd /root; rm /usr/local/bin/etcd")
    host.sh("printf '#!/bin/sh\\necho etcd Version: 3.3.27\\n' > /usr/local/bin/etcd; chmod 755 /usr/local/bin/etcd")
    config = cluster.config.read_text()
    cluster.edit(etcd={"version": releases.versions[-1]})
    try:
        said = cluster.invoke("all", "--node", "etcd-3", code=3).stderr
        assert f"etcd-3: etcd 3.3.27 -> {releases.versions[-1]} skips a minor release: go by 3.4 first" in said
        assert "3.3.27" in host.sh("/usr/local/bin/etcd")
    finally:
        cluster.config.write_text(config)
        host.sh("cp -p --remove-destination /root/etcd /usr/local/bin/etcd")
    cluster.invoke("start")
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
