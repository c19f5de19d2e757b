"""Connections to nodes: Fabric's, with every host key on every hop verified by us."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import shlex
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
from fabric import Config, Connection
from fabric.connection import derive_shorthand
from paramiko.ssh_exception import NoValidConnectionsError

from steps.core.errors import Refused
from steps.core.model import Cluster, Node
from steps.core.node import session

_WINDOW = 1 << 22
logging.getLogger("paramiko").addHandler(logging.NullHandler())  # it raises what it logs, and we say it


class ConnectionRefused(Refused):
    """A node cannot be reached or logged in to; nothing was changed."""


def fingerprint(key: paramiko.PKey) -> str:
    """As OpenSSH prints it: SHA256:… without padding."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


class _UnknownKey(Exception):
    """A strict policy met a host key that it does not know. `line` is what known_hosts would say of it."""

    def __init__(self, hostname: str, key: paramiko.PKey) -> None:
        super().__init__(f"host key of {hostname} is unknown: {fingerprint(key)}")
        self.line = f"{hostname} {key.get_name()} {key.get_base64()}"


class _AcceptNew(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # paramiko is untyped
    """Writes a first-seen key into the cluster's own known_hosts; a changed one never reaches a policy.

    `seen`: what this run has accepted. `keep` False: nothing is written (a dry run).
    """

    def __init__(self, file: Path, seen: paramiko.HostKeys, lock: threading.Lock, *, keep: bool) -> None:
        self._file, self._seen, self._lock, self._keep = file, seen, lock, keep

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        del client
        with self._lock:
            if self._seen.check(hostname, key):
                return
            if hostname in self._seen:
                # A sibling hop of this very run saw another key for the same name.
                raise paramiko.BadHostKeyException(hostname, key, next(iter(self._seen[hostname].values())))
            self._seen.add(hostname, key.get_name(), key)
            if self._keep:
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with open(self._file, "a", opener=_private) as stream:
                    stream.write(f"{hostname} {key.get_name()} {key.get_base64()}\n")


class _Strict(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # see above
    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        del client
        raise _UnknownKey(hostname, key)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _ChannelPipe:
    """session.Pipe over an SSH channel."""

    def __init__(self, connection: Connection, command: str) -> None:
        self._channel = connection.transport.open_session(window_size=_WINDOW, timeout=connection.connect_timeout)
        self._channel.set_combine_stderr(True)
        # paramiko waits for sshd's answer for ever; a channel that is closed ends that.
        late = threading.Timer(connection.connect_timeout, self._channel.close)
        late.start()
        try:
            self._channel.exec_command(command)
        finally:
            late.cancel()

    def send(self, data: bytes) -> None:
        self._channel.settimeout(session.STALL)
        try:
            self._channel.sendall(data)
        except EOFError:  # paramiko's word for a socket that broke in the middle
            raise ConnectionResetError("the connection is gone") from None

    def recv(self, timeout: float) -> bytes:
        self._channel.settimeout(max(timeout, 0.001))
        return bytes(self._channel.recv(1 << 16))

    def close(self) -> None:
        self._channel.close()


class Ssh:
    """Opens shells on nodes and TCP channels through them; one connection per node, kept until close()."""

    def __init__(self, cluster: Cluster, *, keep: bool, sudo_password: str | None = None) -> None:
        self._cluster = cluster
        self._password = sudo_password
        self._keep = keep
        self._seen = paramiko.HostKeys()
        self._keys = threading.Lock()
        self._opening: dict[str, threading.Lock] = {node.name: threading.Lock() for node in cluster.nodes}
        self._connections: dict[str, Connection] = {}
        self._jumps: dict[str, Connection | ConnectionRefused] = {}
        self._jumping = threading.Lock()
        ssh = cluster.ssh
        default = cluster.work / "known_hosts" if ssh.host_keys == "accept-new" else Path("~/.ssh/known_hosts")
        self.known_hosts = Path(ssh.known_hosts or default).expanduser()
        # Fabric's own configuration carries the defaults that ~/.ssh/config may override.
        self._config = Config(overrides={"user": "root", "port": 22})

    def pipe(self, node: Node, lock: session.Lock | None) -> tuple[session.Pipe, str | None]:
        """A shell's pipe, and the password that sudo may ask for there (None without sudo or without a password)."""
        command = "sh -c " + shlex.quote(session.shell_command(lock))
        password = None
        if self._cluster.ssh.sudo:
            password = self._password
            asking = "-n" if password is None else f"-k -S -p {shlex.quote(session.SUDO_PROMPT)}"
            command = f"env LC_ALL=C sudo {asking} {command}"
        connection = self.connection(node)
        try:
            return _ChannelPipe(connection, command), password
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionRefused(
                f"{node.name}: its sshd opens no session: {error or type(error).__name__}",
                hint="log in by hand and see what it says",
            ) from error

    def dial(self, node: Node, address: tuple[str, int], timeout: float) -> Any:
        """A TCP channel from the node to `address`; raises OSError or paramiko.SSHException."""
        return self.connection(node).transport.open_channel("direct-tcpip", address, ("127.0.0.1", 0), timeout=timeout)

    def connection(self, node: Node) -> Connection:
        """The node's open connection. Raises ConnectionRefused."""
        with self._opening[node.name]:
            connection = self._connections.get(node.name)
            if connection is None or not connection.is_connected:
                connection = self._connections[node.name] = self._open(node)
            return connection

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        for jump in self._jumps.values():
            if isinstance(jump, Connection):
                jump.close()

    def _connect(
        self, host: str, gateway: Connection | None, user: str | None = None, port: int | None = None
    ) -> Connection:
        timeout = self._cluster.ssh.connect_timeout
        arguments: dict[str, Any] = {
            **{f"{what}_timeout": timeout for what in ("banner", "auth", "channel")},
            "transport_factory": _transport,
        }
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
        host = node.ssh.host or node.ip
        gateway = self._gateway(ssh.jump or self._proxy_jump(host))
        return self._connect(host, gateway, node.ssh.user or ssh.user, node.ssh.port or ssh.port)

    def _proxy_jump(self, host: str) -> str:
        """The chain in ~/.ssh/config. Read by us, for Fabric goes a chain of several hops from its wrong end."""
        chain = str(self._config.base_ssh_config.lookup(host).get("proxyjump", ""))
        hosts = {derive_shorthand(hop.strip())["host"] for hop in chain.split(",")}
        return "" if chain.lower() == "none" or host in hosts else chain

    def _gateway(self, chain: str) -> Connection | None:
        """The open connection to a chain's last jump host, one for all nodes behind it. Raises ConnectionRefused."""
        if not chain:
            return None
        with self._jumping:
            found = self._jumps.get(chain)
            if found is None or (isinstance(found, Connection) and not found.is_connected):
                found = self._jumps[chain] = self._jump(chain)
        if isinstance(found, ConnectionRefused):
            raise found
        return found

    def _jump(self, chain: str) -> Connection | ConnectionRefused:
        hops: list[Connection] = []
        try:
            for hop in chain.split(","):
                hops.append(self._connect(hop.strip(), hops[-1] if hops else None))
                self._guard(hops[-1])
                self._opened(hops[-1])
        except ConnectionRefused as error:
            for hop_connection in hops:
                hop_connection.close()
            # Kept, so that not every node waits for the same deadline.
            return ConnectionRefused(f"jump host: {error.message}", hint=error.hint)
        return hops[-1]

    def _guard(self, connection: Connection) -> None:
        """Known keys and a policy for every hop: Fabric sets AutoAddPolicy and loads no known_hosts."""
        for hop in _hops(connection):
            if self.known_hosts.exists():
                hop.client.load_system_host_keys(str(self.known_hosts))
            accept = _AcceptNew(self.known_hosts, self._seen, self._keys, keep=self._keep)
            strict = self._cluster.ssh.host_keys == "strict"
            hop.client.set_missing_host_key_policy(_Strict() if strict else accept)

    def _open(self, node: Node) -> Connection:
        try:
            connection = self._new(node)
            self._guard(connection)
            self._opened(connection)
        except ConnectionRefused as error:
            raise ConnectionRefused(f"{node.name}: {error.message}", hint=error.hint) from error
        return connection

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
                hint=f"compare it on the host's console, then: echo '{error.line}' >> {self.known_hosts}",
            ) from error
        except (paramiko.AuthenticationException, paramiko.PasswordRequiredException) as error:
            keys = connection.connect_kwargs.get("key_filename") or ["the agent's keys and ~/.ssh/id_*"]
            raise ConnectionRefused(
                f"{where} refused the login (tried {', '.join(map(str, keys))}): {error}",
                hint="check [ssh] user and key, or the host's authorized_keys",
            ) from error
        except paramiko.hostkeys.InvalidHostKey as error:
            raise ConnectionRefused(
                f"{self.known_hosts} has a line that is none: {error.line}", hint="mend that line, or remove it"
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


def _transport(sock: Any, **options: Any) -> paramiko.Transport:
    """A transport over a socket that holds nothing back, and ends where the host falls silent.

    The kernel would keep a small packet until the one before it is acknowledged, up to a round trip or 40 ms later;
    and it would try to send for a quarter of an hour. Beyond a jump host `sock` is a channel, whose own connection has
    all this.
    """
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, session.STALL * 1000)
    return paramiko.Transport(sock, **options)


def _hops(connection: Connection) -> Iterator[Connection]:
    hop: Any = connection
    while isinstance(hop, Connection):
        yield hop
        hop = hop.gateway
