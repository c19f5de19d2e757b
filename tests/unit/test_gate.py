"""The gate: open only where every member answers, agrees, is configured, has started and complains of nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from views import CLUSTER, FINE, URLS, member, status, without

from steps.core.base.errors import NodeFailed
from steps.core.etcd.views import Alarm, ExpectedMember, Member, View
from steps.core.health import gate
from steps.core.health.gate import LAG, expected, healthy, problems
from steps.core.node.service import State

MEMBERS = expected(CLUSTER)


def with_status(number: int, **changes: object) -> View:
    return replace(FINE, statuses={**FINE.statuses, URLS[number]: status(number, **changes)})


def with_members(*members: Member) -> View:
    return replace(FINE, members=members)


def test_the_gate_is_open() -> None:
    assert problems(FINE, MEMBERS) == []
    assert healthy(FINE, MEMBERS) == {"etcd-1", "etcd-2", "etcd-3"}


STRANGER = member(2, id="d4", name="old", peer_urls=("https://10.0.0.9:2380",))
SHUT: dict[str, tuple[str, View, str]] = {
    "a member is down": (
        "gate.no-answer",
        without(2),
        "etcd-3 does not answer at https://10.0.0.3:2379: connection refused",
    ),
    "nobody knows why": (
        "gate.no-answer",
        replace(FINE, statuses={}, health={}),
        "etcd-1 does not answer at https://10.0.0.1:2379: no answer",
    ),
    "an endpoint cannot commit": (
        "gate.unhealthy",
        replace(FINE, health={**FINE.health, URLS[1]: "context deadline exceeded"}),
        "etcd-2 is unhealthy: context deadline exceeded",
    ),
    "an endpoint whose health nobody tells": (
        "gate.unhealthy",
        replace(FINE, health=dict.fromkeys(URLS[:2], "")),
        "etcd-3 is unhealthy: no answer",
    ),
    "another cluster": (
        "gate.different-clusters",
        with_status(1, cluster_id="ee"),
        "members of different clusters: IDs ee, ff",
    ),
    "two leaders": ("gate.different-leaders", with_status(1, leader="b2"), "members follow different leaders: a1, b2"),
    "no leader": ("gate.no-leader", with_status(1, leader="0"), "no leader"),
    "an error": (
        "gate.member-error",
        with_status(1, errors=("etcdserver: no leader",)),
        "etcd-2: etcdserver: no leader",
    ),
    "a learner": ("gate.learner", with_status(1, learner=True), "etcd-2 is a learner"),
    "one lags": (
        "gate.lagging",
        with_status(1, applied=100, raft_index=101 + LAG),
        f"etcd-2 has {LAG + 1} entries still to apply",
    ),
    "an alarm": ("gate.alarm", replace(FINE, alarms=(Alarm("NOSPACE", "b2"),)), "alarm NOSPACE on b2"),
    "no member list": (
        "gate.no-member-list",
        replace(FINE, members=None, errors={"members": "context deadline exceeded"}),
        "the member list is not to be had: context deadline exceeded",
    ),
    "one is no member": (
        "gate.not-a-member",
        with_members(member(0), member(1)),
        "etcd-3 (https://10.0.0.3:2380) is not a member",
    ),
    "a stranger": (
        "gate.foreign-member",
        with_members(member(0), member(1), member(2), STRANGER),
        "member old (https://10.0.0.9:2380) is not in etcd.toml",
    ),
    "one has not started": (
        "gate.unstarted",
        with_members(member(0), member(1), member(2, name="", client_urls=())),
        "etcd-3 was added and has not started",
    ),
    "another name": (
        "gate.other-name",
        with_members(member(0), member(1), member(2, name="x")),
        "https://10.0.0.3:2380 is x, not etcd-3",
    ),
    "a learner in the list": (
        "gate.learner",
        with_members(member(0), member(1), member(2, learner=True)),
        "etcd-3 is a learner",
    ),
}


@pytest.mark.parametrize(("code", "view", "said"), SHUT.values(), ids=SHUT)
def test_the_gate_is_shut(code: str, view: View, said: str) -> None:
    assert (code, said) in [(problem.code, str(problem)) for problem in problems(view, MEMBERS)]


FOURTH = ExpectedMember("etcd-4", "https://10.0.0.4:2380", "https://10.0.0.4:2379")
MOVED = replace(MEMBERS[2], peer_url="https://10.0.0.9:2380")
EXPECTED: dict[str, tuple[tuple[ExpectedMember, ...], list[tuple[str, str]]]] = {
    "the members that there are": (MEMBERS, []),
    "one more": ((*MEMBERS, FOURTH), [("gate.no-answer", "etcd-4"), ("gate.not-a-member", "etcd-4")]),
    "one less": (MEMBERS[:2], [("gate.foreign-member", "")]),
    "one at another address": (
        (*MEMBERS[:2], MOVED),
        [("gate.not-a-member", "etcd-3"), ("gate.foreign-member", "")],
    ),
    "one by another name": ((*MEMBERS[:2], replace(MEMBERS[2], name="etcd-9")), [("gate.other-name", "")]),
}


@pytest.mark.parametrize(("members", "found"), EXPECTED.values(), ids=EXPECTED)
def test_problems_are_those_of_the_members_that_are_expected(
    members: tuple[ExpectedMember, ...], found: list[tuple[str, str]]
) -> None:
    assert [(problem.code, problem.node) for problem in problems(FINE, members)] == found


def test_wait_open_blames_the_member_that_is_wrong_and_none_whose_name_begins_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """etcd-1 runs, etcd-10 does not answer."""
    cluster = replace(CLUSTER, nodes=(CLUSTER.nodes[0], replace(CLUSTER.nodes[1], name="etcd-10"), CLUSTER.nodes[2]))
    etcd = SimpleNamespace(ask=lambda _node: without(1))
    ctx: Any = SimpleNamespace(cluster=cluster, serving=cluster, sh=lambda *_: SimpleNamespace(out=""), etcd=etcd)
    running = State("active/running", 7)
    monkeypatch.setattr(gate, "_states", lambda _ctx, started: dict.fromkeys(started, running))
    with pytest.raises(NodeFailed) as caught:
        gate._poll(ctx, cluster.nodes[0], {"etcd-1": 5, "etcd-10": 6}, patience=-1)
    assert caught.value.node == "etcd-10"
    assert "etcd-10 does not answer at https://10.0.0.2:2379: connection refused" in caught.value.message


def test_one_lags_under_writes_and_that_is_fine() -> None:
    assert problems(with_status(1, applied=100, raft_index=100 + LAG), MEMBERS) == []


@pytest.mark.parametrize(("view", "names"), [(without(0), {"etcd-2", "etcd-3"}), (View(), set())])
def test_who_is_healthy(view: View, names: set[str]) -> None:
    assert healthy(view, MEMBERS) == names
