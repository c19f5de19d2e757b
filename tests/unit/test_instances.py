"""The etcds that live on a node, from what their processes have open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clusters import on_hosts, seen

from steps.core.etcd.instances import Instance, ask_script, foreign, ours, parse, script
from steps.core.node.facts import Entry, Look, Process
from steps.core.node.paths import unit_file

CLUSTER = on_hosts()
NODE = CLUSTER.nodes[0]
UNIT = unit_file(CLUSTER, NODE)
KUBESPRAY = """exe /usr/local/bin/etcd
group 0::/system.slice/etcd.service
open socket:[11]
open /var/lib/etcd/member/wal/0000000000000000-0000000000000000.wal
open /var/lib/etcd/member/snap/db
word /usr/local/bin/etcd
env ETCD_NAME=etcd1
env ETCD_DATA_DIR=/somewhere/else
env ETCD_CERT_FILE=/etc/ssl/etcd/ssl/member.pem
."""


def framed(pid: int, body: str) -> str:
    return f"etcd {pid} {len(body.encode())}\n{body}\n"


def test_parse_takes_data_from_what_is_open() -> None:
    (found,) = parse(framed(812, KUBESPRAY))
    assert found == Instance(
        812,
        "etcd.service",
        "/usr/local/bin/etcd",
        "/var/lib/etcd",
        "/var/lib/etcd/member/wal",
        {"name": "etcd1", "data-dir": "/somewhere/else", "cert-file": "/etc/ssl/etcd/ssl/member.pem"},
        frozenset({"11"}),
    )
    assert found.described == (
        "etcd.service (pid 812, /usr/local/bin/etcd): member etcd1, data /var/lib/etcd, WAL /var/lib/etcd/member/wal"
    )


def test_parse_without_open_files_takes_the_options() -> None:
    body = "exe /opt/etcd (deleted)\ngroup 1:name=systemd:/user.slice/user-0.slice/session-3.scope\n"
    body += "word ./etcd\nword --data-dir\nword /a b\nword -name=x\nenv ETCD_NAME=y\n."
    (found,) = parse(framed(7, body))
    assert (found.unit, found.exe, found.data, found.wal) == ("", "/opt/etcd", "/a b", "/a b/member/wal")
    assert found.options["name"] == "x", "the command line overrides the environment"
    assert found.called == "pid 7 (/opt/etcd), in no unit"
    (empty,) = parse(framed(8, "."))
    assert empty.described == "pid 8 (), in no unit: data unknown, WAL unknown"


@pytest.mark.parametrize(
    ("group", "unit"),
    [
        ("0::/system.slice/etcd3.service", "etcd3.service"),
        ("1:name=systemd:/system.slice/docker-0123.scope", "docker-0123.scope"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/my-etcd.service", "my-etcd.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/init.scope", ""),
        ("12:pids:/", ""),
    ],
)
def test_parse_unit_is_the_innermost_service(group: str, unit: str) -> None:
    (found,) = parse(framed(7, f"group {group}\n."))
    assert found.unit == unit


def test_parse_frames_hold_whatever_a_process_calls_itself() -> None:
    found = parse(framed(7, "word etcd 9 0\n.") + framed(8, "exe /usr/bin/etcd\n."))
    assert [each.pid for each in found] == [7, 8]


def look(content: str | None = None, **changes: Any) -> Look:
    entries = {} if content is None else {UNIT: Entry("file", content=content)}
    return seen(CLUSTER, **{"entries": entries, "listening": {2379: (("0", "11"),)}, **changes})


def test_ours_is_a_unit_that_this_tool_wrote() -> None:
    mine = "[Service]\nEnvironment=UNIT_DIGEST=0a\nExecStart=/usr/local/bin/etcd\n"
    assert ours(CLUSTER, NODE, look(mine))
    assert not ours(CLUSTER, NODE, look())
    assert not ours(CLUSTER, NODE, look("[Service]\nExecStart=/usr/local/bin/etcd\n"))
    assert not ours(CLUSTER, NODE, look(mine, unit={"FragmentPath": "/run/systemd/system/etcd.service"}))


def test_foreign_is_who_has_the_nodes_ports() -> None:
    (found,) = parse(framed(812, KUBESPRAY))
    process = Process(812, "x", (), 0)
    mine = "[Service]\nEnvironment=UNIT_DIGEST=0a\n"
    assert foreign(CLUSTER, NODE, look(), [found]) is found
    assert foreign(CLUSTER, NODE, look("[Service]\n", process=process), [found]) is found
    assert foreign(CLUSTER, NODE, look(mine, process=process), [found]) is None
    assert foreign(CLUSTER, NODE, look(listening={2379: (("0", "12"),)}), [found]) is None, "another's socket"
    assert foreign(CLUSTER, NODE, look(listening={9999: (("0", "11"),)}), [found]) is None, "on another port"
    beside = parse(framed(900, KUBESPRAY.replace("[11]", "[12]")))[0]
    assert foreign(CLUSTER, NODE, look(mine, process=process), [beside]) is None


def test_script_finds_a_living_process(tmp_path: Path) -> None:
    """A stand-in that is called etcd, with a database open and a name that could forge lines."""
    data = tmp_path / "data"
    (data / "member" / "snap").mkdir(parents=True)
    (data / "member" / "snap" / "db").touch()
    program = tmp_path / "etcd"
    program.symlink_to(sys.executable)
    code = (
        "import sys, time, pathlib; pathlib.Path('/proc/self/comm').write_text('etcd');"
        "f = open(sys.argv[1]); print('ready', flush=True); time.sleep(60)"
    )
    argv = [str(program), "-c", code, str(data / "member" / "snap" / "db"), "--name=a\nexe /forged"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "ETCD_WAL_DIR": str(tmp_path / "wal")}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        done = subprocess.run(["sh", "-c", script()], capture_output=True, text=True, env={"LC_ALL": "C"}, check=True)
        process.kill()
    (found,) = [each for each in parse(done.stdout) if each.pid == process.pid]
    assert found.data == str(data)
    assert found.wal == str(tmp_path / "wal")
    assert found.exe == os.path.realpath(sys.executable)
    assert found.options["name"] == "a exe /forged"


def test_scripts_are_posix_shell() -> None:
    (found,) = parse(framed(812, KUBESPRAY + "\nenv ETCD_LISTEN_CLIENT_URLS=https://0.0.0.0:2379"))
    for text in (script(), ask_script(found)):
        assert subprocess.run(["sh", "-n", "-c", text], check=False).returncode == 0


def test_ask_script_uses_the_members_own_certificates_and_url() -> None:
    body = KUBESPRAY[:-1] + "env ETCD_LISTEN_CLIENT_URLS=https://0.0.0.0:2379,https://10.0.0.1:2379\n."
    (found,) = parse(framed(812, body))
    text = ask_script(found)
    assert "--cert=/etc/ssl/etcd/ssl/member.pem" in text
    assert "--endpoints=https://127.0.0.1:2379" in text
    assert "/usr/local/bin/etcdctl" in text
    assert ask_script(Instance(7)) == "true\n"


def test_ask_script_runs_no_program_that_another_user_may_have_written(tmp_path: Path) -> None:
    etcdctl = tmp_path / "etcdctl"
    etcdctl.write_text("#!/bin/sh\ntouch " + str(tmp_path / "ran") + "\n")
    etcdctl.chmod(0o755)
    tmp_path.chmod(0o777)
    found = Instance(7, exe=str(tmp_path / "etcd"), options={"listen-client-urls": "http://127.0.0.1:1"})
    subprocess.run(["sh", "-c", ask_script(found)], check=False, capture_output=True)
    assert not (tmp_path / "ran").exists()
