"""What the look script says of this machine, read back; nothing is changed by it."""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import on_hosts, on_loopback
from hypothesis import given
from hypothesis import strategies as st

from steps.core.base.digest import digest
from steps.core.base.frames import Damaged
from steps.core.config.model import Cluster
from steps.core.node.facts import Look, NodeFacts
from steps.core.node.inspect import parse
from steps.core.node.inspect_script import look_script, pid_lines
from steps.core.node.resources import Blob, Block, Command, Directory, File, Promise, Resource, Stream, Symlink, User
from steps.core.release.binaries import own_arch

END = "end facts\nend digests\n"
ME = pwd.getpwuid(os.getuid()).pw_name


def looked(cluster: Cluster, resources: list[Resource] | None = None) -> Look:
    script = look_script(cluster, cluster.nodes[0], resources or [])
    result = subprocess.run(
        ["sh", "-c", script], env={"LC_ALL": "C", "PATH": os.environ["PATH"]}, capture_output=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, b"")
    return parse(result.stdout.decode("utf-8", "surrogateescape"), resources or [])


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return on_loopback(tmp_path / "etcd.toml")


def test_the_machine_itself(cluster: Cluster) -> None:
    look = looked(cluster)
    assert look.facts.cpu == platform.machine()
    assert look.arch == own_arch()
    assert abs(look.facts.clock - time.time()) < 5
    assert look.facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (look.entries, look.process, look.member, look.wal, look.users) == ({}, None, False, False, frozenset())


def test_every_kind_of_path(tmp_path: Path, cluster: Cluster) -> None:
    root = tmp_path / "it's a $(dir)"
    root.mkdir(mode=0o750)
    (root / "unit").write_bytes(b"caf\xe9\n\n\n\xff")
    (root / "unit").chmod(0o4644)
    (root / "link").symlink_to("unit")
    os.mkfifo(root / "fifo")
    resources: list[Resource] = [
        File(f"{root}/unit", ""),
        File(f"{root}/link", ""),
        File(f"{root}/fifo", "", secret=True),
        File(f"{root}/absent", ""),
        Directory(str(root)),
        Symlink(f"{root}/link", "x"),
        Symlink(f"{root}/unit", "x"),
    ]
    entries = looked(cluster, resources).entries
    unit = entries[f"{root}/unit"]
    assert unit.content is not None
    assert unit.content.encode("utf-8", "surrogateescape") == b"caf\xe9\n\n\n\xff"
    assert unit.digest == digest(b"caf\xe9\n\n\n\xff")
    assert (unit.kind, unit.mode, unit.owner, unit.mtime) == ("file", 0o4644, ME, int((root / "unit").stat().st_mtime))
    assert (entries[str(root)].kind, entries[str(root)].mode) == ("dir", 0o750)
    assert (entries[f"{root}/link"].kind, entries[f"{root}/link"].target) == ("link", "unit")
    assert entries[f"{root}/fifo"].kind == "other"
    assert f"{root}/absent" not in entries


def test_a_link_to_a_directory_is_that_directory(tmp_path: Path, cluster: Cluster) -> None:
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "data").symlink_to("disk")
    (tmp_path / "broken").symlink_to("nowhere")
    paths = [str(tmp_path / name) for name in ("data", "broken")]
    entries = looked(cluster, [Directory(path) for path in paths]).entries
    assert [entries[path].kind for path in paths] == ["dir", "link"]
    assert entries[paths[0]].mode == 0o700


def test_who_else_lives_in_a_directory_of_ours(cluster: Cluster) -> None:
    paths = cluster.nodes[0].paths
    for path in (paths.data, paths.wal, paths.cert, f"{paths.data}/member", f"{paths.data}/lost+found"):
        Path(path).mkdir(parents=True)
    assert looked(cluster).strangers == {}
    (Path(paths.data) / ".pgpass of\ta user").touch()
    (Path(paths.cert) / "server.key").touch()
    assert looked(cluster).strangers == {paths.data: ".pgpass of\ta user", paths.cert: "server.key"}


def test_what_is_secret_large_or_no_text_is_not_read(tmp_path: Path, cluster: Cluster) -> None:
    for name in ("key", "etcd", "big"):
        (tmp_path / name).write_text("PRIVATE" * 10_000)
    blob = Blob(tmp_path / "x", "0" * 64, Stream(tmp_path / "all", ()))
    resources: list[Resource] = [
        File(f"{tmp_path}/key", "", secret=True),
        File(f"{tmp_path}/etcd", blob),
        File(f"{tmp_path}/big", Promise("")),
    ]
    look = looked(cluster, resources)
    assert [look.entries[f"{tmp_path}/{name}"].content for name in ("key", "etcd", "big")] == [None] * 3
    assert look.entries[f"{tmp_path}/key"].digest == digest(b"PRIVATE" * 10_000)


def test_users_commands_and_blocks(tmp_path: Path, cluster: Cluster) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost")
    done, todo = Command(("x",), "true; echo noise; echo noise >&2"), Command(("x",), "cat; exit 1")
    resources: list[Resource] = [User(ME), User("nobody-of-that-name"), done, todo, Block(f"{tmp_path}/hosts", "m", "")]
    look = looked(cluster, resources)
    assert look.users == {ME}
    assert look.states == {done.key: "done"}
    assert look.entries[f"{tmp_path}/hosts"].content == "127.0.0.1 localhost"


def test_listening_ports_and_the_space(tmp_path: Path, cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as four, socket.socket(socket.AF_INET6) as six:
        six.bind(("::1", 0))
        six.listen()
        look = looked(cluster)
        for server in (four, six):
            ((uid, inode),) = look.listening[server.getsockname()[1]]
            assert (uid, inode) == (str(os.getuid()), str(os.fstat(server.fileno()).st_ino))
    space, real = look.space[cluster.nodes[0].paths.data], os.statvfs(tmp_path)
    assert space.total == real.f_blocks * real.f_frsize
    assert 0 < space.free <= space.total
    assert space.writable


@pytest.mark.parametrize(
    ("made", "found"), [("", (False, False)), ("data/member", (True, False)), ("wal/0.wal", (False, True))]
)
def test_a_members_data(cluster: Cluster, made: str, found: tuple[bool, bool]) -> None:
    (Path(cluster.nodes[0].paths.data).parent / made).mkdir(parents=True)
    look = looked(cluster)
    assert (look.member, look.wal) == found


def test_a_wal_inside_the_data_directory_is_no_wal_of_ours(cluster: Cluster) -> None:
    paths = cluster.nodes[0].paths
    (Path(paths.data) / "member" / "wal" / "0.wal").mkdir(parents=True)
    look = looked(cluster)
    assert (look.wal, look.facts.inner_wal) == (False, True)
    (Path(paths.wal) / "0.wal").mkdir(parents=True)
    assert looked(cluster).wal


# -- the living process -------------------------------------------------------------------------------------------


@pytest.fixture
def living(cluster: Cluster) -> Iterator[subprocess.Popen[bytes]]:
    """A member that is really `sleep`, started as etcd.sh starts it."""
    paths = cluster.nodes[0].paths
    binary = Path(paths.bin) / "etcd"
    binary.parent.mkdir(parents=True)
    shutil.copy(shutil.which("sleep") or "", binary)
    process = subprocess.Popen([binary, "600"], env={"UNIT_DIGEST": "0123456789abcdef", "X": "y"})
    (Path(paths.unit) / "etcd.pid").write_text(f"{process.pid}\n")
    yield process
    process.kill()
    process.wait()


def test_the_living_process(cluster: Cluster, living: subprocess.Popen[bytes]) -> None:
    binary = Path(cluster.nodes[0].paths.bin) / "etcd"
    look = looked(cluster)
    assert look.process is not None
    assert look.process.pid == living.pid
    assert look.process.argv == (str(binary), "600")
    assert look.process.exe == look.facts.binary_digest == digest(binary.read_bytes())
    assert abs(look.process.started - time.time()) < 10
    assert look.facts.unit_digest == "0123456789abcdef"


def test_the_process_runs_what_was_replaced(cluster: Cluster, living: subprocess.Popen[bytes]) -> None:
    binary = Path(cluster.nodes[0].paths.bin) / "etcd"
    old = digest(binary.read_bytes())
    new = binary.with_name("new")
    new.write_text("#!/bin/sh\necho etcd Version: 3.5.30\n")
    new.chmod(0o755)
    new.replace(binary)
    look = looked(cluster)
    assert look.process is not None
    assert look.process.exe == old != look.facts.binary_digest
    assert look.facts.installed_version == "3.5.30"
    assert look.facts.running_version is None, "sleep has no version"


@pytest.mark.parametrize(
    ("comm", "state", "seen"),
    [("(etcd)", "activating", False), ("etcd", "activating", True), ("(etcd)", "active", True)],
)
def test_process_that_has_not_become_etcd_yet_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comm: str, state: str, *, seen: bool
) -> None:
    """Between its fork and its exec systemd's child would be taken for somebody else's etcd, run by root."""
    binary, systemctl = tmp_path / comm, tmp_path / "systemctl"
    shutil.copy(shutil.which("sleep") or "", binary)
    with subprocess.Popen([binary, "600"]) as process:
        systemctl.write_text(f"#!/bin/sh\nprintf 'ActiveState={state}\\nMainPID={process.pid}\\n'\n")
        systemctl.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        try:
            found = looked(on_hosts()).process
        finally:
            process.kill()
    assert (found.pid if found else None) == (process.pid if seen else None)


@pytest.mark.parametrize("content", ["", "\n", "0\n", "-1\n", "1\n", "99999999\n", "self\n", "x y z\n", "../1\n"])
def test_a_pid_file_that_names_no_etcd_of_ours_is_nobody(cluster: Cluster, content: str) -> None:
    file = Path(cluster.nodes[0].paths.unit) / "etcd.pid"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    result = subprocess.run(
        ["sh", "-c", pid_lines(cluster.nodes[0]) + 'echo "$p"'], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "0\n")
    assert looked(cluster).process is None


def test_a_pid_that_somebody_else_has_now_is_nobody(cluster: Cluster, living: subprocess.Popen[bytes]) -> None:
    (Path(cluster.nodes[0].paths.unit) / "etcd.pid").write_text(f"{os.getpid()}\n")
    assert looked(cluster).process is None


# -- under systemd, from what a host has said -----------------------------------------------------------------------


def test_systemds_words() -> None:
    cluster = on_hosts()
    unit = "LoadState=loaded\nMainPID=812\nExecStart={ path=/usr/local/bin/etcd ; argv[]=a=b }\nDropInPaths="
    said = f"arch=aarch64\nsystemd=252\nunit {len(unit)}\n{unit}\n"
    said += "failed to do something\nmember=1\nliving=same\nversion=3.5.16\n" + END
    look = parse(said, [])
    assert look.facts.systemd == 252
    assert look.unit["MainPID"] == "812"
    assert look.unit["ExecStart"] == "{ path=/usr/local/bin/etcd ; argv[]=a=b }"
    assert look.unit["DropInPaths"] == ""
    assert (look.arch, look.member, look.facts.running_version) == ("arm64", True, "3.5.16")
    script = look_script(cluster, cluster.nodes[0], [])
    assert "systemctl show etcd.service" in script
    assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0


def test_a_process_whose_argument_has_a_newline() -> None:
    argv = "/bin/etcd\n--name=a\n\n"
    look = parse(f"process 5 {'a' * 64} 1700000000 {len(argv)}\n{argv}\nmember=1\n{END}", [])
    assert look.process is not None
    assert (look.process.pid, look.process.argv[:2], look.member) == (5, ("/bin/etcd", "--name=a"), True)


@given(text=st.binary(max_size=200))
def test_a_text_of_any_bytes_comes_back(text: bytes) -> None:
    content = text.decode("utf-8", "surrogateescape")
    said = (
        b"entry 81a4 644 5 domain users\tdomain users\t/f\nentry 81a4 644 5 root\troot\t/g\n"
        b"text %d /f\ntext 2 /g\ntexts\n==> /f <==\n%s\n==> /g <==\nok\nmember=1\n%s"
    ) % (len(text), text, END.encode())
    look = parse(said.decode("utf-8", "surrogateescape"), [])
    assert (look.entries["/f"].content, look.entries["/g"].content) == (content, "ok")
    assert look.entries["/f"].group == "domain users"
    assert look.member


@pytest.mark.parametrize("now", [b"", b"longer than it was", b"\n==> /g <==\n"])
def test_a_text_that_changed_while_it_was_read_is_none(now: bytes) -> None:
    said = b"text 5 /f\ntext 2 /g\ntexts\n==> /f <==\n%s\n==> /g <==\nok\nmember=1\n" % now
    with pytest.raises(Damaged, match="a file changed meanwhile"):
        parse(said.decode(), [])


def test_parse_facts_of_each_kind_are_typed() -> None:
    said = "uid=0\nclock=1700000000\nsystemd=252\nzstd=1\ngiven=ETCD_A ETCD_B\naccounts=/etc/passwd, /etc/shadow\n"
    facts = parse(f"{said}ETCD_NAME=a\nbinary=/usr/local/bin/etcd\nversion=3.5.16\nliving=same\nx=1\n{END}", []).facts
    assert (facts.uid, facts.clock, facts.systemd, facts.has_zstd) == (0, 1_700_000_000, 252, True)
    assert (facts.given_variables, facts.accounts_read_only) == (("ETCD_A", "ETCD_B"), ("/etc/passwd", "/etc/shadow"))
    assert facts.environment == {"ETCD_NAME": "a"}
    assert (facts.binary_digest, facts.installed_version, facts.running_version) == ("", "3.5.16", "3.5.16")
    assert parse(END, []).facts == NodeFacts(), "what is not said is unknown"


def test_parse_number_that_is_none_raises_damaged() -> None:
    with pytest.raises(Damaged, match=r"^clock is '17x', a number was expected$"):
        parse(f"clock=17x\n{END}", [])
