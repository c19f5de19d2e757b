"""What stands in the file that starts a member (the unit, or the script of a plain process), and how it is changed.

The guard: once the cluster has been healthy, that file starts nothing where the member's data or WAL is missing. A
member that starts empty under its old identity forgets what it has acknowledged. systemd asks by itself, also after a
crash and at boot (`AssertDirectoryNotEmpty=`, systemd 218 and later), and a daemon-reload is enough to make it ask.
"""

from __future__ import annotations

import hashlib
import re
from shlex import quote

from steps.core.config.model import Cluster, Node
from steps.core.etcd import flags
from steps.core.node.facts import UNIT_DIGEST, Look, Process
from steps.core.node.paths import unit_file
from steps.core.node.render import exec_argv, exec_start, script_argv, script_command, unit_path

_ASSERT, _TEST = "AssertDirectoryNotEmpty=", "for member_data in "  # how each line of a guard begins
_DIGEST = f"Environment={UNIT_DIGEST}="


def with_digest(unit: str) -> str:
    """The unit with a digest of itself in the environment of what it starts, bootstrap flags left out.

    The living process thus says which unit started it: a changed directive is seen like a changed flag. The guard comes
    later and is not in it: it takes effect without a restart.
    """
    lasting = "".join(line for line in unit.splitlines(keepends=True) if not flags.BOOTSTRAP_ONLY.search(line))
    digest = hashlib.sha256(lasting.encode()).hexdigest()[:16]
    return unit.replace("[Service]\n", f"[Service]\n{_DIGEST}{digest}\n", 1)


def installed(cluster: Cluster, node: Node, look: Look) -> str:
    """The text of the file that starts the member, as it lies on the node; empty where there is none."""
    entry = look.entries.get(unit_file(cluster, node))
    return (entry.content or "") if entry else ""


def command(cluster: Cluster, text: str) -> tuple[str, ...]:
    """Return the command line in the text of a unit or script; () where there is none.

    Raises ValueError where a quote in it is not closed: who wrote it was not this tool.
    """
    return exec_argv(text) if cluster.systemd else script_argv(text)


def unreadable(cluster: Cluster, node: Node, look: Look) -> str:
    """Return why the command line of the node's file cannot be read, with the file's name; "" where it can."""
    try:
        command(cluster, installed(cluster, node, look))
    except ValueError as error:
        return f"{unit_file(cluster, node)}: its command line cannot be read ({str(error).lower()})"
    return ""


def is_guarded(cluster: Cluster, text: str) -> bool:
    """Whether the file asserts that the member's data is there."""
    return any(line.startswith(_prefix(cluster)) for line in text.splitlines())


def guarded(cluster: Cluster, node: Node, text: str) -> str:
    """The same file, asserting that data and WAL are there, at the configured paths and no others."""
    paths = (f"{node.paths.data}/member", node.paths.wal)
    bare = unguarded(cluster, text)
    if cluster.systemd:
        lines = "".join(f"{_ASSERT}{unit_path(path)}\n" for path in paths)
        return bare.replace("[Unit]\n", f"[Unit]\n{lines}", 1) if "[Unit]\n" in bare else f"[Unit]\n{lines}{bare}"
    first, end, rest = bare.partition("\n")
    missing = 'echo "$member_data is empty or missing: this member is not started without its data" >&2; exit 1'
    test = f'[ -n "$(ls -A -- "$member_data" 2>/dev/null)" ] || {{ {missing}; }}'
    return f"{first}{end}{_TEST}{' '.join(map(quote, paths))}; do {test}; done\n{rest}"


def unguarded(cluster: Cluster, text: str) -> str:
    """The same file without what `guarded` adds."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(_prefix(cluster)))


def unguard_script(cluster: Cluster, node: Node) -> str:
    """A script that takes the guard out of the node's file: the cluster ends, and the next one begins without data."""
    file, lines = quote(unit_file(cluster, node)), quote(f"^{_prefix(cluster)}")
    reload = " && systemctl daemon-reload" if cluster.systemd else ""
    return f"""if grep -qs {lines} {file}; then
  n={file}.etcd-steps.new; trap 'rm -f -- "$n"' EXIT
  grep -v {lines} {file} >"$n" && chmod --reference={file} -- "$n" && sync -- "$n" && mv -fT -- "$n" {file}{reload} ||
    exit 1
fi
"""


def starts(cluster: Cluster, text: str, process: Process, digest: str) -> bool:
    """Whether the living process is what this file starts; `digest`: of the unit, in the process's environment."""
    try:
        words = command(cluster, text)
    except ValueError:
        return False
    same = flags.lasting(words) == flags.lasting(process.argv)
    return same and (not cluster.systemd or f"{_DIGEST}{digest}\n" in text)


def with_argv(cluster: Cluster, text: str, argv: tuple[str, ...]) -> str:
    """The same file with another command line, and so another digest."""
    bare = unguarded(cluster, text)
    if not cluster.systemd:
        return bare.partition(script_command(()))[0] + script_command(argv) + "\n"
    rest = "".join(line for line in bare.splitlines(keepends=True) if not line.startswith(_DIGEST))
    # A function, for what is put in may hold backslashes.
    return with_digest(re.sub(r"^ExecStart=(?:.*\\\n)*.*$", lambda _: exec_start(argv), rest, flags=re.MULTILINE))


def _prefix(cluster: Cluster) -> str:
    return _ASSERT if cluster.systemd else _TEST
