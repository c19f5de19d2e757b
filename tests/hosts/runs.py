"""Runs of `invoke` that something happens to while they go on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy import INVOKE, Deployed, deploy
from lab import ROOT, Lab

Running = subprocess.Popen[str]


def described(lab: Lab, folder: Path) -> Deployed:
    """Three new hosts and their etcd.toml in `folder`; nothing is run yet."""
    return deploy(lab, folder, "", nodes=[{"name": host.name, "ip": host.ip} for host in lab.hosts[:3]])


@contextmanager
def started(cluster: Deployed, *args: str, cwd: Path = ROOT) -> Iterator[Running]:
    """`invoke ARGS`, running; killed where the test ends before it does."""
    argv = [*cluster.lab.net, INVOKE, *args]
    environment = {**cluster.lab.environment, "ETCD_CONFIG": str(cluster.config)}
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def ended(process: Running, said: str = "", *, seconds: float = 180) -> tuple[int, str]:
    """Its exit code and all that it said, `said` first."""
    out, err = process.communicate(timeout=seconds)
    said += out + err
    assert "Traceback" not in said, said
    return process.returncode, said


def during(
    cluster: Deployed, moment: str | Callable[[str], bool], act: Callable[[Running], None], *args: str
) -> tuple[int, str]:
    """Runs `invoke ARGS`, and `act` when a line of its output has `moment` in it (or it says so of one)."""
    with started(cluster, *args) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if moment in line if isinstance(moment, str) else moment(line):
                act(process)
                return ended(process, said)
        out, err = process.communicate()
    raise AssertionError(f"invoke {' '.join(args)} ended before the moment came:\n{said}{out}{err}")


def interrupting(number: signal.Signals) -> Callable[[Running], None]:
    def act(process: Running) -> None:
        os.kill(process.pid, number)

    return act
