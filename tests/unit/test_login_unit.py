"""Logging in: the order of the keys, the second factor, and what is said where it fails."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest
from paramiko.ssh_exception import NoValidConnectionsError

from steps.core.transport.login import Attempt, Queued, SecondFactor, Transport
from steps.core.transport.login_errors import ALGORITHMS, explain
from steps.core.transport.prompt import Prompter

ROOT = Path(__file__).parents[2]
WHERE = "root@10.0.0.1:22"


class Typing(Prompter):
    """A prompter that types by itself."""

    def __init__(self, *answers: str) -> None:
        super().__init__()
        self.answers, self.asked = list(answers), list[str]()

    @property
    def available(self) -> bool:
        return bool(self.answers)

    def ask(self, prompt: str) -> str:
        self.asked.append(prompt)
        return self.answers.pop(0)


class Server(paramiko.ServerInterface):  # type: ignore[misc]  # paramiko is untyped
    """An sshd that takes one key, then perhaps a code, and ends the login after `tries` keys."""

    def __init__(self, accepted: bytes, *, code: str = "") -> None:
        self.accepted, self.code, self.offered = accepted, code, list[str]()

    def get_allowed_auths(self, username: str) -> str:
        del username
        return "keyboard-interactive" if self.code and self.passed else "publickey"

    @property
    def passed(self) -> bool:
        return bool(self.offered) and self.offered[-1] == "accepted"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        del username
        self.offered.append("accepted" if key.asbytes() == self.accepted else "refused")
        if not self.passed:
            return int(paramiko.AUTH_FAILED)
        return int(paramiko.AUTH_PARTIALLY_SUCCESSFUL if self.code else paramiko.AUTH_SUCCESSFUL)

    def check_auth_interactive(self, username: str, submethods: str) -> paramiko.InteractiveQuery:
        del username, submethods
        return paramiko.InteractiveQuery("", "Two factors, please\x1b[2J", ("Code:\x1b[2J", True))

    def check_auth_interactive_response(self, responses: Sequence[str]) -> int:
        return int(paramiko.AUTH_SUCCESSFUL if list(responses) == [self.code] else paramiko.AUTH_FAILED)


@contextmanager
def connected(server: Server) -> Iterator[Transport]:
    here, there = socket.socketpair()
    listening = paramiko.Transport(there)
    listening.add_server_key(paramiko.ECDSAKey.generate())
    listening.start_server(server=server, event=threading.Event())
    transport = Transport(here)
    transport.start_client(timeout=10)
    try:
        yield transport
    finally:
        transport.close()
        listening.close()


def made(folder: Path, name: str, passphrase: str = "") -> bytes:
    """A key file and its .pub; returns the public key."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", str(folder / name)]
    subprocess.run(argv, check=True, capture_output=True)
    return bytes(paramiko.pkey.PublicBlob.from_file(str(folder / f"{name}.pub")).key_blob)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@pytest.fixture
def agent(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A running ssh-agent; add(file) loads a key."""
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(home / "agent")], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "agent"))
    end = time.monotonic() + 10
    while not (home / "agent").exists():
        assert time.monotonic() < end

    def add(file: str) -> None:
        subprocess.run(["ssh-add", "-q", str(home / file)], check=True, capture_output=True)

    yield add
    process.terminate()
    process.wait()


def attempt(files: Sequence[Path | str] = (), prompter: Prompter | None = None, **more: Any) -> Attempt:
    return Attempt(WHERE, "root", [str(file) for file in files], prompter or Typing(), "etcd-1", **more)


def logged_in(tried: Attempt, server: Server) -> list[str]:
    """Log in; returns the names of the keys that were offered."""
    with connected(server) as transport:
        tried.connected(transport)
        try:
            tried.authenticate(transport)
            assert transport.is_authenticated()
        except paramiko.SSHException as error:
            pytest.fail(" ".join(explain(error, tried, 10)))
    return tried.tried


def refused(tried: Attempt, server: Server) -> str:
    with connected(server) as transport:
        tried.connected(transport)
        with pytest.raises(paramiko.SSHException) as caught:
            tried.authenticate(transport)
        message, hint = explain(caught.value, tried, 10)
    return f"{message}\nnext: {hint}"


def test_the_named_key_is_offered_first_also_where_only_the_agent_can_use_it(
    home: Path, agent: Callable[[str], None]
) -> None:
    for number in range(3):
        made(home, f"foreign{number}")
        agent(f"foreign{number}")
    accepted = made(home, "mine")
    agent("mine")
    (home / "mine").unlink()
    for named in ("mine.pub", "mine"):
        assert logged_in(attempt([home / named]), Server(accepted)) == [str(home / named)]


def test_a_key_with_a_passphrase_is_the_agents(home: Path, agent: Callable[[str], None]) -> None:
    accepted = made(home, "locked", "hunter2")
    (home / "plain").write_bytes((home / "locked").read_bytes())
    (home / "plain").chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "hunter2", "-N", "", "-f", str(home / "plain")], check=True)
    agent("plain")
    (home / "locked.pub").unlink()  # its public half stands in the private file, too
    assert logged_in(attempt([home / "locked"]), Server(accepted)) == [str(home / "locked")]


def test_the_usual_files_come_last_and_each_key_once(home: Path, agent: Callable[[str], None]) -> None:
    made(home / ".ssh", "id_ed25519")
    made(home, "other")
    agent("other")
    agent(".ssh/id_ed25519")
    accepted = made(home / ".ssh", "id_ecdsa")
    tried = logged_in(attempt([home / "other"]), Server(accepted))
    assert tried == [str(home / "other"), "the agent's id_ed25519", str(home / ".ssh/id_ecdsa")]


def test_identities_only_offers_nothing_else(home: Path, agent: Callable[[str], None]) -> None:
    made(home, "named")
    accepted = made(home, "other")
    agent("other")
    said = refused(attempt([home / "named"], only_named=True), Server(accepted))
    assert said.startswith(f"{WHERE} refused the login (tried {home}/named)\nnext: check [ssh] user and key")


def test_identities_only_without_a_file_means_the_usual_ones(home: Path, agent: Callable[[str], None]) -> None:
    made(home, "other")
    agent("other")
    accepted = made(home / ".ssh", "id_rsa")
    agent(".ssh/id_rsa")
    (home / ".ssh" / "id_rsa").unlink()
    assert logged_in(attempt(only_named=True), Server(accepted)) == [str(home / ".ssh" / "id_rsa")]


NO_KEY = {
    "none at all": (
        [],
        [],
        "[ssh] key is not set, ~/.ssh has none, there is no",
        'set [ssh] key in etcd.toml (key = "~',
    ),
    "a passphrase": (
        [("locked", "hunter2")],
        ["locked"],
        "locked has a passphrase, and",
        "ssh-add",
    ),
    "a .pub": ([("id", "")], ["gone.pub"], "gone.pub is a public key, and", "ssh-add"),
    "not a key": ([], ["text"], "text cannot be read as a private key: ", "name another file as [ssh] key"),
    "not there": ([], ["nowhere"], "nowhere is not there", "set [ssh] key"),
}


@pytest.mark.parametrize(("keys", "named", "message", "hint"), NO_KEY.values(), ids=NO_KEY)
def test_without_a_usable_key_the_reason_is_said(
    home: Path, keys: list[tuple[str, str]], named: list[str], message: str, hint: str
) -> None:
    for name, passphrase in keys:
        made(home, name, passphrase)
    (home / "text").write_text("no key\n")
    (home / "text").chmod(0o600)
    if (home / "id.pub").exists():
        (home / "id.pub").rename(home / "gone.pub")
    said = refused(attempt([home / name for name in named]), Server(b""))
    assert message in said
    assert f"next: {hint}" in said or hint in said.partition("next: ")[2]
    assert "did not answer" not in said


def test_a_usual_key_that_others_can_read_is_not_used(home: Path) -> None:
    """As for OpenSSH: what others can read is no secret."""
    accepted = made(home / ".ssh", "id_rsa")
    (home / ".ssh" / "id_rsa").chmod(0o644)
    said = refused(attempt(), Server(accepted))
    assert f"{home}/.ssh/id_rsa can be read by others (mode 0644)" in said
    assert f"next: chmod 600 {home}/.ssh/id_rsa" in said


def test_an_expired_certificate_is_named(home: Path) -> None:
    made(home, "ca")
    accepted = made(home, "id")
    sign = ["ssh-keygen", "-q", "-s", str(home / "ca"), "-I", "me", "-n", "root", "-V", "20200101:20200102"]
    subprocess.run([*sign, str(home / "id.pub")], check=True, capture_output=True)
    assert "its certificate expired on 2020-01-0" in refused(attempt([home / "id"]), Server(accepted + b"x"))


def test_a_second_factor_is_asked_for_by_name_and_without_its_escapes(home: Path) -> None:
    accepted = made(home, "id")
    prompter = Typing("123456")
    logged_in(attempt([home / "id"], prompter), Server(accepted, code="123456"))
    assert prompter.asked == [f"etcd-1 ({WHERE}): Code:\x1b[2J "]  # ask() shows no control character
    assert not prompter.turn.locked()


def test_a_wrong_second_factor_is_said(home: Path) -> None:
    accepted = made(home, "id")
    said = refused(attempt([home / "id"], Typing("654321")), Server(accepted, code="123456"))
    assert said.startswith(f"{WHERE} took the key, and not the second factor")


def test_a_second_factor_without_a_terminal_is_refused(home: Path) -> None:
    accepted = made(home, "id")
    tried = attempt([home / "id"])
    with connected(Server(accepted, code="1")) as transport:
        tried.connected(transport)
        with pytest.raises(SecondFactor) as caught:
            tried.authenticate(transport)
    message, hint = explain(caught.value, tried, 10)
    assert message == "wants a second factor (keyboard-interactive) after the key"
    assert "terminal" in hint


def test_a_second_factor_waits_for_its_turn(home: Path) -> None:
    accepted = made(home, "id")
    prompter = Typing("1")
    tried = attempt([home / "id"], prompter)
    with prompter.turn, connected(Server(accepted, code="1")) as transport:
        tried.connected(transport)
        with pytest.raises(Queued):
            tried.authenticate(transport)
    tried.turn = True
    assert logged_in(tried, Server(accepted, code="1")) == [str(home / "id")]


ASKING = """
import sys, termios, threading
from steps.core.transport.prompt import Interrupted, Prompter
prompter, before = Prompter(), termios.tcgetattr(0)
if sys.argv[1] == "cancelled":
    threading.Timer(0.5, prompter.cancel).start()
try:
    said = f"{len(prompter.ask(chr(27) + '[2J etcd-1: Code: '))} characters" if prompter.available else "no terminal"
except Interrupted:
    said = "interrupted"
print(said, "as it was" if termios.tcgetattr(0) == before else "changed", flush=True)
"""


@pytest.mark.parametrize(("how", "said"), [("typed", b"6 characters"), ("cancelled", b"interrupted")])
def test_ask_shows_the_prompt_and_no_echo_and_leaves_the_terminal_as_it_was(how: str, said: bytes) -> None:
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - the child
        os.execve(sys.executable, [sys.executable, "-c", ASKING, how], {**os.environ, "PYTHONPATH": str(ROOT)})
    seen, typed = b"", False
    while b"as it was" not in seen and b"changed" not in seen:
        seen += os.read(terminal, 1024)
        if b"Code: " in seen and how == "typed" and not typed:
            os.write(terminal, b"secret\n")
            typed = True
    os.waitpid(pid, 0)
    os.close(terminal)
    assert b"\\x1b[2J etcd-1: Code: " in seen
    assert b"secret" not in seen
    assert said + b" as it was" in seen


# -- what is said of the rest -------------------------------------------------------------------------------------

OFFER = {
    "kex_algo_list": ["sntrup761x25519-sha512@openssh.com", "ext-info-s", "kex-strict-s-v00@openssh.com"],
    "server_key_algo_list": ["ssh-dss"],
    "server_encrypt_algo_list": ["chacha20-poly1305@openssh.com"],
    "server_mac_algo_list": ["umac-128-etm@openssh.com"],
}


def failed(error: Exception, **facts: Any) -> str:
    """What is said of a login that failed with `error` after the connection was accepted."""
    here, there = socket.socketpair()
    there.close()
    transport = Transport(here)
    tried = attempt()
    tried.connected(transport)
    for name, value in facts.items():
        setattr(transport if name in {"offered", "farewell", "active", "auth_handler"} else tried, name, value)
    message, hint = explain(error, tried, 10)
    here.close()
    return f"{message}\nnext: {hint}"


COMMON = {
    "kex": (
        "ssh peer (no acceptable kex algorithm)",
        ("key exchange", "sntrup761x25519-sha512@openssh.com"),
        "KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256@libssh.org",
    ),
    "host key": (
        "ssh peer (no acceptable host key)",
        ("host key type", "ssh-dss"),
        "HostKeyAlgorithms ssh-dss,ssh-ed25519",
    ),
    "cipher": (
        "ssh server (no acceptable ciphers)",
        ("cipher", "chacha20-poly1305@openssh.com"),
        "Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com",
    ),
    "mac": (
        "ssh server (no acceptable macs)",
        ("MAC", "umac-128-etm@openssh.com"),
        "MACs umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com",
    ),
}


@pytest.mark.parametrize(("error", "said", "line"), COMMON.values(), ids=COMMON)
def test_no_common_algorithm_names_both_sides_and_the_line(error: str, said: tuple[str, str], line: str) -> None:
    found = failed(paramiko.ssh_exception.IncompatiblePeer(f"Incompatible {error}"), offered=OFFER)
    assert f"{WHERE}: no {said[0]} in common: its sshd offers only {said[1]}; this program can " in found
    assert f"next: on the host, in sshd_config: {line}" in found
    assert " within " not in found


def test_paramikos_words_for_each_algorithm_are_known() -> None:
    """Its errors are told apart by their words, and its parsed offer has these lists."""
    source = Path(paramiko.transport.__file__).read_text()
    for words, known in ALGORITHMS.items():
        assert f"no acceptable {words})" in source
        assert f'parsed["{known.offer}"]' in source
    assert "def _parse_disconnect(self, m)" in source
    assert "def _really_parse_kex_init(self, m, ignore_first_byte=False)" in source


AFTER_TWO, MANY = "ended the login after 2 keys (a, b)", "Too many authentication failures"
AUTHENTICATION = paramiko.AuthenticationException
EOF = AUTHENTICATION("Authentication failed: transport shut down or saw EOF")
SAID: dict[str, tuple[Exception, dict[str, Any], str, str]] = {
    "slow": (
        AUTHENTICATION("Authentication timeout."),
        {},
        "answers, and the login took longer than 10 s",
        "raise [ssh] connect_timeout",
    ),
    "too many keys": (
        EOF,
        {"tried": ["a", "b"], "active": False, "farewell": MANY},
        f"{AFTER_TWO}: {MANY}",
        "MaxAuthTries",
    ),
    "cut off after two": (
        EOF,
        {"tried": ["a", "b"], "active": False, "auth_handler": SimpleNamespace(banner=b"closed at night")},
        "ended the login (a, b): closed at night",
        "journalctl",
    ),
    "nologin": (
        EOF,
        {"tried": ["a"], "active": False, "auth_handler": SimpleNamespace(banner=b"System is booting up.\n")},
        "ended the login (a): System is booting up.",
        "journalctl",
    ),
    "no keys taken": (
        paramiko.BadAuthenticationType("x", ["password"]),
        {"tried": ["a"]},
        "takes no key, only password",
        "PubkeyAuthentication yes",
    ),
    "wrong key": (
        AUTHENTICATION("Authentication failed."),
        {"tried": ["a"], "active": True},
        "refused the login (tried a)",
        "authorized_keys",
    ),
    "silent": (
        paramiko.SSHException("Error reading SSH protocol banner"),
        {"since": -99.0},
        "did not answer within 10 s: it accepts conn",
        "MaxStartups",
    ),
    "silent later": (
        paramiko.SSHException("No existing session"),
        {"since": -99.0},
        "did not answer within 10 s",
        "MaxStartups",
    ),
    "ended at once": (
        paramiko.SSHException("Error reading SSH protocol banner"),
        {},
        "ended the connection before the login",
        "MaxStartups",
    ),
    "a proxy command": (
        paramiko.ssh_exception.ProxyCommandFailure("false", "1"),
        {},
        'ended the connection before the login: ProxyCommand("false")',
        "",
    ),
}


@pytest.mark.parametrize(("error", "facts", "said", "hint"), SAID.values(), ids=SAID)
def test_each_failure_is_said_as_what_it_is(error: Exception, facts: dict[str, Any], said: str, hint: str) -> None:
    found = failed(error, **facts)
    assert found.startswith(f"{WHERE} {said}")
    assert hint in found.partition("\nnext: ")[2]


BEFORE: dict[str, tuple[Exception, str]] = {
    "a name": (socket.gaierror(-2, "Name or service not known"), ": the name cannot be resolved: Name or service not"),
    "refused": (NoValidConnectionsError({("h", 22): OSError(111, "Connection refused")}), ": Connection refused"),
    "no answer": (TimeoutError("timed out"), " did not answer within 10 s"),
    "no network": (OSError(101, "Network is unreachable"), ": Network is unreachable"),
    "jump host": (paramiko.ChannelException(2, "Connect failed"), ": the jump host cannot reach it: Connect failed"),
    "no forwarding": (
        paramiko.ChannelException(1, "Administratively prohibited"),
        ": the jump host forbids forwarding (Allow",
    ),
    "jump host silent": (paramiko.SSHException("Timeout opening channel."), " did not answer within 10 s"),
}


@pytest.mark.parametrize(("error", "said"), BEFORE.values(), ids=BEFORE)
def test_a_failure_before_the_connection_is_said(error: Exception, said: str) -> None:
    assert explain(error, attempt(), 10)[0].startswith(f"{WHERE}{said}")
