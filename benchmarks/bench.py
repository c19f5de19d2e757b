"""The hosts, the kits on them, and what a row of the results is."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lab import Lab
from releases import serve

from benchmarks import contenders
from benchmarks.contenders import Taken, Task
from benchmarks.kit import Kit, make

TRIES = 3
PYTHON = ("python3",)  # what ansible needs on its hosts
QUIET = 0.1  # of the processors' time, at most: a cluster of three that nobody asks takes about that
WINDOW = 0.5  # seconds over which that is measured
PATIENCE = 15  # seconds: twenty-one members are never quiet


@dataclass(frozen=True)
class Target:
    """`reached` of something, where at most `limit` was wanted; both in `unit`."""

    what: str
    reached: float
    limit: float
    unit: str = "x"


@dataclass
class Row:
    """One kind of work: each contender's samples (seconds), what is wanted of them, and what to know about it."""

    title: str
    samples: dict[str, list[float]] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)  # where one run's seconds went

    def add(self, name: str, seconds: float) -> None:
        self.samples.setdefault(name, []).append(seconds)

    def median(self, name: str) -> float:
        return statistics.median(self.samples[name])

    def want(self, other: str, limit: float) -> None:
        """`ours` at most `limit` times as long as `other`."""
        if "ours" in self.samples and other in self.samples:
            self.targets.append(Target(f"ours / {other}", self.median("ours") / self.median(other), limit))


class Bench:
    """Two labs, made when they are first needed: the project's hosts, and those with python. `stack` ends them."""

    def __init__(self, folder: Path, runs: int, say: Callable[[str], None], stack: ExitStack) -> None:
        self.runs = runs
        self.say = say
        self._folder = folder
        self._labs: dict[bool, Lab] = {}
        self._kits: dict[tuple[bool, int], Kit] = {}
        self._stack = stack

    def lab(self, *, python: bool = False) -> Lab:
        if python not in self._labs:
            packages = PYTHON if python else ()
            self.say(f"hosts {'with python ' if python else ''}are started")
            lab = Lab.up(0, state=self._folder / ("python" if python else "lab"), packages=packages)
            self._stack.callback(lab.down)
            lab.defaults = serve(lab).settings
            self._labs[python] = lab
        return self._labs[python]

    def kit(self, count: int, *, python: bool = False) -> Kit:
        """The kit of the first `count` hosts; what is on them is whatever was deployed last."""
        if (python, count) not in self._kits:
            lab = self.lab(python=python)
            self.say(f"{count} hosts get their first deployment")
            for (where, _), other in self._kits.items():
                if where == python:
                    other.clean()
            self._kits[python, count] = make(lab, count, lab.state / f"kit-{count}")
        return self._kits[python, count]

    def kit_for(self, name: str, count: int) -> Kit:
        return self.kit(count, python=name == "ansible")

    def take(self, kit: Kit, row: Row, name: str, task: Task) -> Taken:
        """One sample of `name`, once the machine has nothing else to do."""
        _settle()
        taken = contenders.timed(kit.lab, task)
        row.add(name, taken.seconds)
        self.say(f"  {name:8} {taken.seconds:6.2f} s")
        return taken

    def deploy(self, kit: Kit, name: str) -> None:
        """Clean hosts, then a deployment that nobody times; again, where twenty members at once answered too late."""
        kit.clean()
        for left in reversed(range(TRIES)):
            try:
                contenders.timed(kit.lab, contenders.DEPLOY[name](kit))
            except RuntimeError:
                if not left:
                    raise
            else:
                return


def _settle() -> None:
    """Waits, not for ever, until what ran before and what was cleaned away has left the processors alone."""
    end, before = time.monotonic() + PATIENCE, _busy()
    while time.monotonic() < end:
        time.sleep(WINDOW)
        now = _busy()
        if now - before < QUIET * WINDOW * (os.cpu_count() or 1):
            return
        before = now


def _busy() -> float:
    """Seconds that the processors have worked so far, all together."""
    user, nice, system, _idle, _wait, *other = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(other)) / os.sysconf("SC_CLK_TCK")
