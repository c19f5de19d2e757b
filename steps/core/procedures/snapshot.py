"""A snapshot, from a member to the controller: private, whole, and never over another."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from steps.core.base.errors import NodeFailed, StepFailed
from steps.core.base.files import private_directory
from steps.core.base.hints import again
from steps.core.transport.shell_session import Sink

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context

LARGEST = 16 << 30  # bytes, where etcd's quota is not larger still: etcd warns of a quota beyond 8 GiB
_TRAILER = 32  # etcd appends the SHA-256 of what precedes it
_PAGE = 512


def save(ctx: Context, node: Node, file: Path) -> None:
    """Saves the node's data as `file`, 0600. Raises StepFailed if it exists, NodeFailed if it is not whole."""
    if file.exists():
        raise StepFailed(f"{file} exists, and a snapshot is never written over", hint="name another file")
    private_directory(file.parent)
    part = file.with_suffix(".part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            result = ctx.etcd.snapshot_save(node, Sink(stream, _limit(ctx.cluster)))
            stream.flush()
            os.fsync(stream.fileno())
        if not result.ok:
            raise NodeFailed(node.name, "the snapshot could not be saved", stderr=result.err)
        _check(node.name, part)
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)


def _limit(cluster: Cluster) -> int:
    """Return the bytes beyond which what a node sends is no snapshot: its quota may have been larger than it is now."""
    return max(LARGEST, 2 * int(cluster.flags.get("quota-backend-bytes", "0")))


def _check(node: str, file: Path) -> None:
    """The size and the digest that `etcdctl snapshot save` appends (etcd's client/v3/snapshot)."""
    size = file.stat().st_size
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        left = size - _TRAILER
        while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
        trailer = stream.read()
    if size % _PAGE != _TRAILER or digest.digest() != trailer:
        raise NodeFailed(node, f"the snapshot of {size} bytes is not whole", hint=again())
