"""Hosts as users have them: mounts, closed directories, small disks. Refused with nothing changed, or it works."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deploy import Deployed, deploy, state
from host import Host, broken
from lab import Lab
from releases import Releases
from test_preflight import read_only, refused

Config = Callable[..., Path]


@pytest.fixture(scope="module")
def bare(lab: Lab) -> list[Host]:
    """Hosts that nothing was ever done to: what is refused leaves them so, hence one wipe for all of these tests."""
    lab.wipe()
    return lab.hosts[:3]


def made(path: str, mode: int) -> tuple[str, str]:
    return f"mkdir -m {mode} {path}", f"rmdir {path}"


def mounted(path: str, options: str) -> tuple[str, str]:
    return f"mkdir -p {path}; mount -t tmpfs -o {options} tmpfs {path}", f"umount {path}; rmdir -p {path} || true"


OPT = {"paths": {"bin": "/opt/etcd/bin"}}
FAULTS: dict[str, tuple[tuple[str, str], dict[str, Any], str]] = {
    "data's parent is closed": (
        made("/data", 700),
        {},
        r"/data \(mode 0700, root:root\) is closed to etcd.*`chmod a\+x /data`, or name another.*\[paths\] data",
    ),
    "the certificates' parent is closed": (
        made("/etc/etcd", 700),
        {},
        r"/etc/etcd \(mode 0700, root:root\) is closed to etcd.*\[paths\] cert",
    ),
    "the binaries' parent is closed": (
        made("/opt/etcd", 750),
        OPT,
        r"/opt/etcd \(mode 0750, root:root\) is closed to etcd.*\[paths\] bin",
    ),
    "closed behind a link": (
        ("mkdir -m 700 /srv/disk; mkdir /srv/disk/data; ln -s /srv/disk/data /data", "rm -r /data /srv/disk"),
        {},
        r"/srv/disk is closed to etcd.*`chmod a\+x /srv/disk`",
    ),
    "binaries on noexec": (
        mounted("/opt/etcd/bin", "noexec"),
        OPT,
        r'/opt/etcd/bin is mounted noexec.*\[paths\] bin = "/usr/local/bin"',
    ),
    "read-only /usr": (
        (read_only("/usr")[0], "umount --lazy /usr"),
        {},
        r'/usr/local/bin cannot be written to: a read-only filesystem\? Set \[paths\] bin = "/opt/etcd/bin"',
    ),
    "no inodes": (
        mounted("/data", "nr_inodes=2"),
        {},
        r"/data/etcd/data and /data/etcd/wal: room for 1 more files \(inodes\), 64 are needed.*\[paths\] data, wal",
    ),
    "a masked unit": (
        ("systemctl --quiet mask etcd.service", "systemctl --quiet unmask etcd.service"),
        {},
        r"etcd.service is masked.*systemctl unmask etcd.service",
    ),
    "/etc/hosts is mounted read-only": (
        read_only("/etc/hosts"),
        {},
        r"/etc/hosts cannot be written to.*\[hosts\] manage_etc_hosts = false",
    ),
    "no user can be created": (
        read_only("/etc/passwd"),
        {},
        r"there is no user etcd, and none can be created, for /etc/passwd cannot be written to",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_ground_that_cannot_carry_etcd_is_refused_before_the_first_change(
    lab: Lab, bare: list[Host], config: Config, fault: str
) -> None:
    (how, undo), changes, expected = FAULTS[fault]
    with broken(bare[1], how, undo):
        said = refused(lab, config(**changes))
    assert re.search(f"etcd-2: {expected}", said, re.DOTALL), said
    assert "etcd-1:" not in said
    assert "etcd-3:" not in said


@pytest.fixture
def odd(lab: Lab, releases: Releases, tmp_path: Path) -> Iterator[Deployed]:
    """Three hosts, each unusual in its own way, and the etcd.toml that the refusals ask for."""
    made = deploy(lab, tmp_path, "", etcd=releases.settings["etcd"], paths={"bin": "/opt/etcd/bin"})
    container, fixed, linked = made.hosts
    container.sh("cp /etc/hosts /run/hosts; mount --bind /run/hosts /etc/hosts")
    fixed.sh("mount --bind /usr /usr; mount -o remount,ro,bind /usr; mount -t tmpfs -o size=4k tmpfs /tmp")
    fixed.sh("useradd --system --user-group etcd; groupadd disks; usermod -aG disks etcd")
    fixed.sh("mkdir -m 710 /data; chgrp disks /data")
    linked.sh("mkdir -p /srv/disk/data; ln -s /srv/disk/data /data; umask 077; mkdir /opt/etcd; chmod 711 /opt/etcd")
    yield made
    lab.wipe()


def test_ground_that_is_unusual_carries_a_healthy_cluster(odd: Deployed) -> None:
    container, fixed, _ = odd.hosts
    before = container.sh("stat -c '%i %a' /etc/hosts")
    said = odd.invoke("all").stdout
    assert "is healthy" in said
    assert said.count("warning: /etc/hosts is a mount of its own") == 1
    assert container.sh("stat -c '%i %a' /etc/hosts") == before
    assert "192.168.1.222 etcd-3\n# END" in container.sh("cat /etc/hosts")
    assert container.sh("cat /run/hosts") == container.sh("cat /etc/hosts")
    assert fixed.sh("cat /etc/hosts").count("# END") == 1
    seen = state(odd.hosts)
    planned = odd.invoke("plan").stdout
    assert planned.rstrip().endswith("nothing to do")
    assert "mount of its own" not in planned
    assert state(odd.hosts) == seen
