"""What a local user of a node, or the user that runs etcd, plants there: it is not run, not followed, not believed."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

import pytest
from deploy import Deployed, deploy
from host import Host
from lab import Lab
from releases import Releases

REFUSED, DIFFERS, UNHEALTHY = 3, 4, 5

Config = Callable[..., Path]

OLD_LOCK = "/run/lock/etcd-steps.lock"
AS_OPS = "runuser -u ops -- sh -c"
PLANTED = {
    "a fifo": f"mkfifo {OLD_LOCK}",
    "a directory": f"mkdir {OLD_LOCK}",
    "a lock that is held": f"echo owned >{OLD_LOCK}; setsid flock {OLD_LOCK} sleep 60 </dev/null >/dev/null 2>&1 &",
}


@pytest.fixture(scope="module")
def shared(lab: Lab) -> list[Host]:
    lab.wipe()
    return lab.hosts[:3]


def test_lock_that_a_local_user_plants_stops_no_run(lab: Lab, shared: list[Host], config: Config) -> None:
    file, victim = config(), shared[1]
    for what, how in PLANTED.items():
        victim.sh(f"{AS_OPS} '{how}'")
        done = lab.invoke(file, "env", timeout=60)
        assert done.returncode == 0, f"{what}: {done.stdout}{done.stderr}"
        victim.sh(f"fuser -k {OLD_LOCK}; rm -rf {OLD_LOCK}", check=False)
    assert victim.sh("stat -c '%A %U:%G' /run/etcd-steps /run/etcd-steps/lock").splitlines() == [
        "drwx------ root:root",
        "-rw------- root:root",
    ]
    assert "Permission denied" in victim.sh(f"{AS_OPS} 'flock /run/etcd-steps/lock true' 2>&1", check=False)


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ("while sleep 0.05; do echo welcome; done", "no answer within the deadline"),
        ("echo ready; yes", "it says more than 16 MiB"),
    ],
    ids=["before it is ready", "then"],
)
def test_host_that_sends_for_ever_ends_the_plan(
    lab: Lab, shared: list[Host], config: Config, says: str, error: str
) -> None:
    victim, setting = shared[1], "/etc/ssh/sshd_config.d/hostile.conf"
    victim.sh(f"echo {quote('ForceCommand ' + says)} >{setting}; systemctl restart ssh")
    try:
        began = time.monotonic()
        done = lab.invoke(config(ssh={"connect_timeout": 2}), "plan", timeout=100)
        assert time.monotonic() - began < 60
    finally:
        victim.sh(f"rm {setting}; systemctl restart ssh")
    assert done.returncode in {1, REFUSED}
    assert f"{victim.name}: " in done.stderr
    assert error in done.stderr


# -- what the user that runs etcd plants --------------------------------------------------------------------------

AS_ETCD = "runuser -u etcd -- sh -c"
STOLEN = "/data/etcd/stolen"
EVIL = f"{{ id -u; head -n 1 /etc/shadow; }} >{STOLEN} 2>&1; echo etcd Version: 3.5.30"
LOOK = "stat -c '%n %a %U:%G %i' /etc/systemd/system /etc/shadow /etc/systemd/system/etcd.service"


def program(script: str) -> bytes:
    """An ELF program for amd64: with one argument (`--version`) it becomes `sh SCRIPT`, else it waits for ever."""
    base, code_at = 0x400000, 64 + 56
    words_at = code_at + 35
    shell_at, script_at = words_at + 24, words_at + 24 + 8
    code = bytes.fromhex("48833c2402 7513 bf") + struct.pack("<I", base + shell_at)  # argc == 2? execve(
    code += b"\xbe" + struct.pack("<I", base + words_at) + bytes.fromhex("31d2 b83b000000 0f05")  # sh, words, 0)
    code += bytes.fromhex("b822000000 0f05 ebf7")  # else pause(), again and again
    words = struct.pack("<QQQ", base + shell_at, base + script_at, 0)
    image = code + words + b"/bin/sh\0" + script.encode() + b"\0"
    size = code_at + len(image)
    head = (
        b"\x7fELF\2\1\1"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + code_at, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + image


@pytest.fixture(scope="module")
def cluster(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    del releases
    made = deploy(lab, tmp_path_factory.mktemp("attacked"), "")
    made.invoke("all")
    return made


@contextmanager
def planted(cluster: Deployed, how: str, undo: str) -> Iterator[Host]:
    """What the user etcd does on a member's host, and what is the same afterwards: root's files, and the cluster."""
    victim = cluster.hosts[1]
    before = victim.sh(LOOK)
    victim.sh(f"{AS_ETCD} '{how}'")
    try:
        yield victim
        assert victim.sh(LOOK) == before
    finally:
        # Without its directories etcd may have ended meanwhile, and then systemd does not start it.
        victim.sh(f"{undo}; systemctl reset-failed etcd; systemctl start etcd")
    cluster.wait_healthy()


def test_binary_that_etcd_became_is_never_run(cluster: Deployed) -> None:
    victim = cluster.hosts[1]
    image = program("/data/etcd/evil").hex()
    victim.sh(
        f"""echo '{EVIL}' >/data/etcd/evil; systemctl stop etcd; cd /usr/local; mv bin/etcd etcd.good
        perl -e 'print pack "H*", "{image}"' >bin/etcd; chmod 755 bin/etcd"""
    )
    try:
        assert "root:" in victim.sh(f"/usr/local/bin/etcd --version; cat {STOLEN}; rm {STOLEN}"), "it would steal"
        victim.sh(
            """systemctl start --no-block etcd
            until [ /proc/$(systemctl show -P MainPID etcd)/exe -ef /usr/local/bin/etcd ]; do sleep 0.1; done
            mv /usr/local/etcd.good /usr/local/bin/etcd"""
        )
        assert "another binary is installed" in cluster.invoke("plan", code=DIFFERS).stdout
        cluster.invoke("doctor", code=UNHEALTHY)
        assert victim.sh(f"[ -e {STOLEN} ] || echo none") == "none\n"
    finally:
        victim.sh(
            "cd /usr/local; [ ! -e etcd.good ] || mv etcd.good bin/etcd; systemctl restart etcd; rm -f /data/etcd/evil"
        )
    cluster.wait_healthy()


def test_binary_that_etcd_may_write_is_not_run_and_refused(cluster: Deployed) -> None:
    victim = cluster.hosts[1]
    victim.sh("chown etcd /usr/local/bin/etcd")
    try:
        said = cluster.invoke("plan", code=REFUSED).stderr
        assert "/usr/local/bin/etcd (etcd:root, mode 0755) can be changed by others than root" in said
        assert "chown root:root /usr/local/bin/etcd && chmod go-w /usr/local/bin/etcd" in said
    finally:
        victim.sh("chown root:root /usr/local/bin/etcd && chmod go-w /usr/local/bin/etcd")
    cluster.invoke("plan")


@pytest.mark.parametrize("name", ["data", "wal"])
def test_link_that_etcd_plants_is_refused_and_not_followed(cluster: Deployed, name: str) -> None:
    how = f"cd /data/etcd; mv {name} kept; ln -s /etc/systemd/system {name}"
    with planted(cluster, how, f"cd /data/etcd; rm {name}; mv kept {name}"):
        for task in ("plan", "all"):
            said = cluster.invoke(task, code=REFUSED).stderr
            link = f"etcd-2: /data/etcd/{name} is a link of etcd's in /data/etcd, which belongs to etcd (mode 0700)"
            assert link in said
            assert "replace the member" not in said
        done = cluster.invoke("reset", "--yes", cluster.name, "--node", "etcd-2", code=1)
        assert f"/data/etcd/{name} is a link" in done.stdout + done.stderr
        assert cluster.hosts[1].sh("systemctl is-active etcd") == "active\n"


def test_fifo_among_the_segments_of_the_wal_hangs_nothing(cluster: Deployed) -> None:
    fifo = "/data/etcd/wal/0-0.wal"
    with planted(cluster, f"mkfifo {fifo}", f"rm {fifo}"):
        begin = time.monotonic()
        assert f"etcd-2: {fifo} is no plain file" in cluster.invoke("plan", code=REFUSED).stderr
        assert time.monotonic() - begin < 20


def test_hard_link_of_a_file_of_roots_stays_roots(cluster: Deployed) -> None:
    victim = cluster.hosts[1]
    victim.sh("ln /etc/shadow /data/etcd/shadow")  # as etcd may, where protected_hardlinks is off
    how = "cd /data/etcd; mv data kept; mv shadow data"
    undo = "cd /data/etcd; rm data; mv kept data"
    with planted(cluster, how, undo):
        assert "/data/etcd/data is no directory" in cluster.invoke("all", code=REFUSED).stderr
        said = cluster.invoke("doctor", code=UNHEALTHY).stdout
        assert "[planted]" in said
        assert "chown" not in said, "it would give /etc/shadow away"


def test_name_with_a_newline_forges_no_fact(cluster: Deployed) -> None:
    how = 'cd /data/etcd; touch "$(printf "a\\narch=mips\\nuid=1000\\nx")"'
    with planted(cluster, how, "rm /data/etcd/a*"):
        assert "nothing to do" in cluster.invoke("plan").stdout
