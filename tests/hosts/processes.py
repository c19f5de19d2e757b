"""Programs that outlive us, and what /proc and the control groups say about them."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TASKS = "etcd-steps-hosts"  # the control group of all labs; below it one per lab, named by its unit's process id
WATCHERS = 1024
GONE = (FileNotFoundError, ProcessLookupError)  # a process that ends before its file in /proc is opened, or is read


class LabError(Exception):
    """The hosts cannot do what was asked; says which and why."""


def output(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise LabError(f"exit code {done.returncode}: {shlex.join(argv)}\n{done.stderr}")
    return done.stdout


def daemon(
    argv: Sequence[str],
    *,
    pid: Path,
    log: Path,
    before: str = ":",
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
) -> int:
    """Starts a program that is nobody's child, so that it may outlive us; returns its process id."""
    script = f'{before}; echo $$ > "$0.new"; mv "$0.new" "$0"; exec "$@"'
    pid.unlink(missing_ok=True)
    with log.open("a", encoding="utf-8") as file:
        starter = ["setsid", "--fork", "sh", "-c", script, str(pid), *argv]
        subprocess.run(starter, stdin=stdin, stdout=file if stdout is None else stdout, stderr=file, check=True)
    wait(pid.exists, 10, f"{argv[0]} does not start: see {log}")
    return read_pid(pid)


def wait(ready: Callable[[], bool], seconds: float, problem: str) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"{problem} (waited {seconds:.0f} s)")
        time.sleep(0.02)


def tidy() -> None:
    """Removes the empty control groups of labs that are gone; the kernel refuses to remove others."""
    for mount in hierarchies():
        for lab in (mount / TASKS).glob("[0-9]*"):
            if not alive(int(lab.name)):
                with contextlib.suppress(OSError):  # its last process is just ending: the next run removes it
                    for group in sorted(lab.rglob("**/"), reverse=True):
                        group.rmdir()


def allow_watchers() -> None:
    """Every systemd takes some inotify instances of root's 128: about twenty hosts would be the end."""
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(limit.read_text(encoding="ascii")) < WATCHERS:
        limit.write_text(str(WATCHERS), encoding="ascii")


def hierarchies() -> list[Path]:
    """Where systemd-nspawn counts processes: the unified hierarchy and, where version 1 is mounted, systemd's own."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    return [Path(m[1]) for m in mounts if m[2] == "cgroup2" or (m[2] == "cgroup" and "name=systemd" in m[3].split(","))]


def read_pid(file: Path) -> int:
    return int(file.read_text(encoding="utf-8")) if file.exists() else 0


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except GONE:
        return []


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except GONE:
        return ""


def alive(pid: int) -> bool:
    """A zombie is not alive: not every PID 1 of a machine reaps its orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except GONE:
        return False
