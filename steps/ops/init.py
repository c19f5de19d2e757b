"""init: an etcd.toml for one's own hosts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from steps.core.base.errors import Refused, StepsError, UsageError
from steps.core.base.hints import invoke
from steps.core.cli.options import task

if TYPE_CHECKING:
    from steps.core.cli.invocation import TaskContext

ASKING = 10  # seconds for the mirror's list of digests


@task(
    nodes="etcd-1=10.0.0.1,etcd-2=10.0.0.2,…",
    name="the cluster's name",
    user="the SSH user; with another than root, sudo is used",
    out="the file; one that exists is not written over",
)
def init(c: TaskContext, nodes: str, name: str = "etcd", user: str = "root", out: str = "etcd.toml") -> None:
    """Write an etcd.toml for hosts of your own, reached over SSH"""
    pairs = [pair.strip().partition("=") for pair in nodes.split(",") if pair.strip()]
    if not pairs or any(not node or not address for node, _, address in pairs):
        raise UsageError(
            f"--nodes {nodes!r}: NAME=ADDRESS, separated by commas, was expected", hint="--nodes etcd-1=10.0.0.1"
        )
    file = Path(out).expanduser().absolute()
    members = [(node.strip(), address.strip()) for node, _, address in pairs]
    from steps.core.config import load as config

    cluster = config.parse(configuration(name, user, members).encode(), file)
    if file.exists():
        raise Refused(f"{file} exists and is not written over", hint="--out hosts.toml")
    pins, why = _pins(cluster.release.mirror, cluster.version)
    text = configuration(name, user, members, pins)
    config.parse(text.encode(), file)
    if why:
        c.command.report.line(
            f"no digest is pinned ({why}): add [release] sha256 to {file.name}, from a source you trust"
        )
    if c.command.dry:
        c.command.report.line(f"{file} will be written:\n\n{text}")
        return
    with file.open("x", encoding="utf-8") as stream:
        stream.write(text)
    found = file == c.command.house.config_file(c.command.config)
    following = invoke("plan" if found else f"plan --config {quote(out)}")
    c.command.report.line(f"{file}: cluster {cluster.name} of {len(cluster.nodes)}. Next: {following}")


def _pins(mirror: str, version: str) -> tuple[Mapping[str, str], str]:
    """Return the digests that the mirror's SHA256SUMS has today, and why there are none.

    Written down, they are compared from now on: a mirror that changes a release later is found out, by each controller.
    """
    from steps.core.release import published

    try:
        found = published.digests(mirror, version, ASKING)
    except StepsError as error:
        return {}, error.message
    return found, "" if found else f"{mirror} lists no tarball of {version}"


def configuration(name: str, user: str, nodes: list[tuple[str, str]], pins: Mapping[str, str] | None = None) -> str:
    """Return etcd.toml's text; `pins`: architecture → the tarball's digest. JSON strings are TOML strings."""
    sudo = "\nsudo = true" if user != "root" else ""
    members = "".join(
        f"\n[[nodes]]\nname = {json.dumps(node)}\nip = {json.dumps(address)}\n" for node, address in nodes
    )
    digests = "".join(f"{arch} = {json.dumps(digest)}\n" for arch, digest in (pins or {}).items())
    pinned = (
        f"\n# the tarballs' digests: what a mirror changes later is refused\n[release.sha256]\n{digests}"
        if pins
        else ""
    )
    return f"""\
# Every other key has a safe default: docs/reference/etcd-toml.md lists them all.
[cluster]
name = {json.dumps(name)}

[etcd]
version = "3.5.33"
{pinned}
[ssh]
user = {json.dumps(user)}{sudo}
{members}"""
