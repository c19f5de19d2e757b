"""What a start itself changes of the files that start a member: the guard is added, or what ran before is put back."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING

from steps.core.base.digest import COMMAND
from steps.core.base.errors import StepFailed, StepsError
from steps.core.etcd import unit_text
from steps.core.node.apply import STAGED, apply_script
from steps.core.node.diff import changes, seen_after
from steps.core.node.paths import unit_file
from steps.core.node.resources import File
from steps.core.node.service import reload_script

if TYPE_CHECKING:
    from steps.core.config.model import Node
    from steps.core.context.context import Context

STAYS = "what it was started by is not known"


def assert_data(ctx: Context, nodes: Sequence[Node]) -> None:
    """Add the guard to each installed file that lacks it: from now on systemd, too, starts no empty member.

    Nothing else of the file is changed, whatever etcd.toml says by now, and nothing is restarted. In a dry run it is
    only said. Raises StepFailed where a node's file cannot be written.
    """
    cluster = ctx.cluster
    bare = {node.name: text for node in nodes if (text := unit_text.installed(cluster, node, ctx.look(node)))}
    unguarded = [node for node in nodes if node.name in bare and not unit_text.is_guarded(cluster, bare[node.name])]
    if not ctx.dry:
        ctx.each(unguarded, lambda node: _write(ctx, node, unit_text.guarded(cluster, node, bare[node.name])))
    for node in unguarded:
        verb = "will assert" if ctx.dry else "asserts"
        ctx.change(f"{unit_file(cluster, node)} {verb} that data and WAL are there", node)


def put_back(ctx: Context, nodes: Sequence[Node]) -> str:
    """Give the nodes back the file and the binary that their living members were started by.

    The file is the one that was there before this run, or, where an earlier run wrote the new one, it is made from the
    living process's own command line; only a file that is proven to be the former one counts. The binary is the living
    process's own. Nothing is restarted.

    Returns what was done on which node, and what could not be done, as lines for the user. Raises nothing.
    """
    done = ctx.each(nodes, lambda node: _tried(ctx, node))
    together: dict[str, list[str]] = {}
    for name, said in done.items():
        if said:
            together.setdefault(said, []).append(name)
    return "\n".join(f"{', '.join(names)}: {said}" for said, names in together.items())


def _tried(ctx: Context, node: Node) -> str:
    try:
        return _put_back(ctx, node)
    except StepsError as error:
        return f"its former unit and binary could not be put back: {error.message}"


def _put_back(ctx: Context, node: Node) -> str:
    cluster, look = ctx.cluster, ctx.look(node)
    process, now = look.process, unit_text.installed(cluster, node, look)
    if process is None or not now:
        return ""
    what = "unit" if cluster.systemd else "script"
    back, said = [], []
    if not unit_text.starts(cluster, now, process, look.facts.unit_digest or ""):
        text = _former(ctx, node)
        if text:
            _write(ctx, node, unit_text.guarded(cluster, node, text))
            back.append(what)
        else:
            said.append(f"the new {what} stays: {STAYS}")
    binary = look.entries.get(f"{node.paths.bin}/etcd")
    if binary is not None and binary.digest != process.exe:
        _run(ctx, node, binary_script(node, process.pid, process.exe))
        back.append("binary")
    if back:
        what = f"the former {' and '.join(back)} {'is' if len(back) == 1 else 'are'} back"
        said.insert(0, f"{what}: {'a reboot starts' if cluster.systemd else 'the next start takes'} what runs")
    return "; ".join(said)


def _former(ctx: Context, node: Node) -> str:
    """The text that the living member was started by; empty where that is not known."""
    cluster, look = ctx.cluster, ctx.look(node)
    process, digest = look.process, look.facts.unit_digest or ""
    if process is None:
        return ""
    found = unit_text.installed(cluster, node, ctx.found.get(node.name, look))
    derived = unit_text.with_argv(cluster, unit_text.installed(cluster, node, look), process.argv)
    return next((text for text in (found, derived) if unit_text.starts(cluster, text, process, digest)), "")


def binary_script(node: Node, pid: int, digest: str) -> str:
    """A script that makes the binary of the living process `pid` the installed one again, if it has that `digest`.

    The kernel keeps a running program's file, although its name has gone to another one.
    """
    etcd, staged = quote(f"{node.paths.bin}/etcd"), quote(f"{node.paths.bin}/{STAGED}")
    return f"""set -eu
n={staged}$$; trap 'rm -f -- "$n"' EXIT
umask 077; cat "/proc/{pid}/exe" >"$n"
d=$({COMMAND} <"$n"); [ "${{d%% *}}" = {digest} ] || {{ echo "pid {pid} is another program by now" >&2; exit 1; }}
chmod --reference={etcd} -- "$n"; chown --reference={etcd} -- "$n"; sync -- "$n"; mv -fT -- "$n" {etcd}
"""


def _write(ctx: Context, node: Node, text: str) -> None:
    """Replace the file by one rename; systemd reads it anew."""
    cluster, look, path = ctx.cluster, ctx.look(node), unit_file(ctx.cluster, node)
    entry = look.entries[path]
    reload = (reload_script(path),) if cluster.systemd else ()
    found = changes(
        [File(path, text, entry.mode, entry.owner, entry.group, on_change=reload)], look, owners=cluster.systemd
    )
    _run(ctx, node, apply_script(found, look, owners=cluster.systemd).script)
    ctx.looks[node.name] = seen_after(look, found, now=ctx.now())


def _run(ctx: Context, node: Node, script: str) -> None:
    result = ctx.sh(node, script, deadline=120)
    if not result.ok:
        raise StepFailed(result.err.strip()[-400:] or f"exit code {result.code}", node=node.name)
