"""The file that starts a member: its guard, what of it counts, and how what ran before is put back."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clusters import on_hosts, on_loopback, seen

from steps.core.base.digest import digest
from steps.core.base.errors import NodeFailed, Refused
from steps.core.base.hints import invoke
from steps.core.checks.node_checks import vanished_data
from steps.core.checks.prepared import missing, next_command, refuse_unprepared
from steps.core.config.model import Cluster, Node
from steps.core.etcd import flags, identity, unit_text
from steps.core.node.facts import UNIT_DIGEST, Entry, Look, Process
from steps.core.node.paths import unit_file
from steps.core.node.resources import File
from steps.core.procedures import rolling_restart as rolling
from steps.core.procedures import unit_changes
from steps.core.transport.shell_session import Result
from steps.ops.reset import reset_script
from steps.testing import make_context
from steps.units import Units

BOTH = pytest.mark.parametrize("cluster", [on_hosts(), on_loopback()], ids=["systemd", "process"])
ASSERTS = "AssertDirectoryNotEmpty=/data/etcd/data/member\nAssertDirectoryNotEmpty=/data/etcd/wal\n"


def desired(cluster: Cluster, text: str = "") -> str:
    """What `units` wants on the first node, where `text` is installed."""
    node = cluster.nodes[0]
    entries = {unit_file(cluster, node): Entry("file", content=text)} if text else {}
    (file,) = (each for each in Units().desired(make_context(cluster), node) if isinstance(each, File))
    return str(file.known(seen(cluster, entries=entries)).content)


@BOTH
def test_unit_before_the_first_healthy_start_asserts_nothing(cluster: Cluster) -> None:
    assert not unit_text.is_guarded(cluster, desired(cluster))
    assert desired(cluster, desired(cluster)) == desired(cluster)


@BOTH
def test_unit_after_the_first_healthy_start_is_guarded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = desired(cluster)
    monkeypatch.setattr(identity, "known_id", lambda _: "ff")
    assert desired(cluster) == unit_text.guarded(cluster, cluster.nodes[0], bare)
    assert unit_text.unguarded(cluster, desired(cluster)) == bare


@BOTH
def test_unit_that_is_guarded_stays_so_where_the_controller_knows_no_id(cluster: Cluster) -> None:
    guarded = unit_text.guarded(cluster, cluster.nodes[0], desired(cluster))
    assert desired(cluster, guarded) == guarded


def test_guard_stands_in_the_unit_section_and_not_in_the_digest() -> None:
    cluster = on_hosts()
    bare = desired(cluster)
    guarded = unit_text.guarded(cluster, cluster.nodes[0], bare)
    assert guarded.partition("[Service]")[0].count(ASSERTS) == 1
    assert guarded.partition("[Service]")[2] == bare.partition("[Service]")[2]


@BOTH
def test_guard_added_twice_or_with_other_paths_is_one_guard(cluster: Cluster) -> None:
    node, bare = cluster.nodes[0], desired(cluster)
    guarded = unit_text.guarded(cluster, node, bare)
    assert unit_text.guarded(cluster, node, guarded) == guarded
    moved = replace(node, paths=replace(node.paths, data="/srv/50%/data"))
    other = unit_text.guarded(cluster, moved, guarded)
    assert ("/srv/50%%/data/member" if cluster.systemd else "/srv/50%/data/member") in other
    assert f"{node.paths.data}/member" not in unit_text.unguarded(cluster, other)
    assert unit_text.unguarded(cluster, other) == bare


def test_guard_of_a_template_without_a_unit_section_has_one() -> None:
    cluster = on_hosts()
    text = unit_text.guarded(cluster, cluster.nodes[0], "[Service]\nExecStart=/bin/etcd\n")
    assert text == f"[Unit]\n{ASSERTS}[Service]\nExecStart=/bin/etcd\n"


@BOTH
def test_guard_is_no_reason_for_a_restart(cluster: Cluster) -> None:
    node, bare = cluster.nodes[0], desired(cluster)
    found = bare.partition(f"{UNIT_DIGEST}=")[2].partition("\n")[0]
    entries = {
        unit_file(cluster, node): Entry("file", content=unit_text.guarded(cluster, node, bare)),
        f"{node.paths.bin}/etcd": Entry("file", digest="b"),
    }
    process = Process(5, "b", flags.argv(cluster, node, {}), 0)
    look = seen(cluster, entries=entries, process=process, facts={"unit_digest": found})
    assert rolling.restart_reason(cluster, node, look) == ""


def at(folder: Path) -> tuple[Cluster, Node]:
    """A cluster of plain processes in `folder`, and its first node, whose directories are there."""
    cluster = on_loopback(folder / "etcd.toml")
    node = cluster.nodes[0]
    for path in (node.paths.bin, node.paths.cert, f"{node.paths.data}/member", node.paths.wal, node.paths.unit):
        Path(path).mkdir(parents=True, exist_ok=True)
    return cluster, node


@pytest.mark.parametrize("empty", ["", "member", "data", "wal", "wal directory"])
def test_guarded_script_without_data_or_wal_starts_nothing(tmp_path: Path, empty: str) -> None:
    cluster, node = at(tmp_path / "it's a $(place)")
    data, wal = Path(node.paths.data), Path(node.paths.wal)
    (data / "member" / "snap").mkdir()
    (wal / "0.wal").touch()
    gone = {"member": data / "member" / "snap", "data": data, "wal": wal / "0.wal", "wal directory": wal}.get(empty)
    if gone is not None:
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    script = unit_text.guarded(cluster, node, "#!/bin/sh\n# a comment\nexec env -i echo started\n")
    assert script.startswith("#!/bin/sh\n")
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    if not empty:
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "started\n", "")
        return
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "is empty or missing: this member is not started without its data" in ran.stderr


@BOTH
@pytest.mark.parametrize("ends", [True, False])
def test_reset_takes_the_guard_away_where_the_whole_cluster_ends(
    cluster: Cluster,
    tmp_path: Path,
    ends: bool,  # noqa: FBT001  a row of the table
) -> None:
    node = replace(cluster.nodes[0], paths=at(tmp_path)[1].paths)
    file = Path(unit_file(cluster, node))
    bare = desired(cluster)
    guarded = unit_text.guarded(cluster, node, bare)
    file.write_text(guarded)
    file.chmod(0o640)
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\n')
    systemctl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    script = reset_script(cluster, node, "now", ends=ends)
    for _ in range(2):  # a member that is gone already is no error
        subprocess.run(["sh", "-c", script], env=environment, check=True)
        assert file.read_text() == (bare if ends else guarded)
        assert file.stat().st_mode & 0o777 == 0o640
    assert not Path(node.paths.data).exists()
    assert sorted(path.name for path in file.parent.iterdir() if "etcd-steps" in path.name) == []
    if cluster.systemd:
        assert (tmp_path / "asked").read_text().count("daemon-reload") == (1 if ends else 0)


@BOTH
def test_empty_member_with_a_guarded_unit_is_refused_without_a_known_id(cluster: Cluster) -> None:
    node, bare = cluster.nodes[0], desired(cluster)

    def codes(text: str, **more: Any) -> list[str]:
        entries = {unit_file(cluster, node): Entry("file", content=text)}
        found = vanished_data(cluster, node, seen(cluster, entries=entries, **more))
        return [problem.code for problem in found]

    guarded = unit_text.guarded(cluster, node, bare)
    assert codes(guarded) == ["node.data-missing"]
    assert codes(guarded, member=True, wal=True) == []
    assert codes(bare) == []


# -- what ran before ----------------------------------------------------------------------------------------------


def with_flags(cluster: Cluster, value: str) -> Cluster:
    return replace(cluster, flags={**cluster.flags, "log-level": value})


@BOTH
def test_former_file_made_from_the_command_line_is_the_former_file(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    odd = with_flags(cluster, 'it\'s 50% "$x" \\ é')
    before, after = desired(odd), desired(with_flags(cluster, "nonsense"))
    guarded = unit_text.guarded(cluster, node, after)
    assert unit_text.with_argv(cluster, guarded, flags.argv(odd, node, {})).strip() == before.strip()


@BOTH
def test_file_starts_a_process_only_where_all_that_lasts_is_the_same(cluster: Cluster) -> None:
    node, text = cluster.nodes[0], desired(cluster)
    found = text.partition(f"{UNIT_DIGEST}=")[2].partition("\n")[0]
    process = Process(5, "b", flags.argv(cluster, node, {}), 0)
    assert unit_text.starts(cluster, text, process, found)
    assert not unit_text.starts(cluster, desired(with_flags(cluster, "debug")), process, found)
    assert not unit_text.starts(cluster, "", process, found)
    if cluster.systemd:
        assert not unit_text.starts(cluster, text, process, "0" * 16), "another directive"


class Host:
    """One node of plain processes on this machine: scripts really run."""

    def __init__(self, cluster: Cluster, node: Node, look: Look, found: Look) -> None:
        self.cluster, self.node = cluster, node
        self.looks, self.found, self.dry = {node.name: look}, {node.name: found}, False
        self.said: list[str] = []

    def look(self, node: Node) -> Look:
        return self.looks[node.name]

    def sh(self, node: Node, script: str, deadline: float) -> Result:
        del node, deadline
        ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        return Result(ran.returncode, ran.stdout, ran.stderr)

    def each(self, nodes: list[Node], work: Any) -> dict[str, Any]:
        return {node.name: work(node) for node in nodes}

    def change(self, what: str, node: Node) -> None:
        self.said.append(f"{node.name}: {what}")

    @staticmethod
    def now() -> int:
        return 0


@pytest.fixture
def living(tmp_path: Path) -> Iterator[tuple[Cluster, Node, Process]]:
    """A process that runs a binary which by now is replaced, as is the script that started it."""
    cluster, node = at(tmp_path)
    binary = Path(f"{node.paths.bin}/etcd")
    shutil.copy("/bin/sleep", binary)
    with subprocess.Popen([binary, "60"]) as sleeping:
        exe = digest(binary.read_bytes())
        binary.unlink()
        binary.write_text("the next release")
        binary.chmod(0o755)
        try:
            yield cluster, node, Process(sleeping.pid, exe, flags.argv(cluster, node, {}), 0)
        finally:
            sleeping.kill()


def host(cluster: Cluster, node: Node, process: Process, before: str, after: str) -> Host:
    """The node as it is after this run wrote `after` where it found `before`."""
    file = Path(unit_file(cluster, node))
    file.write_text(after)
    file.chmod(0o700)
    binary = {f"{node.paths.bin}/etcd": Entry("file", 0o755, digest="n")}

    def look(text: str) -> Look:
        entries = {**binary, str(file): Entry("file", 0o700, content=text, digest=digest(text.encode()))}
        return seen(cluster, entries=entries, process=process)

    return Host(cluster, node, look(after), look(before))


@pytest.mark.parametrize("earlier", [False, True], ids=["this run", "an earlier run"])
def test_put_back_gives_the_file_and_the_binary_that_run(
    living: tuple[Cluster, Node, Process],
    earlier: bool,  # noqa: FBT001  a row of the table
) -> None:
    cluster, node, process = living
    before, after = desired(cluster), desired(with_flags(cluster, "nonsense"))
    ctx: Any = host(cluster, node, process, after if earlier else before, after)
    said = unit_changes.put_back(ctx, [node])
    assert said == "etcd-1: the former script and binary are back: the next start takes what runs"
    assert Path(unit_file(cluster, node)).read_text().strip() == unit_text.guarded(cluster, node, before).strip()
    binary = Path(f"{node.paths.bin}/etcd")
    assert digest(binary.read_bytes()) == process.exe
    assert binary.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in binary.parent.iterdir()] == ["etcd"]


def test_put_back_of_another_process_leaves_the_binary(living: tuple[Cluster, Node, Process]) -> None:
    cluster, node, process = living
    ctx: Any = host(cluster, node, replace(process, exe="0" * 64), desired(cluster), desired(cluster))
    said = unit_changes.put_back(ctx, [node])
    assert f"could not be put back: etcd-1: pid {process.pid} is another program by now" in said
    binary = Path(f"{node.paths.bin}/etcd")
    assert binary.read_text() == "the next release"
    assert [path.name for path in binary.parent.iterdir()] == ["etcd"]


def test_put_back_of_what_nothing_proves_says_so() -> None:
    cluster = on_hosts()
    node, text = cluster.nodes[0], desired(with_flags(cluster, "nonsense"))
    entries = {unit_file(cluster, node): Entry("file", content=text), f"{node.paths.bin}/etcd": Entry("f", digest="b")}
    process = Process(5, "b", flags.argv(cluster, node, {}), 0)
    look = seen(cluster, entries=entries, process=process, facts={"unit_digest": "0" * 16})
    ctx: Any = Host(cluster, node, look, look)
    assert unit_changes.put_back(ctx, [node]) == f"etcd-1: the new unit stays: {unit_changes.STAYS}"


def test_put_back_where_nothing_differs_says_nothing(living: tuple[Cluster, Node, Process]) -> None:
    cluster, node, process = living
    ctx: Any = host(cluster, node, replace(process, exe="n"), desired(cluster), desired(cluster))
    assert unit_changes.put_back(ctx, [node]) == ""


def test_assert_data_changes_the_installed_file_and_nothing_else_of_it(tmp_path: Path) -> None:
    cluster, node = at(tmp_path)
    text = "#!/bin/sh\n# by an older version\nexec env -i etcd\n"
    ctx: Any = host(cluster, node, Process(5, "n", (), 0), text, text)
    unit_changes.assert_data(ctx, [node])
    unit_changes.assert_data(ctx, [node])
    assert Path(unit_file(cluster, node)).read_text() == unit_text.guarded(cluster, node, text)
    assert ctx.said == [f"etcd-1: {unit_file(cluster, node)} asserts that data and WAL are there"]


# -- what a start needs -------------------------------------------------------------------------------------------


def deployed(cluster: Cluster, *without: str, **more: Any) -> Look:
    """The first node with all that a start needs, but for the paths that end so."""
    paths = cluster.nodes[0].paths
    parent = str(Path(paths.wal).parent)
    there = [f"{paths.bin}/etcd", unit_file(cluster, cluster.nodes[0]), parent, paths.data, paths.wal]
    there += [f"{paths.cert}/ca.pem", f"{paths.cert}/etcd.pem"]
    entries = {path: Entry("file", content="") for path in there if not path.endswith(without or ("\0",))}
    return seen(cluster, entries=entries, **more)


@BOTH
@pytest.mark.parametrize("gone", ["bin/etcd", "etcd.service etcd.sh", "ca.pem", "etcd.pem", "/data", "/wal"])
def test_missing_names_what_a_start_needs(cluster: Cluster, gone: str) -> None:
    node = cluster.nodes[0]
    assert missing(cluster, node, deployed(cluster)) == []
    (found,) = missing(cluster, node, deployed(cluster, *gone.split()))
    assert found.endswith(tuple(gone.split()))
    alive = deployed(cluster, *gone.split(), process=Process(5, "b", (), 0))
    assert missing(cluster, node, alive) == ([] if gone in {"/data", "/wal"} else [found])


def test_missing_takes_a_promised_certificate_for_one() -> None:
    cluster = on_hosts()
    look = deployed(cluster, "etcd.pem")
    promised = replace(look, entries={**look.entries, f"{cluster.nodes[0].paths.cert}/live/etcd.pem": Entry("file")})
    assert missing(cluster, cluster.nodes[0], promised) == []


def test_missing_without_tls_wants_no_certificates() -> None:
    cluster = on_hosts("[tls]\nenabled = false\n")
    assert missing(cluster, cluster.nodes[0], deployed(cluster, "ca.pem", "etcd.pem")) == []


def test_start_of_what_is_not_deployed_is_refused_with_what_is_missing() -> None:
    cluster = on_hosts()
    looks = dict(
        zip(["etcd-1", "etcd-2", "etcd-3"], [deployed(cluster), deployed(cluster, "/etcd"), seen(cluster)], strict=True)
    )
    ctx: Any = SimpleNamespace(cluster=cluster, look=lambda node: looks[node.name])
    with pytest.raises(Refused) as caught:
        refuse_unprepared(ctx, cluster.nodes)
    assert caught.value.hint == invoke("all")
    assert "etcd-2: /usr/local/bin/etcd" in caught.value.message
    assert "etcd-3: /usr/local/bin/etcd, /etc/systemd/system/etcd.service, " in caught.value.message
    assert "etcd-1" not in caught.value.message
    refuse_unprepared(ctx, cluster.nodes[:1])


RUNS = Process(5, "b", (), 0)
COMMANDS = [
    ([seen(on_hosts())] * 3, invoke("all")),
    ([deployed(on_hosts())] * 3, invoke("start")),
    ([deployed(on_hosts(), "/data", "/wal")], invoke("all")),
    ([deployed(on_hosts()), seen(on_hosts())], invoke("all")),
    ([deployed(on_hosts(), process=RUNS)], invoke("doctor")),
    ([None, deployed(on_hosts())], invoke("start --node etcd-2")),
    ([None], invoke("doctor")),
]


@pytest.mark.parametrize(("looks", "command"), COMMANDS)
def test_next_command_works_in_the_state_that_there_is(looks: list[Look | None], command: str) -> None:
    assert next_for(looks) == command


def test_next_command_for_a_member_whose_data_is_missing_is_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "known_id", lambda _: "ff")
    assert next_for([deployed(on_hosts())]) == invoke("doctor")
    assert next_for([deployed(on_hosts(), member=True, wal=True)]) == invoke("start --node etcd-1")


def next_for(looks: list[Look | None]) -> str:
    cluster = on_hosts()
    nodes = cluster.nodes[: len(looks)]

    def look_at(node: Node) -> Look:
        look = looks[cluster.nodes.index(node)]
        if look is None:
            raise NodeFailed(node.name, "it did not answer")
        return look

    each = lambda chosen, work: {node.name: work(node) for node in chosen}  # noqa: E731
    ctx: Any = SimpleNamespace(cluster=cluster, look_at=look_at, each=each)
    return next_command(ctx, nodes)
