"""remove-ca-key: the copies of the CA's key that nodes have, once it is certain that the controller has that key."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import TYPE_CHECKING

from steps.core.base.digest import COMMAND, digest
from steps.core.base.errors import CertificateError, NodeFailed, Refused, UsageError
from steps.core.base.hints import again
from steps.core.base.option import NODE
from steps.core.cli.options import task
from steps.core.node.ca_key import NAME, key_path

if TYPE_CHECKING:
    from steps.core.cli.invocation import TaskContext
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context

MISSING, LINK = "missing", "link"  # what a node says instead of a digest


@task(writes=True, options=(NODE,))
def remove_ca_key(c: TaskContext) -> None:
    """Remove the nodes' copies of the CA's key, where this controller has that key; exit 3 where it does not"""
    command = c.command
    cluster, nodes, ctx = command.cluster, command.nodes, command.open()
    if not cluster.tls.enabled:
        raise UsageError("[tls] enabled = false: there is no CA")
    if cluster.tls.distribute_ca_key:
        raise UsageError("[tls] distribute_ca_key = true keeps the key on the nodes", hint="set it to false first")
    found = ctx.each(nodes, lambda each: _digest(ctx, each))
    holders = [each for each in nodes if found[each.name] != MISSING]
    if not holders:
        ctx.say(f"no node has {NAME}")
        return
    kept = set(kept_forms(cluster))
    if foreign := [each for each in holders if found[each.name] not in kept]:
        raise Refused("\n".join(_foreign(each, found[each.name]) for each in foreign), hint=_copy(cluster, foreign[0]))

    def remove(each: Node) -> None:
        if ctx.dry:
            ctx.change(f"{key_path(each)} will be removed", each)
            return
        result = ctx.sh(each, remove_script(each, found[each.name]))
        if not result.ok:
            raise NodeFailed(each.name, f"{key_path(each)} is not removed", stderr=result.err, hint=again())
        ctx.change(f"{key_path(each)} removed", each)

    ctx.each(holders, remove)
    if not ctx.dry:
        ctx.report.tip("Backups of the nodes may still have it; who was root there may have copied it.")


def kept_forms(cluster: Cluster) -> Iterator[str]:
    """Yield the digests of the CA's key as this controller has it, and as other tools write the same key.

    So a node's copy is recognized without the key leaving it. A key that does not belong to the CA does not count.
    """
    from steps.core.tls import pki

    trusted = cluster.work / "ca" / "ca.pem"
    if not trusted.exists():
        return
    known = {pki.spki(certificate) for certificate in pki.read(trusted.read_bytes(), str(trusted))}
    for file in sorted(cluster.work.glob(f"ca/*/{NAME}")):
        pem = file.read_bytes()
        try:
            if pki.spki(pem) in known:
                yield from map(digest, _forms(pem))
        except CertificateError:
            continue  # damaged: it is no copy


def _forms(pem: bytes) -> Iterator[bytes]:
    """Yield a key as it is, as OpenSSL 3 writes it (PKCS#8) and as cfssl does; with and without a last newline."""
    from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

    from steps.core.tls import pki

    yield pem
    key = pki.load_key(pem)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        written = key.private_bytes(pki.PEM, form, NoEncryption())
        yield written
        yield written.rstrip(b"\n")


def digest_script(node: Node) -> str:
    """Prints the file's digest, or MISSING, or LINK: never the file."""
    path = quote(key_path(node))
    return f"""if [ -h {path} ]; then echo {LINK}
elif [ -f {path} ]; then d=$({COMMAND} <{path}) && echo "${{d%% *}}"
else echo {MISSING}; fi
"""


def remove_script(node: Node, known: str) -> str:
    """Removes the file if it is still the one whose digest is `known`."""
    path = quote(key_path(node))
    return f"""d=$({COMMAND} <{path}) && [ ! -h {path} ] && [ "${{d%% *}}" = {known} ] || {{
echo 'it changed meanwhile' >&2; exit 1; }}
rm -- {path} && sync -- {quote(node.paths.cert)}
"""


def _digest(ctx: Context, node: Node) -> str:
    result = ctx.sh(node, digest_script(node))
    if not result.ok or not result.out.strip():
        raise Refused(f"{key_path(node)} cannot be read: {result.err.strip()}", node=node.name)
    return result.out.strip()


def _foreign(node: Node, found: str) -> str:
    if found == LINK:
        return f"{node.name}: {key_path(node)} is a link: nothing was removed"
    return (
        f"{node.name}: {key_path(node)} is no copy of a key that this controller has, and may be the last one: "
        "nothing was removed"
    )


def _copy(cluster: Cluster, node: Node) -> str:
    """The command that brings the file here first, where a later run looks for it."""
    home = cluster.work / "ca" / cluster.tls.backend
    to = home / NAME
    if to.exists() or not (home / "ca.pem").exists():
        to = cluster.work / "ca" / f"copied-{node.name}" / NAME
    read = f"{'sudo ' if cluster.ssh.sudo else ''}cat {quote(key_path(node))}"
    copied = (
        f"mkdir -p {quote(str(to.parent))} && ssh {' '.join(_login(cluster, node))} {quote(read)} > {quote(str(to))}"
    )
    return f"if it is the CA's, copy it first: (umask 077; {copied}), then: {again()}"


def _login(cluster: Cluster, node: Node) -> list[str]:
    """The words of an ssh command line that say where to and how."""
    ssh = cluster.ssh
    user, port = node.ssh.user or ssh.user or "root", node.ssh.port or ssh.port
    options = {"-p": port, "-i": ssh.key, "-J": ssh.jump}
    words = [word for option, value in options.items() if value for word in (option, quote(str(value)))]
    return [*words, quote(f"{user}@{node.ssh.host or node.ip}")]
