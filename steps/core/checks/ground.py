"""What etcd and we stand on at a host: rooms, mounts, closed directories, files that stay as they are.

Each check is asked before the first change, of what the look saw. What it finds would otherwise stop a run half-way, or
the member after the whole installation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from steps.core.base.errors import Refused
from steps.core.base.problem import Problem
from steps.core.base.shell import quoted
from steps.core.config.model import Cluster, Node
from steps.core.node.diff import changes
from steps.core.node.facts import Entry, Look
from steps.core.node.inspect_script import ancestors
from steps.core.node.paths import HOSTS, cert_directory, data_directories, hosts_block, unit_file, wal_parent

if TYPE_CHECKING:
    from steps.core.context.context import Context

WAL_PREALLOCATION = 2 * 64 << 20  # etcd preallocates two segments of 64 MB
BINARIES_SIZE = 100 << 20
SMALL = 4 << 20  # bytes: certificates, a unit, an empty database
FILES = 64  # that a first start makes: inodes
BINS = ("/opt/etcd/bin", "/usr/local/bin", "/var/lib/etcd/bin")  # homes for binaries, in the order of advice
NO_HOSTS = "set [hosts] manage_etc_hosts = false (etcd itself needs no names), or write them there yourself"


def read_only(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    if cluster.systemd and look.facts.uid:
        return  # that we are not root is said already
    locked = [path for path, space in look.space.items() if not space.writable]
    if node.paths.bin in locked:
        locked.remove(node.paths.bin)
        said = (
            f"{node.paths.bin} cannot be written to: a read-only filesystem? {_other_bin(node)}, "
            f"or mount it read-write, see `findmnt -T {node.paths.bin}`"
        )
        yield Problem("ground.read-only", said, node=node.name)
    if locked:
        said = (
            f"{', '.join(locked)} cannot be written to: a read-only filesystem? "
            f"See `findmnt -T {locked[0]}`, and mount it read-write"
        )
        yield Problem("ground.read-only", said, node=node.name)


def no_exec(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    del cluster
    if place := look.facts.noexec_directory:
        said = f"{place} is mounted noexec, so that no etcd runs from {node.paths.bin}. {_other_bin(node)}"
        yield Problem("ground.no-exec", said, node=node.name)


def room(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """What the first start needs, by filesystem: paths may share one."""
    need: dict[str, int] = {} if look.member else {node.paths.wal: WAL_PREALLOCATION}
    if look.facts.binary_digest is None:
        need[node.paths.bin] = BINARIES_SIZE
    for paths in _by_device(look, need):
        free, size = look.space[paths[0]].free, sum(need[path] for path in paths)
        if free < size:
            said = f"{' and '.join(paths)}: {free >> 20} MB free, {size >> 20} MB are needed"
            yield Problem("ground.no-room", said, node=node.name)
    if unit_file(cluster, node) in look.entries:
        return
    for paths in _by_device(look, look.space):
        space = look.space[paths[0]]
        if space.free < SMALL and not {*need} & {*paths}:
            said = f"{' and '.join(paths)}: {space.free >> 10} KB free, {SMALL >> 10} KB are needed"
            yield Problem("ground.no-room", said, node=node.name)
        if space.inodes is not None and space.inodes < FILES:
            keys = ", ".join(key for key in ("bin", "cert", "data", "wal") if getattr(node.paths, key) in paths)
            another = f", or name another place in [paths] {keys}" if keys and not look.member else ""
            said = (
                f"{' and '.join(paths)}: room for {space.inodes} more files (inodes), {FILES} are needed: "
                f"see `df -i {paths[0]}`{another}"
            )
            yield Problem("ground.no-room", said, node=node.name)


def _by_device(look: Look, paths: Mapping[str, object]) -> list[list[str]]:
    devices: dict[str, list[str]] = {}
    for path in paths:
        devices.setdefault(look.space[path].device, []).append(path)
    return [*devices.values()]


def _other_bin(node: Node) -> str:
    return f'Set [paths] bin = "{next(path for path in BINS if path != node.paths.bin)}"'


def masked(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """`systemctl mask` says that the unit must not start; to put a unit in its place would undo that without a word."""
    if cluster.systemd and look.unit.get("LoadState") == "masked":
        said = "etcd.service is masked, so that it cannot start: if etcd may run here, `systemctl unmask etcd.service`"
        yield Problem("ground.masked", said, node=node.name)


def accounts(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    user, fixed = cluster.hosts.run_as, ", ".join(look.facts.accounts_read_only)
    if cluster.systemd and fixed and user not in look.users:
        said = (
            f"there is no user {user}, and none can be created, for {fixed} cannot be written to (`lsattr`, "
            "`findmnt -T`): create it yourself, with a group of the same name, or set [hosts] run_as"
        )
        yield Problem("ground.no-user", said, node=node.name)


def hosts_file(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """/etc/hosts must be replaceable, or at least writable in place, where our block in it would change."""
    if not _hosts_differ(cluster, look):
        return
    entry = look.entries.get(HOSTS)
    if look.facts.hosts_read_only:
        said = f"{HOSTS} cannot be written to (mounted read-only, or immutable: `lsattr {HOSTS}`): {NO_HOSTS}"
        yield Problem("ground.hosts-file", said, node=node.name)
    elif entry is not None and entry.kind != "file":
        said = f"{HOSTS} is a {entry.kind}, which would be replaced by a file: {NO_HOSTS}"
        yield Problem("ground.hosts-file", said, node=node.name)


def written_in_place(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """A warning."""
    if look.facts.hosts_is_mount and _hosts_differ(cluster, look):
        said = (
            f"{HOSTS} is a mount of its own (a container's?): it is written in place, and who mounts it may write it "
            "anew. [hosts] manage_etc_hosts = false leaves it alone"
        )
        yield Problem("ground.hosts-mount", said, node=node.name)


def _hosts_differ(cluster: Cluster, look: Look) -> bool:
    try:
        return bool(changes(hosts_block(cluster), look, owners=True))
    except Refused:  # it cannot be read: the step env says so
        return False


def closed(ctx: Context, node: Node, look: Look) -> Iterator[Problem]:
    """Directories that etcd's user may not go through, on its way to the binary, the certificates, the data.

    Modes tell where all is open, as nearly everywhere. Otherwise the kernel is asked, for there are links, groups and
    ACLs. Directories of our own are left out: they become etcd's.
    """
    cluster = ctx.cluster
    user = cluster.hosts.run_as
    if not cluster.systemd or (user == "root" and not cluster.hosts.hardening):
        return
    own = {each.path for each in (*data_directories(cluster, node), cert_directory(cluster, node))}
    way = [path for path in ancestors(node) if path not in own]
    seen = look.entries
    if not any(_shut(seen[path], user) for path in way if path in seen) and not any(
        seen[path].linked for path in own if path in seen
    ):
        return
    result = ctx.sh(node, closed_script(node, user, sorted(own)))
    if not result.ok:
        said = f"whether {user} may enter {', '.join(sorted(own))} cannot be found out: {result.err.strip()[-200:]}"
        yield Problem("ground.closed-unknown", said, node=node.name)
        return
    found: dict[str, list[str]] = {}
    for line in result.out.splitlines():
        path, _, directory = line.partition("\t")
        found.setdefault(directory, []).append(path)
    for directory, paths in found.items():
        said = _opened(node, look, directory, paths, user)
        yield Problem("ground.closed", said, node=node.name)


def _opened(node: Node, look: Look, directory: str, paths: Sequence[str], user: str) -> str:
    entry = look.entries.get(directory)
    seen = f" (mode {entry.mode:04o}, {entry.owner}:{entry.group})" if entry else ""
    keys = [key for key in ("bin", "cert", "data", "wal") if getattr(node.paths, key) in paths]
    if wal_parent(node) in paths and "wal" not in keys:
        keys.append("wal")
    # Where there is a member, its data has a place, and no advice moves it.
    movable = [key for key in keys if key in {"bin", "cert"} or not (look.member or look.wal)]
    another = f", or name another place in [paths] {', '.join(movable)}" if movable else ""
    return (
        f"{directory}{seen} is closed to {user}, who must go through it to {', '.join(paths)}: "
        f"`chmod a+x {directory}`{another}"
    )


def _shut(entry: Entry, user: str) -> bool:
    bit = 0o100 if entry.owner == user else 0o010 if entry.group == user else 0o001
    return entry.kind != "dir" or entry.linked or not entry.mode & bit


def closed_script(node: Node, user: str, own: Sequence[str]) -> str:
    """Prints `path<tab>directory` where `user`, without any capability, may not go through that directory.

    `own`: what becomes the user's anyway. A user that does not exist yet has the rights of all others only.
    """
    return rf"""set -f; IFS='
'
u={quoted([user])}; own=$(readlink -m -- {quoted([*own])})
as_user() {{
  if id -u "$u" >/dev/null 2>&1; then set -- --reuid="$(id -u "$u")" --regid="$(id -g "$u")" --init-groups "$@"
  else set -- --reuid=65534 --regid=65534 --clear-groups "$@"; fi
  setpriv --inh-caps=-all --bounding-set=-all "$@"
}}
ours() {{ for q in $own; do case $1/ in "$q"/*) return 0;; esac; done; return 1; }}
walk() {{ p=$1; d=$(readlink -m -- "$p"); set --
  while [ -n "${{d#/}}" ]; do [ ! -d "$d" ] || ours "$d" || set -- "$d" "$@"; d=${{d%/*}}; done
  c=$(as_user sh -c 'for d; do [ -x "$d" ] || {{ printf "%s\n" "$d"; exit; }}; done' sh "$@") || exit 1
  [ -z "$c" ] || printf '%s	%s
' "$p" "$c"; }}
for w in {quoted([*own, node.paths.bin])}; do walk "$w"; done
"""


def problems(ctx: Context, node: Node, look: Look) -> Iterator[Problem]:
    """All of the above that stops a run."""
    for check in (read_only, no_exec, room, masked, accounts, hosts_file):
        yield from check(ctx.cluster, node, look)
    yield from closed(ctx, node, look)
