"""A first run that is killed between any two phases."""

from __future__ import annotations

import signal
from pathlib import Path

from deploy import outages
from invariants import digest, free, intact
from lab import Lab
from releases import Releases
from runs import described, during, interrupting

PHASES = ("env", "download", "distribute", "ca", "certs", "units", "start", "verify")


def test_killed_between_any_two_phases(lab: Lab, releases: Releases, tmp_path: Path) -> None:
    """The first `all` is killed where each phase begins; each run goes on from where the one before was."""
    cluster = described(lab, tmp_path)
    ca = ""
    for number, phase in enumerate(PHASES, 1):
        code, said = during(cluster, f"[{number}/8] {phase}", interrupting(signal.SIGKILL), "all")
        assert code == -signal.SIGKILL, said
        free(cluster)
        file = cluster.work / "ca" / "ca.pem"
        assert not ca or digest(file) == ca
        ca = digest(file) if file.exists() else ""
    assert ca
    with intact(cluster):
        cluster.invoke("all")
        assert not outages(cluster.hosts)
        assert cluster.invoke("plan").stdout.rstrip().endswith("nothing to do")
