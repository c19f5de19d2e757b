"""Runs that are ended at any moment: the next one converges, and nobody loses anything.

Each run that is ended is followed by one that is left alone; test_interrupt_first.py also has runs that all are.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from itertools import count

import pytest
from conftest import Writing
from deploy import Deployed, outages, rolled
from interrupting import SIGNALS, Moments, cut_short, moments, took, unchanged
from invariants import intact, kept, tidy
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
    cluster.edit(etcd={"flags": {"election-timeout": 1900}})
    return Paced(cluster, took(lambda: cluster.invoke("all")), took(lambda: cluster.invoke("certs", "--renew")))


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_rolling_change(paced: Paced, moments: Moments, writing: Writing, number: signal.Signals) -> None:
    cluster, pace, values = paced.cluster, paced.change, count(2000 + 1000 * SIGNALS.index(number))
    before, seen = len(outages(cluster.hosts)), kept(cluster)

    def cut(seconds: float) -> float:
        cluster.edit(etcd={"flags": {"election-timeout": next(values)}})
        return cut_short(cluster, seconds, number, "all")

    with intact(cluster, writing):
        for fraction in moments.of(number):
            while whole := cut(fraction * pace):
                pace = min(pace, whole)
            seen = unchanged(cluster, seen)
            cluster.invoke("all")
            mended(cluster)
    assert rolled(cluster.hosts, before)  # never two at a time


def mended(cluster: Deployed) -> None:
    """What the run before has left behind is gone, and nothing is left to be done."""
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
    tidy(cluster)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_rotation_of_the_leaves(paced: Paced, moments: Moments, writing: Writing, number: signal.Signals) -> None:
    cluster, pace = paced.cluster, paced.rotation
    before, seen = len(outages(cluster.hosts)), kept(cluster)
    with intact(cluster, writing):
        for fraction in moments.of(number):
            while whole := cut_short(cluster, fraction * pace, number, "certs", "--renew"):
                pace = min(pace, whole)
            seen = unchanged(cluster, seen)
            cluster.invoke("status")  # whatever is served now, members and operators are let in
            cluster.invoke("certs")
            mended(cluster)
    assert len(outages(cluster.hosts)) == before
    cluster.invoke("verify")
