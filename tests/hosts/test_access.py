"""How one gets in: users, sudo, jump hosts, ~/.ssh/config, addresses, host keys; and what must not leak on the way."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import configs
import pytest
from host import Host, each
from lab import NET, ROOT, Lab, _keygen
from rootfs import OPS, PASSWORD, PW

REFUSED, DIFFERS = 3, 4
INVOKE = str(Path(sys.executable).with_name("invoke"))
TOOLS = f"{NET}.1"  # the controller, as the hosts see it

Config = Callable[..., Path]


@pytest.fixture
def healed(lab: Lab) -> Iterator[None]:
    yield
    each(Host.heal, lab.hosts)


def deny(host: Host, *sources: str, ports: str = "22, 2222") -> None:
    """Nothing comes from there, by default no SSH."""
    host.net("nft", "add table inet t; add chain inet t c { type filter hook input priority 0; }")
    for source in sources:
        host.net("nft", f"add rule inet t c ip saddr {source} tcp dport {{ {ports} }} drop")


def fingerprint(public: Path) -> str:
    return subprocess.check_output(["ssh-keygen", "-lf", str(public)], text=True).split()[1]


def public(lab: Lab, host: Host) -> Path:
    return lab.state / "seed" / host.name / "etc" / "ssh" / "ssh_host_ed25519_key.pub"


def works(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == REFUSED, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not re.search(r"yes/no|override|continue connecting|StrictHostKeyChecking", done.stdout + done.stderr)
    return done.stderr


def nothing_changed(host: Host) -> bool:
    return host.sh("getent passwd etcd; grep etcd-steps /etc/hosts; ls /usr/local/bin", check=False) == ""


@contextmanager
def watching() -> Iterator[set[bytes]]:
    """What can be read of processes meanwhile, the hosts' too: argv, and the environments of all but the command."""
    seen: set[bytes] = set()
    ended = Event()
    thread = Thread(target=_watch, args=(seen, ended))
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _watch(seen: set[bytes], ended: Event) -> None:
    known: dict[str, bytes] = {}
    while not ended.wait(0.003):
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or is the kernel's
                argv = (process / "cmdline").read_bytes()
                if known.get(process.name) != argv:
                    known[process.name] = argv
                    seen.add(argv)
                    if INVOKE.encode() not in argv:
                        seen.add((process / "environ").read_bytes())


def test_sudo_with_a_password_deploys_and_nothing_secret_shows(lab: Lab, hosts: list[Host], config: Config) -> None:
    file = config(ssh={"user": PW, "sudo": True})
    with watching() as seen:
        done = lab.invoke(file, "all", env={"INVOKE_SUDO_PASSWORD": PASSWORD})
    assert "lab is healthy" in works(done)
    keys = list((file.parent / ".etcd").rglob("*key.pem"))
    assert len(keys) == 5  # the CA's, three members', the operator's
    secrets = {PASSWORD, *(line for key in keys for line in key.read_text().splitlines() if "-----" not in line)}
    everything = b"\n".join(seen)
    assert b"etcdctl" in everything  # what runs on the hosts was seen
    assert b"sudo" in everything
    for secret in secrets:
        assert secret not in done.stdout + done.stderr
        assert secret.encode() not in everything
    others = [path for path in (file.parent / ".etcd").rglob("*") if path.is_file() and path not in keys]
    assert not [path for path in others if any(secret.encode() in path.read_bytes() for secret in secrets)]
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)

    # Whoever may become root without a password finds the same cluster, and nothing to do.
    ops = lab.config(
        into=_folder(file.parent / "ops"), ssh={"user": OPS, "sudo": True}, paths={"work": file.parent / ".etcd"}
    )
    before = each(lambda host: host.sh("systemctl show --property=MainPID etcd"), hosts)
    assert "is created" not in works(lab.invoke(ops, "all"))
    assert each(lambda host: host.sh("systemctl show --property=MainPID etcd"), hosts) == before

    # So does who comes through one of the hosts, the others' own doors being shut.
    for host in hosts[1:]:
        deny(host, TOOLS)
    try:
        jump = lab.config(
            into=_folder(file.parent / "jump"),
            ssh={"jump": f"{OPS}@{hosts[0].ip}:22", "connect_timeout": 3},
            paths={"work": file.parent / ".etcd"},
        )
        assert "lab is healthy" in works(lab.invoke(jump, "env", "verify"))
    finally:
        each(Host.heal, hosts)


@pytest.fixture(scope="module")
def clean(lab: Lab) -> list[Host]:
    """Hosts for the tests that change nothing on them but what `env` does."""
    lab.wipe()
    return lab.hosts[:3]


def test_without_its_password_sudo_is_refused(lab: Lab, clean: list[Host], config: Config) -> None:
    said = refused(lab.invoke(config(ssh={"user": PW, "sudo": True}), "env"))
    for host in clean:
        assert re.search(f"{host.name}: sudo does not let us in: .*password is required", said), said
    assert re.search("^next: .*passwordless sudo.*--prompt-for-sudo-password.*INVOKE_SUDO_PASSWORD", said, re.MULTILINE)


def test_a_wrong_password_is_tried_once(lab: Lab, clean: list[Host], config: Config) -> None:
    failures = "journalctl --sync; journalctl -q -o cat | grep -c 'pam_unix(sudo:auth): authentication failure'"
    before = each(lambda host: int(host.sh(failures, check=False)), clean)
    start = time.monotonic()
    done = lab.invoke(config(ssh={"user": PW, "sudo": True}), "env", env={"INVOKE_SUDO_PASSWORD": "wrong battery"})
    assert time.monotonic() - start < 15  # nobody waits for an answer to a second question
    said = refused(done)
    assert "wrong battery" not in said + done.stdout
    for host, count in zip(clean, before, strict=True):
        assert f"{host.name}: sudo does not let us in: sudo did not take the password" in said
        assert int(host.sh(failures)) == count + 1
        assert "1 incorrect password attempt" in host.sh("journalctl -q -o cat -t sudo")


def test_the_password_can_be_asked_for(lab: Lab, clean: list[Host], config: Config) -> None:
    file = config(ssh={"user": PW, "sudo": True})
    argv = ["setsid", "--wait", INVOKE, "--prompt-for-sudo-password", "plan"]  # no terminal: it is read from stdin
    done = lab.run(argv, cwd=ROOT, env={"ETCD_CONFIG": str(file)}, input=f"{PASSWORD}\n", check=False)
    assert done.returncode == DIFFERS, done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert all(map(nothing_changed, clean))


def test_a_jump_host_that_is_not_what_it_was(lab: Lab, clean: list[Host], config: Config, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    first, second, third = clean
    jump = {"jump": f"root@{first.ip}", "known_hosts": str(known), "connect_timeout": 3}
    known.write_text(f"{first.ip} {_key(lab, third)}\n")
    said = refused(lab.invoke(config(ssh=jump), "env"))
    assert f"jump host: the host key of {first.ip} has changed" in said
    assert fingerprint(public(lab, first)) in said
    assert fingerprint(public(lab, third)) in said

    known.write_text(f"{second.ip} {_key(lab, second)}\n")
    said = refused(lab.invoke(config(ssh={**jump, "host_keys": "strict"}), "env"))
    assert f"jump host: host key of {first.ip} is unknown: ssh-ed25519 {fingerprint(public(lab, first))}" in said
    # The hosts behind it have their own keys, and they are looked at, too.
    known.write_text(f"{first.ip} {_key(lab, first)}\n{second.ip} {_key(lab, first)}\n")
    said = refused(lab.invoke(config(ssh=jump), "env"))
    assert f"etcd-2: the host key of {second.ip} has changed" in said
    assert all(map(nothing_changed, clean))


def test_a_dead_jump_host_costs_one_deadline(lab: Lab, clean: list[Host], config: Config, healed: None) -> None:
    jump = clean[0]
    deny(jump, TOOLS)
    start = time.monotonic()
    said = refused(lab.invoke(config(ssh={"jump": f"root@{jump.ip}", "connect_timeout": 5}), "env"))
    assert time.monotonic() - start < 2.5 * 5  # three hosts are behind it
    for host in clean:
        assert f"{host.name}: jump host: root@{jump.ip}:22 did not answer within 5 s" in said


def test_new_keys_are_kept_and_changed_ones_refused(lab: Lab, clean: list[Host], config: Config) -> None:
    file = config()
    works(lab.invoke(file, "env"))
    known = file.parent / ".etcd" / "lab" / "known_hosts"
    assert known.stat().st_mode & 0o777 == 0o600
    assert sorted(known.read_text().splitlines()) == sorted(f"{host.ip} {_key(lab, host)}" for host in clean)

    second, third = clean[1:]
    known.write_text(known.read_text().replace(_key(lab, second), _key(lab, third)))
    said = refused(lab.invoke(file, "env"))
    old, new = fingerprint(public(lab, third)), fingerprint(public(lab, second))
    expected = f"etcd-2: the host key of {second.ip} has changed: known ssh-ed25519 {old}, offered ssh-ed25519 {new}"
    assert expected in said
    assert str(known) in said
    assert known.read_text().count(_key(lab, second)) == 0


def test_strict_wants_to_know_every_key(lab: Lab, clean: list[Host], config: Config, dot_ssh: Path) -> None:
    file = config(ssh={"host_keys": "strict"})
    said = refused(lab.invoke(file, "env"))
    for host in clean:
        assert f"{host.name}: host key of {host.ip} is unknown: ssh-ed25519 {fingerprint(public(lab, host))}" in said
        assert f"{host.ip} {_key(lab, host)}" in said  # the line to add
    assert str(dot_ssh / "known_hosts") in said
    assert not (dot_ssh / "known_hosts").exists()

    (dot_ssh / "known_hosts").write_text(lab.known_hosts.read_text())
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(dot_ssh / "known_hosts")], check=True, capture_output=True)
    works(lab.invoke(file, "env"))
    assert not (file.parent / ".etcd" / "lab" / "known_hosts").exists()


SSH_CONFIG = """\
Host db1
    HostName {0}
Host db2
    HostName {1}
    ProxyJump db1
Host db3
    HostName {2}
    ProxyJump db1,db2
Host db*
    User ops
    Port 2222
    IdentityFile {key}
"""


def test_settings_of_ssh_config(lab: Lab, hosts: list[Host], config: Config, healed: None, dot_ssh: Path) -> None:
    key = dot_ssh / "db_key"
    _keygen(key)
    for host in hosts:
        authorized = key.with_suffix(".pub").read_text().strip()
        host.sh(f"install -d -o ops -g ops -m 700 ~ops/.ssh; echo '{authorized}' > ~ops/.ssh/authorized_keys")
        host.sh("printf 'Port 22\\nPort 2222\\n' > /etc/ssh/sshd_config.d/port.conf; systemctl restart ssh")
        deny(host, *{0: (), 1: (TOOLS,), 2: (TOOLS, hosts[0].ip)}[hosts.index(host)])
    (dot_ssh / "config").write_text(SSH_CONFIG.format(*(host.ip for host in hosts), key=key))
    file = config()
    document: dict[str, Any] = configs.loads(file.read_text())
    document["ssh"] = {"sudo": True, "connect_timeout": 3}  # neither user nor key
    for number, node in enumerate(document["nodes"], 1):
        node["ssh"] = {"host": f"db{number}"}
    file.write_text(configs.dumps(document))
    assert "lab is healthy" in works(lab.invoke(file, "all"))
    known = (file.parent / ".etcd" / "lab" / "known_hosts").read_text()
    assert {line.split()[0] for line in known.splitlines()} == {f"[{host.ip}]:2222" for host in hosts}
    for host in hosts:
        assert "session opened for user root" in host.sh("journalctl -q -o cat -t sudo")
        assert "for root from" not in host.sh("journalctl -q -o cat -t sshd")


def test_an_sshd_that_forbids_forwarding(lab: Lab, hosts: list[Host], config: Config, healed: None) -> None:
    """Ports are asked from here, and what cannot be asked is named; nothing is called ill for it."""
    for host in hosts:
        host.sh("echo AllowTcpForwarding no > /etc/ssh/sshd_config.d/forwarding.conf; systemctl restart ssh")
    file = config()
    said = works(lab.invoke(file, "all"))
    assert "lab is healthy" in said
    assert said.count("client port 2379 was not checked") == 0
    for host in hosts:
        forbidden = f"the sshd of {host.name} forbids forwarding (AllowTcpForwarding)"
        assert f"{host.name}: peer port 2380 was not checked: {forbidden}" in said
    said = works(lab.invoke(file, "certs", "--renew"))
    assert "is served on both ports" not in said
    assert said.count("issued") == 4
    for host in hosts:  # and from here nobody reaches etcd either
        deny(host, TOOLS, ports="2379, 2380")
    works(lab.invoke(file, "stop", "--node", hosts[2].name))
    works(lab.invoke(file, "start", "--node", hosts[2].name))
    said = works(lab.invoke(file, "verify"))
    assert "lab is healthy" in said
    assert said.count("client port 2379 was not checked") == 3


def test_ipv6(lab: Lab, hosts: list[Host], config: Config) -> None:
    file = config(nodes=[{"name": host.name, "ip": host.ip6} for host in hosts])
    said = works(lab.invoke(file, "all"))
    assert "lab is healthy" in said
    for host in hosts:
        assert f"https://[{host.ip6}]:2379" in said
        assert f"{host.ip6} {host.name}\n" in host.sh("cat /etc/hosts")
    assert "not checked" not in said
    assert "nothing to do" in works(lab.invoke(file, "plan"))
    environment = file.parent / ".etcd" / "lab" / "environment.sh"
    health = lab.run(["bash", "-c", f". {environment} && etcdctl endpoint health 2>&1"], cwd=ROOT)
    assert health.stdout.count("is healthy") == 3


def _key(lab: Lab, host: Host) -> str:
    return public(lab, host).read_text().rsplit(" ", 1)[0].strip()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
