"""What was seen on a node, as data: what look_script's script found there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from steps.core.etcd import wal as wal_head
from steps.core.resources import Resource


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

    `states`: a Service's "enabled active", a Command's "done". `unit`: systemd's properties of etcd.service.
    `listening`: TCP ports → uid, socket inode. `space`: by path. `strangers`: directory of ours → one name in it that
    is not ours. `member`: a member's data is in the data directory, `wal`: in the WAL's. `skew`: whole seconds by which
    the node's clock is ahead of the controller's, beyond what the time that the look took explains.
    """

    entries: Mapping[str, Entry]
    facts: Mapping[str, str]
    unit: Mapping[str, str] = field(default_factory=dict)
    process: Process | None = None
    users: frozenset[str] = frozenset()
    states: Mapping[Resource, str] = field(default_factory=dict)
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

_KINDS = {0o100000: "file", 0o040000: "dir", 0o120000: "link"}


def parse(output: str, resources: Sequence[Resource]) -> Look:
    """Reads the script's output. What it does not mention does not exist. Raises ValueError where a file changed."""
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
        self._sizes: dict[str, int] = {}
        self._links: dict[str, str] = {}
        self._facts: dict[str, str] = {}
        self._unit: dict[str, str] = {}
        self._users: set[str] = set()
        self._states: dict[Resource, str] = {}
        self._listening: dict[int, list[tuple[str, str]]] = {}
        self._strangers: dict[str, str] = {}
        self._folders: dict[str, tuple[str, bool]] = {}
        self._filesystems: dict[str, tuple[int, int, int | None]] = {}
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
            strangers=self._strangers,
            member="member" in facts,
            wal="wal" in facts,
        )

    def _take(self, size: str) -> str:
        # Sizes are bytes under LC_ALL=C, and the output was decoded: count in bytes.
        raw = self._rest.encode("utf-8", "surrogateescape")
        content = raw[: int(size)].decode("utf-8", "surrogateescape")
        self._rest = raw[int(size) + 1 :].decode("utf-8", "surrogateescape")
        return content

    def _on_entry(self, value: str) -> None:
        raw, mode, mtime, names = value.split(" ", 3)
        owner, group, path = names.split("\t", 2)
        kind = _KINDS.get(int(raw, 16) & 0o170000, "other")
        before = self._entries.get(path)
        through = before.owner if before is not None and before.kind == "link" else ""
        self._entries[path] = Entry(
            kind=kind, mode=int(mode, 8), owner=owner, group=group, mtime=int(mtime), through=through
        )

    def _on_link(self, value: str) -> None:
        self._links[value] = ""

    def _on_links(self, _value: str) -> None:
        for path in self._links:
            self._links[path], _, self._rest = self._rest.partition("\n")

    def _on_text(self, value: str) -> None:
        size, _, path = value.partition(" ")
        self._sizes[path] = int(size)

    def _on_texts(self, _value: str) -> None:
        """The files one behind another, as head prints them: what cannot be read is left out."""
        raw, between = self._rest.encode("utf-8", "surrogateescape"), b""
        for path, size in self._sizes.items():
            header = between + f"==> {path} <==\n".encode("utf-8", "surrogateescape")
            if not raw.startswith(header):
                continue
            start, between = len(header), b"\n"
            end = start + min(size, LARGE)
            if size < LARGE:
                self._texts[path] = raw[start:end].decode("utf-8", "surrogateescape")
            raw = raw[end:]
        if not raw.startswith(b"\n"):
            raise ValueError("a file changed meanwhile")
        self._rest = raw[1:].decode("utf-8", "surrogateescape")

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

    def _on_stranger(self, value: str) -> None:
        self._strangers[value], _, self._rest = self._rest.partition("\n")

    def _on_filesystem(self, value: str) -> None:
        block, free, total, spare, files, folder = value.split(" ", 5)
        inodes = int(spare) if int(files) else None
        self._filesystems[folder] = int(block) * int(free), int(block) * int(total), inodes

    def _on_device(self, value: str) -> None:
        device, _, folder = value.partition(" ")
        self._devices[folder] = device

    def _under(self, folder: str, writable: bool) -> Space:  # noqa: FBT001 - as it was read
        free, total, inodes = self._filesystems[folder]
        return Space(free, total, self._devices[folder], writable, inodes)
