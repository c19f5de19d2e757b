"""The two ways in join here what they show: the phases, what operates a cluster, and what is built in."""

from __future__ import annotations

from pathlib import Path

from invoke.collection import Collection

from steps import PIPELINE
from steps.builtin import hooks
from steps.core.cli.namespace import namespace
from steps.ops import OPERATIONS


def tasks(root: Path) -> Collection:
    """All tasks; `root` is the directory with the site's plugins/ and, if not said otherwise, its etcd.toml."""
    return namespace(root, PIPELINE, OPERATIONS, builtin=hooks)
