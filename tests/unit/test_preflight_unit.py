"""May anything be changed? What was seen on the nodes decides: each row is one fault and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clusters import on_hosts, on_loopback, seen

from steps.core.base.errors import Refused
from steps.core.base.frames import Damaged
from steps.core.checks.ports import owners_script
from steps.core.checks.preflight import preflight
from steps.core.config.model import Cluster, Node
from steps.core.context.etcd_client import EtcdClient
from steps.core.etcd.views import Member
from steps.core.node.facts import Entry, Look, Process, Space
from steps.core.node.paths import unit_file
from steps.core.transport.shell_session import Result


@dataclass
class Ctx:
    """What the preflight asks of a run. `looks`: by node; `says`: what a script on a node prints."""

    cluster: Cluster
    looks: dict[str, Look]
    says: str = ""
    warnings: list[str] = field(default_factory=list)
    store: Any = field(default_factory=lambda: SimpleNamespace(ca=lambda: None, pair=lambda _name: None))
    members: tuple[Member, ...] | None = None

    @property
    def etcd(self) -> EtcdClient:
        return EtcdClient(self)  # type: ignore[arg-type]  # a stand-in

    def look(self, node: Node) -> Look:
        return self.looks[node.name]

    def sh(self, _node: Node, _script: str, **_more: float) -> Result:
        return Result(0, self.says, "")

    def answer(self, _node: Node, _script: str, read: Callable[[str], Any]) -> Any:
        """What is said is what one script prints; the others print nothing."""
        try:
            return read(self.says)
        except Damaged:
            return read("")

    def warn(self, message: str, node: Node | None = None) -> None:
        self.warnings.append(f"{node.name if node else ''}: {message}")

    @staticmethod
    def now() -> int:
        return 1_700_000_000


def asked(cluster: Cluster, second: Look | None = None, says: str = "") -> tuple[str, list[str]]:
    """What stops the run, and what is warned of, where the second node is like that and the others are well."""
    ctx = context(cluster, second, says)
    message = ""
    try:
        preflight(ctx, cluster.nodes)  # type: ignore[arg-type]  # a stand-in
    except Refused as error:
        message = error.message
    return message, ctx.warnings


def codes(cluster: Cluster, second: Look | None = None, says: str = "") -> list[tuple[str, str]]:
    """Return the codes of what stops the run, each with its node."""
    try:
        preflight(context(cluster, second, says), cluster.nodes)  # type: ignore[arg-type]  # a stand-in
    except Refused as error:
        return [(problem.code, problem.node) for problem in error.problems]
    return []


def context(cluster: Cluster, second: Look | None, says: str) -> Ctx:
    looks = {node.name: seen(cluster, facts={"machine_id": node.name, "boot_id": node.name}) for node in cluster.nodes}
    if second is not None:
        looks["etcd-2"] = second
    return Ctx(cluster, looks, says)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return on_hosts(file=tmp_path / "etcd.toml")


def test_fit_hosts_pass(cluster: Cluster) -> None:
    assert asked(cluster) == ("", [])


def space(cluster: Cluster, path: str, **changes: Any) -> dict[str, Space]:
    usual = seen(cluster).space
    return {**usual, path: replace(usual[path], **changes)}


SMALL = 100 << 20
DATA, WAL, BIN = "/data/etcd/data", "/data/etcd/wal", "/usr/local/bin"
LIVING = Process(5, "x", ("etcd", f"--data-dir={DATA}", f"--wal-dir={WAL}"), 0)
DROP_IN = "/etc/systemd/system/etcd.service.d/x.conf"


def lying(path: str, owner: str, mode: int) -> dict[str, Any]:
    """A look at a directory with something of somebody's in it."""
    return {"entries": {path: Entry("dir", mode, owner, owner)}, "strangers": {path: "base"}}


FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "another CPU": ("node.other-cpu", {"facts": {"cpu": "mips64"}}, "no etcd is made for its CPU (mips64)"),
    "a mount point": (
        "node.wal-mountpoint",
        {"facts": {"wal_is_mount": True}},
        f'{WAL} is a mount point, which etcd cannot make its WAL: set [paths] wal = "{WAL}/etcd/wal"',
    ),
    "a parent of somebody": (
        "node.inhabited",
        lying("/data/etcd", "postgres", 0o700),
        'must have a directory around its WAL for itself: set [paths] wal = "/data/etcd/etcd/wal"',
    ),
    "a parent that others read": (
        "node.inhabited",
        lying("/data/etcd", "etcd", 0o755),
        "/data/etcd belongs to etcd (mode 0755)",
    ),
    "data of somebody": (
        "node.inhabited",
        lying(DATA, "postgres", 0o755),
        f"{DATA} belongs to postgres (mode 0755) and holds base; etcd, as etcd, must have a directory of its own for",
    ),
    "certificates of somebody": (
        "node.inhabited",
        lying("/etc/etcd/cert", "root", 0o755),
        '[paths] cert = "/etc/etcd/cert/etcd/cert"',
    ),
    "a parent of somebody, though a member lives there": (
        "node.inhabited",
        {**lying("/data/etcd", "postgres", 0o700), "wal": True},
        "where a member's data is or was",
    ),
    "no root": ("node.not-root", {"facts": {"uid": 1000}}, "logged in as uid 1000, not as root: set [ssh] sudo = true"),
    "a variable for every service": (
        "node.given-variable",
        {"facts": {"given_variables": ("ETCD_DEBUG",)}},
        "systemd gives ETCD_DEBUG to every service",
    ),
    "a drop-in": (
        "node.overridden",
        {"unit": {"DropInPaths": DROP_IN, "EnvironmentFiles": "/etc/default/etcd (ignore_errors=yes)"}},
        f"overridden by {DROP_IN}, /etc/default/etcd",
    ),
    "a foreign member": (
        "node.foreign-data",
        {"member": True, "wal": True},
        f"{DATA} holds a member's data and there is no /etc/systemd/system/etcd.service",
    ),
    "an older etcd is wanted": (
        "upgrade.step",
        {"facts": {"installed_version": "3.6.1", "running_version": "3.6.1"}, "process": LIVING},
        "etcd 3.6.1 has written this member's data: 3.5.16 cannot read it",
    ),
}


@pytest.mark.parametrize(("code", "look", "said"), FAULTS.values(), ids=FAULTS)
def test_a_fault_stops_everything_and_names_the_node(
    cluster: Cluster, code: str, look: dict[str, Any], said: str
) -> None:
    facts = {"machine_id": "2", "boot_id": "2", **look.get("facts", {})}
    second = seen(cluster, **{**look, "facts": facts})
    assert codes(cluster, second) == [(code, "etcd-2")]
    (line,) = asked(cluster, second)[0].splitlines()[1:]
    assert line.startswith("  etcd-2: ")
    assert said in line


@pytest.mark.parametrize(
    "look",
    [
        {"entries": {DATA: Entry("dir", 0o755, "postgres", "postgres")}},  # and empty
        lying(DATA, "etcd", 0o700),  # as it would be anyway
        {**lying(DATA, "etcd", 0o755), "member": True, "wal": True},  # a mode that somebody changed
        {**lying("/data/etcd", "etcd", 0o755), "member": True, "wal": True},
    ],
)
def test_a_directory_that_stays_its_owners(cluster: Cluster, look: dict[str, Any]) -> None:
    unit = {"/etc/systemd/system/etcd.service": Entry("file", content="")} if look.get("member") else {}
    facts = {"machine_id": "2", "boot_id": "2"}
    look = {**look, "entries": {**look["entries"], **unit}, "facts": facts}
    assert asked(cluster, seen(cluster, **look)) == ("", [])


def test_a_changed_token_is_said_where_members_have_data(cluster: Cluster) -> None:
    unit = "ExecStart=/usr/local/bin/etcd --initial-cluster-token=old\n"
    entries = {"/etc/systemd/system/etcd.service": Entry("file", content=unit)}
    facts = {"machine_id": "2", "boot_id": "2"}
    message, warnings = asked(cluster, seen(cluster, entries=entries, facts=facts, member=True, wal=True))
    assert (message, len(warnings)) == ("", 1)
    assert warnings[0].startswith("etcd-2: [cluster] token was old: etcd reads it at its first start only")
    assert asked(cluster, seen(cluster, entries=entries, facts=facts)) == ("", [])


@pytest.mark.parametrize("process", [None, LIVING])
def test_preflight_unit_with_an_open_quote_is_refused_by_node_and_file(
    cluster: Cluster, process: Process | None
) -> None:
    unit = 'ExecStart=/usr/local/bin/etcd --name=a "--data-dir=/elsewhere\n'
    entries = {unit_file(cluster, cluster.nodes[1]): Entry("file", content=unit)}
    facts = {"machine_id": "2", "boot_id": "2"}
    look = seen(cluster, entries=entries, facts=facts, member=True, wal=True, process=process)
    (line,) = asked(cluster, look)[0].splitlines()[1:]
    said = "/etc/systemd/system/etcd.service: its command line cannot be read (no closing quotation)"
    assert line.startswith(f"  etcd-2: {said}")


def test_systemd_must_run(cluster: Cluster) -> None:
    look = seen(cluster, facts={"machine_id": "2", "boot_id": "2"})
    without = replace(look, facts=replace(look.facts, systemd=None))
    assert "etcd-2: systemd is not running there" in asked(cluster, without)[0]


def own(cluster: Cluster, **changes: Any) -> Look:
    return seen(cluster, **{"facts": {"machine_id": "2", "boot_id": "2"}, **changes})


def test_room_is_needed_by_filesystem_and_only_for_the_first_start(cluster: Cluster) -> None:
    tight = {**space(cluster, WAL, free=SMALL, device="2")}
    assert f"{WAL}: 100 MB free, 128 MB are needed" in asked(cluster, own(cluster, space=tight))[0]
    shared = {path: replace(each, free=200 << 20) for path, each in seen(cluster).space.items()}
    assert "200 MB free, 228 MB are needed" in asked(cluster, own(cluster, space=shared))[0]
    apart = {**shared, BIN: replace(shared[BIN], device="9")}
    assert "needed" not in asked(cluster, own(cluster, space=apart))[0]
    living = {
        "facts": {"machine_id": "2", "boot_id": "2", "binary_digest": "x", "installed_version": "3.5.16"},
        "member": True,
        "wal": True,
        "entries": {unit_file(cluster, cluster.nodes[0]): Entry("file", content="")},
    }
    assert asked(cluster, own(cluster, space=tight, **living))[0] == ""


def test_a_read_only_filesystem(cluster: Cluster) -> None:
    message, _ = asked(cluster, own(cluster, space=space(cluster, DATA, writable=False)))
    assert f"{DATA} cannot be written to: a read-only filesystem?" in message


def test_less_room_than_the_quota_is_warned_of(cluster: Cluster) -> None:
    message, warnings = asked(cluster, own(cluster, space=space(cluster, DATA, total=5 << 30)))
    assert message == ""
    assert warnings == [f"etcd-2: {DATA} is on 5120 MB, less than quota-backend-bytes (6144 MB)"]


@pytest.mark.parametrize(("skew", "said"), [(0, ""), (1, ""), (-1, ""), (2, "2 s ahead of"), (-3, "3 s behind")])
def test_a_clock_that_is_off_is_warned_of(cluster: Cluster, skew: int, said: str) -> None:
    message, warnings = asked(cluster, own(cluster, skew=skew))
    assert message == ""
    assert [f"etcd-2: its clock is {said} this controller's"] * bool(said) == warnings


def test_a_clock_before_the_certificates_is_refused(cluster: Cluster) -> None:
    message, _ = asked(cluster, own(cluster, skew=-7200))
    assert "etcd-2: its clock is 7200 s behind: there its certificate is not valid yet" in message


def test_one_machine_under_two_names_and_a_clone_of_it(cluster: Cluster) -> None:
    twin = own(cluster, facts={"machine_id": "etcd-1", "boot_id": "etcd-1"})
    assert "etcd-1 and etcd-2 are the same machine" in asked(cluster, twin)[0]
    clone = own(cluster, facts={"machine_id": "etcd-1", "boot_id": "other"})
    assert asked(cluster, clone) == ("", ["etcd-2: has the machine-id of etcd-1: a cloned machine should get its own"])


def test_processes_of_one_machine_are_no_twins(tmp_path: Path) -> None:
    local = on_loopback(tmp_path / "etcd.toml")
    look = seen(local)
    ctx = Ctx(local, {node.name: look for node in local.nodes})
    preflight(ctx, local.nodes)  # type: ignore[arg-type]  # a stand-in
    assert ctx.warnings == []


def test_taken_ports_are_told_with_whoever_holds_them(cluster: Cluster) -> None:
    taken = own(cluster, listening={2379: (("0", "77"),), 2380: (("33", "78"),), 22: (("0", "1"),)})
    message, _ = asked(cluster, taken, says="77 pid 812 (postgres)\n")
    assert message.splitlines()[1:] == [
        "  etcd-2: port 2379 is taken by pid 812 (postgres)",
        "  etcd-2: port 2380 is taken by a process of uid 33",
    ]
    ours = replace(
        taken, process=Process(812, "x", (*LIVING.argv, "--listen=https://10.0.0.2:2379,https://10.0.0.2:2380"), 0)
    )
    assert asked(cluster, ours)[0] == ""
    metered = replace(cluster, metrics_port=9100)
    foreign = replace(ours, listening={**taken.listening, 9100: (("65534", "79"),)})
    assert asked(metered, foreign)[0].endswith("etcd-2: port 9100 is taken by a process of uid 65534")


VERSIONS = [
    ("3.5.16", "3.5.16", ""),
    ("3.5.15", "3.5.16", ""),
    ("3.4.27", "3.5.16", ""),
    ("3.4.27", "3.6.14", "skips a minor release: go by 3.5 first"),
    ("3.5.16", "3.6.14", "every member must run 3.5.32 or later first"),
    ("3.5.32", "3.6.14", ""),
    ("3.6.10", "3.7.1", "every member must run 3.6.11 or later first"),
    ("3.6.11", "3.7.1", ""),
    ("3.5.16", "3.4.27", "3.4.27 cannot read it"),
]


@pytest.mark.parametrize(("runs", "wanted", "said"), VERSIONS)
def test_the_configured_version_against_what_runs(tmp_path: Path, runs: str, wanted: str, said: str) -> None:
    cluster = on_hosts(version=wanted, file=tmp_path / "etcd.toml")
    facts = {"machine_id": "2", "boot_id": "2", "running_version": runs, "installed_version": runs}
    running = seen(cluster, process=LIVING, facts=facts, member=True, wal=True)
    message, _ = asked(cluster, running, says="answer login 0 2\n{}\n")
    assert (said in message) if said else (message == "")


def test_a_lower_patch_release_is_warned_of(tmp_path: Path) -> None:
    cluster = on_hosts(version="3.5.16", file=tmp_path / "etcd.toml")
    facts = {"machine_id": "2", "boot_id": "2", "running_version": "3.5.30", "installed_version": "3.5.30"}
    running = seen(cluster, process=LIVING, facts=facts, member=True, wal=True)
    assert asked(cluster, running) == ("", ["etcd-2: etcd 3.5.30 -> 3.5.16: a lower patch release"])


def framed(said: str) -> str:
    """What auth_script prints where etcdctl fails with these words."""
    return f"answer login 1 0\n\nsaid login 0 {len(said)}\n{said}\n"


AUTH = {
    "on": (
        framed("Error: etcdserver: authentication failed, invalid user ID or password"),
        "auth is on, and 3.4 -> 3.5 with auth on can lose users' rights",
    ),
    "unknown": (
        framed("Error: context deadline exceeded"),
        "whether auth is on is unknown, and 3.4 -> 3.5 is safe only without it: context deadline exceeded",
    ),
    "not answered": ("", "whether auth is on is unknown"),
}


@pytest.mark.parametrize(("says", "words"), AUTH.values(), ids=AUTH.keys())
def test_upgrade_to_3_5_is_refused_unless_auth_is_known_to_be_off(tmp_path: Path, says: str, words: str) -> None:
    cluster = on_hosts(version="3.5.16", file=tmp_path / "etcd.toml")
    facts = {"machine_id": "2", "boot_id": "2", "running_version": "3.4.27", "installed_version": "3.4.27"}
    running = seen(cluster, process=LIVING, facts=facts, member=True, wal=True)
    assert words in asked(cluster, running, says=says)[0]


def test_upgrade_to_3_7_needs_a_snapshot_behind_what_3_5_wrote(tmp_path: Path) -> None:
    cluster = on_hosts(version="3.7.1", file=tmp_path / "etcd.toml")
    facts = {"machine_id": "2", "boot_id": "2", "running_version": "3.6.14", "installed_version": "3.6.14"}
    running = seen(cluster, process=LIVING, facts=facts, member=True, wal=True)
    entry = "entry 18 09 22 39 08 82 c0 ee 9e f3 c2 e8 93 59 12 03 50 55 54 1a 0a\n"
    assert "would panic on what 3.5 has left in its WAL" in asked(cluster, running, says=entry)[0]
    assert asked(cluster, running, says=f"0000000000000002-0000000000000009.snap\n{entry}")[0] == ""


def test_upgrade_of_one_member_is_taken_back_while_another_runs_the_old_release(tmp_path: Path) -> None:
    cluster = on_hosts(version="3.6.14", file=tmp_path / "etcd.toml")
    facts = {"machine_id": "2", "boot_id": "2", "installed_version": "3.7.1"}
    unit = {unit_file(cluster, cluster.nodes[1]): Entry("file", content="")}
    failed = seen(cluster, facts=facts, member=True, wal=True, entries=unit)
    old = {"machine_id": "1", "boot_id": "1", "running_version": "3.6.14", "installed_version": "3.7.1"}
    other = seen(cluster, process=LIVING, facts=old, member=True, wal=True)
    assert "3.6.14 cannot read it" in asked(cluster, failed)[0]
    looks = {"etcd-1": other, "etcd-2": failed, "etcd-3": seen(cluster, facts={"machine_id": "3", "boot_id": "3"})}
    ctx = Ctx(cluster, looks, "")
    preflight(ctx, cluster.nodes)  # type: ignore[arg-type]  # a stand-in
    assert ctx.warnings == ["etcd-2: etcd 3.7.1 -> 3.6.14: back, which works while another member runs 3.6.14"]


def test_every_nodes_problems_are_told_at_once(cluster: Cluster) -> None:
    bad = seen(cluster, facts={"cpu": "mips64", "wal_is_mount": True, "machine_id": "x", "boot_id": "y"})
    looks = {node.name: replace(bad, facts=replace(bad.facts, machine_id=node.name)) for node in cluster.nodes}
    with pytest.raises(Refused) as caught:
        preflight(Ctx(cluster, looks), cluster.nodes)  # type: ignore[arg-type]  # a stand-in
    assert caught.value.message.count("mips64") == caught.value.message.count("mount point") == 3


def test_the_owners_of_sockets_are_found() -> None:
    import os
    import socket
    import subprocess

    with socket.create_server(("127.0.0.1", 0)) as server:
        inode = str(os.fstat(server.fileno()).st_ino)
        said = subprocess.check_output(["sh", "-c", owners_script([inode, "4"])], text=True)
    name = Path("/proc/self/comm").read_text().strip()
    assert said == f"{inode} pid {os.getpid()} ({name})\n"


# -- what exists stays where it is -----------------------------------------------------------------------------------


def once_healthy(cluster: Cluster) -> None:
    cluster.work.mkdir(parents=True)
    (cluster.work / "cluster-id").write_text("c1\n")


def test_preflight_wal_mount_of_a_member_with_data_names_no_other_path(cluster: Cluster) -> None:
    unit = {unit_file(cluster, cluster.nodes[1]): Entry("file")}
    message, _ = asked(cluster, own(cluster, entries=unit, facts={"wal_is_mount": True}, member=True))
    assert "mount the disk that holds it" in message
    assert "set [paths]" not in message


def test_preflight_data_of_this_cluster_without_a_unit_gets_one(cluster: Cluster) -> None:
    once_healthy(cluster)
    data = {"member": True, "wal": True}
    message, _ = asked(cluster, own(cluster, facts={"cluster_id": "c1"}, **data))
    assert "holds a member's data" not in message
    message, _ = asked(cluster, own(cluster, facts={"cluster_id": "f0"}, **data))
    assert "etcd-2: /data/etcd/data holds a member's data of the cluster f0" in message
    assert "mv " not in message


def test_preflight_two_wals_of_a_stopped_member_are_refused(cluster: Cluster) -> None:
    facts = {"inner_wal": True}
    unit = {unit_file(cluster, cluster.nodes[1]): Entry("file")}
    message, _ = asked(cluster, own(cluster, entries=unit, facts=facts, member=True, wal=True))
    assert "etcd-2: there is a WAL in /data/etcd/data/member/wal next to the one in /data/etcd/wal" in message
    living = own(cluster, entries=unit, facts=facts, member=True, wal=True, process=LIVING)
    assert asked(cluster, living)[0] == ""


def test_preflight_owner_of_this_members_parent_is_given_back(cluster: Cluster) -> None:
    """Only this member's data lies there, and a unit of this tool: `units` may make it etcd's again."""
    unit = {unit_file(cluster, cluster.nodes[1]): Entry("file", content="Environment=UNIT_DIGEST=0a\n")}
    entries = {**unit, "/data/etcd": Entry("dir", 0o700, "root", "root")}
    assert asked(cluster, own(cluster, entries=entries, member=True, wal=True))[0] == ""
    foreign = {**entries, unit_file(cluster, cluster.nodes[1]): Entry("file", content="[Service]\n")}
    message, _ = asked(cluster, own(cluster, entries=foreign, member=True, wal=True))
    assert "/data/etcd belongs to root (mode 0700) and holds its WAL, where a member's data is or was" in message
    assert "set [paths]" not in message


OTHER = """exe /usr/bin/etcd
group 0::/system.slice/etcd3.service
open socket:[77]
open {data}/member/snap/db
word /usr/bin/etcd
word --name={name}
word --wal-dir={wal}
."""


def framed(**fields: str) -> str:
    body = OTHER.format(**{"data": DATA, "wal": WAL, "name": "etcd-2", **fields})
    return f"etcd 812 {len(body)}\n{body}\n"


def test_preflight_etcd_of_another_unit_is_left_alone(cluster: Cluster) -> None:
    """One line about it, and none of the advice for a node of ours."""
    facts = {"wal_is_mount": True}
    taken = own(cluster, facts=facts, listening={2379: (("0", "77"),)}, unit={"EnvironmentFiles": "/etc/default/etcd"})
    message, _ = asked(cluster, taken, says=framed(data="/var/lib/etcd", wal="/var/lib/etcd/member/wal"))
    (line,) = message.splitlines()[1:]
    assert line.startswith(
        "  etcd-2: etcd3.service (pid 812, /usr/bin/etcd): member etcd-2, data /var/lib/etcd, "
        "WAL /var/lib/etcd/member/wal. This tool has not deployed it, and does not take it over."
    )


def test_preflight_etcd_service_made_by_hand_is_taken_over_only_on_its_own_data(cluster: Cluster) -> None:
    file = unit_file(cluster, cluster.nodes[1])
    argv = (*LIVING.argv, "--listen-client-urls=https://10.0.0.2:2379")
    changes = {
        "entries": {file: Entry("file", content="[Service]\nExecStart=/usr/bin/etcd\n")},
        "listening": {2379: (("0", "77"),)},
        "process": Process(812, "x", argv, 0),
        "member": True,
        "wal": True,
    }
    taken = own(cluster, unit={"FragmentPath": file}, **changes)
    assert asked(cluster, taken, says=framed())[0] == ""
    for fields in ({"data": "/other"}, {"wal": "/other"}, {"name": "other"}):
        assert "does not take it over" in asked(cluster, taken, says=framed(**fields))[0]
    by_environment = own(cluster, unit={"FragmentPath": file, "EnvironmentFiles": "/etc/etcd.env"}, **changes)
    assert "does not take it over" in asked(cluster, by_environment, says=framed())[0]
