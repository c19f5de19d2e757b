"""What stands in the way at a host: mounts, closed directories, full filesystems, files that stay as they are."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clusters import PLENTY, on_hosts, on_loopback, seen

from steps.core.checks import ground
from steps.core.config.model import Cluster, NodePaths
from steps.core.node.facts import Entry, Look, Space
from steps.core.node.inspect import parse
from steps.core.node.inspect_script import ancestors, look_script
from steps.core.node.paths import HOSTS
from steps.core.transport.shell_session import Result

BLOCK = "# BEGIN etcd-steps demo\n10.0.0.1 etcd-1\n10.0.0.2 etcd-2\n10.0.0.3 etcd-3\n# END etcd-steps demo\n"
NAMES = Entry("file", 0o644, "root", "root", content=BLOCK)


def found(cluster: Cluster, says: str | None = "", **seen_there: Any) -> list[str]:
    """What stops the run. `says`: what the node answers where it is asked once more; None: it must not be asked."""

    def sh(_node: object, _script: str) -> Result:
        assert says is not None, "it is asked although all is open"
        return Result(0, says, "")

    ctx: Any = SimpleNamespace(cluster=cluster, sh=sh)
    return [problem.message for problem in ground.problems(ctx, cluster.nodes[0], seen(cluster, **seen_there))]


def spaces(cluster: Cluster, **changes: Space) -> dict[str, Space]:
    """Each of bin, cert, data, wal, unit on a filesystem of its own."""
    paths = vars(cluster.nodes[0].paths)
    space = {path: Space(PLENTY, PLENTY, name, writable=True) for name, path in paths.items()}
    return {**space, **{paths[name]: replace(what, device=name) for name, what in changes.items()}}


def way(mode: int = 0o755, at: str = "", **more: Any) -> dict[str, Entry]:
    """The directories that etcd goes through; `at` has that mode."""
    cluster = on_hosts()
    usual = {path: Entry("dir", 0o755, "root", "root") for path in ancestors(cluster.nodes[0])}
    return {
        **usual,
        **({at: Entry(**{"kind": "dir", "mode": mode, "owner": "root", "group": "root", **more})} if at else {}),
    }


def test_ground_usual_host_stops_nothing_and_is_not_asked_again() -> None:
    assert found(on_hosts(), None, entries=way()) == []
    assert found(on_hosts(), None) == []


@pytest.mark.parametrize(
    ("entry", "open_"),
    [
        ({"mode": 0o700}, False),
        ({"mode": 0o711}, True),
        ({"mode": 0o750, "group": "etcd"}, True),
        ({"mode": 0o705, "group": "etcd"}, False),
        ({"mode": 0o700, "owner": "etcd"}, True),
        ({"mode": 0o077, "owner": "etcd"}, False),
        ({"kind": "link", "mode": 0o777}, False),
    ],
)
def test_closed_asks_only_where_a_mode_or_a_link_leaves_doubt(entry: dict[str, Any], open_: bool) -> None:  # noqa: FBT001  a case
    said = found(on_hosts(), None if open_ else "/data/etcd/data\t/data\n", entries=way(at="/data", **entry))
    assert len(said) == (not open_)


def test_closed_names_directory_mode_way_and_the_key_that_moves_it() -> None:
    says = "/data/etcd\t/data\n/data/etcd/data\t/data\n/data/etcd/wal\t/data\n/etc/etcd/cert\t/etc/etcd\n"
    assert found(on_hosts(), says, entries=way(0o700, "/data")) == [
        (
            "/data (mode 0700, root:root) is closed to etcd, who must go through it to /data/etcd, /data/etcd/data, "
            "/data/etcd/wal: `chmod a+x /data`, or name another place in [paths] data, wal"
        ),
        (
            "/etc/etcd (mode 0755, root:root) is closed to etcd, who must go through it to /etc/etcd/cert: "
            "`chmod a+x /etc/etcd`, or name another place in [paths] cert"
        ),
    ]


def test_closed_data_that_exists_is_never_moved_by_advice() -> None:
    (said,) = found(on_hosts(), "/data/etcd/data\t/data\n", entries=way(0o700, "/data"), member=True, wal=True)
    assert said.endswith(": `chmod a+x /data`")


def test_closed_under_plain_processes_or_root_with_all_rights_is_not_asked() -> None:
    entries = way(0o700, "/data")
    assert found(on_loopback(), None, entries=entries) == []
    assert found(on_hosts('[hosts]\nrun_as = "root"\nhardening = false\n'), None, entries=entries) == []
    theirs = way(0o700, "/data", owner="ops")
    assert found(on_hosts('[hosts]\nrun_as = "root"\n'), "/data/etcd/data\t/data\n", entries=theirs)


def test_closed_that_cannot_be_asked_is_said_as_unknown() -> None:
    cluster = on_hosts()
    ctx: Any = SimpleNamespace(cluster=cluster, sh=lambda *_: Result(127, "", "setpriv: not found"))
    (problem,) = ground.closed(ctx, cluster.nodes[0], seen(cluster, entries=way(0o700, "/data")))
    assert problem.code == "ground.closed-unknown"
    assert (
        problem.message
        == "whether etcd may enter /data/etcd, /data/etcd/data, /data/etcd/wal, /etc/etcd/cert cannot be found out: "
        "setpriv: not found"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root may ask as another user")
@pytest.mark.parametrize("case", ["open", "closed", "behind a link", "missing", "group", "ours"])
def test_closed_script_walks_each_path_as_the_user_would(case: str) -> None:
    root = Path(subprocess.check_output(["mktemp", "-d", "/var/tmp/ground.XXXXXX"], text=True).strip())
    try:
        root.chmod(0o755)
        for part in ("a b/etcd", "cert", "bin", "far/data"):
            (root / part).mkdir(parents=True)
        data = root / "a b/etcd/data"
        if case == "closed":
            (root / "a b").chmod(0o700)
        elif case == "behind a link":
            (root / "far").chmod(0o700)
            data.symlink_to(root / "far/data")
        elif case == "missing":
            data = root / "a b/new/deep/data"
        elif case == "group":
            os.chown(root / "a b", 0, 65534)
            (root / "a b").chmod(0o710)
        elif case == "ours":
            (root / "a b/etcd").chmod(0o700)
        paths = NodePaths(f"{root}/bin", f"{root}/cert", str(data), f"{data.parent}/wal", "/etc/systemd/system")
        node = replace(on_hosts().nodes[0], paths=paths)
        own = [str(data.parent), str(data), node.paths.wal, node.paths.cert]
        said = subprocess.run(
            ["sh", "-c", ground.closed_script(node, "nobody", own)], capture_output=True, text=True, check=True
        )
        expected = {
            "closed": "".join(f"{path}\t{root}/a b\n" for path in own[:3]),
            "behind a link": f"{data}\t{root}/far\n",
        }
        assert (said.stdout, said.stderr) == (expected.get(case, ""), "")
    finally:
        subprocess.run(["rm", "-r", str(root)], check=True)


def test_no_exec_names_the_key_that_moves_the_binaries() -> None:
    assert found(on_hosts(), facts={"noexec_directory": "/usr/local"}) == [
        '/usr/local is mounted noexec, so that no etcd runs from /usr/local/bin. Set [paths] bin = "/opt/etcd/bin"'
    ]
    (said,) = found(on_hosts('[paths]\nbin = "/opt/etcd/bin"\n'), facts={"noexec_directory": "/opt"})
    assert said.endswith('Set [paths] bin = "/usr/local/bin"')


def test_read_only_usr_names_the_key_that_moves_the_binaries() -> None:
    cluster = on_hosts()
    (said,) = found(cluster, space=spaces(cluster, bin=Space(PLENTY, PLENTY, "", writable=False)))
    assert said == (
        '/usr/local/bin cannot be written to: a read-only filesystem? Set [paths] bin = "/opt/etcd/bin", '
        "or mount it read-write, see `findmnt -T /usr/local/bin`"
    )


@pytest.mark.parametrize("inodes", [0, 1, 63])
def test_room_no_inodes_is_said_with_the_key(inodes: int) -> None:
    cluster = on_hosts()
    space = spaces(cluster, data=Space(PLENTY, PLENTY, "", writable=True, inodes=inodes))
    assert found(cluster, space=space) == [
        (
            f"/data/etcd/data: room for {inodes} more files (inodes), 64 are needed: see `df -i /data/etcd/data`, "
            "or name another place in [paths] data"
        )
    ]


@pytest.mark.parametrize("inodes", [None, 64])
def test_room_enough_inodes_or_no_limit_is_fine(inodes: int | None) -> None:
    cluster = on_hosts()
    assert found(cluster, space=spaces(cluster, data=Space(PLENTY, PLENTY, "", writable=True, inodes=inodes))) == []


def test_room_for_small_files_is_needed_too() -> None:
    cluster = on_hosts()
    (said,) = found(cluster, space=spaces(cluster, cert=Space(8192, PLENTY, "", writable=True)))
    assert said == "/etc/etcd/cert: 8 KB free, 4096 KB are needed"


def test_room_of_what_is_deployed_is_not_asked_for() -> None:
    cluster = on_hosts()
    full = Space(0, PLENTY, "", writable=True, inodes=0)
    unit = {"/etc/systemd/system/etcd.service": Entry("file", 0o644, "root", "root")}
    deployed: dict[str, Any] = {"entries": unit, "facts": {"binary_digest": "x"}, "member": True}
    assert found(cluster, space=spaces(cluster, data=full, wal=full, cert=full, bin=full, unit=full), **deployed) == []


def test_masked_unit_is_refused() -> None:
    (said,) = found(on_hosts(), unit={"LoadState": "masked"})
    assert said.startswith("etcd.service is masked")
    assert "systemctl unmask etcd.service" in said


def test_accounts_that_cannot_be_written_to_stop_only_where_the_user_is_missing() -> None:
    facts = {"accounts_read_only": ("/etc/passwd", "/etc/shadow")}
    (said,) = found(on_hosts(), facts=facts)
    assert said.startswith("there is no user etcd, and none can be created, for /etc/passwd, /etc/shadow cannot be")
    assert found(on_hosts(), facts=facts, users=frozenset({"etcd"})) == []


@pytest.mark.parametrize(
    ("entry", "facts", "said"),
    [
        (Entry("file", content=""), {"hosts_read_only": True}, "/etc/hosts cannot be written to"),
        (Entry("link", content=""), {}, "/etc/hosts is a link, which would be replaced by a file"),
    ],
)
def test_hosts_file_that_cannot_be_replaced_is_refused_where_it_would_change(
    entry: Entry, facts: dict[str, bool], said: str
) -> None:
    cluster = on_hosts()
    (problem,) = found(cluster, entries={HOSTS: entry}, facts=facts)
    assert problem.startswith(said)
    assert "set [hosts] manage_etc_hosts = false" in problem
    assert found(cluster, entries={HOSTS: replace(entry, content=BLOCK)}, facts=facts) == []
    left = on_hosts("[hosts]\nmanage_etc_hosts = false\n")
    assert found(left, entries={HOSTS: entry}, facts=facts) == []


def test_hosts_file_that_is_a_mount_is_warned_of_where_it_would_change() -> None:
    cluster = on_hosts()
    node = cluster.nodes[0]
    (problem,) = ground.written_in_place(cluster, node, seen(cluster, facts={"hosts_is_mount": True}))
    assert problem.message.startswith("/etc/hosts is a mount of its own")
    assert [
        *ground.written_in_place(cluster, node, seen(cluster, facts={"hosts_is_mount": True}, entries={HOSTS: NAMES}))
    ] == []
    assert [*ground.written_in_place(cluster, node, seen(cluster))] == []


def looked(cluster: Cluster, before: str = "") -> Look:
    script = before + look_script(cluster, cluster.nodes[0], ())
    return parse(subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout, ())


def test_look_sees_inodes_and_what_may_not_be_run(tmp_path: Path) -> None:
    cluster = on_loopback(tmp_path / "etcd.toml", count=1)
    usual = looked(cluster)
    space = usual.space[cluster.nodes[0].paths.data]
    assert space.inodes is None or space.inodes > 0
    assert usual.facts.noexec_directory is None
    stub = "findmnt() { echo rw,noexec,relatime; }\n"
    assert looked(cluster, stub).facts.noexec_directory == str(tmp_path)
    binary = Path(cluster.nodes[0].paths.bin) / "etcd"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    assert looked(cluster, stub).facts.noexec_directory is None, "the kernel has answered"
    binary.chmod(0o644)
    assert looked(cluster, "findmnt() { echo rw,relatime; }\n").facts.noexec_directory is None
