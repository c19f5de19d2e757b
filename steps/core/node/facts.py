"""What was seen on a node, as data: what look_script's script found there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """What lies at a path. `kind`: file, dir, link or other; `content`: of small texts; `mtime` in Unix seconds.

    `through`: the owner of the link that stands at the path and leads to this directory; "" where there is none.
    """

    kind: str
    mode: int = 0
    owner: str = ""
    group: str = ""
    digest: str = ""
    target: str = ""
    content: str | None = None
    mtime: int = 0
    through: str = ""

    @property
    def linked(self) -> bool:
        """It is a directory behind a link."""
        return self.through != ""


@dataclass(frozen=True)
class Process:
    """The living etcd. `exe` is the digest of what it runs, `argv` its command line, `started` in Unix seconds."""

    pid: int
    exe: str
    argv: tuple[str, ...]
    started: int


@dataclass(frozen=True)
class Space:
    """The filesystem under a path, or under the nearest directory above it. Bytes; `device` tells one from another.

    `inodes`: how many more files it takes; None where it sets no such limit.
    """

    free: int
    total: int
    device: str
    writable: bool
    inodes: int | None = None


@dataclass(frozen=True)
class Look:
    """One node, as it was when looked at.

    `entries`: by path; under systemd also of each directory above one.

    `facts`: arch, systemd (version number), machine, boot, clock (Unix seconds), version (of the installed etcd),
    living (version of the running etcd), cluster (the ID in the WAL's head), uid (of whoever looks), given (variables
    ETCD_* that systemd gives to every service), walmount and hostsmount (the WAL's directory, /etc/hosts is a mount
    point), hostsfixed (/etc/hosts cannot be written to), accounts (files of users that cannot), noexec (a directory
    from which nothing may be run), odd (a segment of the WAL that is no plain file), dropins (files that override the
    unit), digest (of the unit that started the living process), user (as whom the living process runs), innerwal (a WAL
    lies inside the data directory). Where the command line of the living process does not say where its data is: its
    ETCD_… variables about data, name and URLs, database and segment (the files that it has open).

    `states`: by a resource's key: a Service's "enabled active", a Command's "done". `unit`: systemd's properties of
    etcd.service. `listening`: TCP ports → uid, socket inode. `space`: by path. `strangers`: directory of ours → one
    name in it that is not ours. `member`: a member's data is in the data directory, `wal`: in the WAL's. `skew`: whole
    seconds by which the node's clock is ahead of the controller's, beyond what the time that the look took explains.
    """

    entries: Mapping[str, Entry]
    facts: Mapping[str, str]
    unit: Mapping[str, str] = field(default_factory=dict)
    process: Process | None = None
    users: frozenset[str] = frozenset()
    states: Mapping[str, str] = field(default_factory=dict)
    listening: Mapping[int, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    space: Mapping[str, Space] = field(default_factory=dict)
    strangers: Mapping[str, str] = field(default_factory=dict)
    member: bool = False
    wal: bool = False
    skew: int = 0

    @property
    def pid(self) -> int:
        """The living etcd's; 0 where none runs, as in service.State."""
        return self.process.pid if self.process else 0

    @property
    def arch(self) -> str:
        """As releases call it: amd64, arm64 …; what uname says where etcd has no name for it."""
        return ARCHITECTURES.get(self.facts.get("arch", ""), self.facts.get("arch", "unknown"))


LARGE = 1 << 16  # bytes: a text of that size or more is not read
UNIT_DIGEST = "UNIT_DIGEST"  # in the environment of a process: which unit started it

ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
