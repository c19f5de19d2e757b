"""units: etcd.service (or, for plain processes, a script that starts the member), checked before it counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from steps.core.base.shell import quoted
from steps.core.etcd import flags, unit_text
from steps.core.etcd.identity import was_healthy
from steps.core.node.guard import PLAIN
from steps.core.node.paths import data_directories, unit_file, wal_parent
from steps.core.node.render import compiled, render
from steps.core.node.resources import File, Resource
from steps.core.node.service import reload_script
from steps.core.pipeline.step import Step

if TYPE_CHECKING:
    from pathlib import Path

    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context
    from steps.core.node.facts import Look


TEMPLATES = {"systemd": "etcd.service.j2", "process": "etcd.sh.j2"}


class Units(Step):
    """Write etcd.service; its flags are tried by the node's own etcd, the unit by systemd"""

    name = "units"

    def ahead(self, cluster: Cluster, ctx: Context) -> None:
        """The template is compiled."""
        compiled(TEMPLATES[cluster.hosts.service], ctx.plugins.template_dirs(cluster))

    def desired(self, ctx: Context, node: Node) -> Iterator[Resource]:
        cluster = ctx.cluster
        yield from data_directories(cluster, node)
        argv = flags.argv(cluster, node, ctx.plugins.flags(cluster, node))
        directories = ctx.plugins.template_dirs(cluster)
        path, content = unit_file(cluster, node), partial(_content, cluster, node, argv, directories)
        if not cluster.systemd:
            yield File(path, content, mode=0o700, check=("sh", "-c", lint(argv)))
            return
        check = ("sh", "-c", lint(argv) + ANALYZE, "units", "{}")
        yield File(path, content, on_change=(reload_script(path),), check=check)


def _content(cluster: Cluster, node: Node, argv: Sequence[str], directories: Sequence[Path], look: Look) -> str:
    values: dict[str, object] = {"cluster": cluster, "node": node, "argv": argv}
    if cluster.systemd:
        values |= {"systemd": look.facts.systemd or 0, "writable": (node.paths.data, wal_parent(node))}
    text = render(TEMPLATES[cluster.hosts.service], directories, **values)
    text = unit_text.with_digest(text) if cluster.systemd else text
    return unit_text.guarded(cluster, node, text) if was_healthy(cluster, node, look) else text


def lint(argv: Sequence[str]) -> str:
    """A script that fails where the node's own etcd does not know a flag: with --version it parses them, and ends."""
    words = quoted([*argv, "--version"])
    # What is wrong comes first, then all of etcd's usage.
    return f"{PLAIN}o=$(plain {words} 2>&1) || {{ printf '%s\\n' \"$o\" | head -n 1; exit 3; }}\n"


# The name decides how systemd reads a file, so the staged one is shown to it under the unit's own name.
ANALYZE = """\
command -v systemd-analyze >/dev/null || exit 0
d=$(mktemp -d /run/etcd-steps.XXXXXX) || exit 1; trap 'rm -rf "$d"' EXIT
cp "$1" "$d/etcd.service" && chmod 644 "$d/etcd.service"
o=$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$d/etcd.service" 2>&1); r=$?
case $o in *"$d/etcd.service"*) r=3;; esac
[ "$r" = 0 ] || { printf '%s\\n' "$o"; exit 3; }
"""
