"""Logins that fail, each said as what it is; a second factor; and hosts that are met for the first time."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import configs
import pytest
from host import Host, broken, each
from lab import ROOT, Lab, _keygen
from rootfs import OPS
from test_access import DIFFERS, INVOKE, REFUSED, Config, fingerprint, public

CONF = "/etc/ssh/sshd_config.d/00-test.conf"  # the first word counts: before the lab's own
RESTART = "systemctl reset-failed ssh; systemctl restart ssh"
CODE = "correct horse 42"


@pytest.fixture(scope="module")
def clean(lab: Lab) -> list[Host]:
    """Hosts on which nothing is deployed."""
    lab.wipe()
    return lab.hosts[:3]


@contextmanager
def sshd(hosts: list[Host], lines: str) -> Iterator[None]:
    each(lambda host: host.sh(f"printf '%b' '{lines}' > {CONF}; sshd -t && {RESTART}"), hosts)
    try:
        yield
    finally:
        each(lambda host: host.sh(f"rm {CONF}; {RESTART}"), hosts)


@contextmanager
def agent(folder: Path) -> Iterator[dict[str, str]]:
    """A running ssh-agent's environment."""
    socket = folder / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 10
    while not socket.exists():
        assert time.monotonic() < end
    try:
        yield {"SSH_AUTH_SOCK": str(socket)}
    finally:
        process.terminate()
        process.wait()


def add(environment: dict[str, str], key: Path) -> None:
    subprocess.run(["ssh-add", "-q", str(key)], env={**os.environ, **environment}, check=True, capture_output=True)


def said(done: subprocess.CompletedProcess[str], code: int = REFUSED) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def without_key(file: Path, lab: Lab, **ssh: Any) -> Path:
    """The same etcd.toml, without [ssh] key."""
    document = configs.loads(file.read_text())
    document["ssh"] = {"user": "root", **ssh}
    file.write_text(configs.dumps(document))
    return file


COMMON = {
    "cipher": ("Ciphers chacha20-poly1305@openssh.com", "cipher", "chacha20-poly1305@openssh.com"),
    "mac": ("Ciphers aes256-ctr\\nMACs umac-128-etm@openssh.com", "MAC", "umac-128-etm@openssh.com"),
    "kex": ("KexAlgorithms sntrup761x25519-sha512@openssh.com", "key exchange", "sntrup761x25519-sha512@openssh.com"),
}


@pytest.mark.parametrize("kind", COMMON)
def test_no_common_algorithm_is_named_with_the_line_that_helps(
    clean: list[Host], lab: Lab, config: Config, kind: str
) -> None:
    lines, what, offered = COMMON[kind]
    first = clean[0]
    file = config()
    with sshd([first], lines):
        found = said(lab.invoke(file, "plan"))
    at = f"etcd-1: root@{first.ip}:22: no {what} in common: its sshd offers only {offered}; this program can "
    assert at in found
    (line,) = re.findall(r"^next: on the host, in sshd_config: (.*)$", found, re.MULTILINE)
    assert " within " not in found
    helps = lines.rpartition("\\n")[0] + "\\n" + line
    with sshd([first], helps.removeprefix("\\n")):
        said(lab.invoke(file, "plan"), DIFFERS)


def test_an_agent_with_more_keys_than_maxauthtries(
    clean: list[Host], lab: Lab, config: Config, dot_ssh: Path, tmp_path: Path
) -> None:
    file = without_key(config(), lab)
    with agent(tmp_path) as environment:
        for number in range(8):
            key = tmp_path / f"foreign{number}"
            _keygen(key)
            add(environment, key)
        add(environment, lab.key)
        found = said(lab.invoke(file, "plan", env=environment))
        for host in clean:
            assert re.search(rf"{host.name}: root@{host.ip}:22 ended the login after [56] keys \(the agent's ", found)
        assert "Too many authentication failures" in found
        assert "IdentitiesOnly" in found
        assert "MaxAuthTries" in found

        shutil.copy(lab.key.with_suffix(".pub"), dot_ssh / "id.pub")
        (dot_ssh / "config").write_text("Host 192.168.1.*\n IdentitiesOnly yes\n IdentityFile ~/.ssh/id.pub\n")
        said(lab.invoke(file, "plan", env=environment), DIFFERS)
        (dot_ssh / "config").unlink()

        # A key with a passphrase is offered first, by the agent, and so is a .pub that is named.
        locked = tmp_path / "locked"
        shutil.copy(lab.key, locked)
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "hunter2", "-f", str(locked)], check=True, capture_output=True)
        said(lab.invoke(without_key(file, lab, key=str(locked)), "plan", env=environment), DIFFERS)
        said(lab.invoke(without_key(file, lab, key=str(dot_ssh / "id.pub")), "plan", env=environment), DIFFERS)

    found = said(lab.invoke(without_key(file, lab, key=str(locked)), "plan"))
    assert f"etcd-1: root@{clean[0].ip}:22: no key to log in with: {locked} has a passphrase" in found
    assert f"ssh-add {locked}" in found
    found = said(lab.invoke(without_key(file, lab, key=str(dot_ssh / "id.pub")), "plan"))
    assert f"{dot_ssh / 'id.pub'} is a public key, and ssh-agent does not hold its private key" in found
    found = said(lab.invoke(without_key(file, lab), "plan"))
    assert "no key to log in with: [ssh] key is not set, ~/.ssh has none, there is no ssh-agent" in found
    assert " within " not in found


def test_a_slow_login_is_no_dead_host(clean: list[Host], lab: Lab, config: Config) -> None:
    first = clean[0]
    pam = "sed -i '1i account required pam_exec.so quiet /bin/sleep 6' /etc/pam.d/sshd"
    with broken(first, pam, "sed -i 1d /etc/pam.d/sshd"):
        found = said(lab.invoke(config(ssh={"connect_timeout": 3}), "plan"))
    assert f"etcd-1: root@{first.ip}:22 answers, and the login took longer than 3 s" in found
    assert "next: raise [ssh] connect_timeout" in found


def test_pam_nologins_own_words_are_shown(clean: list[Host], lab: Lab, config: Config) -> None:
    first = clean[0]
    with broken(first, "echo System is booting up. > /run/nologin", "rm /run/nologin"):
        found = said(lab.invoke(config(ssh={"user": OPS, "sudo": True}), "plan"))
    assert re.search(rf"etcd-1: {OPS}@{first.ip}:22 ended the login \(.*\): .*System is booting up\.", found), found


def test_an_expired_certificate_of_the_user_is_named(
    clean: list[Host], lab: Lab, config: Config, tmp_path: Path
) -> None:
    ca, key = tmp_path / "ca", tmp_path / "id"
    _keygen(ca)
    _keygen(key)
    sign = ["ssh-keygen", "-q", "-s", str(ca), "-I", "me", "-n", "root", "-V", "20200101:20200102"]
    subprocess.run([*sign, str(key.with_suffix(".pub"))], check=True, capture_output=True)
    found = said(lab.invoke(config(ssh={"key": str(key)}), "plan"))
    assert f"refused the login (tried {key} (its certificate expired on 2020-01-0" in found


def test_requiretty_has_its_own_hint(clean: list[Host], lab: Lab, config: Config) -> None:
    first = clean[0]
    file = "/etc/sudoers.d/zz"
    with broken(first, f"echo 'Defaults requiretty' > {file}; chmod 440 {file}", f"rm {file}"):
        found = said(lab.invoke(config(ssh={"user": OPS, "sudo": True}), "plan"))
    assert "etcd-1: its sudoers has requiretty: " in found
    assert f"Defaults:{OPS} !requiretty" in found
    assert "passwordless" not in found


SECOND = (
    "AuthenticationMethods publickey,keyboard-interactive\\nKbdInteractiveAuthentication yes\\nPermitRootLogin yes\\n"
)


@contextmanager
def second_factor(hosts: list[Host]) -> Iterator[None]:
    each(lambda host: host.sh(f"echo 'root:{CODE}' | chpasswd"), hosts)
    with sshd(hosts, SECOND):
        yield


def typed(lab: Lab, file: Path, *args: str, answer: str, wait: float = 90) -> tuple[int, str]:
    """`invoke ARGS` on a terminal, where each "Password:" is answered; returns its exit code and all that was seen."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - the child
        os.chdir(ROOT)
        argv = [*lab.net, INVOKE, *args]
        os.execvpe(argv[0], argv, {**lab.environment, "ETCD_CONFIG": str(file), "TERM": "xterm"})
    seen, asked, end = "", 0, time.monotonic() + wait
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            seen += os.read(terminal, 1 << 16).decode(errors="replace")
        except OSError:  # the other end is closed
            break
        if seen.count("assword: ") > asked:
            asked += 1
            assert seen.rpartition("assword: ")[2].strip() == "", "nothing is drawn behind a question"
            os.write(terminal, f"{answer}\n".encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen


def test_a_second_factor_is_asked_for_host_by_host_and_never_shown(clean: list[Host], lab: Lab, config: Config) -> None:
    file = config()
    with second_factor(clean):
        code, seen = typed(lab, file, "plan", answer=CODE)
        assert code == DIFFERS, seen
        assert CODE not in seen
        for host in clean:
            assert seen.count(f"{host.name} (root@{host.ip}:22): ") == 1, seen
        code, seen = typed(lab, file, "plan", answer="wrong")
        assert code == REFUSED, seen
        assert "took the key, and not the second factor" in seen
        assert "wrong" not in seen

        found = said(lab.invoke(file, "plan", input=""))
        for host in clean:
            assert f"{host.name} wants a second factor (keyboard-interactive) after the key" in found
        found = lab.invoke(file, "status", input="").stderr
        assert "etcd-1 wants a second factor (keyboard-interactive) after the key" in found


def test_an_interrupt_at_the_question_gives_the_terminal_back(clean: list[Host], lab: Lab, config: Config) -> None:
    file = config()
    with second_factor(clean):
        code, seen = typed(lab, file, "plan", answer="\x03")
    assert code == 130, seen
    assert "interrupted" in seen


def new_keys(text: str) -> list[str]:
    return sorted(re.findall(r"(\S+): new host key (SHA256:\S+)", text))


def test_first_contact_is_said_and_kept_by_plan_and_by_no_reading_task(
    clean: list[Host], lab: Lab, config: Config
) -> None:
    file = config()
    work = file.parent / ".etcd"
    expected = sorted((host.name, fingerprint(public(lab, host))) for host in clean)
    for task in ("status", "doctor"):
        assert new_keys(lab.invoke(file, task).stdout) == expected
    assert new_keys(lab.invoke(file, "status", "--json").stderr) == expected
    assert not work.exists()

    done = lab.invoke(file, "plan")
    assert new_keys(done.stdout) == expected
    assert sorted(entry.name for entry in (work / "lab").iterdir()) == [".gitignore", "known_hosts"]
    kept = (work / "lab" / "known_hosts").read_text()
    assert len(kept.splitlines()) == 3
    assert new_keys(lab.invoke(file, "plan").stdout) == []

    # Another host answers at that address when `all` comes: it is not the one that plan met.
    first, second = (public(lab, host).read_text().split()[1] for host in clean[:2])
    (work / "lab" / "known_hosts").write_text(kept.replace(first, second))
    assert "etcd-1: the host key of " in said(lab.invoke(file, "env"))

    (work / "lab" / "known_hosts").unlink()
    assert new_keys(lab.invoke(file, "env").stdout) == expected
    listed = [line.split()[0] for line in lab.invoke(file, "log").stdout.splitlines() if " env" in line]
    assert listed
    assert new_keys(lab.invoke(file, "log", "--run", listed[0]).stdout) == expected


def test_what_ssh_would_refuse_is_refused_and_no_file_of_the_users_is_written(
    clean: list[Host], lab: Lab, config: Config, dot_ssh: Path
) -> None:
    first, second, third = clean
    users = dot_ssh / "known_hosts"
    users.write_text(lab.known_hosts.read_text().replace(_key(lab, first), _key(lab, third)))
    before = users.read_bytes()
    file = config()
    found = said(lab.invoke(file, "plan"))
    changed = f"etcd-1: the host key of {first.ip} has changed: known ssh-ed25519 {fingerprint(public(lab, third))}"
    assert changed in found
    assert str(users) in found
    assert users.read_bytes() == before

    # A file that etcd.toml names is read and never written, and a jump host is met as any other.
    users.unlink()
    named = dot_ssh / "authorized_keys"
    named.write_text(f"{second.ip} {_key(lab, second)}\n")
    file = config(ssh={"known_hosts": str(named), "jump": f"root@{first.ip}"})
    done = lab.invoke(file, "plan")
    assert f"jump host root@{first.ip}: new host key {fingerprint(public(lab, first))}" in done.stdout
    assert ("etcd-3", fingerprint(public(lab, third))) in new_keys(done.stdout)
    assert "etcd-2: new host key" not in done.stdout
    assert named.read_text() == f"{second.ip} {_key(lab, second)}\n"


def _key(lab: Lab, host: Host) -> str:
    return public(lab, host).read_text().rsplit(" ", 1)[0].strip()
