"""The contenders' command lines, and how long one takes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import Lab

from benchmarks.kit import Kit, cfssl

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OTHERS = HERE / ".venv" / "bin"
INVOKE = str(Path(sys.executable).with_name("invoke"))


@dataclass(frozen=True)
class Task:
    """One command. `codes`: the exit codes that are a success."""

    argv: Sequence[str]
    cwd: Path = ROOT
    env: Mapping[str, str] = field(default_factory=dict)
    codes: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Taken:
    """`seconds` of wall clock from `began` (Unix time) on, and the process's peak resident `memory` in bytes."""

    began: float
    seconds: float
    memory: int
    said: str


def timed(lab: Lab, task: Task) -> Taken:
    """Runs the task where the hosts are reachable. Raises RuntimeError where it fails: that has no time."""
    argv, environment = [*lab.net, *task.argv], {**lab.environment, **task.env}
    with tempfile.TemporaryFile("w+b") as output:
        started, began = time.time(), time.perf_counter()
        process = subprocess.Popen(
            argv, cwd=task.cwd, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode(errors="replace")
    if process.returncode not in task.codes:
        raise RuntimeError(f"{task.argv} ended with {process.returncode}:\n{said[-4000:]}")
    return Taken(started, seconds, usage.ru_maxrss * 1024, said)


def ours(kit: Kit, *words: str, config: Path | None = None) -> Task:
    return Task([INVOKE, *words], env={"ETCD_CONFIG": str(config or kit.config)})


def floor(kit: Kit, what: str) -> Task:
    return Task([str(HERE / "floor.sh"), str(kit.folder), what, *kit.names])


def howto(kit: Kit) -> Task:
    path = f"{cfssl()}:{os.environ['PATH']}"
    return Task([str(HERE / "howto.sh"), str(kit.folder), str(kit.folder / "howto")], env={"PATH": path})


def pyinfra(kit: Kit, *words: str) -> Task:
    sure = () if "--dry" in words else ("-y",)  # with -y, a dry run does not look at the hosts at all
    argv = [str(OTHERS / "pyinfra"), *words, *sure, str(kit.folder / "inventory.py"), str(HERE / "deploy.py")]
    return Task(argv, cwd=kit.folder)


def ansible(kit: Kit) -> Task:
    argv = [str(OTHERS / "ansible-playbook"), "-i", str(kit.folder / "inventory.ini"), str(HERE / "playbook.yml")]
    return Task(argv, cwd=kit.folder, env={"ANSIBLE_CONFIG": str(kit.folder / "ansible.cfg"), "LC_ALL": "C.UTF-8"})


DEPLOY: Mapping[str, Callable[[Kit], Task]] = {
    "floor": lambda kit: floor(kit, "install"),
    "how-to": howto,
    "pyinfra": pyinfra,
    "ansible": ansible,
    "ours": lambda kit: ours(kit, "all"),
}
