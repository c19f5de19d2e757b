"""What a healthy cluster of three answers, and parts of it."""

from __future__ import annotations

from dataclasses import replace

from clusters import on_hosts

from steps.core.etcd.views import Member, Status, View

CLUSTER = on_hosts()
URLS = [CLUSTER.client_url(node) for node in CLUSTER.nodes]
IDS = ("a1", "b2", "c3")


def status(number: int, **changes: object) -> Status:
    usual = Status(URLS[number], IDS[number], "ff", "a1", "3.5.33", 7, 100, 100, learner=False, db_size=1, errors=())
    return replace(usual, **changes)


def member(number: int, **changes: object) -> Member:
    node = CLUSTER.nodes[number]
    usual = Member(IDS[number], node.name, (CLUSTER.peer_url(node),), (CLUSTER.client_url(node),), learner=False)
    return replace(usual, **changes)


FINE = View(
    statuses={URLS[n]: status(n) for n in range(3)},
    health=dict.fromkeys(URLS, ""),
    members=tuple(member(n) for n in range(3)),
)


def without(number: int, reason: str = "connection refused") -> View:
    statuses = {url: status for url, status in FINE.statuses.items() if url != URLS[number]}
    return replace(FINE, statuses=statuses, health={**FINE.health, URLS[number]: reason})
