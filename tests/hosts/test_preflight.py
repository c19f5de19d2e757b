"""What is refused before anything changes: the node, the cause and the next step are named, and no host is touched."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from host import Host, broken, each
from lab import Lab, _keygen
from processes import wait

REFUSED, DIFFERS, INTERRUPTED = 3, 4, 130
LOCK = "/run/etcd-steps/lock"
HOME = "/root"  # of the hosts' root
OWN = ("/run", "/tmp", "/var/log", "/var/lib/systemd", f"{HOME}/.cache")  # what hosts write by themselves
LISTING = f"find / -xdev {' '.join(f'-path {path} -prune -o' for path in OWN)} -printf '%p %y%m %U:%G %s %T@ %l\\n'"
HOLDER = r"root@\S+, pid (\d+), since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"

Config = Callable[..., Path]


@pytest.fixture(scope="module")
def pristine(lab: Lab) -> list[Host]:
    """Hosts that nothing was ever done to: what is refused leaves them so, hence one wipe for all of these tests."""
    lab.wipe()
    return lab.hosts[:3]


@pytest.fixture
def used(lab: Lab, pristine: list[Host]) -> Iterator[list[Host]]:
    """The same hosts, for a test that changes them."""
    yield pristine
    lab.wipe()


def listing(host: Host) -> set[str]:
    return set(host.sh(LISTING).splitlines())


def free(host: Host) -> bool:
    """Whether nobody holds the node's lock."""
    return host.sh(f"[ ! -e {LOCK} ] || flock -n {LOCK} true && echo free", check=False) == "free\n"


def refused(lab: Lab, file: Path, *args: str, code: int = REFUSED) -> str:
    """What the command says. It must end with `code`, leave every host as it was, and no lock and no CA behind."""
    hosts = lab.hosts[:3]
    before = each(listing, hosts)
    done = lab.invoke(file, *(args or ("all",)), timeout=60)
    said = re.sub(r".*: new host key SHA256:.*\n", "", done.stdout + done.stderr)  # of every host that is met first
    assert done.returncode == code, said
    assert "Traceback" not in said
    for host, old, new in zip(hosts, before, each(listing, hosts), strict=True):
        assert new == old, f"{host.name}: {sorted(new ^ old)[:10]}"
    assert all(map(free, hosts))
    assert not (file.parent / ".etcd" / "lab" / "ca").exists()
    return said


def stub(program: str, body: str, *, folder: str = "/usr/local/bin") -> tuple[str, str]:
    """How to put a script in a program's place, and how to take it away again."""
    file = f"{folder}/{program}"
    return f"cat >{file} <<'END'\n#!/bin/sh\n{body}\nEND\nchmod 755 {file}", f"rm {file}"


def small(path: str, size: str) -> tuple[str, str]:
    return f"mkdir -p {path}; mount -t tmpfs -o size={size} tmpfs {path}", f"umount {path}; rm -rf /data"


def read_only(path: str) -> tuple[str, str]:
    return f"mount --bind {path} {path}; mount -o remount,bind,ro {path}", f"umount {path}"


SSHD = "$(systemctl show --property=MainPID --value ssh)"
FAULTS: dict[str, tuple[tuple[str, str], dict[str, Any], str]] = {
    "sshd accepts, then hangs": (
        (f"kill -STOP {SSHD}", f"kill -CONT {SSHD}"),
        {"ssh": {"connect_timeout": 2}},
        r"etcd-2: root@192\.168\.1\.221:22 did not answer within 2 s: it accepts connections and says nothing\nnext:",
    ),
    "a foreign process on a port": (
        (
            """systemd-run --quiet --unit=foreign systemd-socket-activate --listen=2380 cat
            until ss -Hltn sport = :2380 | grep -q .; do sleep 0.02; done""",
            "systemctl stop foreign",
        ),
        {},
        r"etcd-2: port 2380 is taken by pid \d+ \(systemd-socket",
    ),
    "read-only /usr/local/bin": (
        read_only("/usr/local/bin"),
        {},
        r"etcd-2: /usr/local/bin cannot be written to: .*findmnt -T /usr/local/bin",
    ),
    "read-only /etc": (
        read_only("/etc"),
        {},
        r"etcd-2: /etc/etcd/cert, /etc/systemd/system, /etc cannot be written to",
    ),
    "no space for the WAL": (
        small("/data", "100m"),
        {},
        r"etcd-2: /data/etcd/wal: 100 MB free, 128 MB are needed",
    ),
    "no space for the binaries": (
        small("/usr/local/bin", "50m"),
        {},
        r"etcd-2: /usr/local/bin: 50 MB free, 100 MB are needed",
    ),
    "no space for both on one disk": (
        small("/data", "200m"),
        {"paths": {"bin": "/data/bin"}},
        r"etcd-2: /data/etcd/wal and /data/bin: 200 MB free, 228 MB are needed",
    ),
    "the WAL is a mount point": (
        small("/data/etcd/wal", "300m"),
        {},
        r'etcd-2: /data/etcd/wal is a mount point.*wal = "/data/etcd/wal/etcd/wal"',
    ),
    "somebody else's directory around the WAL": (
        ("mkdir -p /srv/db; touch /srv/db/theirs; chown -R ops /srv/db", "rm -r /srv/db"),
        {"paths": {"wal": "/srv/db/wal"}},
        r'etcd-2: /srv/db belongs to ops .mode 0755. and holds theirs.*wal = "/srv/db/etcd/wal"',
    ),
    "a CPU without an etcd": (stub("uname", "echo mips"), {}, r"etcd-2: no etcd is made for its CPU \(mips\)"),
    "a clock before the certificates": (
        stub("date", 'exec /usr/bin/date --date="2 hours ago" "$@"'),
        {},
        r"etcd-2: its clock is 7\d\d\d s behind: there its certificate is not valid yet",
    ),
    "a drop-in": (
        (
            """mkdir /etc/systemd/system/etcd.service.d; cd /etc/systemd/system/etcd.service.d
            printf '[Service]\\nEnvironment=ETCD_NAME=x\\n' > theirs.conf; systemctl daemon-reload""",
            "rm -r /etc/systemd/system/etcd.service.d; systemctl daemon-reload",
        ),
        {},
        r"etcd-2: etcd.service is overridden by /etc/systemd/system/etcd.service.d/theirs.conf",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_one_host_stops_everything_before_the_first_change(
    lab: Lab, pristine: list[Host], config: Config, fault: str
) -> None:
    (how, mend), changes, expected = FAULTS[fault]
    with broken(pristine[1], how, mend):
        said = refused(lab, config(**changes))
    assert re.search(expected, said, re.DOTALL), said
    assert re.search("^next: ", said, re.MULTILINE)
    assert "etcd-1:" not in said
    assert "etcd-3:" not in said


def test_a_host_that_is_down(lab: Lab, pristine: list[Host], config: Config) -> None:
    pristine[1].cut()
    try:
        said = refused(lab, config(ssh={"connect_timeout": 2}))
    finally:
        pristine[1].heal()
    assert re.search(r"etcd-2: root@192\.168\.1\.221:22 did not answer within 2 s", said), said
    assert "next: is the host up" in said


def test_all_hosts_problems_are_told_at_once(lab: Lab, pristine: list[Host], config: Config) -> None:
    first, second, third = pristine
    with broken(first, *stub("uname", "echo mips")), broken(third, *small("/data", "100m")):
        said = refused(lab, config())
        assert "etcd-1: no etcd is made" in said
        assert "etcd-3: /data/etcd/wal: 100 MB free" in said
        second.cut()
        try:
            assert "etcd-2: root@192.168.1.221:22" in refused(lab, config(ssh={"connect_timeout": 1}))
        finally:
            second.heal()


def test_a_refused_login_names_user_and_key(lab: Lab, pristine: list[Host], config: Config, tmp_path: Path) -> None:
    key = tmp_path / "other_key"
    _keygen(key)
    said = refused(lab, config(ssh={"key": str(key), "user": "ops"}))
    for host in pristine:
        assert f"{host.name}: ops@{host.ip}:22 refused the login (tried {key})" in said
    assert "next: check [ssh] user and key" in said


@pytest.mark.parametrize("command", ["all", "plan"])
def test_two_names_of_one_machine(lab: Lab, pristine: list[Host], config: Config, command: str) -> None:
    nodes: list[dict[str, Any]] = [{"name": host.name, "ip": host.ip} for host in pristine]
    nodes[2]["ssh"] = {"host": pristine[0].ip}
    said = refused(lab, config(nodes=nodes), command)
    assert re.search("etcd-(1 and etcd-3|3 and etcd-1) are the same machine", said), said


def test_what_may_stay_warns(lab: Lab, pristine: list[Host], config: Config) -> None:
    slow, ahead, little = pristine
    with (
        broken(slow, *stub("grep", 'sleep 1.5; exec /usr/bin/grep "$@"')),
        broken(ahead, *stub("date", 'exec /usr/bin/date --date="5 seconds" "$@"')),
        broken(little, *small("/data", "300m")),
    ):
        said = refused(lab, config(), "plan", code=DIFFERS)
    assert re.search(r"etcd-2: warning: its clock is [345] s ahead of this controller's", said), said
    assert "etcd-3: warning: /data/etcd/data is on 300 MB, less than quota-backend-bytes (6144 MB)" in said
    # Nobody else's clock is off because one host was slow to answer.
    assert said.count("warning: its clock") == 1


def test_a_cpu_that_no_source_has_a_release_for(lab: Lab, pristine: list[Host], config: Config) -> None:
    with broken(pristine[1], *stub("uname", "echo aarch64")):
        said = refused(lab, config())
    assert re.search("etcd-2: no etcd for this CPU: .* lacks etcd-v[0-9.]+-linux-arm64.tar.gz", said), said


class Held:
    """A run of `invoke` that stands still in the middle: a program that it needs on a host waits until `let_go`."""

    def __init__(self, lab: Lab, host: Host, program: str, file: Path, *args: str) -> None:
        self.host = host
        how, self._mend = stub(
            program,
            "echo $$ >/run/holding; while [ -e /run/hold ]; do sleep 0.02; done\n"
            f'exec $(PATH=/usr/sbin:/usr/bin command -v {program}) "$@"',
            folder="/usr/local/sbin",
        )
        host.sh(f"touch /run/hold; rm -f /run/holding; {how}")
        argv = [str(Path(sys.executable).with_name("invoke")), *args]
        self.process = lab.popen(argv, cwd=Path(__file__).parents[2], env={"ETCD_CONFIG": str(file)})
        try:
            wait(lambda: self.holding() or self.process.poll() is not None, 30, f"the run does not come to {program}")
            assert self.process.poll() is None, self.end()
        except BaseException:
            self.end()
            raise

    def holding(self) -> bool:
        return self.host.sh("cat /run/holding 2>/dev/null", check=False) != ""

    def let_go(self) -> None:
        self.host.sh("rm -f /run/hold", check=False)

    def mend(self) -> None:
        """Once the run has ended: a shell of it remembers where it found the program."""
        self.host.sh(self._mend, check=False)

    def end(self) -> str:
        self.let_go()
        out, err = self.process.communicate(timeout=60)
        self.mend()
        return str(out + err)


@contextmanager
def held(lab: Lab, host: Host, program: str, file: Path, *args: str) -> Iterator[Held]:
    run = Held(lab, host, program, file, *args)
    try:
        yield run
    finally:
        run.let_go()
        with run.process:
            run.process.wait(60)
        run.mend()


def test_a_second_operator_is_told_who_is_at_it(lab: Lab, used: list[Host], config: Config, tmp_path: Path) -> None:
    other = lab.config(into=_folder(tmp_path / "other"))
    mine = config()
    with held(lab, used[1], "stat", mine, "env") as first:
        same = lab.invoke(mine, "env", timeout=60)
        elsewhere = lab.invoke(other, "env", timeout=60)
        assert first.process.poll() is None, first.end()
        said = first.end()
    assert first.process.returncode == 0, said
    assert same.returncode == elsewhere.returncode == REFUSED
    here = re.search(f"another run works on lab: {HOLDER}", same.stderr)
    there = re.search(f"etcd-2: another run holds the lock: {HOLDER}", elsewhere.stderr)
    assert here, same.stderr
    assert there, elsewhere.stderr
    assert here[1] == there[1] == str(first.process.pid)
    assert "next: wait for it to end" in same.stderr
    assert "next: wait for it to end" in elsewhere.stderr
    assert lab.invoke(other, "env").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_finishes_what_it_began_and_no_more(
    lab: Lab, used: list[Host], config: Config, number: signal.Signals
) -> None:
    file = config()
    with held(lab, used[1], "useradd", file, "env", "ca") as run:
        run.process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(0.3)
        said = run.end()
    assert run.process.returncode == INTERRUPTED, said
    assert "interrupted: what had begun on a node was finished, nothing else was started" in said
    assert "not done: env. A re-run is safe" in said
    assert each(partial(Host.sh, script="getent passwd etcd >/dev/null && echo there"), used) == ["there\n"] * 3
    assert all(map(free, used))
    again = lab.invoke(file, "env", "ca")
    assert again.returncode == 0, again.stderr
    assert leftovers(used) == []


def test_a_killed_run_leaves_no_lock(lab: Lab, used: list[Host], config: Config, tmp_path: Path) -> None:
    file = config()
    with held(lab, used[1], "useradd", file, "env") as run:
        run.process.kill()
        run.process.wait(10)
        # What it had started still works there: nobody may come between.
        other = lab.invoke(lab.config(into=_folder(tmp_path / "other")), "env", timeout=60)
        assert other.returncode == REFUSED
        assert re.search(f"etcd-2: another run holds the lock: {HOLDER}", other.stderr), other.stderr
        run.let_go()
        wait(lambda: all(map(free, used)), 10, "a lock stays")
    done = lab.invoke(file, "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert leftovers(used) == []


def leftovers(hosts: list[Host]) -> list[str]:
    return "".join(each(partial(Host.sh, script="find / -xdev -name '.etcd-steps.*'"), hosts)).split()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
