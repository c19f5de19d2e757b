"""Why a login failed, in words that name the cause: paramiko's own speak of something else, or of nothing."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

import paramiko
from paramiko.ssh_exception import NoValidConnectionsError

from steps.core.transport.login import Attempt, SecondFactor, Transport
from steps.core.transport.prompt import Interrupted

TOO_MANY = "Too many authentication failures"  # sshd's last words


@dataclass(frozen=True)
class Algorithms:
    """One thing that both sides must agree on: sshd's keyword, the list in the host's offer, and ours."""

    what: str
    keyword: str
    offer: str
    ours: str


# In the order in which they are agreed on, with the words of paramiko's error.
ALGORITHMS = {
    "kex algorithm": Algorithms("key exchange", "KexAlgorithms", "kex_algo_list", "kex"),
    "host key": Algorithms("host key type", "HostKeyAlgorithms", "server_key_algo_list", "key_types"),
    "ciphers": Algorithms("cipher", "Ciphers", "server_encrypt_algo_list", "ciphers"),
    "macs": Algorithms("MAC", "MACs", "server_mac_algo_list", "digests"),
}
# What is asked for first: what OpenSSH's own defaults have as well.
GOOD = (
    *("curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "ssh-ed25519", "rsa-sha2-512"),
    *("aes256-gcm@openssh.com", "aes256-ctr", "hmac-sha2-256-etm@openssh.com", "hmac-sha2-256"),
)
_PSEUDO = ("ext-info-s", "kex-strict-s-v00@openssh.com")  # no algorithms: what the host can besides


def explain(error: Exception, attempt: Attempt, timeout: float) -> tuple[str, str]:
    """Return what is wrong and what helps. `timeout`: [ssh] connect_timeout in seconds.

    Of a second factor the words go on from the host's name, which the caller puts in front.
    """
    where = attempt.where
    if isinstance(error, SecondFactor):
        return _second_factor(error, attempt)
    if isinstance(error, Interrupted):
        return f"{where}: interrupted while it asked for a second factor", ""
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return _incompatible(error, attempt)
    if isinstance(error, paramiko.AuthenticationException):
        return _refused(error, attempt, timeout)
    if attempt.transport is None:
        return _unreachable(error, where, timeout)
    return _no_login(error, attempt, timeout) if attempt.keys is None else _cut_off(error, attempt)


def _unreachable(error: Exception, where: str, timeout: float) -> tuple[str, str]:
    """No connection came about."""
    if isinstance(error, socket.gaierror):
        return f"{where}: the name cannot be resolved: {error.strerror}", ""
    if isinstance(error, NoValidConnectionsError):
        cause = next(iter(error.errors.values()))
        return f"{where}: {cause.strerror or cause}", "is the host up, is sshd on that port?"
    if isinstance(error, TimeoutError) or "Timeout opening channel" in str(error):
        return f"{where} did not answer within {timeout} s", "is the host up and its sshd healthy?"
    if isinstance(error, paramiko.ChannelException):
        if error.code == paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED:
            message = f"{where}: the jump host forbids forwarding (AllowTcpForwarding)"
            return message, "on the jump host, in sshd_config: AllowTcpForwarding yes"
        return f"{where}: the jump host cannot reach it: {error.text}", "is the host up, is sshd on that port?"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{where}: {said}", "is the host up and its sshd healthy?"


def _second_factor(error: SecondFactor, attempt: Attempt) -> tuple[str, str]:
    message = f"wants a second factor ({', '.join(error.methods)}) after the key"
    match = f"Match User {attempt.user}, AuthenticationMethods publickey"
    return message, f"run it on a terminal, where it is asked for; or, on the host, in sshd_config: {match}"


def _incompatible(error: Exception, attempt: Attempt) -> tuple[str, str]:
    kind = next((known for words, known in ALGORITHMS.items() if words in str(error)), None)
    transport = attempt.transport
    if kind is None or transport is None or not transport.offered:
        return f"{attempt.where}: {error}", "compare its sshd -T with what paramiko can"
    theirs = [name for name in transport.offered[kind.offer] if name not in _PSEUDO]
    ours = list(getattr(transport.get_security_options(), kind.ours))
    best = next((name for name in GOOD if name in ours), ours[0])
    message = f"{attempt.where}: no {kind.what} in common: its sshd offers only {', '.join(theirs)}"
    line = f"{kind.keyword} {','.join([*theirs, best])}"
    return f"{message}; this program can {', '.join(ours)}", f"on the host, in sshd_config: {line}"


def _refused(error: paramiko.AuthenticationException, attempt: Attempt, timeout: float) -> tuple[str, str]:
    where, transport = attempt.where, attempt.transport
    if isinstance(error, paramiko.BadAuthenticationType):
        return (
            f"{where} takes no key, only {', '.join(error.allowed_types)}",
            "on the host, in sshd_config: PubkeyAuthentication yes, and AuthenticationMethods with publickey",
        )
    if "timeout" in str(error).lower():
        return (
            f"{where} answers, and the login took longer than {timeout} s",
            "raise [ssh] connect_timeout; on the host, UseDNS, PAM or a directory service may be slow",
        )
    if transport is not None and not transport.is_active():
        return _cut_off(error, attempt)
    if attempt.accepted:
        return f"{where} took the key, and not the second factor", "run the same command again"
    return _without_a_key(attempt)


def _without_a_key(attempt: Attempt) -> tuple[str, str]:
    """No key was taken: which were offered, and why others could not be."""
    reasons = "; ".join(reason for reason, _ in attempt.unusable)
    help_ = next((helps for _, helps in attempt.unusable if helps), "")
    if attempt.tried:
        message = f"{attempt.where} refused the login (tried {', '.join(attempt.tried)})"
        return f"{message}; {reasons}" if reasons else message, help_ or _AUTHORIZED
    if reasons:
        return f"{attempt.where}: no key to log in with: {reasons}", help_ or "name another file as [ssh] key"
    named = ", ".join(map(str, attempt.files))
    looked = f"{named} is not there" if named else "[ssh] key is not set, ~/.ssh has none"
    agent = "ssh-agent holds none" if os.environ.get("SSH_AUTH_SOCK") else "there is no ssh-agent"
    message = f"{attempt.where}: no key to log in with: {looked}, {agent}"
    return message, 'set [ssh] key in etcd.toml (key = "~/.ssh/id_ed25519"), or ssh-add a key'


_AUTHORIZED = "check [ssh] user and key, or the host's authorized_keys"


def _no_login(error: Exception, attempt: Attempt, timeout: float) -> tuple[str, str]:
    """Connected, and the login never began."""
    if time.monotonic() - attempt.since >= timeout - 1:
        return (
            f"{attempt.where} did not answer within {timeout} s: it accepts connections and says nothing",
            _OVERLOADED,
        )
    said = str(error).replace("Error reading SSH protocol banner", "").strip()
    return f"{attempt.where} ended the connection before the login{f': {said}' if said else ''}", _OVERLOADED


_OVERLOADED = "is that port sshd's? It may be overloaded, or refuse connections (MaxStartups, PerSourcePenalties)"


def _cut_off(error: Exception, attempt: Attempt) -> tuple[str, str]:
    """The host ended the connection while we logged in."""
    farewell = attempt.transport.farewell if attempt.transport else ""
    if TOO_MANY in farewell:
        message = f"{attempt.where} ended the login after {len(attempt.tried)} keys ({', '.join(attempt.tried)})"
        return f"{message}: {farewell}", _NAME_IT
    words = " ".join((farewell or _banner(attempt) or str(error)).split())
    return (
        f"{attempt.where} ended the login ({', '.join(attempt.tried)}): {words}",
        "its log says why: journalctl -u ssh -u sshd",
    )


_NAME_IT = (
    "name the right key first: [ssh] key = … in etcd.toml, or IdentityFile and IdentitiesOnly yes in ~/.ssh/config; "
    "the limit is MaxAuthTries in the host's sshd_config"
)


def _banner(attempt: Attempt) -> str:
    """Return what the host printed during the login: PAM's words (a pam_nologin) come this way."""
    transport: Transport | None = attempt.transport
    handler = transport.auth_handler if transport is not None else None
    banner = handler.banner if handler is not None else None
    return banner.decode(errors="replace")[-300:] if banner else ""
