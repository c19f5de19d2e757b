"""A first `all` that is ended at any moment: the next one converges, with the same CA and without one restart."""

from __future__ import annotations

import signal

import pytest
from deploy import Deployed, outages
from interrupting import SIGNALS, Moments, cut_short, moments, took, unchanged
from invariants import intact, kept, tidy
from lab import Lab
from releases import Releases
from runs import described

__all__ = ["moments"]

LOOK = 1.0  # seconds that every run spends before it does anything


@pytest.fixture(scope="module")
def pace(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds of a first run that is left alone."""
    cluster = described(lab, tmp_path_factory.mktemp("pace"))
    return took(lambda: cluster.invoke("all"))


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_first_run(
    pace: float, lab: Lab, moments: Moments, tmp_path_factory: pytest.TempPathFactory, number: signal.Signals
) -> None:
    """Each run that is ended is followed by one that is left alone, and then by empty hosts."""
    for fraction in moments.of(number):
        cluster = described(lab, tmp_path_factory.mktemp("first"))
        seen = kept(cluster)
        if whole := cut_short(cluster, fraction * pace, number, "all"):
            pace = min(pace, whole)  # it came to its end by itself
        unchanged(cluster, seen)
        with intact(cluster):
            cluster.invoke("all")
        converged(cluster)


def test_first_runs_that_are_all_killed(
    pace: float, lab: Lab, moments: Moments, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each run goes on where the one before was killed; one that comes to its end is followed by empty hosts."""
    cluster, left, fresh = described(lab, tmp_path_factory.mktemp("row")), pace, True
    seen = kept(cluster)
    for fraction in moments.of(signal.SIGKILL):
        while whole := cut_short(cluster, fraction * left, signal.SIGKILL, "all"):
            converged(cluster)
            cluster, pace = described(lab, tmp_path_factory.mktemp("row")), min(pace, whole) if fresh else pace
            seen, left, fresh = kept(cluster), pace, True
        seen = unchanged(cluster, seen)
        left, fresh = (1 - fraction) * left + LOOK, False
    with intact(cluster):
        cluster.invoke("all")
    converged(cluster)


def converged(cluster: Deployed) -> None:
    assert not outages(cluster.hosts)
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
    cluster.invoke("verify")
    tidy(cluster)
