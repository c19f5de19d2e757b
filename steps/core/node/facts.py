"""What was seen on a node, as data: what look_script's script found there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from steps.core.base.architectures import go_name


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
class NodeFacts:
    """What the look found out about a node besides files, units and ports. Unknown is None."""

    # the machine
    cpu: str | None = None  # as uname -m prints it; Look.arch has the name that releases use
    machine_id: str | None = None  # /etc/machine-id: cloned machines share it
    boot_id: str | None = None  # another one after each boot
    clock: int | None = None  # Unix seconds
    uid: int | None = None  # of the user that looked: 0 is root
    has_zstd: bool = False  # zstd is installed, and unpacks what is uploaded
    systemd: int | None = None  # its version; None where it does not run
    given_variables: tuple[str, ...] = ()  # names of ETCD_… variables that systemd gives to every service
    drop_ins: tuple[str, ...] = ()  # files that override etcd.service

    # etcd as it is installed
    binary_digest: str | None = None  # "" where it cannot be read; None where no etcd is installed
    installed_version: str | None = None  # what the installed etcd says of itself

    # the running etcd
    running_version: str | None = None
    running_as: str | None = None  # user name
    unit_digest: str | None = None  # of the unit that started it, from its environment
    # These three only where its command line does not say where its data is:
    environment: Mapping[str, str] = field(default_factory=dict)  # its ETCD_… variables about data, name and URLs
    open_database: str | None = None  # path of the database that it has open
    open_segment: str | None = None  # path of the segment of the WAL that it has open

    # data
    cluster_id: str | None = None  # in the head of the WAL, in hex
    inner_wal: bool = False  # there is a WAL inside the data directory
    odd_segment: str | None = None  # path of a segment of the WAL that is no plain file
    has_ca_key: bool = False  # a copy of the CA's key lies next to the certificates

    # what cannot be replaced, written to or run
    wal_is_mount: bool = False  # the WAL's directory is a mount point
    hosts_is_mount: bool = False  # /etc/hosts is a mount point
    hosts_read_only: bool = False
    accounts_read_only: tuple[str, ...] = ()  # those of /etc/passwd, group, shadow, gshadow that cannot be written to
    noexec_directory: str | None = None  # the binaries go into or below this directory, and nothing there may be run


@dataclass(frozen=True)
class Look:
    """One node, as it was when looked at.

    `entries`: by path; under systemd also of each directory above one.

    `states`: by a resource's key: a Service's "enabled active", a Command's "done". `unit`: systemd's properties of
    etcd.service. `listening`: TCP ports → uid, socket inode. `space`: by path. `strangers`: directory of ours → one
    name in it that is not ours. `member`: a member's data is in the data directory, `wal`: in the WAL's. `skew`: whole
    seconds by which the node's clock is ahead of the controller's, beyond what the time that the look took explains.
    """

    entries: Mapping[str, Entry]
    facts: NodeFacts
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
        cpu = self.facts.cpu
        return "unknown" if cpu is None else go_name(cpu)


LARGE = 1 << 16  # bytes: a text of that size or more is not read
UNIT_DIGEST = "UNIT_DIGEST"  # in the environment of a process: which unit started it
