"""client: a certificate for somebody who connects."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from steps.core.errors import Refused, UsageError
from steps.core.files import private_directory, replace
from steps.core.hints import invoke
from steps.core.house import task


@task(
    writes=True,
    name="whose it is; names the files, too",
    cn="the certificate's common name, which etcd's auth takes as the user; the NAME if not given",
    out="the directory; it is made where it is missing",
)
def client(c: Any, name: str, cn: str = "", out: str = "") -> None:
    """A client certificate: OUT/NAME.pem, OUT/NAME-key.pem (0600) and OUT/ca.pem"""
    from steps.core.tls import profiles

    command = c.command
    cluster, ctx = command.cluster, command.ctx
    if not cluster.tls.enabled:
        raise UsageError("[tls] enabled = false: nobody needs a certificate")
    if name in {profiles.leaf_name(cluster, node) for node in cluster.nodes} | {profiles.operator(cluster).name}:
        raise UsageError(f"the name {name!r} is a member's or the operator's", hint="take another name")
    if not out:
        raise UsageError("where to?", hint=invoke(f"client {quote(name)} --out DIRECTORY"))
    profile = profiles.client(cluster, name, cn or name)
    target = Path(out).expanduser().absolute()
    reason = ctx.authority.reason(profile)
    if ctx.dry:
        ctx.change(f"{target}/{name}.pem: {profiles.describe(profile)} ({reason or 'as it was issued'})")
        return
    ca = target / "ca.pem"
    if ca.exists() and ca.read_bytes() != ctx.authority.ca():
        raise Refused(f"{ca} is another CA's, and is not written over", hint="--out a directory of its own")
    pair = ctx.authority.issue(profile) if reason else ctx.store.pair(name)
    if not target.exists():
        private_directory(target)  # one that exists may be anybody's, and stays as it is
    replace(ca, ctx.authority.ca(), mode=0o644)
    replace(target / f"{name}.pem", pair.cert, mode=0o644)
    replace(target / f"{name}-key.pem", pair.key)
    ctx.say(f"{target}: {name}.pem, {name}-key.pem, ca.pem ({profiles.describe(profile)})")
