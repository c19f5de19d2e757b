"""Whether a host is the one that is known: the files that say so, and what happens with a key that none of them has."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable
from pathlib import Path

import paramiko

from steps.core.base.work_directory import claim
from steps.core.config.model import Cluster
from steps.core.transport.known_hosts import KnownHosts, encoded, fingerprint, read

USERS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
SYSTEMS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


class HostKeyError(Exception):
    """The offered key is not the host's, or is not known under strict. `hint`: what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class HostKeys:
    """What the user's, the system's, the configured and, under accept-new, the cluster's own known_hosts say.

    New keys are written to the cluster's own file and to no other. Safe for threads.
    """

    def __init__(self, cluster: Cluster, *, keep: bool, new: Callable[[str], None]) -> None:
        """`keep`: a key that is met for the first time is written. `new`: hears of each, in words for the user."""
        self._strict = cluster.ssh.host_keys == "strict"
        self._configured = cluster.ssh.known_hosts
        self._work = cluster.work
        self._keep, self._new = keep, new
        self._lock = threading.Lock()
        self._known: KnownHosts | None = None
        self._met: dict[str, tuple[str, bytes]] = {}  # name → type and key that this run accepted

    def kinds(self, name: str) -> list[str]:
        """Return the types of the keys that are known of `name`. Raises HostKeyError and known_hosts.BadLine."""
        return self._files().kinds(name)

    def verify(self, label: str, name: str, kind: str, key: bytes) -> None:
        """Raise HostKeyError where `key` is not that of `name`, which is the host's name in known_hosts.

        `label`: the host in words for people.
        """
        shown = fingerprint(kind, key)
        verdict = self._files().check(name, kind, key)
        if (line := verdict.against) is not None and line.marker:
            message = f"the host key of {name} is revoked: {shown} ({line.file}, line {line.line})"
            raise HostKeyError(message, "stop here: another machine may have this key")
        if line is not None:
            message = f"the host key of {name} has changed: known {fingerprint(line.kind, line.key)}, offered {shown}"
            remove = shlex.join(["ssh-keygen", "-R", name, "-f", str(line.file)])
            hint = f"if the host was reinstalled, remove its line: {remove}; otherwise stop here"
            raise HostKeyError(f"{message} ({line.file}, line {line.line})", hint)
        if verdict.known:
            return
        if self._strict:
            add = f"echo {shlex.quote(_line(name, kind, key))} >> {shlex.quote(str(self._users_file))}"
            raise HostKeyError(
                f"host key of {name} is unknown: {shown}", f"compare it on the host's console, then: {add}"
            )
        self._accept(label, name, kind, key)

    def _accept(self, label: str, name: str, kind: str, key: bytes) -> None:
        with self._lock:
            if name in self._met:
                before = self._met[name]
                if before == (kind, key):
                    return
                message = f"the host key of {name} has changed: known {fingerprint(*before)}, offered"
                hint = "two hosts answer at one address: stop here"
                raise HostKeyError(f"{message} {fingerprint(kind, key)} (both in this run)", hint)
            self._met[name] = (kind, key)
            if self._keep:
                claim(self._work)
                with open(self._work / "known_hosts", "a", opener=_private, encoding="ascii") as stream:
                    stream.write(f"{_line(name, kind, key)}\n")
        shown = fingerprint(kind, key).removeprefix(f"{kind} ")
        self._new(f"{label}: new host key {shown} ({kind})")

    def _files(self) -> KnownHosts:
        with self._lock:
            if self._known is None:
                ours = [] if self._strict else [self._work / "known_hosts"]
                if self._configured:
                    ours.append(Path(self._configured).expanduser())
                theirs = [Path(file).expanduser() for file in (*USERS, *SYSTEMS)]
                try:
                    self._known = read(ours, lenient=[file for file in theirs if file not in ours])
                except OSError as error:
                    message = f"{error.filename} cannot be read: {error.strerror}"
                    raise HostKeyError(message, "it says which hosts are known: make it readable") from error
            return self._known

    @property
    def _users_file(self) -> Path:
        return Path(self._configured or USERS[0]).expanduser()


class Policy(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko is untyped
    """Asked of every key: nothing is loaded into paramiko, which would keep the first of two lines and no marker."""

    def __init__(self, keys: HostKeys, label: str, name: str) -> None:
        self._keys, self._label, self._name = keys, label, name

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        del client, hostname
        self._keys.verify(self._label, self._name, key.get_name(), key.asbytes())


def name_of(host: str, port: int) -> str:
    """Return a host's name as known_hosts has it."""
    return host if port == paramiko.config.SSH_PORT else f"[{host}]:{port}"


def _line(name: str, kind: str, key: bytes) -> str:
    return f"{name} {kind} {encoded(key)}"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
