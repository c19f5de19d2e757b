"""The etcd processes that live on a node, whoever started them: known by their open files, and by nothing that runs.

A member may serve under another unit's name, with its settings in an environment file or a configuration file. What it
has open says where its data is, and its sockets say whether it is the one at this node's ports.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from steps.core.base.frames import frames, number, printable
from steps.core.base.shell import quoted
from steps.core.config.model import Cluster, Node
from steps.core.etcd.client import COMMAND_TIMEOUT, asking
from steps.core.node.facts import UNIT_DIGEST, Look
from steps.core.node.paths import unit_file

_OPTIONS = ("name", "data-dir", "wal-dir", "listen-client-urls", "cert-file", "key-file", "trusted-ca-file")
_DATABASE = "/member/snap/db"


@dataclass(frozen=True)
class Instance:
    """A living etcd. `unit`: systemd's, "" where it is in none; `data`, `wal`: directories, "" where unknown.

    `options`: those of _OPTIONS that its command line or its environment gives. `sockets`: inodes.
    """

    pid: int
    unit: str = ""
    exe: str = ""
    data: str = ""
    wal: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    sockets: frozenset[str] = frozenset()

    @property
    def called(self) -> str:
        return f"{self.unit} (pid {self.pid}, {self.exe})" if self.unit else f"pid {self.pid} ({self.exe}), in no unit"

    @property
    def described(self) -> str:
        name = self.options.get("name", "")
        parts = (f"member {name}" if name else "", f"data {self.data or 'unknown'}", f"WAL {self.wal or 'unknown'}")
        return f"{self.called}: {', '.join(filter(None, parts))}"


def script() -> str:
    """Prints each living etcd in a frame of its own, sized: what a process calls itself could look like another."""
    names = "|".join(f"ETCD_{name.upper().replace('-', '_')}=*" for name in _OPTIONS)
    return f"""
for f in /proc/[0-9]*/comm; do n=; read -r n <"$f" || continue
case $n in etcdctl*|etcdutl*) continue;; etcd*) ;; *) continue;; esac
p=${{f%/comm}}; o=$(
  echo "exe $(readlink "$p/exe")"
  while read -r l; do echo "group $l"; done <"$p/cgroup"
  ls -l "$p/fd" | while read -r l; do case $l in
    *" -> /"*{_DATABASE}|*" -> /"*.wal|*" -> socket:["*) echo "open ${{l#* -> }}";; esac; done
  tr '\\0\\n' '\\n ' <"$p/cmdline" | while IFS= read -r l; do echo "word $l"; done
  tr '\\0\\n' '\\n ' <"$p/environ" | while IFS= read -r l; do case $l in {names}) echo "env $l";; esac; done
  echo .); printf 'etcd %s %s\\n%s\\n' "${{p#/proc/}}" "${{#o}}" "$o"
done 2>/dev/null
true
"""


def parse(output: str) -> list[Instance]:
    """Return what `script` found. Raises Damaged."""
    found = []
    for (pid,), body in frames(output, "etcd", words=1):
        facts = [line.partition(" ")[::2] for line in printable(body).splitlines()]
        found.append(_instance(number(pid), facts))
    return found


def _instance(pid: int, facts: Sequence[tuple[str, str]]) -> Instance:
    def values(wanted: str) -> list[str]:
        return [value for name, value in facts if name == wanted]

    opened = values("open")
    options = dict(_options(values("word"), values("env")))
    # Where systemd hides the host's directories from a service, its files are still named as the host names them.
    data = next((path.removesuffix(_DATABASE) for path in opened if path.endswith(_DATABASE)), "")
    data = data or options.get("data-dir", "")
    wal = next((path.rpartition("/")[0] for path in opened if path.endswith(".wal")), "")
    return Instance(
        pid,
        unit=_unit(values("group")),
        exe=next(iter(values("exe")), "").removesuffix(" (deleted)"),
        data=data,
        wal=wal or options.get("wal-dir", "") or (f"{data}/member/wal" if data else ""),
        options=options,
        sockets=frozenset(path[8:-1] for path in opened if path.startswith("socket:[")),
    )


def _options(words: Sequence[str], environment: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The environment's first: the command line overrides it."""
    for line in environment:
        name, _, value = line.removeprefix("ETCD_").partition("=")
        yield name.lower().replace("_", "-"), value
    for at, word in enumerate(words):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name in _OPTIONS:
            yield name, value if equals else "".join(words[at + 1 : at + 2])


def _unit(groups: Sequence[str]) -> str:
    """The service in the path of the process's control group; a login session is none."""
    for group in groups:
        for part in reversed(group.rpartition(":")[2].split("/")):
            if part.endswith(".service") and not part.startswith("user@"):
                return part
            if part.endswith(".scope") and not part.startswith(("session-", "init.")):
                return part
    return ""


def end(instances: Sequence[Instance], pid: int) -> str:
    """Return the command on the node that ends a process in order: its unit would start it again."""
    unit = next((each.unit for each in instances if each.pid == pid), "")
    return f"systemctl stop {unit}" if unit else f"kill {pid}"


def ours(cluster: Cluster, node: Node, look: Look) -> bool:
    """Return whether the unit on the node is one that this tool wrote, and the one that systemd uses."""
    entry = look.entries.get(unit_file(cluster, node))
    if entry is None or (entry.content is not None and cluster.systemd and f"{UNIT_DIGEST}=" not in entry.content):
        return False
    used = look.unit.get("FragmentPath", "")
    return not used or used == unit_file(cluster, node)


def foreign(cluster: Cluster, node: Node, look: Look, instances: Sequence[Instance]) -> Instance | None:
    """Return the etcd that listens on the node's ports and is not the one of this tool's own unit, if there is one."""
    wanted = {inode for port in (node.client_port, node.peer_port) for _, inode in look.listening.get(port, ())}
    for instance in instances:
        mine = instance.pid == look.pid and ours(cluster, node, look)
        if wanted & instance.sockets and not mine:
            return instance
    return None


def ask_script(instance: Instance) -> str:
    """Ask a foreign member for its health and its member list, with the certificates that it uses itself.

    Its etcdctl is run only where root alone may have written it; where there is none, nothing is asked.
    """
    url = instance.options.get("listen-client-urls", "").split(",")[0]
    if not instance.exe.startswith("/") or not url.startswith(("http://", "https://")):
        return "true\n"
    etcdctl = str(PurePosixPath(instance.exe).with_name("etcdctl"))
    above = [str(path) for path in (PurePosixPath(etcdctl), *PurePosixPath(etcdctl).parents)]
    words = [etcdctl, "--dial-timeout=3s", f"--command-timeout={COMMAND_TIMEOUT}s"]
    for option, flag in (("trusted-ca-file", "cacert"), ("cert-file", "cert"), ("key-file", "key")):
        if value := instance.options.get(option):
            words.append(f"--{flag}={value}")
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    own = f"stat -Lc '%u %a' -- {quoted(above)}"
    return f"""
[ -x {shlex.quote(etcdctl)} ] || exit 0
for s in $({own} | tr ' ' :); do case $s in 0:*[2367]|0:*[2367][0-7]) exit 0;; 0:*) ;; *) exit 0;; esac; done
{asking(words, url)}"""
