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


@dataclass(frozen=True)
class Moments:
    """When runs of about `seconds` are ended: `count` seeded moments of their time."""

    count: int
    seed: int

    def of(self, number: signal.Signals, seconds: float) -> Iterator[float]:
        sys.stdout.write(f"--seed={self.seed}\n")
        source = random.Random(f"{self.seed} {number.name}")
        for _ in range(self.count):
            yield source.uniform(0, seconds)


@pytest.fixture(scope="session")
def moments(request: pytest.FixtureRequest) -> Moments:
    option = request.config.getoption
    return Moments(30 if option("--long") else 8, option("--seed"))


def took(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def cut_short(cluster: Deployed, seconds: float, number: signal.Signals, *args: str) -> bool:
    """Runs `invoke ARGS` and ends it after `seconds`; False where it had come to its end by itself."""
    with started(cluster, *args) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, number)
            out, err = process.communicate(timeout=180)
        how = f"invoke {' '.join(args)}, {number.name} after {seconds:.2f} s: {process.returncode}\n{out}{err}"
    sys.stdout.write(how)
    begun = "==>" in out  # before that, Python itself is starting
    assert not (begun and "Traceback" in err), how
    if process.returncode == 0:
        return False
    expected = {-number, *([INTERRUPTED] if begun else [INTERRUPTED, 1])}
    assert process.returncode in (expected if number != signal.SIGKILL else {-number}), how
    return True


def unchanged(cluster: Deployed, before: Kept) -> Kept:
    """No lock and no script outlives the run, and CA and data are what they were."""
    free(cluster)
    now = kept(cluster)
    same(before, now)
    return now
