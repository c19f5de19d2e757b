"""Connections to nodes: Fabric's, with every host key on every hop verified by us."""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
from fabric import Config, Connection
from paramiko.ssh_exception import NoValidConnectionsError

from steps.core import session
from steps.core.errors import NodeFailed, Refused
from steps.core.model import Cluster, Node

_WINDOW = 1 << 22


class ConnectionRefused(Refused):
    """A node cannot be reached or logged in to; nothing was changed."""


def fingerprint(key: paramiko.PKey) -> str:
    """As OpenSSH prints it: SHA256:… without padding."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


class _UnknownKey(Exception):
    """A strict policy met a host key that it does not know."""


class _AcceptNew(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko is untyped
    """Writes a first-seen key into the cluster's own known_hosts; a changed one never reaches a policy."""

    def __init__(self, file: Path, lock: threading.Lock) -> None:
        self._file, self._lock = file, lock

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        del client
        with self._lock:
            known = paramiko.HostKeys()
            if self._file.exists():
                known.load(str(self._file))
            if known.check(hostname, key):
                return
            if hostname in known:
                # A sibling hop of this very run saw another key for the same name.
                other = next(iter(known[hostname].values()))
                raise paramiko.BadHostKeyException(hostname, key, other)
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self._file, "a", opener=_private) as stream:
                stream.write(f"{hostname} {key.get_name()} {key.get_base64()}\n")


class _Strict(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # see above
    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        del client
        raise _UnknownKey(f"host key of {hostname} is unknown: {fingerprint(key)}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _ChannelPipe:
    """session.Pipe over an SSH channel."""

    def __init__(self, connection: Connection, command: str) -> None:
        self._channel = connection.transport.open_session(window_size=_WINDOW, timeout=connection.connect_timeout)
        self._channel.set_combine_stderr(True)
        self._channel.exec_command(command)

    def send(self, data: bytes) -> None:
        self._channel.settimeout(session.STALL)
        self._channel.sendall(data)

    def recv(self, timeout: float) -> bytes:
        self._channel.settimeout(max(timeout, 0.001))
        return bytes(self._channel.recv(1 << 16))

    def close(self) -> None:
        self._channel.close()


class Ssh:
    """Opens shells on nodes and TCP channels through them; one connection per node, kept until close()."""

    def __init__(self, cluster: Cluster, *, sudo_password: str | None = None) -> None:
        self._cluster = cluster
        self._password = sudo_password
        self._keys = threading.Lock()
        self._opening: dict[str, threading.Lock] = {node.name: threading.Lock() for node in cluster.nodes}
        self._connections: dict[str, Connection] = {}
        self._jump: Connection | None = None
        self._jumping = threading.Lock()
        ssh = cluster.ssh
        default = cluster.work / "known_hosts" if ssh.host_keys == "accept-new" else Path("~/.ssh/known_hosts")
        self.known_hosts = Path(ssh.known_hosts or default).expanduser()
        # Fabric's own configuration carries the defaults that ~/.ssh/config may override.
        self._config = Config(overrides={"user": "root", "port": 22})

    def pipe(self, node: Node, *, lock: str | None, holder: str) -> tuple[session.Pipe, str | None]:
        """A shell's pipe, and the password that its first line must be (None without sudo or without a password)."""
        command = "sh -c " + shlex.quote(session.shell_command(lock=lock, holder=holder))
        password = None
        if self._cluster.ssh.sudo:
            password = self._password
            command = ("sudo -n " if password is None else "sudo -k -S -p '' ") + command
        return _ChannelPipe(self.connection(node), command), password

    def dial(self, node: Node, address: tuple[str, int], timeout: float) -> Any:
        """A TCP channel from the node to `address`; raises OSError or paramiko.SSHException."""
        return self.connection(node).transport.open_channel("direct-tcpip", address, ("127.0.0.1", 0), timeout=timeout)

    def connection(self, node: Node) -> Connection:
        """The node's open connection. Raises ConnectionRefused."""
        with self._opening[node.name]:
            if node.name not in self._connections:
                connection = self._new(node)
                self._open(node, connection)
                self._connections[node.name] = connection
            return self._connections[node.name]

    def forget(self, node: Node) -> None:
        """Drops a connection that broke, so that the next use opens another."""
        with self._opening[node.name]:
            connection = self._connections.pop(node.name, None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        if self._jump is not None:
            self._jump.close()

    def _connect(
        self, host: str, gateway: Connection | None, user: str | None = None, port: int | None = None
    ) -> Connection:
        timeout = self._cluster.ssh.connect_timeout
        arguments: dict[str, Any] = {"banner_timeout": timeout, "auth_timeout": timeout, "channel_timeout": timeout}
        if self._cluster.ssh.key:
            arguments["key_filename"] = [str(Path(self._cluster.ssh.key).expanduser())]
        return Connection(
            host,
            user=user,
            port=port,
            gateway=gateway,
            config=self._config.clone(),
            connect_timeout=timeout,
            connect_kwargs=arguments,
        )

    def _new(self, node: Node) -> Connection:
        ssh = self._cluster.ssh
        gateway = self._gateway()
        return self._connect(node.ssh.host or node.ip, gateway, node.ssh.user or ssh.user, node.ssh.port or ssh.port)

    def _gateway(self) -> Connection | None:
        """The configured chain of jump hosts, one for all nodes; None leaves the choice to ~/.ssh/config."""
        if not self._cluster.ssh.jump:
            return None
        with self._jumping:
            if self._jump is None:
                jump: Connection | None = None
                for hop in self._cluster.ssh.jump.split(","):
                    jump = self._connect(hop.strip(), jump)
                    self._guard(jump)
                    self._opened(jump)
                self._jump = jump
            return self._jump

    def _guard(self, connection: Connection) -> None:
        """Known keys and a policy for every hop: Fabric sets AutoAddPolicy and loads no known_hosts."""
        for hop in _hops(connection):
            if self.known_hosts.exists():
                hop.client.load_system_host_keys(str(self.known_hosts))
            accept = self._cluster.ssh.host_keys == "accept-new"
            hop.client.set_missing_host_key_policy(_AcceptNew(self.known_hosts, self._keys) if accept else _Strict())

    def _open(self, node: Node, connection: Connection) -> None:
        self._guard(connection)
        try:
            self._opened(connection)
        except ConnectionRefused as error:
            raise ConnectionRefused(f"{node.name}: {error.message}", hint=error.hint) from error

    def _opened(self, connection: Connection) -> None:
        where = f"{connection.user}@{connection.host}:{connection.port}"
        try:
            connection.open()
        except paramiko.BadHostKeyException as error:
            raise ConnectionRefused(
                f"the host key of {error.hostname} has changed: known {fingerprint(error.expected_key)}, "
                f"offered {fingerprint(error.key)}",
                hint=f"if the host was reinstalled, remove its line from {self.known_hosts}; otherwise stop here",
            ) from error
        except _UnknownKey as error:
            raise ConnectionRefused(
                str(error),
                hint=f"compare it on the host's console, then: ssh-keyscan {connection.host} >> {self.known_hosts}",
            ) from error
        except (paramiko.AuthenticationException, paramiko.PasswordRequiredException) as error:
            keys = connection.connect_kwargs.get("key_filename") or ["the agent's keys and ~/.ssh/id_*"]
            raise ConnectionRefused(
                f"{where} refused the login (tried {', '.join(map(str, keys))}): {error}",
                hint="check [ssh] user and key, or the host's authorized_keys",
            ) from error
        except socket.gaierror as error:
            raise ConnectionRefused(f"{where}: the name cannot be resolved: {error.strerror}") from error
        except NoValidConnectionsError as error:
            cause = next(iter(error.errors.values()))
            raise ConnectionRefused(
                f"{where}: {cause.strerror or cause}", hint="is the host up, is sshd on that port?"
            ) from error
        except (TimeoutError, EOFError, OSError, paramiko.SSHException) as error:
            raise ConnectionRefused(
                f"{where} did not answer within {self._cluster.ssh.connect_timeout} s: {error or type(error).__name__}",
                hint="is the host up and its sshd healthy?",
            ) from error


def _hops(connection: Connection) -> Iterator[Connection]:
    hop: Any = connection
    while isinstance(hop, Connection):
        yield hop
        hop = hop.gateway


def broken(node: Node, error: Exception) -> NodeFailed:
    """The failure of a connection that had been open."""
    return NodeFailed(node.name, f"the SSH connection broke: {error}", hint="run the same command again")
