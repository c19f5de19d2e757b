"""One client for all that the members are asked: where they listen now, with deadlines, and logs are never data."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clusters import on_hosts, on_loopback, seen

from steps.core.config.model import Cluster, Node
from steps.core.context.etcd_client import SAVE_DEADLINE, EtcdClient
from steps.core.etcd import listing
from steps.core.etcd.client import auth_script, move_leader_script, parse_auth, snapshot_script
from steps.core.etcd.views import Auth, Member
from steps.core.node.facts import Look, Process
from steps.core.transport.shell_session import Result

CLUSTER = on_hosts()
ONE, TWO, THREE = CLUSTER.nodes


@dataclass
class Run:
    """What the client asks of a run: `scripts` are those that were run, `says` what each prints."""

    says: str = ""
    cluster: Cluster = CLUSTER
    looks: dict[str, Look] = field(default_factory=dict)
    members: tuple[Member, ...] | None = None
    scripts: list[tuple[str, str, float]] = field(default_factory=list)

    @property
    def hosts(self) -> Any:
        return SimpleNamespace(run=lambda node, script, **more: self.sh(node, script, deadline=more["deadline"]))

    def sh(self, node: Node, script: str, *, deadline: float = 60) -> Result:
        self.scripts.append((node.name, script, deadline))
        return Result(0, self.says, "")


def at(port: int) -> Look:
    """A node on which a member lives that listens at this client port."""
    return seen(CLUSTER, process=Process(5, "x", ("etcd", f"--listen-client-urls=https://10.0.0.2:{port}"), 0))


def client(run: Run) -> EtcdClient:
    return EtcdClient(run)  # type: ignore[arg-type]  # a stand-in


QUESTIONS: dict[str, Callable[[EtcdClient], Any]] = {
    "ask": lambda etcd: etcd.ask(TWO),
    "own_script": lambda etcd: etcd.own_script(TWO, members=True),
    "version": lambda etcd: etcd.version(TWO),
    "members": lambda etcd: etcd.members(TWO),
    "auth": lambda etcd: etcd.auth(TWO),
    "move_leader_script": lambda etcd: etcd.move_leader_script(TWO, "a1"),
    "snapshot_save": lambda etcd: etcd.snapshot_save(TWO, None),  # type: ignore[arg-type]  # a stand-in
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
def test_etcd_client_asks_where_the_member_listens_now(ask: Callable[[EtcdClient], Any]) -> None:
    run = Run(looks={"etcd-2": at(2390)})
    answer = ask(client(run))
    (script,) = [text for _, text, _ in run.scripts] or [answer]
    assert "https://10.0.0.2:2390" in script
    assert "https://10.0.0.2:2379" not in script
    assert "--cert=/etc/etcd/cert/etcd.pem" in script


def test_learn_member_without_a_look_is_asked_at_the_port_of_its_process() -> None:
    run = Run("etcd\n--listen-client-urls=https://10.0.0.2:2399,https://127.0.0.1:2399\n")
    etcd = client(run)
    assert etcd.serving is CLUSTER
    etcd.learn(TWO)
    assert [node.client_port for node in etcd.serving.nodes] == [2379, 2399, 2379]


def test_ask_endpoints_are_all_members_unless_some_are_named() -> None:
    run = Run()
    client(run).ask(ONE)
    client(run).ask(ONE, ["https://10.0.0.3:2379"])
    every, some = (script for _, script, _ in run.scripts)
    assert "ask status --endpoints=https://10.0.0.1:2379,https://10.0.0.2:2379,https://10.0.0.3:2379 " in every
    assert "ask status --endpoints=https://10.0.0.3:2379 " in some


# -- as the shell runs it -----------------------------------------------------------------------------------------


def on_stand_in(folder: Path, body: str) -> tuple[Cluster, Node]:
    """A node of this machine with a shell script as its etcdctl."""
    cluster = on_loopback(folder / "etcd.toml")
    node = cluster.nodes[0]
    etcdctl = Path(node.paths.bin) / "etcdctl"
    etcdctl.parent.mkdir(parents=True)
    etcdctl.write_text(f"#!/bin/sh\n{body}\n")
    etcdctl.chmod(0o755)
    return cluster, node


def output(script: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["sh", "-c", script], env={"PATH": os.environ["PATH"]}, capture_output=True, check=False)


LOG = '{"level":"warn","msg":"retrying"}'
LOGINS = {
    "off": ("echo '{}'", Auth(on=False)),
    "off, with a log": (f"echo '{LOG}' >&2; echo '{{}}'", Auth(on=False)),
    "on": (
        f"echo '{LOG}' >&2; echo 'Error: etcdserver: authentication failed, invalid user ID or password' >&2; exit 1",
        Auth(on=True, why="etcdserver: authentication failed, invalid user ID or password"),
    ),
    "unknown": (
        "echo 'Error: context deadline exceeded' >&2; exit 1",
        Auth(None, "context deadline exceeded"),
    ),
    "a log that reads like an answer": (
        "printf 'login 0\\nanswer login 0 0\\n\\n' >&2; echo 'Error: no route to host' >&2; exit 1",
        Auth(None, "no route to host"),
    ),
}


@pytest.mark.parametrize(("body", "expected"), LOGINS.values(), ids=LOGINS)
def test_auth_is_read_from_the_exit_code_and_never_from_a_log(tmp_path: Path, body: str, expected: Auth) -> None:
    done = output(auth_script(*on_stand_in(tmp_path, body)))
    assert (parse_auth(done.stdout.decode()), done.stderr) == (expected, b"")


def test_parse_auth_of_no_answer_is_unknown() -> None:
    assert parse_auth("") == Auth(None, "no answer")


def test_move_leader_that_fails_ends_the_script(tmp_path: Path) -> None:
    cluster, node = on_stand_in(tmp_path, 'echo "$@"; case $* in *a1) exit 0;; esac; echo no >&2; exit 1')
    done = output(move_leader_script(cluster, node, "a1") + "echo restarted\n")
    assert (done.returncode, done.stdout) == (0, b"restarted\n")
    done = output(move_leader_script(cluster, node, "b2") + "echo restarted\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"move-leader b2" in done.stderr


def test_snapshot_script_prints_the_file_alone_and_removes_it(tmp_path: Path) -> None:
    body = 'for last; do :; done; echo saved; echo "$last" >"${0%/*}/where"; printf data >"$last"'
    cluster, node = on_stand_in(tmp_path, body)
    done = output(snapshot_script(cluster, node, 7))
    assert (done.returncode, done.stdout) == (0, b"data")
    where = Path(node.paths.bin, "where").read_text().strip()
    assert where.startswith("/var/tmp/etcd-steps.")
    assert not Path(where).parent.exists()


def test_snapshot_script_deadline_is_its_own_and_no_path_is_touched() -> None:
    node = replace(ONE, paths=replace(ONE.paths, bin="/opt/timeout 15"))
    script = snapshot_script(CLUSTER, node, SAVE_DEADLINE)
    assert "timeout 1800 env -i '/opt/timeout 15/etcdctl' " in script
    assert "--command-timeout=1800s snapshot save" in script


def test_listed_answer_whose_last_newline_the_shell_took_away_is_read() -> None:
    document = '{"members":[{"ID":1,"name":"etcd-1","peerURLs":["https://10.0.0.1:2380"]}]}'
    said = f"state running 7\nanswer members 0 {len(document)}\n{document}"  # as $( … ) leaves it
    rest, members = listing.listed(f"listing {len(said)}\n{said}\narch=x86_64\n")
    assert rest == "arch=x86_64\n"
    assert members is not None
    assert [member.name for member in members] == ["etcd-1"]
