"""Who is restarted, why, in which order, and whose data is gone: read from the living process alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clusters import on_hosts, on_loopback, seen
from views import CLUSTER, FINE, without

from steps import start
from steps.core.base.errors import NodeFailed, PluginError, Refused, StepFailed
from steps.core.base.hints import invoke
from steps.core.config.model import Cluster
from steps.core.etcd import flags
from steps.core.etcd.identity import vanished
from steps.core.etcd.views import View
from steps.core.node.facts import UNIT_DIGEST, Entry, Look, Process
from steps.core.node.paths import unit_file
from steps.core.node.resources import File
from steps.core.procedures import bootstrap, rolling_restart, unit_changes
from steps.core.procedures.data_holders import holders_script
from steps.core.procedures.rolling_restart import order, restart, restart_reason
from steps.core.transport.shell_session import Result
from steps.testing import make_context
from steps.units import Units

BINARY, STARTED = "b" * 64, 1_700_000_000


def installed(cluster: Cluster) -> str:
    """The text of the first node's unit, or of its script."""
    node = cluster.nodes[0]
    (file,) = (found for found in Units().desired(make_context(cluster), node) if isinstance(found, File))
    return str(file.known(seen(cluster)).content)


def living(cluster: Cluster, **changes: Any) -> Look:
    """The first node, running exactly what is installed, except for `changes` of the process, the look or a path."""
    node, unit = cluster.nodes[0], installed(cluster)
    digest = unit.partition(f"{UNIT_DIGEST}=")[2].partition("\n")[0]
    process = Process(5, BINARY, flags.argv(cluster, node, {}), STARTED)
    process = replace(process, **{name: changes[name] for name in ("exe", "argv", "started") if name in changes})
    entries = {
        unit_file(cluster, node): Entry("file", content=changes.get("unit", unit)),
        f"{node.paths.bin}/etcd": Entry("file", digest=BINARY),
        f"{node.paths.cert}/ca.pem": Entry("file", content="", mtime=changes.get("ca", STARTED - 1)),
    }
    entries = {path: entry for path, entry in entries.items() if path not in changes.get("gone", ())}
    facts = {"unit_digest": changes.get("digest", digest), "running_version": "3.5.15"}
    return seen(cluster, process=None if "stopped" in changes else process, entries=entries, facts=facts)


BOTH = pytest.mark.parametrize("cluster", [on_hosts(), on_loopback()], ids=["systemd", "process"])


@BOTH
def test_what_runs_is_what_is_installed(cluster: Cluster) -> None:
    assert restart_reason(cluster, cluster.nodes[0], living(cluster)) == ""


def changed(cluster: Cluster, old: str, new: str) -> tuple[str, ...]:
    return tuple(word.replace(old, new) for word in flags.argv(cluster, cluster.nodes[0], {}))


@BOTH
def test_every_difference_is_a_reason(cluster: Cluster) -> None:
    def reason(**changes: Any) -> str:
        return restart_reason(cluster, cluster.nodes[0], living(cluster, **changes))

    argv = flags.argv(cluster, cluster.nodes[0], {})
    assert reason(exe="a" * 64) == "runs etcd 3.5.15, another binary is installed"
    assert (
        reason(argv=changed(cluster, "heartbeat-interval=250", "heartbeat-interval=251"))
        == "flags changed: --heartbeat-interval"
    )
    assert reason(argv=(*argv, "--debug=true", "--x=y")) == "flags changed: --debug, --x"
    assert reason(argv=argv[:-1]).startswith("flags changed: --")
    assert reason(ca=STARTED + 1).startswith("the CA is newer")
    assert reason(ca=STARTED) == ""


@BOTH
def test_what_is_no_reason(cluster: Cluster) -> None:
    def reason(**changes: Any) -> str:
        return restart_reason(cluster, cluster.nodes[0], living(cluster, **changes))

    argv = flags.argv(cluster, cluster.nodes[0], {})
    assert reason(argv=(argv[0], *reversed(argv[1:]))) == "", "the order of flags"
    assert reason(argv=changed(cluster, "state=new", "state=existing")) == "", "read at the first start alone"
    assert reason(stopped=True) == "", "nothing runs"
    assert reason(gone=[unit_file(cluster, cluster.nodes[0])]) == "", "nothing is installed"
    assert reason(gone=[f"{cluster.nodes[0].paths.cert}/ca.pem"]) == "", "no TLS"


def test_a_changed_directive_is_seen_by_the_units_digest() -> None:
    cluster = on_hosts()
    assert restart_reason(cluster, cluster.nodes[0], living(cluster, digest="0" * 16)) == "the unit changed"
    assert restart_reason(cluster, cluster.nodes[0], living(cluster, digest="")) == "the unit changed", "not ours"
    harder = on_hosts("[hosts]\nhardening = false\n")
    assert installed(cluster) != installed(harder)
    digests = {installed(each).partition(f"{UNIT_DIGEST}=")[2][:16] for each in (cluster, harder)}
    assert len(digests) == 2


def test_one_more_node_is_no_reason_for_a_restart_of_the_others() -> None:
    three, four = on_hosts(), on_hosts(count=4)
    assert "etcd-4" in installed(four)
    running = living(three, unit=installed(four))
    assert restart_reason(four, four.nodes[0], running) == ""


ORDERS = [
    ({"etcd-1", "etcd-2", "etcd-3"}, "etcd-1", ["etcd-2", "etcd-3", "etcd-1"]),
    ({"etcd-1", "etcd-2", "etcd-3"}, "etcd-3", ["etcd-1", "etcd-2", "etcd-3"]),
    ({"etcd-3", "etcd-1"}, "etcd-2", ["etcd-1", "etcd-3"]),
    ({"etcd-2"}, "etcd-2", ["etcd-2"]),
    ({"etcd-2", "etcd-1"}, "", ["etcd-1", "etcd-2"]),
    (set(), "etcd-1", []),
]


@pytest.mark.parametrize(("names", "leader", "expected"), ORDERS)
def test_the_leader_is_last(names: set[str], leader: str, expected: list[str]) -> None:
    cluster = on_hosts()
    found = order(cluster, tuple(reversed(cluster.nodes)), names, leader)
    assert [node.name for node in found] == expected


Rolled = Callable[..., list[str]]


@pytest.fixture
def rolled(monkeypatch: pytest.MonkeyPatch) -> Rolled:
    """What happens to whom, in this order, when all three members are to be restarted; etcd-1 leads."""

    def roll(*, hook: bool = False, veto: str = "", fails: str = "", views: dict[int, View] | None = None) -> list[str]:
        events: list[str] = []

        def asked(node: Any) -> View:
            events.append(f"ask {node.name}")
            return (views or {}).get(sum(event.startswith("ask ") for event in events), FINE)

        def opened(_ctx: object, node: Any, _pids: object) -> View:
            if node.name == fails:
                raise NodeFailed(node.name, "etcd did not stay up", hint="invoke status")
            events.append(f"open {node.name}")
            return FINE

        def sh(node: Any, script: str, deadline: float) -> Result:
            del deadline
            events.append(f"{'move the leader and ' if 'move-leader' in script else ''}restart {node.name}")
            return Result(0, "", "")

        def before_restart(_cluster: Cluster, node: Any) -> bool:
            if veto == node.name:
                raise PluginError("not now")
            events.extend([f"hook {node.name}"] * hook)
            return hook

        def put_back(_ctx: object, nodes: Any) -> str:
            events.append(f"put back {' '.join(node.name for node in nodes)}")
            return "the former unit is back"

        monkeypatch.setattr(unit_changes, "put_back", put_back)
        monkeypatch.setattr(rolling_restart, "wait_open", opened)
        process = Process(5, BINARY, (), STARTED)
        ctx: Any = SimpleNamespace(
            cluster=CLUSTER,
            serving=CLUSTER,
            etcd=SimpleNamespace(ask=asked, move_leader_script=lambda _node, to: f"move-leader {to}\n"),
            look=lambda _node: seen(CLUSTER, process=process, member=True, wal=True),
            sh=sh,
            plugins=SimpleNamespace(before_restart=before_restart),
            change=lambda *_words: None,
            each=lambda nodes, work: {node.name: work(node) for node in nodes},
        )
        try:
            restart(ctx, CLUSTER.nodes, dict.fromkeys((node.name for node in CLUSTER.nodes), "flags changed"))
        except (StepFailed, NodeFailed, PluginError, Refused) as error:
            events += [error.message, error.hint]
        return events

    return roll


def test_each_restart_follows_a_gate(rolled: Rolled) -> None:
    second = ["ask etcd-2", "restart etcd-2", "open etcd-2"]
    third = ["ask etcd-3", "restart etcd-3", "open etcd-3"]
    first = ["ask etcd-1", "move the leader and restart etcd-1", "open etcd-1"]
    assert rolled() == ["ask etcd-1", *second, *third, *first]


@pytest.mark.parametrize("at", [1, 2])
def test_restart_where_auth_keeps_the_health_back_is_refused(rolled: Rolled, at: int) -> None:
    mute = replace(
        without(0), errors={"status": "Failed to get the status of endpoint … (etcdserver: user name not found)"}
    )
    *asks, said, hint = rolled(views={at: mute})
    assert asks == [*["ask etcd-1", "ask etcd-2"][:at], "put back etcd-1 etcd-2 etcd-3"]
    assert said.startswith("auth is on, and etcd-")
    assert "user grant-role" in hint


def test_after_a_hook_the_gate_is_asked_again(rolled: Rolled) -> None:
    second = ["ask etcd-2", "hook etcd-2", "ask etcd-2", "restart etcd-2", "open etcd-2"]
    third = ["ask etcd-3", "hook etcd-3", "ask etcd-3", "restart etcd-3", "open etcd-3"]
    assert rolled(hook=True)[:11] == ["ask etcd-1", *second, *third]
    stopped = rolled(hook=True, views={5: without(0)})
    assert stopped[:-2] == ["ask etcd-1", *second, *third[:3], "put back etcd-1 etcd-3"]
    assert stopped[-2].startswith("etcd-3 was not restarted, for the cluster is not healthy: etcd-1 does not answer")


FORMER = "\n  the former unit is back"


def test_after_a_failure_those_not_yet_restarted_get_back_what_they_run(rolled: Rolled) -> None:
    first = ["ask etcd-1", "ask etcd-2", "restart etcd-2", "put back etcd-1 etcd-3"]
    said = rolled(fails="etcd-2")
    assert said[:-2] == first
    assert said[-2] == f"etcd-2: etcd did not stay up{FORMER}"
    assert invoke("all") in said[-1]
    assert rolled(fails="etcd-3")[-3] == "put back etcd-1"
    assert rolled(fails="etcd-1")[-2:] == ["etcd-1: etcd did not stay up", "invoke status"], "all have been restarted"


def test_before_the_first_restart_nothing_is_put_back(rolled: Rolled) -> None:
    assert not [event for event in rolled(views={2: without(0)}) if "put back" in event or "former" in event]


def test_a_plugins_no_puts_nothing_back(rolled: Rolled) -> None:
    """It is asked again when the rest is restarted later."""
    assert rolled(veto="etcd-3")[-4:] == ["open etcd-2", "ask etcd-3", "not now", ""]


def test_a_living_member_whose_data_is_not_in_its_place_is_not_restarted() -> None:
    look = seen(CLUSTER, process=Process(5, BINARY, (), STARTED), member=True)
    ctx: Any = SimpleNamespace(cluster=CLUSTER, look=lambda _node: look)
    with pytest.raises(Refused, match="etcd-2: no member's data in /data/etcd/wal"):
        restart(ctx, CLUSTER.nodes, {"etcd-2": "flags changed"})


def test_a_sick_member_is_first(rolled: Rolled) -> None:
    events = rolled(views={1: without(1)})
    assert events[:6] == ["ask etcd-1", "restart etcd-2", "open etcd-2", "ask etcd-3", "restart etcd-3", "open etcd-3"]
    assert events[6:] == ["ask etcd-1", "move the leader and restart etcd-1", "open etcd-1"]


@pytest.mark.parametrize(
    ("active", "waited"),
    [
        (("active", "active", "active"), None),
        (("active", "activating", "active"), ([], ["etcd-2"])),
        (("activating", "", "active"), (["etcd-2"], ["etcd-1"])),
    ],
)
def test_a_member_that_starts_already_is_waited_for_and_not_started_anew(
    monkeypatch: pytest.MonkeyPatch, active: tuple[str, ...], waited: tuple[list[str], list[str]] | None
) -> None:
    process = Process(5, BINARY, (), STARTED)
    looks = {
        node.name: seen(CLUSTER, process=process if state else None, unit={"ActiveState": state})
        for node, state in zip(CLUSTER.nodes, active, strict=True)
    }
    started: list[Any] = []
    monkeypatch.setattr(start, "refuse_unprepared", lambda *_: None)
    monkeypatch.setattr(start, "assert_data", lambda *_: None)
    monkeypatch.setattr(rolling_restart, "restart_reason", lambda *_: "")
    monkeypatch.setattr(start, "known_id", lambda _: "ff")
    monkeypatch.setattr(bootstrap, "enable", lambda *_: None)
    monkeypatch.setattr(bootstrap, "start", lambda _ctx, _nodes, *which: started.append(which))
    ctx: Any = SimpleNamespace(look=lambda node: looks[node.name], say=lambda *_: None, dry=False)
    start.Start().run(CLUSTER, CLUSTER.nodes, ctx)
    assert [tuple([node.name for node in nodes] for nodes in which) for which in started] == (
        [waited] if waited else []
    )


@pytest.mark.parametrize(
    ("member", "wal", "gone"),
    [
        (True, True, ""),
        (False, True, "no member's data in /data/etcd/data"),
        (True, False, "no member's data in /data/etcd/wal"),
        (False, False, "no member's data in /data/etcd/data and /data/etcd/wal"),
    ],
)
def test_what_is_gone_of_a_members_data(member: bool, wal: bool, gone: str) -> None:  # noqa: FBT001  a row of the table
    cluster = on_hosts()
    assert vanished(cluster.nodes[0], seen(cluster, member=member, wal=wal)) == gone


def test_who_may_write_a_members_database(tmp_path: Path) -> None:
    node = on_loopback().nodes[0]
    node = replace(node, paths=replace(node.paths, data=str(tmp_path)))
    database = tmp_path / "member" / "snap" / "db"

    def holders() -> str:
        script = ["sh", "-c", holders_script(node)]
        return subprocess.run(script, capture_output=True, text=True, check=True).stdout

    assert holders() == ""
    database.parent.mkdir(parents=True)
    database.touch()
    with database.open("rb"):
        assert holders() == "", "a backup only reads"
    with database.open("r+b"):
        name = Path("/proc/self/comm").read_text().strip()
        assert holders() == f"pid {os.getpid()} ({name})\n"


def test_owned_script_gives_the_data_away_and_follows_no_link(tmp_path: Path) -> None:
    """As root chown would; here a stand-in says what it was asked for."""
    node = on_hosts().nodes[0]
    node = replace(node, paths=replace(node.paths, data=str(tmp_path / "data"), wal=str(tmp_path / "wal")))
    (tmp_path / "data" / "member").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    script = 'chown() { echo "$(pwd) $*"; }\n' + bootstrap.owned_script(on_hosts(), node)

    def said() -> list[str]:
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert said() == [f"{tmp_path}/data -RhP etcd:etcd ./member"]
    (tmp_path / "wal").mkdir()
    assert said()[1:] == [f"{tmp_path}/wal -RhP etcd:etcd ./."]
    assert bootstrap.owned_script(on_loopback(), node) == ""
