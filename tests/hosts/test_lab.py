"""The lab itself: what the tests on real hosts take for granted."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import configs
import pytest
from conftest import Writing
from host import Host, each
from lab import ROOT, Lab
from processes import LabError, alive, read_pid
from releases import Releases, serve
from rootfs import OPS, PASSWORD, PW


def reachable(lab: Lab, host: Host, port: int = 22) -> bool:
    probe = f"import socket; socket.create_connection(({host.ip!r}, {port}), 0.5)"
    return lab.run([sys.executable, "-c", probe], check=False).returncode == 0


@pytest.fixture
def one(lab: Lab) -> Iterator[Host]:
    """A host that a test may leave cut off."""
    yield lab.hosts[0]
    if not lab.hosts[0].leader():
        lab.hosts[0].boot()
    lab.hosts[0].heal()


def test_every_host_runs_its_own_systemd_and_nothing_failed(lab: Lab) -> None:
    assert each(lambda host: host.sh("systemctl is-system-running; hostname"), lab.hosts[:3]) == [
        f"running\netcd-{number}\n" for number in (1, 2, 3)
    ]
    for file in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key", "/proc/sys/kernel/random/boot_id"):
        assert len(set(each(partial(Host.sh, script=f"cat {file}"), lab.hosts[:3]))) == 3


@pytest.mark.parametrize(
    ("user", "command", "expected"),
    [
        ("root", "id -un", "root"),
        (OPS, "id -un", OPS),
        (OPS, "sudo -n id -un", "root"),
        (PW, f"echo '{PASSWORD}' | sudo -S -p '' id -un", "root"),
    ],
)
def test_logins(lab: Lab, user: str, command: str, expected: str) -> None:
    assert lab.ssh(lab.hosts[1], command, user=user).stdout.strip() == expected


def test_sudo_of_pw_wants_the_password(lab: Lab) -> None:
    refused = lab.ssh(lab.hosts[1], "sudo -n id", user=PW, check=False)
    assert refused.returncode == 1
    assert "a password is required" in refused.stderr


def test_hosts_have_no_python(lab: Lab) -> None:
    assert lab.hosts[0].sh("ls /usr/bin /usr/local/bin | grep -ci python", check=False).strip() == "0"


def test_hosts_reach_each_other_over_both_protocols(lab: Lab) -> None:
    first, second = lab.hosts[:2]
    for address in (second.ip, second.ip6):
        banner = first.sh(f"bash -c 'exec 3<>/dev/tcp/{address}/22; head -c 4 <&3'")
        assert banner == "SSH-"


def test_exec_requests_are_counted(lab: Lab) -> None:
    host = lab.hosts[2]
    before = host.exec_requests()
    for _ in range(3):
        lab.ssh(host, "true")
    assert host.exec_requests() - before == 3


def test_nothing_leads_out(lab: Lab) -> None:
    for argv in (["ip", "route", "get", "203.0.113.1"], ["ip", "-6", "route", "get", "2001:db8::1"]):
        assert "unreachable" in lab.run(argv, check=False).stderr
        assert "unreachable" in lab.hosts[0].sh(f"{' '.join(argv)} 2>&1", check=False)
    links = {line.split(":")[1].split("@")[0].strip() for line in lab.output(["ip", "-o", "link"]).splitlines()}
    assert links - {"lo", "br0"} == {host.name for host in lab.hosts}


def test_a_cut_host_is_gone_until_healed(lab: Lab, one: Host) -> None:
    one.cut()
    assert not reachable(lab, one)
    one.heal()
    assert reachable(lab, one)


def test_nftables_drop_selectively_until_healed(lab: Lab, one: Host) -> None:
    one.net("nft", "add table inet t; add chain inet t c { type filter hook input priority 0; }")
    one.net("nft", "add rule inet t c tcp dport 22 drop")
    assert not reachable(lab, one)
    one.heal()
    assert reachable(lab, one)


def test_bandwidth_is_limited_until_healed(lab: Lab, one: Host) -> None:
    def seconds() -> float:
        start = time.monotonic()
        lab.ssh(one, "head -c 500000 /dev/zero")
        return time.monotonic() - start

    one.limit("1mbit")
    limited = seconds()
    assert limited > 2
    one.heal()
    assert seconds() < limited / 2


def test_a_small_tmpfs_is_a_full_disk(one: Host) -> None:
    one.sh("mkdir -p /full && mount -t tmpfs -o size=1m tmpfs /full")
    assert "No space left" in one.sh("head -c 2000000 /dev/zero 2>&1 > /full/file", check=False)
    one.sh("umount /full")


def test_reboot_poweroff_and_crash_keep_the_disk(lab: Lab, one: Host) -> None:
    one.sh("echo kept > /root/file")
    seen = {one.sh("cat /proc/sys/kernel/random/boot_id")}
    for stop in (Host.reboot, Host.poweroff, Host.crash):
        stop(one)
        if stop is not Host.reboot:
            assert not one.leader()
            with pytest.raises(LabError, match="etcd-1 is off"):
                one.sh("true")
            one.boot()
        assert one.sh("cat /root/file") == "kept\n"
        seen.add(one.sh("cat /proc/sys/kernel/random/boot_id"))
    assert len(seen) == 4


def test_wipe_leaves_nothing_but_the_identity(lab: Lab) -> None:
    host = lab.hosts[0]
    identity = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub"
    before = host.sh(identity)
    host.sh(
        "useradd --system etcd; mkdir -p /etc/etcd /data/etcd; echo '10.0.0.1 other' >> /etc/hosts;"
        "printf '[Service]\nExecStart=/bin/false\n' > /etc/systemd/system/etcd.service; systemctl start etcd",
    )
    start = time.monotonic()
    host.wipe()
    assert time.monotonic() - start < 5
    assert host.sh("ls -d /data /etc/etcd /etc/systemd/system/etcd.service; getent passwd etcd", check=False) == ""
    assert "other" not in host.sh("cat /etc/hosts")
    assert host.sh("systemctl --failed --no-legend") == ""
    assert host.sh(identity) == before
    assert lab.ssh(host, "true").returncode == 0


def unpack(host: Host, releases: Releases, version: str) -> str:
    """Unpacks a release on a host; returns the directory of its binaries."""
    name = f"etcd-v{version}-linux-amd64"
    with (releases.root / f"v{version}" / f"{name}.tar.gz").open("rb") as archive:
        subprocess.run([*host.enter(), "tar", "-xzC", "/opt"], stdin=archive, check=True)
    return f"/opt/{name}"


def test_releases_are_served_whole_and_run_on_the_hosts(lab: Lab, releases: Releases, tmp_path: Path) -> None:
    assert len(releases.versions) == 3
    for version in releases.versions:
        tarball = tmp_path / f"etcd-v{version}-linux-amd64.tar.gz"
        for file in (tarball, tmp_path / "SHA256SUMS"):
            fetch = "import sys, urllib.request as u; u.urlretrieve(*sys.argv[1:])"
            lab.run([sys.executable, "-c", fetch, f"{releases.url}/v{version}/{file.name}", str(file)])
        digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
        assert (tmp_path / "SHA256SUMS").read_text() == f"{digest}  {tarball.name}\n"
        directory = unpack(lab.hosts[0], releases, version)
        for binary in ("etcd --version", "etcdctl version"):
            assert version in lab.hosts[0].sh(f"{directory}/{binary}")


@pytest.mark.parametrize(
    ("disturbance", "expected"),
    [
        ("systemctl restart etcd", set()),
        ("systemctl stop etcd; sleep 3.3; systemctl start etcd", {"lost"}),
        ("systemctl stop etcd; rm -r /var/lib/etcd; systemctl start etcd", {"missing"}),
    ],
)
def test_the_writer_notices(
    lab: Lab, releases: Releases, writing: Writing, disturbance: str, expected: set[str]
) -> None:
    host = lab.hosts[1]
    host.wipe()
    directory = unpack(host, releases, releases.versions[0])
    url = f"http://{host.ip}:2379"
    listen = f"--listen-client-urls={url} --advertise-client-urls={url} --data-dir=/var/lib/etcd"
    unit = f"[Service]\nType=notify\nExecStart={directory}/etcd {listen}\n"
    host.sh(f"printf '{unit}' > /etc/systemd/system/etcd.service; systemctl start etcd")
    with writing(endpoints=url) as written:
        host.sh(disturbance)
    assert written.result["acknowledged"] > 0
    assert {name for name in ("lost", "missing") if written.result[name]} == expected, written.result
    assert written.result["longest_gap_ms"] > 20


def test_another_root_is_served_beside(lab: Lab, releases: Releases, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("other")
    other = serve(lab, root=tmp_path, port=8081)
    read = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
    assert lab.output([sys.executable, "-c", read, f"{other.url}/file"]) == "other\n"


def test_a_configuration_reaches_the_hosts(lab: Lab, releases: Releases, tmp_path: Path) -> None:
    base = '[cluster]\nname = "demo"\n[etcd.flags]\nheartbeat-interval = 100\n[[nodes]]\nname = "a"\nip = "::1"\n'
    file = lab.config(base, into=tmp_path, etcd={"flags": {"election-timeout": 1000}}, ssh={"user": OPS})
    written = configs.loads(file.read_text())
    assert written["cluster"] == {"name": "demo"}
    assert written["etcd"] == {
        "version": releases.versions[-1],
        "flags": {"heartbeat-interval": 100, "election-timeout": 1000},
    }
    assert written["ssh"] == {"user": OPS, "key": str(lab.key)}
    assert written["nodes"] == [{"name": "a", "ip": "::1"}]
    assert written["release"]["mirror"] == releases.url


VICTIM = """
import sys
from pathlib import Path
from lab import Lab
lab = Lab.up(1, state=Path(sys.argv[1]))
print("up", flush=True)
input()
"""


def test_a_killed_run_leaves_no_process_and_the_next_one_tidies_up(lab: Lab, tmp_path: Path) -> None:
    state = tmp_path / "state"
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(state)],
        cwd=ROOT / "tests" / "hosts",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "up\n"
        pids = [read_pid(file) for file in state.glob("*.pid")]
        assert len(pids) == 2
        assert all(map(alive, pids))
        victim.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    shutil.rmtree(state)  # no mount of the hosts is left in it
    again = Lab.up(0, state=tmp_path / "again")
    again.down()
    assert not [group for group in again.groups if group.exists()]
