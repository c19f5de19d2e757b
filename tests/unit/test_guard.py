"""Next to a user who plants links: what the shell functions follow (as root), and what a look says of it.

The other user is uid 65534, who owns `theirs` and may do there what it likes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from clusters import on_hosts

from steps.core.node import trust
from steps.core.node.apply import apply_script
from steps.core.node.diff import Change
from steps.core.node.facts import Entry, Look, NodeFacts
from steps.core.node.guard import ENTER, PLAIN, SAFE
from steps.core.node.inspect import parse
from steps.core.node.inspect_script import look_script
from steps.core.node.resources import Directory, File
from steps.ops.reset import reset_script

NOBODY = 65534
CLUSTER = on_hosts()
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def ground() -> Path:
    """A directory that is root's all the way (/tmp is everybody's), with `theirs` in it, which is another user's."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/run" if os.access("/run", os.W_OK) else "/root") as made:
        root = Path(made)
        root.chmod(0o755)
        (root / "victim").mkdir(mode=0o755)
        (root / "theirs").mkdir(mode=0o700)
        os.chown(root / "theirs", NOBODY, NOBODY)
        yield root


def sh(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=20)


def entered(path: Path, mode: str = "") -> str:
    return sh(f"{ENTER}enter '{path}' {mode} && pwd -P").stdout.strip()


@as_root
def test_enter_follows_roots_own_link_and_no_other(ground: Path) -> None:
    (ground / "roots").symlink_to("victim")
    (ground / "theirs" / "data").symlink_to(ground / "victim")
    (ground / "given").symlink_to("victim")
    os.chown(ground / "given", NOBODY, NOBODY, follow_symlinks=False)
    (ground / "through").symlink_to(ground / "theirs" / "data")
    assert entered(ground / "roots") == str(ground / "victim")
    assert entered(ground / "victim") == str(ground / "victim")
    assert sh(f"{ENTER}enter '{ground}/theirs/../victim'").returncode == 1
    (ground / "loop").symlink_to("loop")
    (ground / "up").symlink_to("victim/../victim")
    assert entered(ground / "up") == str(ground / "victim")
    for planted in ("theirs/data", "given", "through", "loop"):
        assert entered(ground / planted) == "", planted


@as_root
def test_enter_with_a_mode_makes_what_is_missing(ground: Path) -> None:
    assert entered(ground / "roots" / "deep" / "er", "0700") == str(ground / "roots" / "deep" / "er")
    modes = [(ground / name).stat().st_mode & 0o777 for name in ("roots", "roots/deep", "roots/deep/er")]
    assert modes == [0o755, 0o755, 0o700]
    (ground / "theirs" / "hanging").symlink_to(ground / "victim" / "new")
    assert entered(ground / "theirs" / "hanging", "0700") == ""
    assert list((ground / "victim").iterdir()) == []


def applied(resource: Directory | File) -> subprocess.CompletedProcess[str]:
    return sh(apply_script([Change(resource, "x")], Look({}, NodeFacts()), owners=True).script)


@as_root
@pytest.mark.parametrize("planted", ["link", "link above", "hard link", "fifo"])
def test_directory_in_a_place_that_is_planted_changes_nothing_elsewhere(ground: Path, planted: str) -> None:
    place, victim = ground / "theirs" / "data", ground / "victim"
    secret = ground / "secret"
    secret.touch(mode=0o600)
    if planted == "link":
        place.symlink_to(victim)
    elif planted == "link above":
        (victim / "wal").mkdir(mode=0o755)
        place.symlink_to(victim)
        place = place / "wal"
    elif planted == "hard link":
        place.hardlink_to(secret)
    else:
        os.mkfifo(place)
    done = applied(Directory(str(place), 0o700, "nobody", "nogroup"))
    assert done.returncode != 0
    assert "ok 0" not in done.stdout
    for path, mode in ((victim, 0o755), (secret, 0o600)):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, mode)
    if planted == "link above":
        assert (victim / "wal").stat().st_uid == 0


@as_root
def test_directory_below_another_users_is_made_and_given(ground: Path) -> None:
    place = ground / "theirs" / "data"
    assert applied(Directory(str(place), 0o700, "nobody", "nogroup")).stdout == "ok 0\n"
    assert (place.stat().st_uid, place.stat().st_mode & 0o777) == (NOBODY, 0o700)


@as_root
def test_file_below_another_users_directory_is_not_written(ground: Path) -> None:
    done = applied(File(f"{ground}/theirs/etc/unit", "x"))
    assert done.returncode != 0
    assert f"another user than root may change {ground}/theirs/etc" in done.stderr
    assert not (ground / "theirs" / "etc" / "unit").exists()
    assert applied(File(f"{ground}/ours/unit", "x")).returncode == 0


@as_root
@pytest.mark.parametrize("wrong", ["nothing", "owner", "mode", "directory above", "link"])
def test_safe_program_is_one_that_only_root_may_change(ground: Path, wrong: str) -> None:
    program = ground / "victim" / "etcd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777 if wrong == "mode" else 0o755)
    if wrong == "owner":
        os.chown(program, NOBODY, NOBODY)
    if wrong == "directory above":
        os.chown(ground / "victim", NOBODY, NOBODY)
    asked = program
    if wrong == "link":
        (ground / "theirs" / "etcd").write_text("#!/bin/sh\n")
        asked = ground / "etcd"
        asked.symlink_to("theirs/etcd")
    assert sh(f"{ENTER}{SAFE}safe '{asked}'").returncode == (0 if wrong == "nothing" else 1)


@as_root
def test_plain_runs_as_nobody_who_may_not_become_more() -> None:
    said = sh(f"{PLAIN}plain /bin/sh -c 'id -u; grep NoNewPrivs /proc/self/status; echo ${{HOME-none}}'").stdout.split()
    assert said == [str(NOBODY), "NoNewPrivs:", "1", "none"]


@as_root
def test_plain_where_nobody_comes_to_the_program_runs_it_all_the_same(ground: Path) -> None:
    (ground / "victim").chmod(0o700)
    (ground / "victim" / "etcd").write_text("#!/bin/sh\nid -u\n")
    (ground / "victim" / "etcd").chmod(0o755)
    assert sh(f"{PLAIN}plain '{ground}/victim/etcd'").stdout == "0\n"


DIRECTORY: Callable[..., Entry] = lambda owner="root", mode=0o755, **more: Entry("dir", mode, owner, owner, **more)  # noqa: E731


def test_planted_link_is_one_that_another_user_could_put_there() -> None:
    entries = {"/": DIRECTORY(), "/data": DIRECTORY(), "/data/etcd": DIRECTORY("etcd", 0o700)}
    assert list(trust.planted(Look(entries, NodeFacts()), "/data/etcd/data")) == []
    link = Entry("link", 0o777, "root", "root")
    assert list(trust.planted(Look({**entries, "/data": link}, NodeFacts()), "/data/etcd/data")) == []
    (found,) = trust.planted(Look({**entries, "/data/etcd/data": link}, NodeFacts()), "/data/etcd/data")
    assert found == "/data/etcd/data is a link of root's in /data/etcd, which belongs to etcd (mode 0700)"
    seen = {**entries, "/data/etcd/data": DIRECTORY("etcd", 0o700, through="etcd")}
    assert len(list(trust.planted(Look(seen, NodeFacts()), "/data/etcd/data"))) == 1
    theirs = {**entries, "/data": Entry("link", 0o777, "ops", "ops")}
    assert next(trust.planted(Look(theirs, NodeFacts()), "/data/etcd/data")) == "/data is a link of ops's"


@pytest.mark.parametrize(
    ("entry", "sole"),
    [
        (DIRECTORY(), True),
        (DIRECTORY("etcd"), False),
        (DIRECTORY(mode=0o1777), False),
        (DIRECTORY(mode=0o775), True),
        (Entry("dir", 0o2775, "root", "staff"), False),
        (Entry("dir", 0o755, "root", "staff"), True),
        (Entry("link", 0o777, "root", "root"), True),
    ],
)
def test_changeable_is_what_another_user_may_write(entry: Entry, sole: bool) -> None:  # noqa: FBT001
    found = list(trust.changeable(Look({"/": DIRECTORY(), "/opt": entry}, NodeFacts()), "/opt/etcd"))
    assert found == ([] if sole else [("/opt", f"{entry.owner}:{entry.group}, mode {entry.mode:04o}")])


def on(ground: Path) -> tuple[str, ...]:
    """TOML for members with all their paths below `ground`, the data in `theirs`."""
    return (f'[paths]\nbin = "{ground}/bin"\ndata = "{ground}/theirs/data"\nwal = "{ground}/theirs/wal"',)


@as_root
@pytest.mark.parametrize("planted", ["fifo", "link"])
def test_look_at_a_wal_with_a_planted_segment_ends_and_names_it(ground: Path, planted: str) -> None:
    cluster = on_hosts(*on(ground))
    wal = ground / "theirs" / "wal"
    wal.mkdir()
    place = wal / "0-0.wal"
    os.mkfifo(place) if planted == "fifo" else place.symlink_to("/etc/shadow")
    done = sh(look_script(cluster, cluster.nodes[0], []))
    look = parse(done.stdout, [])
    assert look.wal
    assert look.facts.odd_segment == str(place)
    assert look.facts.cluster_id is None


@as_root
def test_look_at_names_with_newlines_takes_no_fact_from_them(ground: Path) -> None:
    cluster = on_hosts(*on(ground))
    (ground / "theirs" / "data").mkdir()
    (ground / "theirs" / "data" / "x\nversion=9.9.9").touch()
    (ground / "theirs" / "wal").mkdir()
    os.mkfifo(ground / "theirs" / "wal" / "y\nmachine=forged\n.wal")
    look = parse(sh(look_script(cluster, cluster.nodes[0], [])).stdout, [])
    assert look.strangers[f"{ground}/theirs/data"] == "x?version=9.9.9"
    assert look.facts.odd_segment == f"{ground}/theirs/wal/y?machine=forged?.wal"
    assert look.facts.installed_version is None
    assert look.facts.machine_id == Path("/etc/machine-id").read_text().strip()


@as_root
def test_look_at_a_binary_that_another_user_may_change_does_not_run_it(ground: Path) -> None:
    cluster = on_hosts(*on(ground))
    (ground / "bin").mkdir()
    binary = ground / "bin" / "etcd"
    binary.write_text(
        f"#!/bin/sh\necho etcd Version: 3.5.30; id -u >{ground}/theirs/ran; chmod 666 {ground}/theirs/ran\n"
    )
    binary.chmod(0o755)
    (ground / "theirs").chmod(0o777)
    assert parse(sh(look_script(cluster, cluster.nodes[0], [])).stdout, []).facts.installed_version == "3.5.30"
    assert (ground / "theirs" / "ran").read_text() == f"{NOBODY}\n", "root's own is run, but not as root"
    (ground / "theirs" / "ran").unlink()
    os.chown(binary, NOBODY, NOBODY)
    assert parse(sh(look_script(cluster, cluster.nodes[0], [])).stdout, []).facts.installed_version is None
    assert not (ground / "theirs" / "ran").exists()


@as_root
def test_reset_of_planted_links_stops_and_renames_nothing(ground: Path) -> None:
    cluster = on_hosts(*on(ground))
    (ground / "theirs" / "data").symlink_to(ground / "victim")
    script = f"systemctl() {{ echo systemctl $*; }}\n{reset_script(cluster, cluster.nodes[0], 'now', ends=False)}"
    done = sh(script)
    assert (done.returncode, done.stdout) == (1, "")
    assert "it is not followed" in done.stderr
    (ground / "theirs" / "data").unlink()
    (ground / "theirs" / "data").mkdir()
    assert sh(script).returncode == 0
    assert sorted(path.name for path in (ground / "theirs").iterdir()) == ["data.old-now"]
