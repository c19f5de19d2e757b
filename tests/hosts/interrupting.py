"""Ending a run at a seeded moment, and what must be true right after it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from deploy import Deployed
from invariants import Kept, free, kept, same
from runs import started

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
INTERRUPTED = 130
ENDING = 5.0  # seconds that a run may be past its last step when the signal comes
LATEST = 0.95  # of a run's time: no two runs take the same


@dataclass(frozen=True)
class Moments:
    """When runs are ended: at `count` seeded fractions of the time that they would take."""

    count: int
    seed: int

    def of(self, number: signal.Signals) -> Iterator[float]:
        sys.stdout.write(f"--seed={self.seed}\n")
        source = random.Random(f"{self.seed} {number.name}")
        for _ in range(self.count):
            yield source.uniform(0, LATEST)


@pytest.fixture(scope="session")
def moments(request: pytest.FixtureRequest) -> Moments:
    option = request.config.getoption
    return Moments(30 if option("--long") else 8, option("--seed"))


def took(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def cut_short(cluster: Deployed, seconds: float, number: signal.Signals, *args: str) -> float:
    """Runs `invoke ARGS` and ends it after `seconds`: 0. Where it came to its end by itself: the seconds it took."""
    begun = time.monotonic()
    with started(cluster, *args) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, number)
            out, err = process.communicate(timeout=180)
        whole = time.monotonic() - begun
        how = f"invoke {' '.join(args)}, {number.name} after {seconds:.2f} s: {process.returncode}\n{out}{err}"
    sys.stdout.write(how)
    working = "==>" in out  # before that, Python itself is starting
    assert not (working and "Traceback" in err), how
    if process.returncode == 0:
        assert whole - seconds < ENDING, f"it did not heed the signal: {how}"
        return whole
    if process.returncode == INTERRUPTED and "restarted: " in out:
        assert "THE LAST OF THEM" in out, how
    expected = {-number, *([INTERRUPTED] if working else [INTERRUPTED, 1])}
    assert process.returncode in (expected if number != signal.SIGKILL else {-number}), how
    return 0


def unchanged(cluster: Deployed, before: Kept) -> Kept:
    """No lock and no script outlives the run, and CA and data are what they were."""
    free(cluster)
    now = kept(cluster)
    same(before, now)
    return now
