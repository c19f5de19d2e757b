"""What inspect_script's script printed becomes one node's facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from steps.core.base.frames import Answer, Damaged, encoded, unreadable
from steps.core.node import ca_key, wal_header
from steps.core.node.facts import LARGE, Entry, Look, NodeFacts, Process, Space
from steps.core.node.resources import Command, Resource, Service

SAME = "same"  # the living process runs what is installed
_KINDS = {0o100000: "file", 0o040000: "dir", 0o120000: "link"}
_PARTS = {"facts", "digests"}  # each says at its end that it has come to it


def parse(output: str, resources: Sequence[Resource]) -> Look:
    """Return what the script printed. What it does not mention does not exist on the node.

    Raises Damaged where a file changed meanwhile, and where the answer is cut off or is not the script's.
    """
    reader = _Reader(output, resources)
    reader.read()
    return reader.look()


class _Reader:
    def __init__(self, output: str, resources: Sequence[Resource]) -> None:
        self._answer = Answer(output)
        self._resources = resources
        self._entries: dict[str, Entry] = {}
        self._digests: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._links: dict[str, str] = {}
        self._facts: dict[str, str] = {}
        self._unit: dict[str, str] = {}
        self._users: set[str] = set()
        self._states: dict[str, str] = {}
        self._listening: dict[int, list[tuple[str, str]]] = {}
        self._strangers: dict[str, str] = {}
        self._folders: dict[str, tuple[str, bool]] = {}
        self._filesystems: dict[str, tuple[int, int, int | None]] = {}
        self._devices: dict[str, str] = {}
        self._process: Process | None = None
        self._ended: set[str] = set()

    def read(self) -> None:
        while self._answer:
            line = self._answer.line()
            try:
                self._read(line)
            except Damaged:
                raise
            except (LookupError, ValueError) as error:
                raise unreadable(line) from error
        if self._ended != _PARTS:
            raise Damaged("its answer is cut off")

    def _read(self, line: str) -> None:
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
        said = {name: value for name, value in self._facts.items() if value}
        facts = _facts(said, self._digests)
        process = self._process
        if said.get("living") == SAME:
            process = replace(process, exe=facts.binary_digest or "") if process else None
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
            space={path: self._under(*place) for path, place in self._folders.items()},
            strangers=self._strangers,
            member="member" in said,
            wal="wal" in said,
        )

    def _on_end(self, part: str) -> None:
        self._ended.add(part)

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
            self._links[path] = self._answer.line()

    def _on_text(self, value: str) -> None:
        size, _, path = value.partition(" ")
        self._sizes[path] = int(size)

    def _on_texts(self, _value: str) -> None:
        """The files one behind another, as head prints them: what cannot be read is left out."""
        between = b""
        for path, size in self._sizes.items():
            header = between + encoded(f"==> {path} <==\n")
            if not self._answer.starts(header):
                continue
            between = b"\n"
            self._answer.take(len(header))
            text = self._answer.take(min(size, LARGE))
            if size < LARGE:
                self._texts[path] = text
        if not self._answer.starts(b"\n"):
            raise Damaged("a file changed meanwhile")
        self._answer.take(1)

    def _on_user(self, value: str) -> None:
        self._users.add(value)

    def _on_state(self, value: str) -> None:
        index, _, state = value.partition(" ")
        resource = self._resources[int(index)]
        if isinstance(resource, Service | Command):
            self._states[resource.key] = state

    def _on_unit(self, value: str) -> None:
        for line in self._answer.text(int(value)).splitlines():
            name, _, content = line.partition("=")
            self._unit[name] = content

    def _on_process(self, value: str) -> None:
        pid, digest, started, size = value.split()
        argv = self._answer.text(int(size)).split("\n")
        self._process = Process(int(pid), digest, tuple(argv[:-1]), int(started))

    def _on_listen(self, value: str) -> None:
        port, uid, inode = value.split()
        self._listening.setdefault(int(port, 16), []).append((uid, inode))

    def _on_space(self, value: str) -> None:
        writable, _, path = value.partition(" ")
        self._folders[path] = self._answer.line(), writable == "1"

    def _on_stranger(self, value: str) -> None:
        self._strangers[value] = self._answer.line()

    def _on_filesystem(self, value: str) -> None:
        block, free, total, spare, files, folder = value.split(" ", 5)
        inodes = int(spare) if int(files) else None
        self._filesystems[folder] = int(block) * int(free), int(block) * int(total), inodes

    def _on_device(self, value: str) -> None:
        device, _, folder = value.partition(" ")
        self._devices[folder] = device

    def _under(self, folder: str, writable: bool) -> Space:  # noqa: FBT001 - as it was read
        if folder not in self._filesystems or folder not in self._devices:
            raise Damaged(f"its answer does not say how much space is free in {folder}")
        free, total, inodes = self._filesystems[folder]
        return Space(free, total, self._devices[folder], writable, inodes)


def _facts(said: Mapping[str, str], digests: Mapping[str, str]) -> NodeFacts:
    """Return the facts from the script's lines `name=value`; `digests`: by path. Raises Damaged."""
    binary, version, running = said.get("binary"), said.get("version"), said.get("living")
    return NodeFacts(
        cpu=said.get("arch"),
        machine_id=said.get("machine"),
        boot_id=said.get("boot"),
        clock=_number(said, "clock"),
        uid=_number(said, "uid"),
        has_zstd="zstd" in said,
        systemd=_number(said, "systemd"),
        given_variables=tuple(said.get("given", "").split()),
        drop_ins=tuple(said.get("dropins", "").split()),
        binary_digest=digests.get(binary, "") if binary else None,
        installed_version=version,
        running_version=version if running == SAME else running,
        running_as=said.get("user"),
        unit_digest=said.get("digest"),
        environment={name: value for name, value in said.items() if name.startswith("ETCD_")},
        open_database=said.get("database"),
        open_segment=said.get("segment"),
        cluster_id=wal_header.cluster_id(_bytes(said.get("walhead", ""))) or None,
        inner_wal="innerwal" in said,
        odd_segment=said.get("odd"),
        has_ca_key=ca_key.FACT in said,
        wal_is_mount="walmount" in said,
        hosts_is_mount="hostsmount" in said,
        hosts_read_only="hostsfixed" in said,
        accounts_read_only=tuple(said["accounts"].split(", ")) if "accounts" in said else (),
        noexec_directory=said.get("noexec"),
    )


def _number(said: Mapping[str, str], name: str) -> int | None:
    if name not in said:
        return None
    if not said[name].isdecimal():
        raise Damaged(f"{name} is {said[name]!r}, a number was expected")
    return int(said[name])


def _bytes(octets: str) -> bytes:
    """Return the bytes that od printed in hex. Raises Damaged."""
    try:
        return bytes.fromhex(octets)
    except ValueError as error:
        raise unreadable(octets) from error
