"""The gate: open only where every member answers, agrees, is configured, has started and complains of nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from views import CLUSTER, FINE, URLS, member, status, without

from steps.core.etcd.views import Member, View
from steps.core.health.gate import LAG, healthy, problems


def with_status(number: int, **changes: object) -> View:
    return replace(FINE, statuses={**FINE.statuses, URLS[number]: status(number, **changes)})


def with_members(*members: Member) -> View:
    return replace(FINE, members=members)


def test_the_gate_is_open() -> None:
    assert problems(CLUSTER, FINE) == []
    assert healthy(CLUSTER, FINE) == {"etcd-1", "etcd-2", "etcd-3"}


STRANGER = member(2, id="d4", name="old", peer_urls=("https://10.0.0.9:2380",))
SHUT: dict[str, tuple[View, str]] = {
    "a member is down": (without(2), "etcd-3 does not answer at https://10.0.0.3:2379: connection refused"),
    "nobody knows why": (
        replace(FINE, statuses={}, health={}),
        "etcd-1 does not answer at https://10.0.0.1:2379: no answer",
    ),
    "an endpoint cannot commit": (
        replace(FINE, health={**FINE.health, URLS[1]: "context deadline exceeded"}),
        "etcd-2 is unhealthy: context deadline exceeded",
    ),
    "an endpoint whose health nobody tells": (
        replace(FINE, health=dict.fromkeys(URLS[:2], "")),
        "etcd-3 is unhealthy: no answer",
    ),
    "another cluster": (with_status(1, cluster_id="ee"), "members of different clusters: IDs ee, ff"),
    "two leaders": (with_status(1, leader="b2"), "members follow different leaders: a1, b2"),
    "no leader": (with_status(1, leader="0"), "no leader"),
    "an error": (with_status(1, errors=("etcdserver: no leader",)), "etcd-2: etcdserver: no leader"),
    "a learner": (with_status(1, learner=True), "etcd-2 is a learner"),
    "one lags": (with_status(1, applied=100, raft_index=101 + LAG), f"etcd-2 has {LAG + 1} entries still to apply"),
    "an alarm": (replace(FINE, alarms=("NOSPACE on b2",)), "alarm NOSPACE on b2"),
    "no member list": (
        replace(FINE, members=None, errors={"members": "context deadline exceeded"}),
        "the member list is not to be had: context deadline exceeded",
    ),
    "one is no member": (with_members(member(0), member(1)), "etcd-3 (https://10.0.0.3:2380) is not a member"),
    "a stranger": (
        with_members(member(0), member(1), member(2), STRANGER),
        "member old (https://10.0.0.9:2380) is not in etcd.toml",
    ),
    "one has not started": (
        with_members(member(0), member(1), member(2, name="", client_urls=())),
        "etcd-3 was added and has not started",
    ),
    "another name": (with_members(member(0), member(1), member(2, name="x")), "https://10.0.0.3:2380 is x, not etcd-3"),
    "a learner in the list": (with_members(member(0), member(1), member(2, learner=True)), "etcd-3 is a learner"),
}


@pytest.mark.parametrize(("view", "problem"), SHUT.values(), ids=SHUT)
def test_the_gate_is_shut(view: View, problem: str) -> None:
    assert problem in problems(CLUSTER, view)


def test_one_lags_under_writes_and_that_is_fine() -> None:
    assert problems(CLUSTER, with_status(1, applied=100, raft_index=100 + LAG)) == []


@pytest.mark.parametrize(("view", "names"), [(without(0), {"etcd-2", "etcd-3"}), (View(), set())])
def test_who_is_healthy(view: View, names: set[str]) -> None:
    assert healthy(CLUSTER, view) == names
