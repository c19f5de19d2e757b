"""One script per node that reads everything a run may want to know, and what it found, as data.

The script changes nothing. It uses POSIX sh and coreutils only.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from steps.core.digest import COMMAND
from steps.core.etcd import wal as wal_head
from steps.core.model import Cluster, Node
from steps.core.resources import Blob, Block, Command, File, Resource, Service, Symlink, User


@dataclass(frozen=True)
class Entry:
    """What lies at a path. `kind`: file, dir, link or other; `content`: of small texts; `mtime` in Unix seconds."""

    kind: str
    mode: int = 0
    owner: str = ""
    group: str = ""
    digest: str = ""
    target: str = ""
    content: str | None = None
    mtime: int = 0


@dataclass(frozen=True)
class Process:
    """The living etcd. `exe` is the digest of what it runs, `argv` its command line, `started` in Unix seconds."""

    pid: int
    exe: str
    argv: tuple[str, ...]
    started: int


@dataclass(frozen=True)
class Space:
    """The filesystem under a path, or under the nearest directory above it. Bytes; `device` tells one from another."""

    free: int
    total: int
    device: str
    writable: bool


@dataclass(frozen=True)
class Look:
    """One node, as it was when looked at.

    `facts`: arch, systemd (version number), machine, boot, clock (Unix seconds), version (of the installed etcd),
    living (version of the running etcd), cluster (the ID in the WAL's head), walparent (owner of the WAL's parent, and
    one name in it), walmount (the WAL's directory is a mount point), dropins (files that override the unit), digest (of
    the unit that started the living process). `states`: a Service's "enabled active", a Command's "done". `unit`:
    systemd's properties of etcd.service. `listening`: TCP ports → uid, socket inode. `space`: by path. `member`: a
    member's data is in the data directory, `wal`: in the WAL's. `skew`: whole seconds by which the node's clock is
    ahead of the controller's, beyond what the time that the look took explains.
    """

    entries: Mapping[str, Entry]
    facts: Mapping[str, str]
    unit: Mapping[str, str] = field(default_factory=dict)
    process: Process | None = None
    users: frozenset[str] = frozenset()
    states: Mapping[Resource, str] = field(default_factory=dict)
    listening: Mapping[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    space: Mapping[str, Space] = field(default_factory=dict)
    member: bool = False
    wal: bool = False
    skew: int = 0

    @property
    def arch(self) -> str:
        """As releases call it: amd64, arm64 …; what uname says where etcd has no name for it."""
        return ARCHITECTURES.get(self.facts.get("arch", ""), self.facts.get("arch", "unknown"))


UNIT_DIGEST = "UNIT_DIGEST"  # in the environment of a process: which unit started it

ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}

UNIT_PROPERTIES = (
    "LoadState,ActiveState,SubState,Result,MainPID,UnitFileState,FragmentPath,DropInPaths,EnvironmentFiles,"
    "Environment,NeedDaemonReload,NRestarts,ExecStart,InvocationID"
)

DROP_INS = " ".join(f"{home}/systemd/system/etcd.service.d/*.conf" for home in ("/etc", "/run", "/usr/lib"))

# A program that is started costs the node two milliseconds, and so does each kilobyte that the shell itself reads.
_FUNCTIONS = r"""
texts() { stat -Lc '%s %n' -- "$@" 2>/dev/null | while read -r s f; do
  [ "$s" -lt 65536 ] && [ -f "$f" ] && v=$(cat "$f"; echo .) && v=${v%.} && printf 'text %s %s\n%s\n' "${#v}" "$f" "$v"
done; }
link() { [ -L "$2" ] && printf 'link %s %s\n' "$1" "$(readlink "$2")"; }
spaces() { n=$#; for p in "$@"; do d=$p; until [ -d "$d" ]; do d=${d%/*}; [ -n "$d" ] || d=/; done
  w=1; [ -w "$d" ] || w=0; printf 'space %s %s\n%s\n' "$w" "$p" "$d"; set -- "$@" "$d"; done; shift "$n"
  stat -f -c 'filesystem %S %a %b %n' -- "$@"; stat -c 'device %d %n' -- "$@"; }
listening() { grep -hs '^ *[0-9]*: [^ ]* [^ ]* 0A ' /proc/net/tcp /proc/net/tcp6 |
  while read -r _ l _ _ _ _ _ u _ i _; do echo "listen ${l##*:} $u $i"; done; }
version() { v=$(env -i "$1" --version 2>/dev/null); v=${v#etcd Version: }; echo "$2=${v%%[!0-9.]*}"; }
process() { # pid installed-binary
  [ "${1:-0}" -gt 0 ] && [ -r "/proc/$1/cmdline" ] && [ -e "/proc/$1/exe" ] || return 0
  if [ "/proc/$1/exe" -ef "$2" ]; then x=same; echo living=same
  else x=$(digest <"/proc/$1/exe"); x=${x%% *}; version "/proc/$1/exe" living; fi
  read -r s <"/proc/$1/stat"; set -- "$1" ${s##*) }; t=${21}
  b=$(grep -m1 ^btime /proc/stat); b=${b#btime }
  a=$(tr '\0' '\n' <"/proc/$1/cmdline"; echo .); a=${a%.}
  e=$(tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null)
  case $e in *UNIT_DIGEST=*) e=${e#*UNIT_DIGEST=}; echo "digest=${e%%[!0-9a-f]*}";; esac
  # USER_HZ is 100 on every architecture that etcd runs on
  printf 'process %s %s %s %s\n%s\n' "$1" "$x" "$((b + t / 100))" "${#a}" "$a"
}
"""


def quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def look_script(cluster: Cluster, node: Node, resources: Sequence[Resource]) -> str:
    """The script; `parse` with the same resources reads what it prints."""
    paths = dict.fromkeys(resource.path for resource in resources if not isinstance(resource, _PATHLESS))
    lines = [
        f'digest() {{ {COMMAND} "$@"; }}',
        _FUNCTIONS,
        "set +e",
        'echo "arch=$(uname -m)"',
        'echo "clock=$(date +%s)"',
    ]
    lines += ["read -r v </etc/machine-id; echo machine=$v", "read -r v </proc/sys/kernel/random/boot_id; echo boot=$v"]
    if paths:
        lines.append(f"stat -c 'entry %f %a %U %G %Y %n' -- {quoted([*paths])} 2>/dev/null")
    files = dict.fromkeys([f"{node.paths.bin}/etcd", *(r.path for r in resources if isinstance(r, File))])
    # A pipe or a device in a file's place would never end.
    lines.append(f'set --; for f in {quoted([*files])}; do [ ! -f "$f" ] || set -- "$@" "$f"; done')
    lines.append('[ $# = 0 ] || digest -- "$@" 2>/dev/null')
    texts = dict.fromkeys(r.path for r in resources if isinstance(r, Block) or (isinstance(r, File) and _readable(r)))
    if texts:
        lines.append(f"texts {quoted([*texts])}")
    for index, resource in enumerate(resources):
        if isinstance(resource, Symlink):
            lines.append(f"link {index} {shlex.quote(resource.path)}")
        elif isinstance(resource, User):
            lines.append(
                f"id -u {shlex.quote(resource.name)} >/dev/null 2>&1 && echo user {shlex.quote(resource.name)}"
            )
        elif isinstance(resource, Service):
            unit = shlex.quote(resource.name)
            lines.append(
                f'echo "state {index} $(systemctl is-enabled {unit} 2>/dev/null) $(systemctl is-active {unit})"'
            )
        elif isinstance(resource, Command):
            lines.append(f"( {resource.unless} ) >/dev/null 2>&1 </dev/null && echo state {index} done")
    lines += _member(cluster, node)
    return "\n".join(lines) + "\n"


_PATHLESS = (User, Service, Command)


def _readable(resource: File) -> bool:
    return not resource.secret and not isinstance(resource.content, Blob)


def _member(cluster: Cluster, node: Node) -> list[str]:
    """What is there of etcd itself: binary, unit, process, data, ports, space."""
    etcd, data, wal = (shlex.quote(path) for path in (f"{node.paths.bin}/etcd", node.paths.data, node.paths.wal))
    lines = [f"[ -f {etcd} ] && echo binary={etcd} && version {etcd} version"]
    if cluster.systemd:
        lines += [
            "v=$(systemctl --version 2>/dev/null); v=${v#systemd }; echo systemd=${v%%[!0-9]*}",
            f"u=$(systemctl show etcd.service --property={UNIT_PROPERTIES}); printf 'unit %s\\n%s\\n' ${{#u}} \"$u\"",
            "p=${u#*MainPID=}; p=${p%%[!0-9]*}",
            # systemd tells of drop-ins only once there is a unit, and only of those that it has read.
            f'd=; for f in {DROP_INS}; do [ -e "$f" ] && d="$d $f"; done; echo "dropins=${{d# }}"',
        ]
    else:
        lines.append(pid_lines(node))
    lines += [
        f'process "$p" {etcd}',
        f"[ -d {data}/member ] && echo member=1",
        f'for f in {wal}/*.wal {data}/member/wal/*.wal; do [ -e "$f" ] || continue; echo wal=1',
        f'  echo "walhead=$(od -An -v -tx1 -w{wal_head.HEAD} -N {wal_head.HEAD} "$f" 2>/dev/null)"; break; done',
        f'w={wal}; w=${{w%/*}}; [ -d "$w" ] && for f in "$w"/* "$w"/.[!.]*; do [ ! -e "$f" ] || break; done &&',
        '  { [ -e "$f" ] || f=; echo "walparent=$(stat -c %U "$w") ${f##*/}"; }',
        f'[ "$(stat -c %m {wal} 2>/dev/null)" = {wal} ] && echo walmount=1',
        f"spaces {quoted(written_paths(cluster, node))}",
        "listening",
        "true",
    ]
    return lines


def written_paths(cluster: Cluster, node: Node) -> list[str]:
    """Below these everything is written."""
    paths = node.paths
    etc = ["/etc"] if cluster.hosts.manage_etc_hosts else []
    return list(dict.fromkeys([paths.bin, paths.cert, paths.data, paths.wal, paths.unit, *etc]))


def pid_lines(node: Node) -> str:
    """Sets p to the pid of a member that is a plain process, 0 where none lives: the pid file must name our binary."""
    file, etcd = shlex.quote(f"{node.paths.unit}/etcd.pid"), shlex.quote(f"{node.paths.bin}/etcd")
    return f"""p=0; [ ! -f {file} ] || read -r p <{file} || p=0
[ "$(head -zn1 "/proc/$p/cmdline" 2>/dev/null | tr -d '\\0')" = {etcd} ] || p=0
"""


_KINDS = {0o100000: "file", 0o040000: "dir", 0o120000: "link"}


def parse(output: str, resources: Sequence[Resource]) -> Look:
    """Reads the script's output. What it does not mention does not exist."""
    reader = _Reader(output, resources)
    reader.read()
    return reader.look()


class _Reader:
    def __init__(self, output: str, resources: Sequence[Resource]) -> None:
        self._rest = output
        self._resources = resources
        self._entries: dict[str, Entry] = {}
        self._digests: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._facts: dict[str, str] = {}
        self._unit: dict[str, str] = {}
        self._users: set[str] = set()
        self._states: dict[Resource, str] = {}
        self._listening: dict[int, list[tuple[str, str]]] = {}
        self._folders: dict[str, tuple[str, bool]] = {}
        self._filesystems: dict[str, tuple[int, int]] = {}
        self._devices: dict[str, str] = {}
        self._process: Process | None = None

    def read(self) -> None:
        while self._rest:
            line, _, self._rest = self._rest.partition("\n")
            word, _, value = line.partition(" ")
            handler = getattr(self, f"_on_{word}", None)
            if handler is not None:
                handler(value)
            elif "=" in word:
                name, _, content = line.partition("=")
                self._facts[name] = content
            elif len(word) == 64:  # noqa: PLR2004  a digest in hex, as b2sum prints it
                self._digests[value[1:]] = word

    def look(self) -> Look:
        facts = {name: value for name, value in self._facts.items() if value}
        if cluster := wal_head.cluster_id(bytes.fromhex(facts.pop("walhead", ""))):
            facts["cluster"] = cluster
        if "binary" in facts:
            facts["binary"] = self._digests.get(facts["binary"], "")
        process = self._process
        if facts.get("living") == "same":
            facts["living"] = facts.get("version", "")
            process = replace(process, exe=facts.get("binary", "")) if process else None
        entries = {
            path: replace(
                entry,
                digest=self._digests.get(path, ""),
                target=self._links.get(path, ""),
                content=self._texts.get(path),
            )
            for path, entry in self._entries.items()
        }
        return Look(
            entries=entries,
            facts=facts,
            unit=self._unit,
            process=process,
            users=frozenset(self._users),
            states=self._states,
            listening={port: tuple(owners) for port, owners in self._listening.items()},
            space={path: self._under(folder, writable) for path, (folder, writable) in self._folders.items()},
            member="member" in facts,
            wal="wal" in facts,
        )

    def _take(self, size: str) -> str:
        # Sizes are bytes under LC_ALL=C, and the output was decoded: count in bytes.
        raw = self._rest.encode("utf-8", "surrogateescape")
        content = raw[: int(size)].decode("utf-8", "surrogateescape")
        self._rest = raw[int(size) + 1 :].decode("utf-8", "surrogateescape")
        return content

    def _path(self, index: str) -> str:
        resource = self._resources[int(index)]
        return "" if isinstance(resource, _PATHLESS) else resource.path

    def _on_entry(self, value: str) -> None:
        raw, mode, owner, group, mtime, path = value.split(" ", 5)
        kind = _KINDS.get(int(raw, 16) & 0o170000, "other")
        self._entries[path] = Entry(kind=kind, mode=int(mode, 8), owner=owner, group=group, mtime=int(mtime))

    def _on_link(self, value: str) -> None:
        index, _, target = value.partition(" ")
        self._links[self._path(index)] = target

    def _on_text(self, value: str) -> None:
        size, _, path = value.partition(" ")
        self._texts[path] = self._take(size)

    def _on_user(self, value: str) -> None:
        self._users.add(value)

    def _on_state(self, value: str) -> None:
        index, _, state = value.partition(" ")
        self._states[self._resources[int(index)]] = state

    def _on_unit(self, value: str) -> None:
        for line in self._take(value).splitlines():
            name, _, content = line.partition("=")
            self._unit[name] = content

    def _on_process(self, value: str) -> None:
        pid, digest, started, size = value.split()
        argv = self._take(size).split("\n")
        self._process = Process(int(pid), digest, tuple(argv[:-1]), int(started))

    def _on_listen(self, value: str) -> None:
        port, uid, inode = value.split()
        self._listening.setdefault(int(port, 16), []).append((uid, inode))

    def _on_space(self, value: str) -> None:
        writable, _, path = value.partition(" ")
        folder, _, self._rest = self._rest.partition("\n")
        self._folders[path] = folder, writable == "1"

    def _on_filesystem(self, value: str) -> None:
        block, free, total, folder = value.split(" ", 3)
        self._filesystems[folder] = int(block) * int(free), int(block) * int(total)

    def _on_device(self, value: str) -> None:
        device, _, folder = value.partition(" ")
        self._devices[folder] = device

    def _under(self, folder: str, writable: bool) -> Space:  # noqa: FBT001 - as it was read
        free, total = self._filesystems[folder]
        return Space(free, total, self._devices[folder], writable)
