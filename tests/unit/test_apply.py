"""The generated scripts, run for real by this machine's `sh`: what was staged, renamed, kept and removed."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import on_loopback

from steps.core.base.digest import digest
from steps.core.node.apply import CHECK_FAILED, STAGED, Upload, apply_script
from steps.core.node.diff import Change, changes
from steps.core.node.facts import Entry, Look, NodeFacts
from steps.core.node.inspect import parse
from steps.core.node.inspect_script import look_script
from steps.core.node.resources import (
    Blob,
    Block,
    Command,
    Directory,
    File,
    Promise,
    Resource,
    Service,
    Stream,
    Symlink,
    User,
)
from steps.core.transport.local import LocalPipe
from steps.core.transport.shell_session import _SHELL, Result, Session, shell_command

CLUSTER = on_loopback()
EMPTY = Look(entries={}, facts=NodeFacts())
BROKEN = "the upload was cut off or damaged: gzip cannot unpack it"
CUT = 100_000  # bytes; what comes before is more than gzip reads before it writes


def looked(resources: list[Resource]) -> Look:
    script = look_script(CLUSTER, CLUSTER.nodes[0], resources)
    return parse(run(Upload(script, (), 0)).out, resources)


def upload(resources: list[Resource], look: Look = EMPTY) -> Upload:
    return apply_script(changes(resources, look, owners=False), look, owners=False)


def run(given: Upload, payload: Iterable[bytes] | None = None) -> Result:
    session = Session(LocalPipe(shell_command(None)))
    try:
        return session.run(given.script, given.chunks() if payload is None else payload, deadline=20)
    finally:
        session.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def leftovers(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.name.startswith(STAGED)]


def streamed(folder: Path, contents: Mapping[str, bytes]) -> dict[str, Blob]:
    stream = Stream(folder / "all", tuple((name, len(content)) for name, content in contents.items()))
    stream.packed("gzip").write_bytes(gzip.compress(b"".join(contents.values())))
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: Blob(folder / name, digest(content), stream) for name, content in contents.items()}


@pytest.fixture
def blob(tmp_path: Path) -> Iterator[Blob]:
    content = os.urandom(700_000) + bytes(300_000)
    folder = tmp_path.with_name(f"{tmp_path.name}-cache")
    folder.mkdir()
    found = streamed(folder, {"before": b"before", "etcd": content, "behind": bytes(200_000)})["etcd"]
    found.stream.packed("zstd").write_bytes(b"zstd" + b"before" + content + bytes(200_000))
    yield found
    shutil.rmtree(folder)


def test_everything_is_made_and_then_nothing_differs(tmp_path: Path, blob: Blob) -> None:
    odd = tmp_path / 'it\'s a "dir" $HOME é'
    resources: list[Resource] = [
        Directory(f"{odd}/data", 0o700),
        File(f"{odd}/deep/er/unit", "[Unit]\n%n $x `y`\nno newline at the end", 0o644),
        File(f"{odd}/key", b"\x00\xff binary\n", 0o600, secret=True),
        File(f"{odd}/empty", ""),
        File(f"{odd}/bin/etcd", blob, 0o755),
        Symlink(f"{odd}/live", "gen-1"),
        Symlink(f"{odd}/-dashed link", "-gen"),
        Block(f"{odd}/hosts", "etcd-steps demo", "10.0.0.1 etcd-1\n"),
        Command(("touch", f"{odd}/made by a command"), f"test -e '{tmp_path}/nowhere'"),
    ]
    given = upload(resources)
    result = run(given)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [f"ok {index}" for index in range(len(resources))]
    assert given.size == sum(map(len, given.chunks()))
    assert (odd / "deep/er/unit").read_text().endswith("no newline at the end")
    assert (odd / "key").read_bytes() == b"\x00\xff binary\n"
    assert (odd / "bin/etcd").read_bytes() == blob.path.read_bytes()
    assert (odd / "-dashed link").readlink() == Path("-gen")
    assert (odd / "made by a command").exists()
    assert [mode(odd / name) for name in ("data", "deep/er/unit", "key", "bin/etcd")] == [0o700, 0o644, 0o600, 0o755]
    assert mode(odd / "deep") == 0o755, "a parent that nobody declared can be entered by the service"
    assert leftovers(tmp_path) == []
    assert changes(resources[:-1], looked(resources[:-1]), owners=False) == []


def test_a_node_with_zstd_gets_what_zstd_unpacks(tmp_path: Path, blob: Blob, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "zstd"
    program.write_text("#!/bin/sh\n[ $* = -dc ] && head -c 4 >&2 && cat\n")
    program.chmod(0o755)
    monkeypatch.setattr("steps.core.transport.shell_session._SHELL", _SHELL.replace("PATH=", f"PATH={tmp_path}:"))
    wanted: list[Resource] = [File(f"{tmp_path}/etcd", blob, 0o755)]
    given = upload(wanted, looked(wanted))
    result = run(given)
    assert (result.code, result.err) == (0, "zstd")
    assert (tmp_path / "etcd").read_bytes() == blob.path.read_bytes()
    assert given.size == blob.stream.packed("zstd").stat().st_size


def test_of_one_stream_each_node_takes_what_it_lacks(tmp_path: Path) -> None:
    contents = {"etcd": b"1" * 100_000, "etcdctl": b"2" * 70_001, "etcdutl": b"", "odd ' name": b"4"}
    blobs = streamed(tmp_path, contents)
    for taken in (["etcd"], ["odd ' name", "etcdctl"], [*contents]):
        node = tmp_path / f"node {len(taken)}"
        wanted: list[Resource] = [
            File(f"{node}/text", "before"),
            *(File(f"{node}/bin {name}/{name}", blobs[name]) for name in taken),
            File(f"{node}/behind", "behind"),
        ]
        given = upload(wanted)
        session = Session(LocalPipe(shell_command(None)))
        result = session.run(given.script, given.chunks(), deadline=20)
        assert (result.code, result.err) == (0, "")
        assert session.run("echo next", deadline=20).out == "next\n", "nothing is left of the payload"
        session.close()
        assert {name: (node / f"bin {name}" / name).read_bytes() for name in taken} == {n: contents[n] for n in taken}
        assert (node / "behind").read_text() == "behind"
        assert leftovers(tmp_path) == []


def test_what_cannot_be_unpacked_replaces_nothing(old: Path, blob: Blob) -> None:
    """The end of a gzip file is its checksum: all bytes have arrived by then."""
    packed = blob.stream.packed("gzip")
    packed.write_bytes(packed.read_bytes()[:-8] + b"checksum")
    result = run(upload([File(str(old), blob, 0o755)]))
    assert (result.ok, old.read_text(), leftovers(old.parent)) == (False, "old", [])
    assert result.err.endswith(BROKEN)


ODD = {
    "every byte": bytes(range(256)),
    "what printf reads": rb"%s \n \\n \0101 \c \x41 %%",
    "digits after a byte": b"\x00012 \xff7 \x807",
    "newlines alone": b"\n\n",
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_a_text_arrives_byte_for_byte(tmp_path: Path, content: bytes) -> None:
    assert run(upload([File(f"{tmp_path}/odd", content)])).ok
    assert (tmp_path / "odd").read_bytes() == content


def test_a_file_is_replaced_by_rename(tmp_path: Path) -> None:
    target = tmp_path / "etcd"
    target.write_text("old")
    with target.open() as living:
        assert run(upload([File(str(target), "new", 0o755)])).ok
        assert (living.read(), target.read_text()) == ("old", "new")


def test_a_running_binary_can_be_replaced(tmp_path: Path) -> None:
    binary = tmp_path / "sleep"
    shutil.copy("/bin/sleep", binary)
    process = subprocess.Popen([binary, "600"])
    try:
        assert run(upload([File(str(binary), "#!/bin/sh\n", 0o755)])).ok
        assert binary.read_text() == "#!/bin/sh\n"
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_links_are_swapped_whatever_they_pointed_to(tmp_path: Path) -> None:
    (tmp_path / "gen-1").mkdir()
    (tmp_path / "gen-1" / "inside").touch()
    link = tmp_path / "live"
    link.symlink_to("gen-1")
    assert run(upload([Symlink(str(link), "gen-2")])).ok
    assert link.readlink() == Path("gen-2")
    assert (tmp_path / "gen-1" / "inside").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gen-1", "live"]


def test_a_link_that_stands_for_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "unit").symlink_to("precious")
    assert run(upload([File(str(tmp_path / "unit"), "new")])).ok
    assert not (tmp_path / "unit").is_symlink()
    assert (tmp_path / "precious").read_text() == "mine"


def test_only_mode_differs_nothing_is_sent(tmp_path: Path) -> None:
    target = tmp_path / "unit"
    target.write_text("text")
    target.chmod(0o600)
    inode = target.stat().st_ino
    given = upload([File(str(target), "text")], looked([File(str(target), "text")]))
    assert given.size == 0
    assert run(given).ok
    assert (mode(target), target.stat().st_ino) == (0o644, inode)


def test_a_key_is_never_readable_by_others_not_even_while_it_is_written(tmp_path: Path, blob: Blob) -> None:
    key = File(
        str(tmp_path / "key"),
        "PRIVATE" * 1000,
        0o600,
        secret=True,
        check=("sh", "-c", 'stat -c %a "$1" >&2; exit 1', "x", "{}"),
    )
    assert run(upload([key])).err.splitlines()[0] == "600"
    os.mkfifo(tmp_path / "go")
    given = upload([File(str(tmp_path / "held"), blob, 0o644, secret=True)])
    seen: list[int] = []

    def slowly() -> Iterator[bytes]:
        whole = b"".join(given.chunks())
        yield whole[:-CUT]
        while not (staged := leftovers(tmp_path)) or not staged[0].stat().st_size:
            pass
        seen.append(mode(staged[0]))
        yield whole[-CUT:]

    assert run(given, slowly()).ok
    assert seen == [0o600]


# -- what goes wrong keeps the old --------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    target = tmp_path / "etcd"
    target.write_text("old")
    return target


def cut(given: Upload, at: int) -> Result | None:
    """The upload is cut off: the other side sees the end of its stdin."""
    process = subprocess.Popen(
        ["sh", "-c", given.script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = process.communicate(b"".join(given.chunks())[:at], timeout=20)
    return Result(process.returncode, out.decode(), err.decode())


@pytest.mark.parametrize("at", [0, 1, 500_000, -1])
def test_a_truncated_binary_keeps_the_old(old: Path, blob: Blob, at: int) -> None:
    result = cut(upload([File(str(old), blob, 0o755)]), at)
    assert result.code != 0
    assert BROKEN in result.err
    assert old.read_text() == "old"
    assert leftovers(old.parent) == []


def test_a_failing_check_keeps_the_old_and_what_follows_it(old: Path) -> None:
    check = ("sh", "-c", 'grep -q good "$1" || { echo "unknown flag" >&2; exit 9; }', "check", "{}")
    resources: list[Resource] = [
        File(f"{old.parent}/first", "1"),
        File(str(old), "bad", check=check, on_change=(f"touch {old.parent}/ran",)),
        File(f"{old.parent}/last", "3"),
    ]
    result = run(upload(resources))
    assert result.code == CHECK_FAILED
    assert result.err.splitlines() == ["unknown flag", f"{old} was not replaced"]
    assert result.out == "ok 0\n"
    assert old.read_text() == "old"
    assert sorted(path.name for path in old.parent.iterdir()) == ["etcd", "first"]


def test_a_check_sees_the_staged_file_with_its_mode_and_none_of_the_payload(old: Path) -> None:
    script = '[ -x "$1" ] && [ "$(cat "$1")" = new ] && [ -z "$(cat)" ]'
    last = File(f"{old.parent}/last", "3")
    assert run(upload([File(str(old), "new", 0o755, check=("sh", "-c", script, "x", "{}")), last])).ok
    assert (old.parent / "last").read_text() == "3"


def test_on_change_runs_once_after_the_files_and_only_with_a_change(old: Path) -> None:
    log = old.parent / "log"
    count = f"seen=$(ls {old.parent}); echo $seen >>{log}"
    files: list[Resource] = [File(f"{old.parent}/{name}", name, on_change=(count,)) for name in "ab"]
    assert run(upload(files)).ok
    assert log.read_text() == "a b etcd\n"
    assert str(log) not in upload(files, looked(files)).script


@pytest.mark.parametrize(
    ("command", "then", "out"),
    [
        ("exit 9", [], "ok 0\nok 1\nundone 0\nundone 1\n"),
        ("true", [File("/proc/nowhere/x", "")], "ok 0\nok 1\nundone 0\nundone 1\n"),  # it is not reached
        ("kill $$", [], None),  # as a lost connection ends it
    ],
)
def test_a_file_whose_on_change_did_not_end_well_is_as_it_was(
    old: Path, command: str, then: list[Resource], out: str | None
) -> None:
    before = old.stat()
    files = [
        File(str(old), "new", 0o600, on_change=(command,)),
        File(f"{old.parent}/made", "new", on_change=(command,)),
    ]
    given = upload([*files, *then])
    if out is None:
        process = subprocess.run(["sh", "-c", given.script], check=False, capture_output=True)
        assert process.returncode == 143
    else:
        done = run(given)
        assert (done.ok, done.out) == (False, out)
    assert (old.read_text(), mode(old), old.stat().st_mtime) == ("old", before.st_mode & 0o7777, before.st_mtime)
    assert [path.name for path in old.parent.iterdir()] == ["etcd"]
    assert run(upload([File(str(old), "new", 0o600, on_change=("true",))])).ok
    assert old.read_text() == "new"
    assert [path.name for path in old.parent.iterdir()] == ["etcd"]


def test_a_script_that_nobody_listens_to_any_more_leaves_all_as_it_was(old: Path, blob: Blob) -> None:
    """The connection is lost while a file is checked; dash would end at the next word without its EXIT trap."""
    folder = old.parent
    waits = ("sh", "-c", f"echo checking >&2; until [ -e {folder.parent}/deaf ]; do :; done")
    given = upload([File(str(old), "new", check=waits, on_change=("true",)), File(f"{folder}/binary", blob)])
    pipe = subprocess.PIPE
    with subprocess.Popen(["sh", "-c", given.script], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"".join(given.chunks()))
        process.stdin.close()
        assert process.stderr.readline() == b"checking\n"
        process.stdout.close()
        (folder.parent / "deaf").touch()
        assert process.wait(timeout=10) != 0
    (folder.parent / "deaf").unlink()
    assert (old.read_text(), [path.name for path in folder.iterdir()]) == ("old", ["etcd"])


def test_what_is_staged_for_a_file_just_below_the_root_is_removed() -> None:
    given = upload([File("/etcd-of-nobody", "x", on_change=("true",))])
    assert f"rm -f -- //{STAGED}*;" in given.script
    assert f" /etcd-of-nobody //{STAGED}old.0\n" in given.script


def test_a_directory_just_below_the_root() -> None:
    script = upload([Directory("/etcd-of-nobody", 0o700)]).script
    stub = 'mkdir() { echo "mkdir $*"; }; chmod() { :; }\n'
    ran = subprocess.run(["sh", "-c", stub + script], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("mkdir -m 0700 -- /etcd-of-nobody\nok 0\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_script_that_is_told_to_end_removes_what_it_staged(old: Path, blob: Blob, number: signal.Signals) -> None:
    process = halfway(upload([File(str(old), blob)]), old.parent)
    os.kill(process.pid, number)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=10) != 0
    assert (leftovers(old.parent), old.read_text()) == ([], "old")


def test_a_killed_script_keeps_the_old_and_the_next_removes_what_it_staged(old: Path, blob: Blob) -> None:
    given = upload([File(str(old), blob)])
    process = halfway(given, old.parent)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.stdin is not None
    process.stdin.close()
    process.wait(timeout=10)
    assert len(leftovers(old.parent)) == 1
    assert old.read_text() == "old"
    assert run(given).ok
    assert (leftovers(old.parent), old.read_bytes()) == ([], blob.path.read_bytes())


def halfway(given: Upload, folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        ["sh", "-c", given.script], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None
    process.stdin.write(b"".join(given.chunks())[:-CUT])
    process.stdin.flush()
    timer = threading.Timer(10, process.kill)
    timer.start()
    while process.poll() is None and not any(path.stat().st_size for path in leftovers(folder)):
        pass
    timer.cancel()
    assert process.poll() is None
    return process


def test_a_directory_in_the_way_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    (tmp_path / "etcd" / "precious").touch()
    result = run(upload([File(str(tmp_path / "etcd"), "new")]))
    assert result.code != 0
    assert (tmp_path / "etcd" / "precious").exists()
    assert leftovers(tmp_path) == []


def test_a_full_disk_keeps_the_old(old: Path, blob: Blob) -> None:
    """RLIMIT_FSIZE stands in for the disk; hosts with a real small disk are in tests/hosts."""
    given = upload([File(str(old), blob, 0o755)])
    limited = Upload("ulimit -f 200\n" + given.script, given.payload, given.size)
    assert not run(limited).ok
    assert old.read_text() == "old"
    assert run(given).ok
    assert leftovers(old.parent) == []


# -- blocks -------------------------------------------------------------------------------------------------------


def test_a_block_leaves_the_rest_and_its_mode_as_they_are(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_bytes(b"127.0.0.1 localhost\n# caf\xe9 in latin-1\n")
    hosts.chmod(0o640)
    block: Resource = Block(str(hosts), "etcd-steps demo", "10.0.0.1 etcd-1\n")
    assert run(upload([block], looked([block]))).ok
    assert hosts.read_bytes().startswith(b"127.0.0.1 localhost\n# caf\xe9 in latin-1\n# BEGIN etcd-steps demo\n")
    assert mode(hosts) == 0o640
    assert changes([block], looked([block]), owners=False) == []


BEGUN, ENDED = "# BEGIN etcd-steps demo\n", "# END etcd-steps demo\n"
OLD_BLOCK = f"127.0.0.1 localhost\n{BEGUN}{'10.0.0.9 an-older-and-longer-name ' * 20}\n{ENDED}"


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Path, Upload]]:
    """Writes a file in the place of /etc/hosts that is a mount of its own; returns it, and what changes its block."""

    def write(text: str) -> tuple[Path, Upload]:
        hosts = tmp_path / "hosts"
        hosts.write_text(text)
        hosts.chmod(0o640)
        monkeypatch.setattr("steps.core.node.apply.HOSTS", str(hosts))
        block = Block(str(hosts), "etcd-steps demo", "10.0.0.1 etcd-1\n")
        return hosts, upload([block], replace(looked([block]), facts=NodeFacts(hosts_is_mount=True)))

    return write


@pytest.mark.parametrize("more", ["", "# more\n", "# " + "long" * 5000 + "\n"])
def test_block_in_a_mounted_file_keeps_its_inode_and_what_others_wrote(
    mounted: Callable[[str], tuple[Path, Upload]], more: str
) -> None:
    hosts, given = mounted(OLD_BLOCK + more)
    inode = hosts.stat().st_ino
    assert run(given).ok
    assert hosts.read_text() == f"127.0.0.1 localhost\n{BEGUN}10.0.0.1 etcd-1\n{ENDED}{more}"
    assert (hosts.stat().st_ino, mode(hosts)) == (inode, 0o640)
    assert leftovers(hosts.parent) == []


def test_block_in_a_mounted_file_killed_before_it_is_cut_leaves_it_whole(
    mounted: Callable[[str], tuple[Path, Upload]],
) -> None:
    hosts, given = mounted(OLD_BLOCK)
    assert "\ntruncate -s" in given.script
    assert not run(replace(given, script=given.script.replace("\ntruncate -s", "\nexit 9; truncate -s"))).ok
    assert hosts.read_text().rstrip("\n") + "\n" == f"127.0.0.1 localhost\n{BEGUN}10.0.0.1 etcd-1\n{ENDED}"
    assert leftovers(hosts.parent) == []


# -- the text of what cannot be run here --------------------------------------------------------------------------


def text(resource: Resource, *, owners: bool = True) -> str:
    return apply_script(
        [Change(resource, "")],
        Look(entries={"/etc/hosts": Entry("file", content="")}, facts=NodeFacts()),
        owners=owners,
    ).script


@pytest.mark.parametrize(
    ("resource", "line"),
    [
        (Command(("x", "a b"), "true", {"K": "v w"}), "env 'K=v w' x 'a b' </dev/null"),
        (Directory("/d", 0o750, "root", "etcd"), "folder /d 0750 root:etcd\n"),
        (File("/d/f", "x", 0o600, "etcd", "etcd"), 'chown -- etcd:etcd "$NEW"\nchmod 0600 -- "$NEW"\nplace /d/f'),
    ],
)
def test_what_only_root_may_do(resource: Resource, line: str) -> None:
    script = text(resource)
    assert line in script
    assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("resource", "started"),
    [
        (
            User("x y"),
            "useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin x y.\n",
        ),
        (Service("etcd.service"), "systemctl --quiet enable etcd.service.\nsystemctl --quiet start etcd.service.\n"),
        (
            Service("a b", enabled=False, running=False),
            "systemctl --quiet disable a b.\nsystemctl --quiet stop a b.\n",
        ),
    ],
)
def test_apply_script_of_accounts_and_services_starts_these_programs(resource: Resource, started: str) -> None:
    stand_ins = "".join(f'{name}() {{ echo {name} "$*$(cat)."; }}\n' for name in ("useradd", "systemctl"))
    assert run(Upload(stand_ins + text(resource), (), 0)).out == f"{started}ok 0\n"


def test_nothing_is_chowned_where_everything_is_one_users() -> None:
    script = text(File("/d/f", "x", owner="etcd"), owners=False) + text(Directory("/d", owner="etcd"), owners=False)
    assert "chown -- etcd" not in script


def test_a_promise_cannot_be_made_true() -> None:
    with pytest.raises(TypeError, match="promised"):
        text(File("/x", Promise("a certificate")))
