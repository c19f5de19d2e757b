"""Runs that are ended at any moment: the next one converges, and nobody loses anything.

Several runs are ended in a row on one cluster; each goes on from what the one before left, and the last is left alone.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

import pytest
from conftest import Writing
from deploy import Deployed, outages, rolled
from interrupting import SIGNALS, Moments, cut_short, moments, took, unchanged
from invariants import intact, kept
from lab import Lab
from releases import Releases
from runs import described

__all__ = ["moments"]


@dataclass(frozen=True)
class Paced:
    """A cluster, and how long a rolling change and a rotation of its leaves took, in seconds."""

    cluster: Deployed
    change: float
    rotation: float


@pytest.fixture(scope="module")
def paced(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Paced:
    cluster = described(lab, tmp_path_factory.mktemp("interrupt"))
    cluster.invoke("all")
    cluster.edit(etcd={"flags": {"heartbeat-interval": 260}})
    return Paced(cluster, took(lambda: cluster.invoke("all")), took(lambda: cluster.invoke("certs", "--renew")))


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_rolling_change(paced: Paced, moments: Moments, writing: Writing, number: signal.Signals) -> None:
    cluster = paced.cluster
    before, seen = len(outages(cluster.hosts)), kept(cluster)
    with intact(cluster, writing):
        for turn, seconds in enumerate(moments.of(number, paced.change)):
            cluster.edit(etcd={"flags": {"heartbeat-interval": 261 + turn + 40 * SIGNALS.index(number)}})
            cut_short(cluster, seconds, number, "all")
            seen = unchanged(cluster, seen)
        cluster.invoke("all")
    assert rolled(cluster.hosts, before)  # never two at a time
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_rotation_of_the_leaves(paced: Paced, moments: Moments, writing: Writing, number: signal.Signals) -> None:
    cluster = paced.cluster
    before, seen = len(outages(cluster.hosts)), kept(cluster)
    with intact(cluster, writing):
        for seconds in moments.of(number, paced.rotation):
            cut_short(cluster, seconds, number, "certs", "--renew")
            seen = unchanged(cluster, seen)
            cluster.invoke("status")  # whatever is served now, members and operators are let in
        cluster.invoke("certs")
    assert len(outages(cluster.hosts)) == before
    cluster.invoke("verify")
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
