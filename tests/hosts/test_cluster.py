"""One command makes the cluster that etcd.toml describes; the same command again changes nothing."""

from __future__ import annotations

import json
import re
import shutil
from datetime import date, datetime, timezone
from pathlib import Path

import pytest
from deploy import Deployed, deploy, pids, requests, state
from host import each
from lab import ROOT, Lab
from linters import tool
from releases import Releases

EXAMPLE = ROOT / "examples" / "three-hosts.toml"
UNIT = "/etc/systemd/system/etcd.service"


@pytest.fixture(scope="module")
def cluster(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """The example with the lab's key, mirror and version, and nothing else. Tests leave it healthy and as it was."""
    version = releases.versions[1]
    release = releases.settings["release"]
    made = deploy(lab, tmp_path_factory.mktemp("three"), EXAMPLE, etcd={"version": version}, release=release)
    said = made.invoke("all").stdout
    assert "three-hosts is healthy" in said
    rows = [line.split() for line in said.splitlines() if line.startswith("etcd-")]
    assert [[name, url, health, seen] for name, url, _, health, seen, _ in rows] == [
        [host.name, f"https://{host.ip}:2379", "healthy", version] for host in made.hosts
    ]
    assert sorted(row[2] for row in rows) == ["follower", "follower", "leader"]
    expiry = {(date.fromisoformat(row[5]) - datetime.now(timezone.utc).date()).days for row in rows}
    assert expiry <= {364, 365}
    return made


# on every node: path → mode and owner
MODES = {
    "/usr/local/bin/etcd": "755 root:root",
    "/usr/local/bin/etcdctl": "755 root:root",
    "/usr/local/bin/etcdutl": "755 root:root",
    "/etc/etcd/cert": "750 root:etcd",
    "/etc/etcd/cert/ca.pem": "644 root:root",
    "/etc/etcd/cert/live/etcd.pem": "644 root:root",
    "/etc/etcd/cert/live/etcd-key.pem": "600 etcd:etcd",
    UNIT: "644 root:root",
    "/data/etcd": "700 etcd:etcd",
    "/data/etcd/data": "700 etcd:etcd",
    "/data/etcd/wal": "700 etcd:etcd",
}


def test_modes_and_owners_on_every_node(cluster: Deployed) -> None:
    script = f"stat -c '%n %a %U:%G' {' '.join(MODES)}"
    expected = "".join(f"{path} {value}\n" for path, value in MODES.items())
    assert each(lambda host: host.sh(script), cluster.hosts) == [expected] * 3


def test_no_key_but_the_members_own_is_on_a_node(cluster: Deployed) -> None:
    keys = each(lambda host: host.sh("grep -rIl 'PRIVATE KEY' /etc/etcd /data /usr/local /tmp /var/tmp"), cluster.hosts)
    assert all(re.fullmatch(r"/etc/etcd/cert/gen-[0-9a-f]+/etcd-key.pem\n", found) for found in keys), keys
    own = each(lambda host: host.sh("cat /etc/etcd/cert/etcd-key.pem"), cluster.hosts)
    assert len(set(own)) == 3


def test_the_units_are_hardened_and_etcd_is_not_root(cluster: Deployed) -> None:
    for host in cluster.hosts:
        said = host.sh("systemd-analyze security --no-pager etcd.service | tail -n1")
        exposure = re.search(r"exposure level for etcd.service: (\S+)", said)
        assert exposure, said
        assert float(exposure[1]) <= 1.5
        assert host.sh("ps -o user=,group= -C etcd").split() == ["etcd", "etcd"]
        assert host.sh(f"systemd-analyze verify --man=no {UNIT} 2>&1") == ""
        assert host.sh("systemctl is-enabled etcd") == "enabled\n"
        assert host.sh("systemctl show etcd -P LimitNOFILE -P LimitCORE -P UMask").split() == ["0077", "0", "65536"]


@pytest.mark.parametrize("port", [2379, 2380])
def test_sslyze_finds_no_weak_protocol_and_no_weak_suite(cluster: Deployed, tmp_path: Path, port: int) -> None:
    report = tmp_path / "sslyze.json"
    versions = [f"--{each}" for each in ("sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3")]
    argv = [tool("sslyze"), *versions, "--compression", "--heartbleed", "--openssl_ccs"]
    cluster.lab.run([*argv, f"--json_out={report}", f"{cluster.hosts[0].ip}:{port}"])
    (scanned,) = json.loads(report.read_text())["server_scan_results"]
    said = {name: each["result"] for name, each in scanned["scan_result"].items() if each["result"]}
    suites = {
        name.removesuffix("_cipher_suites"): {each["cipher_suite"]["name"] for each in result["accepted_cipher_suites"]}
        for name, result in said.items()
        if name.endswith("_cipher_suites")
    }
    assert [name for name, accepted in suites.items() if accepted] == ["tls_1_2", "tls_1_3"]
    assert not [suite for suite in suites["tls_1_2"] if not re.search(r"^TLS_ECDHE_.*_(GCM|CHACHA20)", suite)]
    assert not said["tls_compression"]["supports_compression"]
    assert not said["heartbleed"]["is_vulnerable_to_heartbleed"]
    assert not said["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"]


def test_the_controller_keeps_its_secrets(cluster: Deployed) -> None:
    work = cluster.work
    assert work.stat().st_mode & 0o777 == 0o700
    secrets = [file for file in work.rglob("*key*.pem") if file.is_file()]
    assert len(secrets) >= 5  # CA, three members, operator
    assert {oct(file.stat().st_mode & 0o777) for file in secrets} == {"0o600"}
    assert oct((work / "lock").stat().st_mode & 0o777) == "0o600"


def test_etcdctl_works_after_sourcing_environment_sh(cluster: Deployed) -> None:
    assert cluster.etcdctl("put", "a key", "a value") == "OK\n"
    assert cluster.etcdctl("get", "--print-value-only", "a key") == "a value\n"
    assert cluster.etcdctl("endpoint", "status").count("https://") == 3


def test_a_second_run_changes_nothing_and_asks_twice_at_most(cluster: Deployed) -> None:
    before, asked = state(cluster.hosts), requests(cluster.hosts)
    said = cluster.invoke("all").stdout
    assert state(cluster.hosts) == before
    assert requests(cluster.hosts) == [(connections + 1, execs + 1) for connections, execs in asked]
    assert not re.findall("created|replaced|issued|restarted|started|enabled", said), said
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
    assert state(cluster.hosts) == before


def test_a_selection_covers_the_whole_chain(cluster: Deployed) -> None:
    """etcd-2's certificate and unit are changed by hand; nobody else is even connected to."""
    first, second, third = cluster.hosts
    before, asked = state([first, third]), requests([first, third])
    serial = second.sh("readlink /etc/etcd/cert/live")
    second.sh(f"rm /etc/etcd/cert/live; sed -i s/RestartSec=5/RestartSec=7/ {UNIT}")
    said = cluster.invoke("certs", "units", "--node", "etcd-2").stdout
    assert "/etc/etcd/cert/live" in said
    assert f"{UNIT} is replaced" in said
    assert not re.findall("etcd-1:|etcd-3:", said), said
    assert second.sh("readlink /etc/etcd/cert/live") == serial
    assert "RestartSec=5\n" in second.sh(f"cat {UNIT}")
    assert requests([first, third]) == asked
    assert state([first, third]) == before
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


@pytest.mark.parametrize("recorded", [True, False])
def test_a_controller_without_the_cache_plans_nothing_and_changes_nothing(
    cluster: Deployed,
    tmp_path: Path,
    recorded: bool,  # noqa: FBT001  a case
) -> None:
    """The work directory was copied, as to a second controller or a CI runner."""
    shutil.copytree(cluster.work.parent, tmp_path / ".etcd", symlinks=True)
    (tmp_path / "etcd.toml").write_text(cluster.config.read_text())
    other = Deployed(cluster.lab, tmp_path / "etcd.toml", cluster.hosts)
    for link in (other.work / "bin").iterdir():
        link.unlink()
    if not recorded:
        (other.work / "releases.json").unlink()
    before, empty = state(cluster.hosts), {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    said = other.invoke("plan", env=empty).stdout
    assert "will be restarted" not in said
    assert "nothing to do on the nodes; " in said
    assert re.search(r"on this controller: etcd \S+ \(\w+\) will be fetched", said)
    assert ("is not known" in said) is not recorded
    assert "is healthy" in other.invoke("all", env=empty).stdout
    assert state(cluster.hosts) == before
    assert other.invoke("plan", env=empty).stdout.rstrip().endswith("nothing to do")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("certs", "--node", "etcd-1", "units", "--node", "etcd-2"), "two different --node"),
        (("units", "--node", "etcd-9"), "known: etcd-1, etcd-2, etcd-3"),
        (("all", "--node", "etcd-1,etcd-9"), "--node etcd-9: there is no such node"),
    ],
)
def test_a_wrong_selection_is_refused_before_anything_is_touched(
    cluster: Deployed, args: tuple[str, ...], said: str
) -> None:
    asked = requests(cluster.hosts)
    assert said in cluster.invoke(*args, code=2).stderr
    assert requests(cluster.hosts) == asked


def test_a_client_gets_a_pair_that_works(cluster: Deployed, tmp_path: Path) -> None:
    out = tmp_path / "kube"
    cluster.invoke("client", "kube", "--cn", "kube-apiserver", "--out", str(out))
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in out.iterdir()}
    assert modes == {"ca.pem": "0o644", "kube.pem": "0o644", "kube-key.pem": "0o600"}
    pair = ["--cacert", str(out / "ca.pem"), "--cert", str(out / "kube.pem"), "--key", str(out / "kube-key.pem")]
    etcdctl = [str(cluster.work / "bin" / "etcdctl"), "--endpoints=https://192.168.1.221:2379"]
    assert cluster.lab.output([*etcdctl, *pair, "put", "from", "kube"]) == "OK\n"
    assert cluster.lab.run([*etcdctl, *pair[:2], "--command-timeout=2s", "get", "from"], check=False).returncode == 1
    again = (out / "kube.pem").read_bytes()
    cluster.invoke("client", "kube", "--cn", "kube-apiserver", "--out", str(out))
    assert (out / "kube.pem").read_bytes() == again


def test_a_second_clone_without_the_ca_is_refused(cluster: Deployed, tmp_path: Path) -> None:
    (tmp_path / "etcd.toml").write_text(cluster.config.read_text())
    clone = Deployed(cluster.lab, tmp_path / "etcd.toml", cluster.hosts)
    before = state(cluster.hosts)
    for task in ("env", "all", "certs", "plan"):
        said = clone.invoke(task, code=3).stderr
        assert said.count("trusts the CA") == 3
        assert f"Copy the directory {clone.work / 'ca'}" in said
    assert state(cluster.hosts) == before
    assert not list(clone.work.rglob("*.pem"))
    assert not (clone.work / "environment.sh").exists()


def test_a_crashed_member_is_restarted_and_a_rebooted_host_rejoins(cluster: Deployed) -> None:
    second, third = cluster.hosts[1:]
    (old,) = pids([second])
    second.sh(f"kill -KILL {old}")
    third.reboot()
    cluster.wait_healthy()
    (new,) = pids([second])
    assert new not in {0, old}
    assert second.sh("systemctl show etcd -P NRestarts") == "1\n"
    cluster.invoke("verify")
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
    for host in cluster.hosts:  # systemd itself wants it: `systemctl isolate` leaves it alone
        assert "etcd.service" in host.sh("systemctl show multi-user.target -P Wants").split()


@pytest.mark.parametrize("gone", ["data wal", "data", "wal"])
def test_a_member_whose_data_vanished_is_refused_before_anything_changes(cluster: Deployed, gone: str) -> None:
    host = cluster.hosts[1]
    host.sh(f"systemctl stop etcd; cd /data/etcd; mv {gone} /root")
    try:
        before = state(cluster.hosts)
        for task in (("start",), ("start", "--node", "etcd-2"), ("all",)):
            said = cluster.invoke(*task, code=3).stderr
            assert "etcd-2: no member's data in /data/etcd/" in said
            assert "replace the member" in said
        assert state(cluster.hosts) == before
        assert not host.sh(f"cd /data/etcd; ls -d {gone} 2>/dev/null", check=False)
    finally:
        host.sh(f"cd /root; mv {gone} /data/etcd")
    cluster.invoke("start")
    cluster.invoke("verify")
