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


@pytest.fixture(scope="module")
def pace(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds of a first run that is left alone."""
    cluster = described(lab, tmp_path_factory.mktemp("pace"))
    return took(lambda: cluster.invoke("all"))


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_first_run(
    pace: float, lab: Lab, moments: Moments, tmp_path_factory: pytest.TempPathFactory, number: signal.Signals
) -> None:
    """Where a run comes to its end in time, the next one begins anew on empty hosts."""
    cluster = described(lab, tmp_path_factory.mktemp("first"))
    seen = kept(cluster)
    for seconds in moments.of(number, pace):
        if cut_short(cluster, seconds, number, "all"):
            seen = unchanged(cluster, seen)
        else:
            converged(cluster)
            cluster = described(lab, tmp_path_factory.mktemp("first"))
            seen = kept(cluster)
    with intact(cluster):
        cluster.invoke("all")
    converged(cluster)


def converged(cluster: Deployed) -> None:
    assert not outages(cluster.hosts)
    assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
    cluster.invoke("verify")
    tidy(cluster)
