"""One script per node that reads everything a run may want to know. What it prints, `look.parse` reads.

The script changes nothing. It needs POSIX sh, coreutils and grep only.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from steps.core.base.digest import COMMAND
from steps.core.base.shell import quoted
from steps.core.config.model import Cluster, Node
from steps.core.node import ca_key, wal_header
from steps.core.node.guard import ENTER, PLAIN, SAFE
from steps.core.node.paths import HOSTS, unit_file, wal_parent
from steps.core.node.resources import PATHLESS, Blob, Block, Command, Directory, File, Resource, Service, Symlink, User

UNIT_PROPERTIES = (
    "LoadState,ActiveState,SubState,Result,MainPID,UnitFileState,FragmentPath,DropInPaths,EnvironmentFiles,"
    "Environment,NeedDaemonReload,NRestarts,ExecStart,InvocationID"
)

ENTRY = "'entry %f %a %Y %U\t%G\t%n'"  # a name may have a blank in it
DROP_INS = " ".join(f"{home}/systemd/system/etcd.service.d/*.conf" for home in ("/etc", "/run", "/usr/lib"))

# A program that is started costs the node two milliseconds, and so does each kilobyte that the shell itself reads.
_FUNCTIONS = r"""
texts() { stat -Lc 'text %s %n' -- "$@"; echo texts; head -v -c 65536 -- "$@"; echo; } 2>/dev/null
links() { printf 'link %s\n' "$@"; echo links; readlink -- "$@"; }
spaces() { n=$#; for p in "$@"; do d=$p; until [ -d "$d" ]; do d=${d%/*}; [ -n "$d" ] || d=/; done
  w=1; [ -w "$d" ] || w=0; printf 'space %s %s\n%s\n' "$w" "$p" "$d"; set -- "$@" "$d"; done; shift "$n"
  stat -f -c 'filesystem %S %a %b %d %c %n' -- "$@"; stat -c 'device %d %n' -- "$@"; }
listening() { grep -hs '^ *[0-9]*: [^ ]* [^ ]* 0A ' /proc/net/tcp /proc/net/tcp6 |
  while read -r _ l _ _ _ _ _ u _ i _; do echo "listen ${l##*:} $u $i"; done; }
version() { safe "$1" || return 0; v=$(plain "$B" --version 2>/dev/null)
  v=${v#etcd Version: }; echo "version=${v%%[!0-9.]*}"; }
# What a process is, it may have chosen itself: that is never run, and no more than what etcd could be is read of it.
process() { # pid installed-binary
  [ "${1:-0}" -gt 0 ] && [ -r "/proc/$1/cmdline" ] && [ -e "/proc/$1/exe" ] || return 0
  if [ "/proc/$1/exe" -ef "$2" ]; then x=same; echo living=same
  else x=$(head -c 268435456 <"/proc/$1/exe" | digest); x=${x%% *}; fi
  while read -r s; do set -- "$1" ${s##*) }; done <"/proc/$1/stat"; t=${21:-0} # a name may have a newline in it
  b=$(grep -m1 ^btime /proc/stat); b=${b#btime }
  a=$(head -c 65536 <"/proc/$1/cmdline" | tr '\0' '\n'; echo .); a=${a%.}
  e=$(head -c 65536 "/proc/$1/environ" 2>/dev/null | tr '\0' '\n')
  case $a in *--data-dir=/*) ;; *) # not ours: its environment, and what it has open, say where its data is
    printf '%s\n' "$e" | grep -E '^ETCD_(NAME|DATA_DIR|WAL_DIR|CONFIG_FILE|[A-Z_]*_URLS)='
    readlink "/proc/$1/fd/"* 2>/dev/null | { d=; w=; while read -r f; do
      case $f in */member/snap/db) d=$f;; *.wal) w=$f;; esac; done; echo "database=$d"; echo "segment=$w"; };;
  esac
  while read -r k v _; do [ "$k" != Uid: ] || break; done <"/proc/$1/status"; echo "user=$(id -un "$v" 2>/dev/null)"
  case $e in *UNIT_DIGEST=*) e=${e#*UNIT_DIGEST=}; echo "digest=${e%%[!0-9a-f]*}";; esac
  # USER_HZ is 100 on every architecture that etcd runs on
  printf 'process %s %s %s %s\n%s\n' "$1" "$x" "$((b + t / 100))" "${#a}" "$a"
}
# Below a directory of etcd's: nothing but a plain file is opened, and a name with a newline cannot end its line.
shown() { case $1 in *"
"*) printf %s "$1" | tr '\n' '?';; *) printf %s "$1";; esac; }
head_of() { dd if="$1" iflag=nofollow,nonblock bs=HEAD count=1 2>/dev/null | od -An -v -tx1 -wHEAD; }
segments() ( # directory fact
  enter "$1" 2>/dev/null || return 0
  for f in ./*.wal; do [ -e "$f" ] || [ -L "$f" ] || continue; echo "$2=1"
  if [ -f "$f" ] && [ ! -L "$f" ]; then echo "walhead=$(head_of "$f")"; break; fi
  echo "odd=$1/$(shown "${f#./}")"; done )
""".replace("HEAD", str(wal_header.HEAD))
_AS_OURSELVES = """
enter() { cd -- "$1"; }
safe() { B=$1; }
"""  # a member that is a plain process has no more rights, and no less, than whoever looks


def look_script(cluster: Cluster, node: Node, resources: Sequence[Resource]) -> str:
    """The script; `parse` with the same resources reads what it prints."""
    way = [*ancestors(node), *_above(unit_file(cluster, node))] if cluster.systemd else ()
    paths = dict.fromkeys([*(each.path for each in resources if not isinstance(each, PATHLESS)), *way])
    guards = [ENTER, SAFE] if cluster.systemd else [_AS_OURSELVES]
    functions = [*guards, PLAIN, f'digest() {{ {COMMAND} "$@"; }}', _FUNCTIONS, "set +e"]
    lines = [
        'echo "arch=$(uname -m)"',
        'U=$(id -u); echo "clock=$(date +%s)"; echo "uid=$U"',
        "command -v zstd >/dev/null && echo zstd=1",
    ]
    lines += ["read -r v </etc/machine-id; echo machine=$v", "read -r v </proc/sys/kernel/random/boot_id; echo boot=$v"]
    if paths:
        lines.append(f"stat -c {ENTRY} -- {quoted([*paths])} 2>/dev/null")
    # What a link in a directory's place leads to is that directory.
    directories = dict.fromkeys(resource.path for resource in resources if isinstance(resource, Directory))
    lines += _those(directories, f'stat -Lc {ENTRY} -- "$@" 2>/dev/null', kind="-L")
    files = dict.fromkeys([f"{node.paths.bin}/etcd", *(r.path for r in resources if isinstance(r, File))])
    digests = _those(files, 'digest -- "$@" 2>/dev/null')
    texts = dict.fromkeys(r.path for r in resources if isinstance(r, Block) or (isinstance(r, File) and _readable(r)))
    lines += _those(texts, 'texts "$@"')
    links = dict.fromkeys(resource.path for resource in resources if isinstance(resource, Symlink))
    lines += _those(links, 'links "$@"', kind="-L")
    for index, resource in enumerate(resources):
        if isinstance(resource, User):
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
    lines += [*_member(cluster, node), "echo end facts"]
    # Half of the time goes into the digests: all else is seen meanwhile.
    beside = ["} | {", "d=$(", *digests, ")", 'cat; printf "%s\\n" "$d"; echo end digests', "}"]
    return "\n".join([*functions, "{", *lines, *beside]) + "\n"


def _those(paths: Iterable[str], command: str, kind: str = "-f") -> list[str]:
    """`command`, on those paths that are files: a pipe or a device in a file's place would never end."""
    return [
        f'set --; for f in {quoted([*paths])}; do [ ! {kind} "$f" ] || set -- "$@" "$f"; done',
        f"[ $# = 0 ] || {command}",
    ]


def _readable(resource: File) -> bool:
    return not resource.secret and not isinstance(resource.content, Blob)


def _member(cluster: Cluster, node: Node) -> list[str]:
    """What is there of etcd itself: binary, unit, process, data, ports, space."""
    etcd, data, wal = (shlex.quote(path) for path in (f"{node.paths.bin}/etcd", node.paths.data, node.paths.wal))
    lines = [f"[ -f {etcd} ] && echo binary={etcd} && version {etcd}"]
    if cluster.systemd:
        lines += [
            "m=$(systemctl show --property=Version,Environment 2>/dev/null); v=${m#*Version=}",
            "echo systemd=${v%%[!0-9]*}; e=; for w in ${m#*Environment=}; do",
            '  case $w in ETCD_*=*) e="$e ${w%%=*}";; esac; done; echo "given=${e# }"',
            f"u=$(systemctl show etcd.service --property={UNIT_PROPERTIES}); printf 'unit %s\\n%s\\n' ${{#u}} \"$u\"",
            "p=${u#*MainPID=}; p=${p%%[!0-9]*}",
            # Until systemd's child has become etcd it is called "(etcd)", and has systemd's user and words.
            "case $u in *ActiveState=activating*) n=; read -r n 2>/dev/null </proc/$p/comm",
            '  case $n in "("*) p=0;; esac;; esac',
            # systemd tells of drop-ins only once there is a unit, and only of those that it has read.
            f'd=; for f in {DROP_INS}; do [ -e "$f" ] && d="$d $f"; done; echo "dropins=${{d# }}"',
        ]
    else:
        lines.append(pid_lines(node))
    lines += [
        f'process "$p" {etcd}',
        ca_key.seen_script(node),
        f"[ -d {data}/member ] && echo member=1",
        # A member that was made by hand may have its WAL inside its data: for a unit of ours that is no WAL.
        f"segments {data}/member/wal innerwal; segments {wal} wal",  # the last one's head counts
        f"for d in {quoted(sorted({wal_parent(node), node.paths.data, node.paths.wal, node.paths.cert}))}; do",
        '  ( enter "$d" 2>/dev/null || exit 0; for f in * .[!.]*; do [ ! -e "./$f" ] || case $d/$f in',
        f"  {'|'.join(map(shlex.quote, sorted(_ours(cluster, node))))}|*/lost+found|*/.etcd-steps.*) ;;",
        '  *) printf \'stranger %s\\n%s\\n\' "$d" "$(shown "$f")"; break;; esac; done ); done',
        f'[ "$(stat -c %m {wal} 2>/dev/null)" = {wal} ] && echo walmount=1',
        *_ground(cluster, node),
        f"spaces {quoted(written_paths(cluster, node))}",
        "listening",
    ]
    return lines


def _ground(cluster: Cluster, node: Node) -> list[str]:
    """What cannot be replaced, written to or run."""
    lines = []
    if cluster.hosts.manage_etc_hosts:
        # Of a file's own mount stat's %m knows nothing, where it comes from a tmpfs.
        lines.append(f"grep -qs ' {HOSTS} ' /proc/self/mountinfo && echo hostsmount=1")
        lines.append(f"[ ! -e {HOSTS} ] || [ -w {HOSTS} ] || echo hostsfixed=1")
    if cluster.systemd:
        lines += [
            "f=; for d in /etc/passwd /etc/group /etc/shadow /etc/gshadow; do",
            '  [ ! -e $d ] || [ -w $d ] || f="$f, $d"; done; echo "accounts=${f#, }"',
        ]
    etcd = shlex.quote(f"{node.paths.bin}/etcd")
    # Where etcd is there and may be run, no program is asked: so the kernel answers for a file on a noexec mount.
    lines += [
        f"[ -f {etcd} ] && [ -x {etcd} ] || {{ d={shlex.quote(node.paths.bin)}",
        '  until [ -d "$d" ]; do d=${d%/*}; [ -n "$d" ] || d=/; done',
        '  case ,$(findmnt -nro OPTIONS -T "$d" 2>/dev/null | tail -n 1), in *,noexec,*) echo "noexec=$d";; esac; }',
    ]
    return lines


def ancestors(node: Node) -> list[str]:
    """The directories that etcd goes through to reach what is its own, and the binary's; the root first."""
    paths = node.paths
    return sorted({each for path in (paths.cert, paths.data, paths.wal, f"{paths.bin}/etcd") for each in _above(path)})


def _above(path: str) -> list[str]:
    return [str(each) for each in PurePosixPath(path).parents]


def _ours(cluster: Cluster, node: Node) -> set[str]:
    """What may lie in a directory of ours before there is a member: our other directories, and what leads to them."""
    paths = [PurePosixPath(path) for path in (*written_paths(cluster, node), f"{node.paths.data}/member")]
    return {str(each) for path in paths for each in (path, *path.parents)}


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
