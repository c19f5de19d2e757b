"""Whether git would take a file into a repository: a key in a work tree is soon a key in its history."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

DEADLINE = 10  # seconds for git's answer


def tracking_root(file: Path) -> Path | None:
    """Return the git work tree that would take `file` (it need not exist); None where none would.

    Where git is missing or gives no answer, a work tree counts as one that takes the file.
    """
    folder = next(parent for parent in file.absolute().parents if parent.is_dir()).resolve()
    root = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)
    if root is None:
        return None
    # A GIT_DIR of the environment (a hook's) is about another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    argv = ["git", "-C", str(folder), "check-ignore", "--quiet", "--", str(folder / file.name)]
    try:
        done = subprocess.run(argv, env=environment, capture_output=True, timeout=DEADLINE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return root
    return None if done.returncode == 0 else root
