"""What etcd.toml would do to members that live: each row is one edit, or one state of a member, and what is said."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clusters import on_hosts, seen
from views import CLUSTER, FINE, member

from steps.core.base.hints import etcdctl, invoke
from steps.core.base.problem import Problem
from steps.core.config.model import Cluster
from steps.core.etcd import differences, flags, living, moves
from steps.core.etcd.moves import Move
from steps.core.etcd.views import Member
from steps.core.node.facts import Entry, Look, Process
from steps.core.node.paths import unit_file
from steps.testing import make_context
from steps.units import Units

FIRST = CLUSTER.nodes[0]
MEMBERS = FINE.members or ()
DATA, WAL = "/data/etcd/data", "/data/etcd/wal"


def lives(argv: tuple[str, ...] = flags.argv(CLUSTER, FIRST, {}), **changes: Any) -> Look:
    """A member that runs with this command line; ours, if not said otherwise."""
    changes["facts"] = {"running_as": "etcd", **changes.get("facts", {})}
    return seen(CLUSTER, process=Process(5, "x", argv, 0), member=True, wal=True, **changes)


def stopped(cluster: Cluster = CLUSTER, **changes: Any) -> Look:
    """A member that is stopped, and the unit that `cluster` gave it."""
    files = [file for file in Units().desired(make_context(cluster), cluster.nodes[0]) if hasattr(file, "known")]
    unit = str(files[0].known(seen(cluster)).content)
    entries = {unit_file(cluster, cluster.nodes[0]): Entry("file", content=unit)}
    return seen(cluster, **{"member": True, "wal": True, "entries": entries, **changes})


def edited(**changes: Any) -> Cluster:
    """The cluster with its first node changed."""
    return replace(CLUSTER, nodes=(replace(FIRST, **changes), *CLUSTER.nodes[1:]))


def compared(cluster: Cluster, look: Look, members: tuple[Member, ...] | None = MEMBERS) -> list[Problem]:
    node = cluster.nodes[0]
    looks = {each.name: lives() for each in cluster.nodes} | {node.name: look}
    found = list(differences.of_node(cluster, node, look, members))
    return found + list(differences.membership(cluster, looks, members, starts=True) if members is not None else ())


def kinds(problems: list[Problem]) -> list[tuple[str, str]]:
    return [(problem.code, problem.node) for problem in problems]


def test_differences_of_an_unedited_file_are_none() -> None:
    assert compared(CLUSTER, lives()) == []
    assert compared(CLUSTER, stopped()) == []
    assert compared(CLUSTER, stopped(), None) == []
    assert moves.of_node(CLUSTER, FIRST, lives()) == []
    assert moves.of_node(CLUSTER, FIRST, stopped()) == []


EDITS: dict[str, tuple[Cluster, list[tuple[str, str]]]] = {
    "another ip": (edited(ip="10.0.0.9"), [("living.peer-url", "etcd-1")]),
    "another peer port": (edited(peer_port=12380), [("living.peer-url", "etcd-1")]),
    "another client port": (edited(client_port=12379), []),
    "another name": (edited(name="db-1"), [("living.name", "db-1")]),
    "no TLS": (on_hosts("[tls]\nenabled = false\n"), [("living.scheme", "etcd-1")]),
    "root": (on_hosts('[hosts]\nrun_as = "root"\n'), [("living.user", "etcd-1")]),
    "a node less": (replace(CLUSTER, nodes=CLUSTER.nodes[:2]), [("living.unlisted", "etcd-3")]),
}


@pytest.mark.parametrize(("cluster", "said"), EDITS.values(), ids=EDITS)
def test_differences_of_an_edit_on_a_living_member_are_named(cluster: Cluster, said: list[tuple[str, str]]) -> None:
    found = compared(cluster, lives())
    assert list(dict.fromkeys(kinds(found)))[: len(said) or 1] == said
    assert all(problem.hint for problem in found)


@pytest.mark.parametrize("edit", [{"ip": "10.0.0.9"}, {"peer_port": 12380}, {"name": "db-1"}])
def test_differences_of_a_stopped_cluster_are_read_from_the_unit(edit: dict[str, Any]) -> None:
    kind = "living.name" if "name" in edit else "living.peer-url"
    assert kinds(compared(edited(**edit), stopped(), None)) == [(kind, edit.get("name", "etcd-1"))]


def test_differences_of_a_stopped_member_whose_address_was_updated_are_none() -> None:
    cluster = edited(ip="10.0.0.9")
    updated = (member(0, peer_urls=("https://10.0.0.9:2380",)), *MEMBERS[1:])
    assert compared(cluster, stopped(), updated) == []
    (found,) = compared(cluster, lives(), updated)
    assert found.code == "living.peer-url"
    assert not any("member update" in line for line in found.hint.split("\n"))


def test_way_of_an_address_names_the_members_id() -> None:
    (found,) = compared(edited(ip="10.0.0.9"), lives())
    update = etcdctl(CLUSTER.work, "member update a1 --peer-urls=https://10.0.0.9:2380")
    assert update in found.hint.split("\n")
    assert found.hint.split("\n")[1] == invoke("stop --node etcd-1")
    assert found.hint.split("\n")[-1] == "then the next member's in etcd.toml, and the same for it"


def test_unlisted_member_is_shown_with_its_table() -> None:
    (found,) = compared(replace(CLUSTER, nodes=CLUSTER.nodes[:2]), lives())
    assert 'name = "etcd-3"  ip = "10.0.0.3"' in found.hint.split("\n")[0]
    assert etcdctl(CLUSTER.work, "member remove c3") in found.hint.split("\n")


def test_installed_options_are_the_units() -> None:
    assert living.installed(CLUSTER, FIRST, stopped())["initial-cluster-token"] == CLUSTER.token
    assert living.installed(CLUSTER, FIRST, lives()) == {}


FOUR = on_hosts(count=4)
NEW = FOUR.nodes[3]
LISTED = member(2, id="d4", name="", peer_urls=(FOUR.peer_url(NEW),), client_urls=())
OF_THE_FOURTH: dict[str, tuple[Look, tuple[Member, ...], bool, list[str]]] = {
    "new": (seen(FOUR), MEMBERS, True, ["living.new"]),
    "new, and nothing is started": (seen(FOUR), MEMBERS, False, []),
    "added, never started": (seen(FOUR), (*MEMBERS, LISTED), True, ["living.unstarted"]),
    "added, and nothing is started": (seen(FOUR), (*MEMBERS, LISTED), False, []),
    "removed": (seen(FOUR, member=True, wal=True), MEMBERS, True, ["living.removed"]),
    "removed, and nothing is started": (seen(FOUR, member=True, wal=True), MEMBERS, False, ["living.removed"]),
}


@pytest.mark.parametrize(("look", "members", "starts", "said"), OF_THE_FOURTH.values(), ids=OF_THE_FOURTH)
def test_membership_of_a_fourth_node(
    look: Look,
    members: tuple[Member, ...],
    starts: bool,  # noqa: FBT001  a column of the table
    said: list[str],
) -> None:
    looks = {node.name: lives() for node in CLUSTER.nodes} | {NEW.name: look}
    assert [problem.code for problem in differences.membership(FOUR, looks, members, starts=starts)] == said


def test_published_are_nodes_with_a_member_that_has_served() -> None:
    never = member(2, client_urls=())
    assert living.published(FOUR, (*MEMBERS[:2], never, LISTED)) == {"etcd-1", "etcd-2"}
    assert living.published(FOUR, None) == set()


def test_unborn_are_nodes_that_no_started_member_is() -> None:
    assert living.unborn(FOUR, MEMBERS) == {"etcd-4"}
    assert living.unborn(FOUR, (*MEMBERS, LISTED)) == {"etcd-4"}
    assert living.unborn(FOUR, None) == set()


HAND_MADE = ("etcd", "--name", "etcd-1", "--data-dir", "/var/lib/etcd")
PLACES: dict[str, tuple[Look, list[Move]]] = {
    "by hand, the WAL inside": (
        lives(HAND_MADE),
        [Move("wal", "/var/lib/etcd/member/wal", WAL, living=True), Move("data", "/var/lib/etcd", DATA, living=True)],
    ),
    "the same data, the WAL inside": (
        lives(("etcd", f"--data-dir={DATA}/")),
        [Move("wal", f"{DATA}/member/wal", WAL, living=True)],
    ),
    "by its environment": (
        lives(("etcd",), facts={"environment": {"ETCD_DATA_DIR": "/var/lib/etcd", "ETCD_WAL_DIR": WAL}}),
        [Move("data", "/var/lib/etcd", DATA, living=True)],
    ),
    "by what it has open": (
        lives(
            ("etcd", "--config-file=/etc/etcd.yml"),
            facts={"open_database": "/srv/e/member/snap/db", "open_segment": f"{WAL}/0-0.wal"},
        ),
        [Move("data", "/srv/e", DATA, living=True)],
    ),
    "relative, and open": (
        lives(
            ("etcd", "--data-dir=e"),
            facts={"open_database": f"{DATA}/member/snap/db", "open_segment": f"{WAL}/0-0.wal"},
        ),
        [],
    ),
    "stopped, the WAL inside, whatever its unit says": (
        stopped(wal=False, facts={"inner_wal": True}),
        [Move("wal", f"{DATA}/member/wal", WAL, living=False)],
    ),
    "stopped, moved in the file": (
        stopped(on_hosts('[paths]\ndata = "/srv/data"\nwal = "/srv/etcd/wal"\n')),
        [Move("wal", "/srv/etcd/wal", WAL, living=False), Move("data", "/srv/data", DATA, living=False)],
    ),
}


@pytest.mark.parametrize(("look", "found"), PLACES.values(), ids=PLACES)
def test_moves_are_read_from_what_lives_or_is_installed(look: Look, found: list[Move]) -> None:
    assert moves.of_node(CLUSTER, FIRST, look) == found


def test_differences_where_the_data_is_not_seen_are_a_problem() -> None:
    look = lives(("etcd", "--config-file=/etc/etcd.yml"))
    assert moves.of_node(CLUSTER, FIRST, look) == []
    assert ("living.unseen-data", "etcd-1") in kinds(compared(CLUSTER, look))


STATES = [
    ("old", True, "living.data-elsewhere"),
    ("both", True, "living.data-elsewhere"),
    ("none", True, "living.data-elsewhere"),
    ("new", True, "living.data-elsewhere"),
    ("same", True, None),
    ("old", False, "living.data-elsewhere"),
    ("both", False, "living.data-twice"),
    ("new", False, None),
    ("none", False, None),
    ("same", False, None),
    ("", False, "living.data-elsewhere"),
    ("", True, "living.data-elsewhere"),
]


@pytest.mark.parametrize(("state", "alive", "kind"), STATES)
def test_moved_directory_is_a_problem_while_it_would_be_left_behind(state: str, alive: bool, kind: str | None) -> None:  # noqa: FBT001  columns
    move = Move("data", "/old", DATA, living=alive)
    found = list(moves.problems(CLUSTER, FIRST, [move], {"data": state}))
    assert [problem.code for problem in found] == ([kind] if kind else [])
    if kind == "living.data-elsewhere":
        assert "mv -T /old /data/etcd/data" in found[0].hint.split("\n")[1]
        assert found[0].hint.split("\n")[0] == invoke("stop --node etcd-1")
        assert found[0].hint.split("\n")[-1] == 'or leave the data where it is: [paths] data = "/old"'


def test_way_of_a_single_member_confirms_its_stop() -> None:
    cluster = on_hosts(count=1)
    (found,) = moves.problems(cluster, cluster.nodes[0], [Move("wal", "/old", WAL, living=True)], {"wal": "old"})
    assert found.hint.split("\n")[0] == invoke("stop --node etcd-1 --yes demo")


def test_moves_script_says_where_data_is(tmp_path: Path) -> None:
    def said(old: str, new: str) -> str:
        script = moves.script([Move("data", f"{tmp_path}/{old}", f"{tmp_path}/{new}", living=False)])
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    for name in ("a b/member", "c/member", "empty", "w"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "w" / "0-0.wal").touch()
    (tmp_path / "link").symlink_to("c")
    assert said("a b", "empty") == "data old"
    assert said("a b", "c") == "data both"
    assert said("w", "gone") == "data old"
    assert said("empty", "c") == "data new"
    assert said("empty", "gone") == "data none"
    assert said("c", "link") == "data same"


LISTENS: list[tuple[str, int]] = [
    ("https://10.0.0.1:2379,https://127.0.0.1:2379", 2379),
    ("https://10.0.0.1:12379,https://127.0.0.1:12379", 12379),
    ("https://0.0.0.0:12379", 12379),
    ("https://127.0.0.1:12379", 2379),
    ("", 2379),
]


@pytest.mark.parametrize(("urls", "port"), LISTENS)
def test_serving_port_is_the_living_processs_own(urls: str, port: int) -> None:
    now = living.serving(CLUSTER, {"etcd-1": lives((*HAND_MADE, f"--listen-client-urls={urls}"))})
    assert [node.client_port for node in now.nodes] == [port, 2379, 2379]


def test_serving_port_without_a_look_is_the_lists() -> None:
    elsewhere = (MEMBERS[0], member(1, client_urls=("https://10.0.0.2:12379",)), MEMBERS[2])
    now = living.serving(CLUSTER, {"etcd-1": lives()}, {"etcd-3": 4}, elsewhere)
    assert [node.client_port for node in now.nodes] == [2379, 12379, 4]
    assert living.serving(CLUSTER, {"etcd-2": stopped()}, {}, elsewhere) is CLUSTER, "it will start as etcd.toml says"


def test_options_are_read_as_go_reads_them() -> None:
    found = living.options(("etcd", "-a=1", "--b", "2", "--c", "--d=x=y"), {"ETCD_LISTEN_PEER_URLS": "u"})
    assert found == {"listen-peer-urls": "u", "a": "1", "b": "2", "c": "", "d": "x=y"}


def test_lines_show_each_way_once() -> None:
    problems = [
        Problem("living.data-elsewhere", f"{name} moved", hint="do", node=name) for name in ("etcd-1", "etcd-2")
    ]
    assert differences.lines(problems) == ["etcd-1: etcd-1 moved", "etcd-2: etcd-2 moved", "    do"]
