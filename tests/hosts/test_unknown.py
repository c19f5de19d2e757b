"""What cannot be asked is unknown, exit 6, and never called unhealthy; degraded and lost are told apart, exit 5."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from deploy import Deployed, state, three
from host import Host, broken
from lab import Lab, _keygen
from releases import Releases
from rootfs import PW

OK, REFUSED, UNHEALTHY, UNKNOWN = 0, 3, 5, 6
Fault = Callable[[Deployed, Path], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def made(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return three(lab, tmp_path_factory.mktemp("unknown"), ssh={"connect_timeout": 3})


@pytest.fixture
def cluster(made: Deployed) -> Iterator[Deployed]:
    text = made.config.read_text()
    yield made
    made.config.write_text(text)
    made.wait_healthy()


def asked(cluster: Deployed, task: str) -> tuple[int, dict[str, Any], str]:
    done: subprocess.CompletedProcess[str] = cluster.lab.invoke(cluster.config, task, "--json")
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


@contextmanager
def wrong_key(cluster: Deployed, tmp_path: Path) -> Iterator[None]:
    key = tmp_path / "other_key"
    _keygen(key)
    cluster.edit(ssh={"key": str(key)})
    yield


@contextmanager
def sudo_refused(cluster: Deployed, _tmp_path: Path) -> Iterator[None]:
    cluster.edit(ssh={"user": PW, "sudo": True})
    yield


@contextmanager
def not_root(cluster: Deployed, tmp_path: Path) -> Iterator[None]:
    """A login that may read nothing of etcd's, and no sudo."""
    del tmp_path
    before = cluster.config.read_text()
    cluster.edit(ssh={"user": "ops"})
    try:
        yield
    finally:
        cluster.config.write_text(before)


@contextmanager
def changed_host_keys(cluster: Deployed, tmp_path: Path) -> Iterator[None]:
    """known_hosts has another key for each host, as after a reinstallation, or where somebody listens in between."""
    known = cluster.work / "known_hosts"
    before = known.read_text()
    _keygen(tmp_path / "foreign")
    kind, foreign = (tmp_path / "foreign.pub").read_text().split()[:2]
    known.write_text("".join(f"{line.split()[0]} {kind} {foreign}\n" for line in before.splitlines()))
    try:
        yield
    finally:
        known.write_text(before)


NO_HOST: dict[str, tuple[Fault, str]] = {
    "the wrong key": (wrong_key, "refused the login"),
    "sudo refused": (sudo_refused, "sudo"),
    "not root": (not_root, "not as root"),
    "changed host keys": (changed_host_keys, "has changed"),
}


@pytest.mark.parametrize(("fault", "said"), NO_HOST.values(), ids=NO_HOST)
def test_hosts_that_let_nobody_in_are_unknown(cluster: Deployed, tmp_path: Path, fault: Fault, said: str) -> None:
    with fault(cluster, tmp_path):
        before = state(cluster.hosts)
        for task in ("status", "verify"):
            code, document, words = asked(cluster, task)
            assert (code, document["state"], document["healthy"], document["quorum"]) == (
                UNKNOWN,
                "unknown",
                False,
                None,
            )
            assert document["problems"] == []
            assert {member["health"] for member in document["members"]} == {"unknown"}
            assert all(said in line for line in document["unknown"])
            assert len(document["unknown"]) == 3
            assert "invoke start" not in words
            assert "does not answer" not in words
        table = cluster.lab.invoke(cluster.config, "status").stdout
        assert table.count("unknown") == 3
        code, document, _ = asked(cluster, "doctor")
        assert (code, document["state"]) == (UNKNOWN, "unknown")
        for task in ("plan", "all"):
            assert said in cluster.invoke(task, code=REFUSED).stderr
        assert state(cluster.hosts) == before


@contextmanager
def no_sshd(host: Host) -> Iterator[None]:
    with broken(host, "systemctl stop ssh.socket ssh.service 2>/dev/null; true", "systemctl start ssh"):
        yield


def test_a_host_without_sshd_whose_member_serves_is_healthy_and_not_checked(cluster: Deployed) -> None:
    with no_sshd(cluster.hosts[1]):
        for task in ("status", "verify"):
            code, document, words = asked(cluster, task)
            assert (code, document["state"], document["quorum"]) == (UNKNOWN, "unknown", True), words
            row = document["members"][1]
            assert (row["health"], row["checked"]) == ("healthy, host not checked", False)
            assert row["role"] in ("leader", "follower")
            assert document["problems"] == []
            assert "its member answers etcd-1 and is healthy" in words
        before = state([cluster.hosts[0], cluster.hosts[2]])
        for task in ("stop", "reset"):
            assert "etcd-2: " in cluster.invoke(task, "--yes", "lab", code=REFUSED).stderr
        assert state([cluster.hosts[0], cluster.hosts[2]]) == before, "nothing was half done"
        code, document, _ = asked(cluster, "doctor")
        (finding,) = document["findings"]
        assert (code, finding["failure"]) == (UNKNOWN, "host-unreachable")
        assert "its member answers the others" in finding["evidence"][0]


def test_a_host_that_is_down_makes_the_cluster_degraded(cluster: Deployed) -> None:
    host = cluster.hosts[2]
    host.cut()
    try:
        for task in ("status", "verify"):
            code, document, words = asked(cluster, task)
            assert (code, document["state"], document["quorum"]) == (UNHEALTHY, "degraded", True), words
            assert document["members"][2]["health"] == "no answer"
            assert f"{host.name}: root@{host.ip}:22" in words
            assert "degraded, it has a quorum" in words
            assert [member["health"] for member in document["members"][:2]] == ["healthy"] * 2
        code, document, _ = asked(cluster, "doctor")
        assert (code, [finding["failure"] for finding in document["findings"]]) == (UNHEALTHY, ["no-answer"])
    finally:
        host.heal()


def test_no_ca_here_is_unknown(cluster: Deployed) -> None:
    ca = cluster.work / "ca"
    aside = shutil.move(ca, cluster.work / "ca.aside")
    try:
        assert asked(cluster, "status")[0] == OK  # the members were asked with their own certificates
        code, document, words = asked(cluster, "verify")
        assert (code, document["state"], document["problems"]) == (UNKNOWN, "unknown", [])
        assert words.count("this controller has no CA") == 1
        code, document, _ = asked(cluster, "doctor")
        assert (code, [finding["failure"] for finding in document["findings"]]) == (UNKNOWN, ["no-ca"])
        assert "this controller has none" in cluster.invoke("plan", code=REFUSED).stderr
    finally:
        shutil.move(aside, ca)


def test_one_stopped_is_degraded_and_two_are_lost(cluster: Deployed) -> None:
    one, two, _ = cluster.hosts
    one.sh("systemctl stop etcd")
    code, document, words = asked(cluster, "status")
    assert (code, document["state"], document["quorum"]) == (UNHEALTHY, "degraded", True)
    assert f"next: invoke start --node etcd-1 --config {cluster.config}\n" in words
    two.sh("systemctl stop etcd")
    code, document, words = asked(cluster, "status")
    assert (code, document["state"], document["quorum"]) == (UNHEALTHY, "lost", False)
    assert "it has lost its quorum" in words
    cluster.invoke("start")
