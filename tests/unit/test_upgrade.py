"""Before another minor release: every member can follow, not only those that are selected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clusters import on_hosts, seen
from views import FINE, URLS, status

from steps.core.base.errors import Refused
from steps.core.etcd.views import View
from steps.core.node.facts import Process
from steps.core.procedures import upgrade


def running(tmp_path: Path, *releases: str, wanted: str) -> Any:
    cluster = on_hosts(version=wanted, file=tmp_path / "etcd.toml")
    view = replace(FINE, statuses={url: status(n, version=releases[n]) for n, url in enumerate(URLS)})
    looks = {
        node.name: seen(
            cluster, process=Process(5, "x", (), 0), facts={"running_version": release, "installed_version": release}
        )
        for node, release in zip(cluster.nodes, releases, strict=True)
    }
    changes: list[str] = []
    look = lambda node: looks[node.name]  # noqa: E731 - a stand-in's method
    return SimpleNamespace(
        cluster=cluster,
        serving=cluster,
        etcd=SimpleNamespace(ask=lambda _node: view),
        look=look,
        dry=True,
        now=lambda: 1,
        change=changes.append,
        changes=changes,
    )


def test_secure_member_outside_the_selection_below_the_floor_is_refused(tmp_path: Path) -> None:
    ctx = running(tmp_path, "3.5.33", "3.5.31", "3.5.33", wanted="3.6.14")
    with pytest.raises(Refused, match=r"etcd 3\.5\.31 -> 3\.6\.14: every member must run 3\.5\.32 or later first"):
        upgrade.secure(ctx, ctx.cluster.nodes[:1])
    assert ctx.changes == []


def test_secure_interrupted_upgrade_goes_on_with_a_snapshot(tmp_path: Path) -> None:
    ctx = running(tmp_path, "3.6.14", "3.5.33", "3.5.33", wanted="3.6.14")
    upgrade.secure(ctx, ctx.cluster.nodes)
    assert ctx.changes == [f"a snapshot of the data will be saved in {ctx.cluster.work / 'snapshots'}"]


def test_secure_unknown_alarms_are_refused(tmp_path: Path) -> None:
    ctx = running(tmp_path, "3.5.33", "3.5.33", "3.5.33", wanted="3.6.14")
    unknown: View = replace(FINE, errors={"alarms": "permission denied"})
    ctx.etcd.ask = lambda _node: unknown
    with pytest.raises(Refused, match="the alarms are unknown: permission denied"):
        upgrade.secure(ctx, ctx.cluster.nodes)
