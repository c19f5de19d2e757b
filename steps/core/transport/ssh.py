"""Connections to nodes: Fabric's, with every host key on every hop verified by us."""

from __future__ import annotations

import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import paramiko
from fabric import Config, Connection
from fabric.connection import derive_shorthand

from steps.core.base.errors import Refused
from steps.core.config.model import Cluster, Node
from steps.core.transport import shell_session
from steps.core.transport.host_keys import HostKeyError, HostKeys, Policy, name_of
from steps.core.transport.known_hosts import BadLine
from steps.core.transport.login import Attempt, Queued, SecondFactor, Transport
from steps.core.transport.login_errors import explain
from steps.core.transport.node_lock import Lock
from steps.core.transport.prompt import Interrupted, Prompter

_WINDOW = 1 << 22
RSA = ("rsa-sha2-512", "rsa-sha2-256")  # the signatures of what known_hosts calls ssh-rsa
logging.getLogger("paramiko").addHandler(logging.NullHandler())  # it raises what it logs, and we say it


class ConnectionRefused(Refused):
    """A node cannot be reached or logged in to; nothing was changed.

    `predicate`: the host is the subject of the message, which does not name it.
    """

    def __init__(self, message: str, *, hint: str = "", node: str = "", predicate: bool = False) -> None:
        super().__init__(message, hint=hint, node=node, joint=" " if predicate else ": ")
        self.predicate = predicate


class _ChannelPipe:
    """shell_session.Pipe over an SSH channel."""

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
        end = time.monotonic() + shell_session.patience(len(data))
        try:
            while data:
                self._channel.settimeout(min(shell_session.STALL, max(0.001, end - time.monotonic())))
                sent = self._channel.send(data)
                if sent == 0:
                    raise ConnectionResetError("the channel is closed")
                data = data[sent:]
        except EOFError:  # paramiko's word for a socket that broke in the middle
            raise ConnectionResetError("the connection is gone") from None

    def recv(self, timeout: float) -> bytes:
        self._channel.settimeout(max(timeout, 0.001))
        return bytes(self._channel.recv(1 << 16))

    def close(self) -> None:
        self._channel.close()


class Ssh:
    """Opens shells on nodes and TCP channels through them; one connection per node, kept until close()."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        keep: bool,
        new_key: Callable[[str], None],
        prompter: Prompter,
        sudo_password: str | None = None,
    ) -> None:
        """`keep`: host keys that are met for the first time are written. `new_key`: hears of each."""
        self._cluster = cluster
        self._password = sudo_password
        self._keys = HostKeys(cluster, keep=keep, new=new_key)
        self._prompter = prompter
        self._opening: dict[str, threading.Lock] = {node.name: threading.Lock() for node in cluster.nodes}
        self._connections: dict[str, Connection] = {}
        self._jumps: dict[str, Connection | ConnectionRefused] = {}
        self._jumping = threading.Lock()
        # Fabric's own configuration carries the defaults that ~/.ssh/config may override.
        self._config = Config(overrides={"user": "root", "port": 22})

    def pipe(self, node: Node, lock: Lock | None) -> tuple[shell_session.Pipe, str | None]:
        """A shell's pipe, and the password that sudo may ask for there (None without sudo or without a password)."""
        command = "sh -c " + shlex.quote(shell_session.shell_command(lock))
        password = None
        if self._cluster.ssh.sudo:
            password = self._password
            asking = "-n" if password is None else f"-k -S -p {shlex.quote(shell_session.SUDO_PROMPT)}"
            command = f"env LC_ALL=C sudo {asking} {command}"
        connection = self.connection(node)
        try:
            return _ChannelPipe(connection, command), password
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionRefused(
                f"its sshd opens no session: {error or type(error).__name__}",
                node=node.name,
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
        self._prompter.cancel()
        for connection in self._connections.values():
            connection.close()
        for jump in self._jumps.values():
            if isinstance(jump, Connection):
                jump.close()

    def _connect(
        self, label: str, host: str, gateway: Connection | None, user: str | None = None, port: int | None = None
    ) -> Connection:
        """A connection, not yet open. `label`: the host, for people."""
        timeout = self._cluster.ssh.connect_timeout
        arguments: dict[str, Any] = {f"{what}_timeout": timeout for what in ("banner", "auth", "channel")}
        if self._cluster.ssh.key:
            arguments["key_filename"] = [str(Path(self._cluster.ssh.key).expanduser())]
        connection = Connection(
            host,
            user=user,
            port=port,
            gateway=gateway,
            config=self._config.clone(),
            connect_timeout=timeout,
            connect_kwargs=arguments,
        )
        for hop in _hops(connection):
            if "auth_strategy" not in hop.connect_kwargs:
                self._prepare(hop, label)
        return connection

    def _prepare(self, hop: Connection, label: str) -> None:
        """Our own login and host key verification: Fabric sets AutoAddPolicy and loads no known_hosts."""
        settings = hop.ssh_config
        attempt = Attempt(
            where=f"{hop.user}@{hop.host}:{hop.port}",
            user=hop.user,
            files=hop.connect_kwargs.pop("key_filename", []),
            prompter=self._prompter,
            label=label,
            only_named=str(settings.get("identitiesonly", "no")).lower() == "yes",
        )
        name = str(settings.get("hostkeyalias") or name_of(hop.host, hop.port))
        hop.connect_kwargs["auth_strategy"] = attempt
        hop.connect_kwargs["transport_factory"] = partial(_transport, attempt, partial(self._keys.kinds, name))
        hop.client.set_missing_host_key_policy(Policy(self._keys, label, name))

    def _new(self, node: Node) -> Connection:
        ssh = self._cluster.ssh
        host = node.ssh.host or node.ip
        gateway = self._gateway(ssh.jump or self._proxy_jump(host))
        return self._connect(node.name, host, gateway, node.ssh.user or ssh.user, node.ssh.port or ssh.port)

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
                hops.append(self._connect(f"jump host {hop.strip()}", hop.strip(), hops[-1] if hops else None))
                self._opened(hops[-1])
        except ConnectionRefused as error:
            for hop_connection in hops:
                hop_connection.close()
            # Kept, so that not every node waits for the same deadline.
            message = f"{hop.strip()} {error.message}" if error.predicate else error.message
            return ConnectionRefused(f"jump host: {message}", hint=error.hint)
        return hops[-1]

    def _open(self, node: Node) -> Connection:
        try:
            connection = self._new(node)
            self._opened(connection)
        except ConnectionRefused as error:
            raise ConnectionRefused(
                error.message, hint=error.hint, node=node.name, predicate=error.predicate
            ) from error
        return connection

    def _opened(self, connection: Connection) -> None:
        attempt: Attempt = connection.connect_kwargs["auth_strategy"]
        try:
            self._log_in(connection, attempt)
        except KeyboardInterrupt:
            self._prompter.cancel()
            raise
        except HostKeyError as error:
            refused = ConnectionRefused(str(error), hint=error.hint)
        except BadLine as error:
            refused = ConnectionRefused(str(error), hint="fix that line, or remove it")
        except (SecondFactor, Interrupted, EOFError, OSError, paramiko.SSHException) as error:
            message, hint = explain(error, attempt, self._cluster.ssh.connect_timeout)
            refused = ConnectionRefused(message, hint=hint, predicate=isinstance(error, SecondFactor))
            refused.__cause__ = error
        else:
            return
        connection.client.close()
        raise refused

    def _log_in(self, connection: Connection, attempt: Attempt) -> None:
        try:
            connection.open()
        except Queued:
            connection.client.close()
            with self._prompter.turn:
                attempt.turn = True
                connection.open()


def _transport(attempt: Attempt, kinds: Callable[[], Sequence[str]], sock: Any, **options: Any) -> Transport:
    """A transport over a socket that holds nothing back, and ends where the host falls silent.

    The kernel would keep a small packet until the one before it is acknowledged, up to a round trip or 40 ms later;
    and it would try to send for a quarter of an hour. Beyond a jump host `sock` is a channel, whose own connection has
    all this.

    The host is asked for a key of the `kinds` that are known of it: another one would say nothing.
    """
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, shell_session.STALL * 1000)
    transport = Transport(sock, **options)
    can = transport.get_security_options()
    known = [each for kind in kinds() for each in (RSA if kind == "ssh-rsa" else (kind,)) if each in can.key_types]
    can.key_types = [*known, *(kind for kind in can.key_types if kind not in known)]
    attempt.connected(transport)
    return transport


def _hops(connection: Connection) -> Iterator[Connection]:
    hop: Any = connection
    while isinstance(hop, Connection):
        yield hop
        hop = hop.gateway
