"""What cannot be undone wants the cluster's name, typed."""

from __future__ import annotations

import sys
from contextlib import suppress

from steps.core.base.errors import Refused
from steps.core.base.hints import again
from steps.core.config.model import Cluster


def confirmed(cluster: Cluster, yes: str, what: str) -> None:
    """Returns if `yes`, or what is typed on a terminal, is the cluster's name. Raises Refused otherwise."""
    if yes == cluster.name:
        return
    if not yes and sys.stdin.isatty():
        with suppress(EOFError):  # Ctrl-D
            yes = input(f"This {what}. Type the cluster's name to go on: ").strip()
        if yes == cluster.name:
            return
    given = f"got {yes!r}" if yes else "nothing was typed"
    raise Refused(f"not confirmed ({given}): this {what}", hint=again(f"--yes {cluster.name}"))
