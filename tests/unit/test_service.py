"""A plain process is started detached, stopped, and told from the dead: real scripts, with `sleep` as etcd."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import on_hosts, on_loopback

from steps.core.config.model import Cluster, Node
from steps.core.node.service import START, State, parse_state, settled_script, start_script, state_script, stop_script

KNOWN = "FragmentPath=/etc/systemd/system/etcd.service\nNeedDaemonReload=no"
STARTED = ["reset-failed etcd.service", "--quiet restart etcd.service"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One member, installed."""
    cluster = on_loopback(tmp_path / "etcd.toml", count=1)
    (node,) = cluster.nodes
    binary = Path(node.paths.bin) / "etcd"
    binary.parent.mkdir(parents=True)
    shutil.copy(shutil.which("sleep") or "", binary)
    write(node, f"exec env -i {binary} 600\n")
    yield cluster
    run(stop_script(cluster, node))


def write(node: Node, script: str) -> None:
    file = Path(node.paths.unit) / "etcd.sh"
    file.write_text(f"#!/bin/sh\n{script}")
    file.chmod(0o700)


def run(script: str) -> str:
    ended = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=20)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def state(cluster: Cluster) -> State:
    return parse_state(run(state_script(cluster, cluster.nodes[0])))


def test_start_stop_and_start_anew(cluster: Cluster) -> None:
    (node,) = cluster.nodes
    assert state(cluster) == State("dead", 0)
    assert run(start_script(cluster, node)) == ""
    first = state(cluster)
    assert (first.active, first.ready, first.failed) == ("running", True, False)
    assert os.getsid(first.pid) == first.pid
    assert Path(f"/proc/{first.pid}/environ").read_bytes() == b""
    run(start_script(cluster, node))
    second = state(cluster)
    assert second.ready
    assert second.pid != first.pid
    cmdline = Path(f"/proc/{first.pid}/cmdline")
    assert not cmdline.exists() or not cmdline.read_bytes(), "gone, or not buried yet"
    for _ in range(2):
        assert run(stop_script(cluster, node)) == ""
        assert state(cluster) == State("dead", 0)
        assert not (Path(node.paths.unit) / "etcd.pid").exists()


def test_a_member_that_ends_at_once_is_dead_and_has_said_why(cluster: Cluster) -> None:
    (node,) = cluster.nodes
    write(node, "echo a bad flag >&2; exit 1\n")
    run(start_script(cluster, node))
    assert state(cluster).failed
    assert (Path(node.paths.unit) / "etcd.log").read_text() == f"{START}\na bad flag\n"


def test_somebody_who_has_the_old_pid_now_is_not_stopped(cluster: Cluster) -> None:
    (node,) = cluster.nodes
    with subprocess.Popen(["sleep", "600"]) as other:
        (Path(node.paths.unit) / "etcd.pid").write_text(f"{other.pid}\n")
        assert state(cluster) == State("dead", 0)
        run(stop_script(cluster, node))
        assert other.poll() is None
        other.kill()


def test_who_ended_and_is_not_buried_is_not_waited_for(cluster: Cluster) -> None:
    (node,) = cluster.nodes
    begin = time.monotonic()
    with subprocess.Popen([f"{node.paths.bin}/etcd", "600"]) as child:
        (Path(node.paths.unit) / "etcd.pid").write_text(f"{child.pid}\n")
        run(stop_script(cluster, node))
        assert Path(f"/proc/{child.pid}/stat").read_text().split()[2] == "Z"
        assert state(cluster) == State("dead", 0)
    assert time.monotonic() - begin < 10


def test_a_member_is_waited_for_until_it_is_another_process(cluster: Cluster) -> None:
    (node,) = cluster.nodes
    assert parse_state(run(settled_script(cluster, node, 0))) == State("dead", 0)
    run(start_script(cluster, node))
    first = state(cluster)
    assert parse_state(run(settled_script(cluster, node, 0))) == first
    begin = time.monotonic()
    assert parse_state(run(settled_script(cluster, node, first.pid))) == first
    assert time.monotonic() - begin > 1


SETTLING = [  # what systemd says, one answer after the other, of a member that had pid 5; which answer is waited for
    (["deactivating/stop-sigterm 5", "activating/start 6", "active/running 6"], "active/running 6"),
    (["active/running 5", "inactive/dead 0", "activating/start 6", "failed/failed 0"], "failed/failed 0"),
    (["activating/start 6", "activating/auto-restart 0", "activating/start 7"], "activating/auto-restart 0"),
    (["active/running 55"], "active/running 55"),
]


@pytest.mark.parametrize(("answers", "last"), SETTLING)
def test_how_a_restart_settles_under_systemd(tmp_path: Path, answers: list[str], last: str) -> None:
    words = [answer.replace("/", " ").split() for answer in answers]
    said = "".join(f"ActiveState={active}\\nSubState={sub}\\nMainPID={pid}\n" for active, sub, pid in words)
    (tmp_path / "said").write_text(said)
    take = f"read -r line <{tmp_path}/said; sed -i 1d {tmp_path}/said; printf '%b\\n' \"$line\""
    cluster = on_hosts()
    script = settled_script(cluster, cluster.nodes[0], 5)
    assert parse_state(run(f"systemctl() {{ {take}; }}\n{script}")) == parse_state(f"state {last}")


@pytest.mark.parametrize(
    ("said", "ready", "failed"),
    [
        ("state active/running 5", True, False),
        ("state activating/start 5", False, False),
        ("state activating/auto-restart 0", False, True),
        ("state failed/failed 0", False, True),
        ("state inactive/dead 0", False, False),
        ("state deactivating/stop-sigterm 5", False, False),
        ("nothing of it", False, False),
    ],
)
def test_systemds_words(said: str, ready: bool, failed: bool) -> None:  # noqa: FBT001  a row of the table
    found = parse_state(f"noise\n{said}\n")
    assert (found.ready, found.failed) == (ready, failed)


@pytest.mark.parametrize(
    ("systemctl", "code", "err"),
    [
        ("exit 0", 0, ""),
        ("exec sleep 60", 0, ""),  # it blocks: no quorum yet
        ("exit 1", 0, ""),  # the start failed: how the unit is says so
        ("echo Unit etcd.service is masked. >&2; exit 1", 1, "Unit etcd.service is masked.\n"),
    ],
)
def test_under_systemd_nothing_waits_long_for_a_quorum(tmp_path: Path, systemctl: str, code: int, err: str) -> None:
    done, asked = under(tmp_path, systemctl, KNOWN)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", err)
    assert asked == STARTED


@pytest.mark.parametrize(
    "known",
    [
        KNOWN.replace("=no", "=yes"),
        KNOWN.replace("/etc/", "/lib/"),  # a package's unit, which it has read before ours came
        "FragmentPath=\nNeedDaemonReload=no",
        "",
    ],
)
def test_no_other_unit_than_ours_is_started(tmp_path: Path, known: str) -> None:
    done, asked = under(tmp_path, "exit 0", known)
    assert (done.returncode, asked) == (0, ["daemon-reload", *STARTED])


def under(folder: Path, systemctl: str, known: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The start under a systemctl that shows `known`, and what it was asked for besides."""
    program = folder / "systemctl"
    shown = f"[ $1 = show ] && echo '{known}' && exit"
    program.write_text(
        f'#!/bin/sh\n{shown}\necho "$*" >>{folder}/asked\n[ $1 = reset-failed ] && exit 1\n{systemctl}\n'
    )
    program.chmod(0o755)
    cluster = on_hosts()
    script = f"PATH={folder}:$PATH\n{start_script(cluster, cluster.nodes[0])}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=30)
    return done, (folder / "asked").read_text().splitlines()
