"""The cluster's work directory on the controller: that it is this program's own, and closed to other users."""

from __future__ import annotations

from pathlib import Path

from steps.core.base.errors import Refused
from steps.core.base.files import private_directory, replace

OURS = ("lock", "log", "ca", "certs", "environment.sh", "known_hosts", "cluster-id", "nodes")
KEYS = ("ca/*/ca-key.pem", "certs/*/gen-*/key.pem", "certs/*/request/key.pem")


def claim(work: Path) -> None:
    """Make the work directory, 0700. Raise Refused where it is there and somebody else's.

    It is this program's where it is empty, closed to others already, or holds what this program keeps there. A new one
    is ignored by git: it gets keys, and may lie in a repository.
    """
    fresh = not work.exists()
    if work.exists() and work.stat().st_mode & 0o077:
        names = sorted(entry.name for entry in work.iterdir())
        if names and not set(names) & set(OURS):
            raise Refused(
                f"{work} is not a work directory of this program: it holds {names[0]}, and would be closed to others",
                hint="set [paths] work to another directory, or give the cluster another name",
            )
    private_directory(work)
    if fresh:
        replace(work / ".gitignore", b"*\n", mode=0o644)


def open_keys(work: Path) -> list[Path]:
    """Return the private keys in the work directory that others than their owner may read (a copy made them so)."""
    return [key for pattern in KEYS for key in sorted(work.glob(pattern)) if key.stat().st_mode & 0o077]
