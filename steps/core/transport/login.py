"""Logging in over SSH: which keys are offered, in which order, and who is asked for a second factor."""

from __future__ import annotations

import base64
import binascii
import os
import shlex
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.pkey import UnknownKeyType

from steps.core.transport.prompt import Prompter

GRACE = 120  # seconds for a second factor to be typed: sshd's own LoginGraceTime
DEFAULTS = ("id_ed25519", "id_ecdsa", "id_rsa")  # in ~/.ssh
_CERT = "-cert.pub"


class SecondFactor(Exception):
    """The host wants a second factor after the key, and there is no terminal to ask on; `methods` are the host's."""

    def __init__(self, methods: Sequence[str]) -> None:
        super().__init__(", ".join(methods))
        self.methods = tuple(methods)


class Queued(Exception):
    """Another host's second factor is being typed: connect again when it is this one's turn.

    A host that had to wait connected would end the login after its LoginGraceTime.
    """


class Transport(paramiko.Transport):  # type: ignore[misc]  # paramiko is untyped
    """paramiko's, which keeps what the host offers and its last words: paramiko only logs them."""

    offered: dict[str, list[str]]
    farewell: str = ""

    def _really_parse_kex_init(self, m: paramiko.Message, ignore_first_byte: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002  paramiko's signature
        parsed: dict[str, Any] = super()._really_parse_kex_init(m, ignore_first_byte)
        if not ignore_first_byte:  # else it is our own
            self.offered = parsed
        return parsed

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.farewell = m.get_text()


@dataclass
class Attempt:
    """One login: paramiko's auth strategy, and what is known of it where it fails.

    `files`: the keys that are named ([ssh] key, IdentityFile), first to last. `only_named`: IdentitiesOnly.
    """

    where: str  # user@host:port
    user: str
    files: Sequence[str]
    prompter: Prompter
    label: str  # who is named in a prompt
    only_named: bool = False
    turn: bool = False  # this login may prompt: no other does
    transport: Transport | None = None
    tried: list[str] = field(default_factory=list)  # the keys that the host was offered
    unusable: list[tuple[str, str]] = field(default_factory=list)  # what could not be offered and why, and what helps
    accepted: str = ""  # the key that was taken, where more was wanted
    keys: Iterator[tuple[str, paramiko.PKey]] | None = None
    since: float = 0  # when the host accepted the connection

    def connected(self, transport: Transport) -> None:
        """The host accepted a connection: what was known of an earlier one is of no use."""
        self.transport, self.since, self.keys, self.accepted = transport, time.monotonic(), None, ""
        self.tried, self.unusable = [], []

    def authenticate(self, transport: Transport) -> None:
        """Log in, as paramiko calls it. Raises paramiko's SSHException, SecondFactor and Queued."""
        with closing(self._candidates()) as self.keys:
            more = self._with_a_key(transport)
            while more:
                more = self._with_a_key(transport) if "publickey" in more else self._second_factor(transport, more)

    def _with_a_key(self, transport: Transport) -> list[str]:
        """Return what the host wants besides."""
        refused: paramiko.AuthenticationException | None = None
        for name, key in self.keys or ():
            self.tried.append(name)
            try:
                more: list[str] = transport.auth_publickey(self.user, key)
            except paramiko.AuthenticationException as error:
                ended = not transport.is_active() or "timeout" in str(error)
                if ended or isinstance(error, paramiko.BadAuthenticationType):
                    raise
                refused = error
                continue
            self.accepted = name
            return more
        raise refused or paramiko.AuthenticationException("no key")

    def _second_factor(self, transport: Transport, methods: list[str]) -> list[str]:
        method = next((each for each in ("keyboard-interactive", "password") if each in methods), None)
        if method is None or not self.prompter.available:
            raise SecondFactor(methods)
        if not self.turn:
            if not self.prompter.turn.acquire(blocking=False):
                raise Queued
            try:
                return self._typed(transport, method)
            finally:
                self.prompter.turn.release()
        return self._typed(transport, method)

    def _typed(self, transport: Transport, method: str) -> list[str]:
        transport.auth_timeout = GRACE
        if method == "password":
            password = self.prompter.ask(f"{self.label} ({self.where}): password: ")
            more: list[str] = transport.auth_password(self.user, password)
        else:
            more = transport.auth_interactive(self.user, self._answers)
        return more

    def _answers(self, title: str, instructions: str, prompts: Sequence[tuple[str, bool]]) -> list[str]:
        """Answer the host's questions. Never with an echo, whatever the host says: one-time codes are secrets, too."""
        del title
        for line in filter(str.strip, instructions.splitlines() if prompts else ()):
            self.prompter.say(f"{self.label}: {line.strip()}")
        return [self.prompter.ask(f"{self.label} ({self.where}): {prompt.strip()} ") for prompt, _echo in prompts]

    def _candidates(self) -> Generator[tuple[str, paramiko.PKey]]:
        """Yield the keys in the order in which they are offered: the named ones, the agent's others, the usual files.

        A named key that only the agent can use (a passphrase, hardware, its .pub alone) is offered first as well, so
        that an agent with many keys does not use up the host's MaxAuthTries.
        """
        agent = paramiko.Agent()
        usual = [str(Path("~/.ssh").expanduser() / name) for name in DEFAULTS]
        try:
            held = {key.asbytes(): key for key in agent.get_keys()}
            given: set[bytes] = set()
            for file in self.files or (usual if self.only_named else ()):
                found = self._named(Path(file).expanduser(), held)
                if found is not None and found[1].asbytes() not in given:
                    given.add(found[1].asbytes())
                    yield found
            if self.only_named:
                return
            for blob, key in held.items():
                if blob not in given:
                    given.add(blob)
                    yield f"the agent's {key.comment or key.fingerprint}", key
            for file in usual:
                found = self._named(Path(file), held) if file not in self.files else None
                if found is not None and found[1].asbytes() not in given:
                    given.add(found[1].asbytes())
                    yield found
        finally:
            agent.close()

    def _named(self, path: Path, held: dict[bytes, paramiko.PKey]) -> tuple[str, paramiko.PKey] | None:
        """Return the key of a file, or the agent's where it holds that key; None, and why, where there is neither."""
        path = Path(str(path).removesuffix(_CERT))
        public = _public(path)
        if public in held:
            return str(path), held[public]
        if path.suffix == ".pub" and not path.with_suffix("").exists():
            reason = f"{path} is a public key, and ssh-agent does not hold its private key"
            self.unusable.append((reason, _add(path.with_suffix(""))))
            return None
        path = path.with_suffix("") if path.suffix == ".pub" else path
        if path.is_file() and (mode := path.stat().st_mode & 0o777) & 0o077:  # as for OpenSSH
            self.unusable.append(
                (f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {shlex.quote(str(path))}")
            )
            return None
        try:
            return f"{path}{_expired(Path(f'{path}{_CERT}'))}", paramiko.PKey.from_path(path)
        except FileNotFoundError:
            return None  # an IdentityFile that is not there is none for OpenSSH, too
        except (TypeError, paramiko.PasswordRequiredException):  # cryptography's word for a missing passphrase
            self.unusable.append((f"{path} has a passphrase, and ssh-agent does not hold it", _add(path)))
        except (OSError, ValueError, paramiko.SSHException, UnknownKeyType, UnsupportedAlgorithm) as error:
            self.unusable.append((f"{path} cannot be read as a private key: {error}", ""))
        return None


def _add(file: Path) -> str:
    """Return the command that gives a key to the agent, which may have to be started."""
    add = f"ssh-add {shlex.quote(str(file))}"
    return add if os.environ.get("SSH_AUTH_SOCK") else f'eval "$(ssh-agent)" && {add}'


def _public(file: Path) -> bytes | None:
    """Return the public key of a file without its passphrase: from NAME.pub, else from the private key's own head."""
    public = file if file.suffix == ".pub" else Path(f"{file}.pub")
    try:
        return bytes(paramiko.pkey.PublicBlob.from_file(str(public)).key_blob)
    except (OSError, ValueError):
        pass  # none there, or none of OpenSSH's: the private key may say it
    try:
        body = file.read_bytes().partition(b"-----BEGIN OPENSSH PRIVATE KEY-----")[2].partition(b"-----END")[0]
        message = paramiko.Message(base64.b64decode(body).removeprefix(_MAGIC))
    except (OSError, binascii.Error):
        return None
    for _ in ("cipher", "kdf", "kdf's options"):
        message.get_string()
    message.get_int()  # how many keys; OpenSSH writes one
    return bytes(message.get_string()) or None


_MAGIC = b"openssh-key-v1\0"


def _expired(certificate: Path) -> str:
    """Return " (its certificate expired on …)" where that is so."""
    from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

    try:
        found = load_ssh_public_identity(certificate.read_bytes())
    except (OSError, ValueError):
        return ""
    if not isinstance(found, SSHCertificate) or found.valid_before > time.time():
        return ""
    return f" (its certificate expired on {time.strftime('%F', time.gmtime(found.valid_before))})"
