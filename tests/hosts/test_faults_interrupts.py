"""Runs that end too early: Ctrl-C, kill -9, a member that dies while another is restarted, a plugin that raises."""

from __future__ import annotations

import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Writing
from deploy import Deployed, outages, pids, project, requests, rolled
from invariants import free, intact, tidy
from lab import Lab
from releases import Releases
from runs import Running, described, during, ended, interrupting, started

PAGE = 4096  # bytes: the smallest pipe


@pytest.fixture(scope="module")
def cluster(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Made once; every test leaves it healthy."""
    made = described(lab, tmp_path_factory.mktemp("interrupts"))
    made.invoke("all")
    return made


def test_interrupted_then_killed_while_it_rolls(cluster: Deployed, writing: Writing) -> None:
    """What is done is read from the living members: each is restarted once, whoever finishes the work."""
    before, leader = len(outages(cluster.hosts)), cluster.leader()
    cluster.edit(etcd={"flags": {"heartbeat-interval": 300}})
    with intact(cluster, writing):
        code, said = during(cluster, "restarted: ", interrupting(signal.SIGINT), "all")
        assert code == 130, said
        assert "interrupted: what had begun on a node was finished, nothing else was started" in said
        assert "not done: start. A re-run is safe and goes on from here" in said
        free(cluster)
        code, said = during(cluster, "restarted: ", interrupting(signal.SIGKILL), "all")
        assert code == -signal.SIGKILL, said
        free(cluster)
        cluster.wait_healthy()
        cluster.invoke("all")
    order = rolled(cluster.hosts, before)
    assert sorted(order) == [host.name for host in cluster.hosts], order
    assert order[0] != leader


def test_ctrl_c_lets_a_node_finish_what_it_began(cluster: Deployed, writing: Writing) -> None:
    """Three uploads at once, interrupted in the middle: the binaries are whole, and there."""
    with intact(cluster, writing):
        for host in cluster.hosts:
            host.sh("rm /usr/local/bin/etcdctl")
        code, said = during(cluster, "[3/8] distribute", interrupting(signal.SIGINT), "all")
        assert code == 130, said
        cluster.invoke("all")


def test_a_second_member_dies_while_the_first_is_restarted(cluster: Deployed, writing: Writing) -> None:
    """The run waits between two members because nobody reads what it says; meanwhile another one dies."""
    leader = cluster.leader()
    first, victim = [host for host in cluster.hosts if host.name != leader]
    last = next(host for host in cluster.hosts if host.name == leader)
    old = dict(zip([host.name for host in cluster.hosts], pids(cluster.hosts), strict=True))
    config = cluster.config.read_text()
    cluster.edit(etcd={"flags": {"heartbeat-interval": 310}})
    cluster.invoke("units")
    with intact(cluster, writing), started(cluster, "start") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("==> [7/8] start"), line
        stuff(process)
        while "pipe" not in Path(f"/proc/{process.pid}/wchan").read_text():
            assert process.poll() is None, ended(process)
        assert pids([first]) != [old[first.name]]
        victim.sh("systemctl stop etcd")
        code, said = ended(process)
        assert code == 1, said
        assert f"error: {victim.name} was not restarted, for the cluster is not healthy" in said
        assert f"{victim.name} does not answer" in said
        assert "next: invoke doctor " in said
        assert pids([last]) == [old[last.name]]
        victim.sh("systemctl start etcd")
        cluster.wait_healthy()
        cluster.invoke("all")
        assert pids([last]) != [old[last.name]]
    cluster.config.write_text(config)
    cluster.invoke("all")


def stuff(process: Running) -> None:
    """Fills the pipe that the run writes to: it waits where it has something to say."""
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PAGE)
    pipe = os.open(f"/proc/{process.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"\n" * 2 * PAGE)
    os.close(pipe)


BROKEN = {
    "it cannot be imported": ("import nothing_of_that_name\n", "nothing_of_that_name"),
    "an unknown hook": ("from steps.api import hookimpl\n@hookimpl\ndef etcd_nonsense(): ...\n", "etcd_nonsense"),
    "a wrong signature": ("from steps.api import hookimpl\n@hookimpl\ndef etcd_checks(cluster, host): ...\n", "host"),
    "no marker": ("def etcd_checks(cluster, node): ...\n", "etcd_checks"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_plugin_that_cannot_be_used(cluster: Deployed, tmp_path: Path, fault: str) -> None:
    source, word = BROKEN[fault]
    asked = requests(cluster.hosts)
    said = cluster.invoke("all", code=2, cwd=project(tmp_path, source)).stderr
    assert "site.py" in said
    assert word in said
    assert requests(cluster.hosts) == asked
    tidy(cluster)


RAISING = """
from steps.api import hookimpl

@hookimpl
def etcd_before_restart(cluster, node):
    if node.name == %r:
        raise RuntimeError("its disks are being backed up")
"""


def test_a_plugin_that_raises_in_the_middle(cluster: Deployed, writing: Writing, tmp_path: Path) -> None:
    leader = cluster.leader()
    first, second = [host for host in cluster.hosts if host.name != leader]
    last = next(host for host in cluster.hosts if host.name == leader)
    folder, old, config = project(tmp_path, RAISING % second.name), pids(cluster.hosts), cluster.config.read_text()
    cluster.edit(etcd={"flags": {"heartbeat-interval": 320}})
    with intact(cluster, writing):
        said = cluster.invoke("all", code=1, cwd=folder).stderr
        assert f"plugin site: etcd_before_restart in step start on {second.name}: " in said
        assert "its disks are being backed up" in said
        now = dict(zip([host.name for host in cluster.hosts], zip(old, pids(cluster.hosts), strict=True), strict=True))
        assert {name for name, (was, is_) in now.items() if was != is_} == {first.name}, now
        waiting = ", ".join(sorted((second.name, last.name)))
        assert f"{waiting}: the former unit is back: a reboot starts what runs" in said
        cluster.config.write_text(config)
        cluster.invoke("all")
