"""All nodes of a run: one shell each, in parallel, whatever carries it."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from steps.core.base.errors import NodeFailed, Pending, Refused, StepsError, Unhealthy
from steps.core.base.hints import again
from steps.core.base.user import holder
from steps.core.config.model import Cluster, Node
from steps.core.transport.local import LocalPipe
from steps.core.transport.node_lock import LOCK, LOCKS, Lock, not_root, work_directory
from steps.core.transport.shell_session import NotReady, Result, Sent, Session, SessionError, Sink, shell_command

if TYPE_CHECKING:
    from steps.core.transport.ssh import Ssh

T = TypeVar("T")

REASONS = 3  # times that a channel which failed without a reason is opened again
ENDED = "the command was interrupted"


class NotForwarded(Exception):
    """Nothing can be said of an address as a node sees it."""


class Hosts:
    """Opens what it needs when it needs it. `locked`: every shell first takes its node's lock (a run that writes)."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        locked: bool,
        keep_keys: bool = False,
        sudo_password: str | None = None,
        told: threading.Event | None = None,
        new_key: Callable[[str], None] = lambda _said: None,
        paused: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`told`: set once the command is told to end (see `interrupted`).

        `keep_keys`: host keys that are met for the first time are written; `new_key` hears of each. `paused` stops what
        is drawn on the terminal while a second factor is typed.
        """
        self._cluster = cluster
        self._told = told or threading.Event()
        self._locked = locked
        self._sessions: dict[str, Session] = {}
        self._ssh: Ssh | None = None
        self._asking = threading.Lock()
        self._me = holder()
        self._work = work_directory(cluster.work / LOCK)
        if cluster.hosts.transport == "ssh":
            from steps.core.transport.prompt import Prompter
            from steps.core.transport.ssh import Ssh

            prompter = Prompter(paused=paused, ended=self._told.is_set)
            self._ssh = Ssh(cluster, keep=keep_keys, new_key=new_key, prompter=prompter, sudo_password=sudo_password)

    @property
    def interrupted(self) -> bool:
        """Whether the command was told to end: what has begun on a node is finished, nothing else is started."""
        return self._told.is_set()

    def open(self, node: Node) -> None:
        """Connects to the node and starts its shell, where that is not done yet. Raises Refused."""
        self._session(node)

    def run(
        self,
        node: Node,
        script: str,
        payload: Iterable[bytes] = (),
        *,
        deadline: float = 60,
        sent: Sent | None = None,
        sink: Sink | None = None,
    ) -> Result:
        """Runs a script on a node, as root over SSH. Raises NodeFailed where the shell is lost, Refused before that."""
        try:
            return self._session(node).run(script, payload, deadline=deadline, sent=sent, sink=sink)
        except NotReady as error:
            raise self._unready(node, str(error)) from error
        except SessionError as error:
            raise NodeFailed(node.name, str(error), hint=again()) from error
        finally:
            session = self._sessions.get(node.name)
            if session is not None and session.closed:
                self._sessions.pop(node.name, None)

    def each(self, nodes: Sequence[Node], work: Callable[[Node], T]) -> dict[str, T]:
        """`work` on every node at once, at most [ssh] parallel; all failures are collected and raised as one.

        Ctrl-C lets what has begun finish, starts nothing more, and raises KeyboardInterrupt.
        """
        with ThreadPoolExecutor(max(1, min(self._cluster.ssh.parallel, len(nodes)))) as pool:
            futures: dict[str, Future[T]] = {
                node.name: pool.submit(self._unless_interrupted, work, node) for node in nodes
            }
            try:
                wait(futures.values())
            except KeyboardInterrupt:
                self._told.set()
                raise
        failures = [error for future in futures.values() if (error := future.exception()) is not None]
        if failures:
            raise collected(failures)
        return {name: future.result() for name, future in futures.items()}

    def dial(self, node: Node, address: tuple[str, int], *, timeout: float = 5, direct: bool = True) -> Any:
        """A byte channel to `address` from the node; where its sshd forbids forwarding, `direct`: from here.

        Raises OSError, and NotForwarded where there is no way to tell what that address does.
        """
        if self._ssh is None:
            return socket.create_connection(address, timeout=timeout)
        from paramiko import OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED, ChannelException, SSHException

        try:
            return self._channel(self._ssh, node, address, timeout)
        except ChannelException as error:
            if error.code != OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED:
                raise ConnectionRefusedError(error.text) from error
        except (SSHException, EOFError) as error:
            raise ConnectionRefusedError(str(error) or "the connection ended") from error
        try:
            if direct:
                return socket.create_connection(address, timeout=timeout)
        except OSError:
            pass  # a firewall, or nobody there: from here they look alike
        raise NotForwarded(f"the sshd of {node.name} forbids forwarding (AllowTcpForwarding)")

    def _channel(self, ssh: Ssh, node: Node, address: tuple[str, int], timeout: float) -> Any:
        """Of channels that fail at the same time paramiko tells one why; the others ask again, one after another."""
        from paramiko import ChannelException, SSHException

        turns: list[AbstractContextManager[Any]] = [nullcontext(), *[self._asking] * REASONS]
        for turn in turns:
            try:
                with turn:
                    return ssh.dial(node, address, timeout)
            except ChannelException:
                raise
            except SSHException as error:
                untold = error
        raise untold

    def close(self) -> None:
        for session in list(self._sessions.values()):  # after an interrupt, a thread may still be ending its own
            session.close()
        if self._ssh is not None:
            self._ssh.close()

    def _unless_interrupted(self, work: Callable[[Node], T], node: Node) -> T:
        if self.interrupted:
            raise KeyboardInterrupt(ENDED)
        return work(node)

    def _session(self, node: Node) -> Session:
        if node.name not in self._sessions:
            self._sessions[node.name] = self._open(node)
        return self._sessions[node.name]

    def _open(self, node: Node) -> Session:
        lock, password = self._lock(node) if self._locked else None, None
        if self._ssh is not None:
            pipe, password = self._ssh.pipe(node, lock)
        else:
            pipe = LocalPipe(shell_command(lock))
        return Session(pipe, password=password, deadline=self._cluster.ssh.connect_timeout + 10)

    def _not_ours(self, node: Node, words: str) -> Refused:
        """The lock's directory is root's: who is not root is told that, and not to remove it."""
        uid = re.search(r", uid (\d+): the lock must lie", words)
        if self._cluster.systemd and uid and uid[1] != "0":
            return not_root(node, uid[1])
        return Refused(words, node=node.name, hint="see who made that directory, and remove it")

    def _unready(self, node: Node, words: str) -> Refused:
        if "locked by" in words:
            holder = words.partition("locked by ")[2].strip()
            if holder.startswith(self._me):
                twin = holder.rpartition("for ")[2]
                return Refused(
                    f"{twin} and {node.name} are the same machine: this very run holds its lock",
                    hint="give each node its own ip, or ssh = { host = … }",
                )
            return Refused(
                f"another run holds the lock: {holder}", node=node.name, hint=f"wait for it to end, then: {again()}"
            )
        if "the lock must lie" in words:
            return self._not_ours(node, words)
        if LOCKS in words and "Permission denied" in words:
            return Refused(
                "we are not logged in as root", node=node.name, hint="set [ssh] sudo = true, or another user"
            )
        if self._cluster.ssh.sudo and "sudo" in words:
            return self._no_sudo(node, words)
        return Refused(f"no shell: {words}", node=node.name, hint="log in by hand and see what it says")

    def _no_sudo(self, node: Node, words: str) -> Refused:
        if "you must have a tty" in words:
            user = node.ssh.user or self._cluster.ssh.user or "USER"
            hint = f"on the host, in sudoers (visudo): Defaults:{user} !requiretty"
            return Refused(f"its sudoers has requiretty: {words}", node=node.name, hint=hint)
        return Refused(
            f"sudo does not let us in: {words}",
            node=node.name,
            hint=f"allow passwordless sudo, or give the password: {again('--prompt-for-sudo-password')}, "
            "or INVOKE_SUDO_PASSWORD in the environment",
        )

    def _lock(self, node: Node) -> Lock:
        path = f"{LOCKS}/lock" if self._cluster.systemd else f"{node.paths.unit}/lock"
        return Lock(path, f"{self._me}, for {node.name}", self._work, str(os.getpid()))


def collected(failures: Sequence[BaseException]) -> BaseException:
    """Return one error for the failures of several nodes; of what is no StepsError (a bug, an interrupt), the first.

    Its exit code is the sternest (a failed step before a refusal); it has all their messages, hints and problems.
    """
    errors = []
    for failure in failures:
        if not isinstance(failure, StepsError):
            return failure
        errors.append(failure)
    if len(errors) == 1:
        return errors[0]
    waiting = [error for error in errors if isinstance(error, Pending)]
    if len(waiting) == len(errors):
        files = [file for error in waiting for file in error.files]
        return Pending(tuple(dict.fromkeys(files)), waiting[0].instructions)
    hints = [error.hint for error in errors if error.hint]
    return _kind(errors)(
        "\n".join(error.message for error in errors),
        hint="\n".join(dict.fromkeys(hints)),
        problems=[problem for error in errors for problem in error.problems],
    )


def _kind(errors: Sequence[StepsError]) -> type[StepsError]:
    """Return Refused or Unhealthy where that is what all of them are."""
    for kind in (Refused, Unhealthy):
        if all(isinstance(error, kind) for error in errors):
            return kind
    return StepsError
