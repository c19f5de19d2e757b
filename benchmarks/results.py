"""The results as text: what was measured, on what, and RESULTS.md."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from releases import collect

from benchmarks.bench import Row
from benchmarks.contenders import OTHERS

SHOWN = 0.005  # seconds, the least that a part has a line for
NOTES = """\
All contenders deploy the same binaries, units (flags and sandbox) and data directories on the same hosts, and end with
`etcdctl endpoint health` on each node. The floor is a prepared tar.gz per host, one ssh each, all at once, then health;
with nothing to do, one ssh per host that runs sha256sum, systemctl and the health call (for the plan: without health).
Certificates are part of the work of ours and of the how-to's script; the floor, pyinfra and ansible get theirs ready
made. Ours also proves with handshakes, a write, a read and hashes that the cluster serves. ansible's hosts have python.
Contenders take turns; hosts are cleaned, not rebooted, between runs. `benchmarks/run` measures all this again.
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table with aligned columns."""
    every = [head, *rows]
    widths = [max(len(line[column]) for line in every) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    for line in (head, rule, *rows):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"


def told(row: Row) -> list[str]:
    """One row's figures, for people."""
    lines = []
    if row.samples:
        figures = [
            [name, f"{row.median(name):.2f} s", f"{min(seconds):.2f}-{max(seconds):.2f}", str(len(seconds))]
            for name, seconds in row.samples.items()
        ]
        lines += [*table(("who", "median", "from-to", "runs"), figures), ""]
    if row.parts:
        whole = sum(row.parts.values())
        small = sum(seconds for seconds in row.parts.values() if seconds < SHOWN)
        shown = {name: seconds for name, seconds in row.parts.items() if seconds >= SHOWN} | {"the rest": small}
        parts = [[name, f"{seconds:.2f} s", f"{seconds / whole:.0%}"] for name, seconds in shown.items()]
        lines += [*table(("part", "time", "share"), [*parts, ["the whole", f"{whole:.2f} s", "100%"]]), ""]
    lines += [f"{note}." for note in row.notes]
    return lines


def targets(rows: Sequence[Row]) -> list[str]:
    found = [
        [
            row.title,
            target.what,
            f"≤ {target.limit:.2f} {target.unit}",
            f"{target.reached:.2f} {target.unit}",
            "yes" if target.reached <= target.limit else "no",
        ]
        for row in rows
        for target in row.targets
    ]
    return list(table(("work", "what", "target", "reached", "met"), found))


def document(rows: Sequence[Row], busy: float) -> str:
    """RESULTS.md. `busy`: the load average when it began."""
    lines = ["# Results", "", f"{time.strftime('%F')}: {machine()}; load average at the start {busy:.1f}.", ""]
    lines += [*versions(), "", NOTES, "## Targets", "", *targets(rows)]
    for row in rows:
        lines += ["", f"## {row.title[0].upper()}{row.title[1:]}", "", *told(row)]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def machine() -> str:
    cpu = next(
        (
            line.partition(": ")[2]
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GiB, {system}, Linux {platform.release()}"


def versions() -> list[str]:
    ours = [f"{name} {version(name)}" for name in ("invoke", "fabric", "paramiko", "cryptography")]
    listed = subprocess.check_output(
        [str(OTHERS / "pip"), "--disable-pip-version-check", "list", "--format=freeze"], text=True
    )
    others = [
        line.replace("==", " ") for line in listed.splitlines() if line.startswith(("pyinfra==", "ansible-core=="))
    ]
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.partition(",")[0]
    words = [f"etcd {collect()[1][-1]}", f"Python {platform.python_version()}", *ours, *others, ssh.strip()]
    return [f"Versions: {', '.join(words)}."]
