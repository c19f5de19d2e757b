"""Before another minor release: a snapshot, of a healthy cluster, and how an upgrade that failed goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clusters import on_hosts, seen
from views import FINE, without

from steps.core.base.errors import Refused
from steps.core.etcd.views import View
from steps.core.node.facts import Process
from steps.core.procedures import snapshot, upgrade

OLD, NEW = "3.4.23", "3.5.16"


def secured(
    monkeypatch: pytest.MonkeyPatch, work: Path, view: View, installed: tuple[str, ...], living: tuple[str, ...]
) -> list[str]:
    """What is said where the nodes have these binaries installed and run those ("?": one of an unknown version)."""
    cluster = replace(on_hosts(version=NEW), work=work)
    names = [node.name for node in cluster.nodes]
    looks = {
        name: seen(
            cluster,
            facts={"installed_version": version, **({"running_version": runs} if runs.strip("?") else {})},
            process=Process(5, "x", (), 0) if runs else None,
        )
        for name, version, runs in zip(names, installed, living, strict=True)
    }
    said: list[str] = []
    monkeypatch.setattr(snapshot, "save", lambda *_: said.append("saved"))
    ctx: Any = SimpleNamespace(
        cluster=cluster,
        serving=cluster,
        etcd=SimpleNamespace(ask=lambda _node: view),
        look=lambda node: looks[node.name],
        say=said.append,
        change=said.append,
        now=int,
        dry=False,
    )
    upgrade.secure(ctx, cluster.nodes)
    return said


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A work directory with the snapshot of an upgrade that has begun."""
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / f"before-{NEW}-1.db").touch()
    return tmp_path


def test_secure_of_a_healthy_cluster_saves_a_snapshot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert secured(monkeypatch, tmp_path, FINE, (OLD,) * 3, (OLD,) * 3)[0] == "saved"


def test_secure_where_the_first_upgraded_member_failed_goes_on(monkeypatch: pytest.MonkeyPatch, begun: Path) -> None:
    (said,) = secured(monkeypatch, begun, without(0), (NEW, OLD, OLD), ("", OLD, OLD))
    assert said == f"goes on with an upgrade that has begun; its snapshot is {begun}/snapshots/before-{NEW}-1.db"


def test_secure_of_an_unhealthy_cluster_where_no_node_has_the_new_binary_is_refused(
    monkeypatch: pytest.MonkeyPatch, begun: Path
) -> None:
    with pytest.raises(Refused, match="etcd-1 does not answer"):
        secured(monkeypatch, begun, without(0), (OLD,) * 3, ("", OLD, OLD))


def test_secure_of_an_unhealthy_cluster_without_a_snapshot_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="etcd-1 does not answer"):
        secured(monkeypatch, tmp_path, without(0), (NEW, OLD, OLD), ("", OLD, OLD))


def test_secure_where_a_living_members_version_is_unknown_saves_a_snapshot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert secured(monkeypatch, tmp_path, FINE, (OLD,) * 3, ("?",) * 3)[0] == "saved"
