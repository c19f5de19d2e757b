"""client: a certificate for somebody who connects."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from steps.core.base.errors import CertificateError, Refused, UsageError
from steps.core.base.files import private_directory, replace
from steps.core.base.hints import invoke
from steps.core.base.worktree import tracking_root
from steps.core.cli.options import task

if TYPE_CHECKING:
    from steps.core.cli.invocation import TaskContext
    from steps.core.config.model import Cluster
    from steps.core.context.context import Context


@task(
    writes=True,
    name="whose it is; names the files, too",
    cn="the certificate's common name, which etcd's auth takes as the user; the NAME if not given",
    out="the directory; it is made where it is missing",
)
def client(c: TaskContext, name: str, cn: str = "", out: str = "") -> None:
    """A client certificate: OUT/NAME.pem, OUT/NAME-key.pem (0600) and OUT/ca.pem"""
    from steps.core.tls import profiles

    command = c.command
    cluster, ctx = command.cluster, command.open()
    if not cluster.tls.enabled:
        raise UsageError("[tls] enabled = false: nobody needs a certificate")
    _check_name(cluster, name)
    if not out:
        raise UsageError("where to?", hint=invoke(f"client {quote(name)} --out DIRECTORY"))
    target = Path(out).expanduser().absolute()
    _check_target(ctx, target, name)
    profile = profiles.client(cluster, name, cn or name)
    reason = ctx.authority.reason(profile)
    if ctx.dry:
        ctx.change(f"{target}/{name}.pem: {profiles.describe(profile)} ({reason or 'as it was issued'})")
        return
    pair = None if reason else ctx.store.pair(name)
    if pair is None:
        pair = ctx.authority.issue(profile)
    if not target.exists():
        private_directory(target)  # one that exists may be anybody's, and stays as it is
    replace(target / "ca.pem", ctx.authority.ca(), mode=0o644)
    replace(target / f"{name}.pem", pair.cert, mode=0o644)
    replace(target / f"{name}-key.pem", pair.key)
    ctx.say(f"{target}: {name}.pem, {name}-key.pem, ca.pem ({profiles.describe(profile)})")


def _check_name(cluster: Cluster, name: str) -> None:
    """Raise UsageError for a name that is taken, or whose files would be those of the CA or of another client."""
    from steps.core.tls import profiles
    from steps.core.tls.store import plain

    plain(name)
    if name in {profiles.leaf_name(cluster, node) for node in cluster.nodes} | {profiles.operator(cluster).name}:
        raise UsageError(f"the name {name!r} is a member's or the operator's", hint="take another name")
    if name.lower() == "ca":  # also where file names know no case
        raise UsageError(f"the name {name!r} is taken: ca.pem is the CA's certificate", hint="take another name")
    if name.lower().endswith("-key"):
        message = f"the name {name!r} is taken: {name}.pem would be the key of the client {name[:-4]!r}"
        raise UsageError(message, hint="take a name that does not end in -key")


def _check_target(ctx: Context, target: Path, name: str) -> None:
    """Raise Refused where `target` holds files that are not this client's and that would be written over.

    Warn where git would take the key into a repository.
    """
    work = ctx.cluster.work.resolve()
    if work in (target.resolve(), *target.resolve().parents):
        raise Refused(f"{target} is in the work directory {work}", hint="--out a directory of its own")
    ca, cert, key = (target / file for file in ("ca.pem", f"{name}.pem", f"{name}-key.pem"))
    trusted = ctx.store.ca()
    if ca.exists() and ca.read_bytes() != trusted:
        raise Refused(f"{ca} is another CA's, and is not written over", hint="--out a directory of its own")
    for file in (cert, key):
        if file.exists() and not _is_of_this_ca(cert, trusted):
            message = f"{file} is not of a client of {ctx.cluster.name}, and is not written over"
            raise Refused(message, hint="--out a directory of its own")
    if root := tracking_root(key):
        ctx.warn(f"git would take {key} into {root}: --out a directory outside, or add it to .gitignore")


def _is_of_this_ca(file: Path, trusted: bytes | None) -> bool:
    from steps.core.tls import validate

    try:
        return trusted is not None and validate.issued_by(file.read_bytes(), trusted)
    except (CertificateError, FileNotFoundError):
        return False
