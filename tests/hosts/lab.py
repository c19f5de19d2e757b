"""Real hosts on one machine: systemd and sshd in containers on a bridge from which no packet can leave.

One process, the anchor, is PID 1 of process, mount and network namespaces of its own. Everything else lives in them, so
that the end of the anchor is the end of everything: hosts, mounts, links. It ends with whoever called `Lab.up`, even by
SIGKILL, because it reads a pipe of theirs; hosts that shall stay (`keep=True`) are ended by `Lab.down` alone.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import configs
from host import Host, each
from processes import (
    TASKS,
    LabError,
    alive,
    allow_watchers,
    children,
    daemon,
    hierarchies,
    output,
    read_pid,
    tidy,
    wait,
)
from rootfs import CACHE, rootfs

ROOT = Path(__file__).resolve().parents[2]
NET, NET6, FIRST = "192.168.1", "fd00:e7cd:", 220  # the how-to's addresses; safe, for nothing routes out of here
KEPT = CACHE / "lab"  # where hosts that stay have their state
NEEDED = ("debootstrap", "systemd-nspawn", "unshare", "ip", "nft", "ssh-keygen")

ANCHOR = f"""set -e
mount -t tmpfs -o mode=755 lab /run
mkdir /run/netns /run/lab
ip link set lo up
ip link add br0 type bridge
ip address add {NET}.1/24 dev br0
ip address add {NET6}:1/64 dev br0 nodad
ip link set br0 up
echo ready
exec "$@"
"""
LINK = """set -e
ip netns add "$1"
ip link add "$1" type veth peer name host0 netns "$1"
ip link set "$1" master br0 up
ip -n "$1" address add "$2/24" dev host0
ip -n "$1" address add "$3/64" dev host0 nodad
ip -n "$1" link set lo up
ip -n "$1" link set host0 up
"""


@dataclass
class Lab:
    """Hosts, and the place from where they are reached: `run` runs the controller's programs there."""

    state: Path
    rootfs: Path
    unit: int  # the anchor as the machine sees it: the unshare, whose only child is PID 1 of the namespaces
    hosts: list[Host] = field(default_factory=list)
    defaults: dict[str, Any] = field(default_factory=dict)  # under every configuration
    _pipe: int = -1

    @classmethod
    def up(cls, count: int, *, state: Path, keep: bool = False, packages: Sequence[str] = ()) -> Lab:
        """`count` running hosts, etcd-1 …. `state` is a directory of their own for keys, logs and configurations.

        `state` is emptied first, and what still runs from it is ended. It must not be below /run, which the lab hides.
        `packages`: what the hosts have besides rootfs.PACKAGES.
        """
        if missing := [program for program in NEEDED if not shutil.which(program)]:
            raise LabError(f"this machine lacks {', '.join(missing)}: run tests/hosts/install")
        root = rootfs(packages)
        tidy()
        allow_watchers()
        if runs_from(state, read_pid(state / "anchor.pid")):
            cls.load(state).down()
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(mode=0o700, parents=True)
        read, write = os.pipe()
        ready, told = os.pipe()
        last = ["sleep", "infinity"] if keep else ["cat"]
        alone = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        unit = daemon(
            [*alone, "sh", "-c", ANCHOR, str(state), *last],
            pid=state / "anchor.pid",
            log=state / "anchor.log",
            stdin=subprocess.DEVNULL if keep else read,
            stdout=told,
        )
        os.close(read)
        os.close(told)
        with os.fdopen(ready) as line:
            if line.readline() != "ready\n":
                raise LabError(f"no namespaces: {(state / 'anchor.log').read_text(encoding='utf-8')}")
        lab = cls(state, root, unit, _pipe=write)
        _keygen(lab.key)
        lab.ensure(count)
        return lab

    @classmethod
    def load(cls, state: Path) -> Lab:
        """The lab that another program keeps in `state`."""
        unit = read_pid(state / "anchor.pid")
        if not runs_from(state, unit):
            raise LabError("no hosts are up: tests/hosts/lab up 3")
        count = len(list((state / "seed").iterdir()))
        lab = cls(state, rootfs(), unit)
        lab.hosts = [lab._host(number) for number in range(1, count + 1)]
        return lab

    def ensure(self, count: int) -> list[Host]:
        """At least `count` hosts, running; returns the first `count`."""
        new = [self._host(number) for number in range(len(self.hosts) + 1, count + 1)]
        for host in new:
            self._seed(host)
            output([*self.inside, "sh", "-c", LINK, "link", host.name, host.ip, host.ip6])

        def start(host: Host) -> None:
            host.fresh()
            host.boot()

        each(start, new)
        self.hosts += new
        return self.hosts[:count]

    def wipe(self) -> None:
        each(Host.wipe, self.hosts)

    def down(self) -> None:
        """Ends everything. Harmless when there is nothing left to end."""
        if anchor := self.anchor:
            os.kill(anchor, signal.SIGKILL)
        pids = [read_pid(file) for file in self.state.glob("*.pid")]
        wait(lambda: not any(map(alive, pids)), 30, "the hosts do not end")
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        tidy()

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 120,
        input: str | None = None,  # noqa: A002 - the name that subprocess has
    ) -> subprocess.CompletedProcess[str]:
        """Runs the controller's program where only the hosts are reachable. `env` is added to `environment`."""
        done = subprocess.run(
            [*self.net, *argv],
            cwd=cwd,
            env={**self.environment, **(env or {})},
            timeout=timeout,
            input=input,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise LabError(f"exit code {done.returncode}: {shlex.join(argv)}\n{done.stdout}{done.stderr}")
        return done

    def output(self, argv: Sequence[str]) -> str:
        return self.run(argv).stdout

    def popen(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
        more = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.Popen([*self.net, *argv], env={**self.environment, **(env or {})}, text=True, **more)

    def ssh(
        self, host: Host, *command: str, user: str = "root", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """OpenSSH's client, with strict host keys."""
        options = [
            "-F",
            "none",
            "-i",
            str(self.key),
            "-o",
            f"UserKnownHostsFile={self.known_hosts}",
            "-o",
            "BatchMode=yes",
        ]
        return self.run(["ssh", *options, f"{user}@{host.ip}", *command], check=check)

    def config(self, base: str | Path = "", *, into: Path | None = None, **changes: Any) -> Path:
        """An etcd.toml that reaches the hosts, in a directory of its own.

        `base` is TOML or a file of it, else a cluster of all hosts is described; `changes` are merged over it, table by
        table (`etcd={"version": "3.5.16"}`). `[ssh] user` and `key` are set where nothing else is said.
        """
        wanted: dict[str, Any] = {
            "cluster": {"name": "lab"},
            "hosts": {"transport": "ssh", "service": "systemd"},
            "ssh": {"user": "root", "key": str(self.key)},
            "nodes": [{"name": host.name, "ip": host.ip} for host in self.hosts],
        }
        found = configs.loads(base.read_text(encoding="utf-8") if isinstance(base, Path) else base)
        for over in (self.defaults, found, changes):
            wanted = configs.merge(wanted, over)
        file = (into or Path(tempfile.mkdtemp(prefix="config-", dir=self.state))) / "etcd.toml"
        file.write_text(configs.dumps(wanted), encoding="utf-8")
        return file

    def invoke(self, config: Path, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """The project's `invoke` with this configuration. Does not raise: the caller looks at the exit code."""
        env = {**more.pop("env", {}), "ETCD_CONFIG": str(config)}
        argv = [str(Path(sys.executable).with_name("invoke")), *args]
        return self.run(argv, **{"cwd": ROOT, "env": env, "check": False, "timeout": 300, **more})

    @property
    def environment(self) -> dict[str, str]:
        """The lab's own home and release cache: nothing of the machine's ~/.ssh, agents and proxies."""
        home = self.state / "home"
        home.mkdir(exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM", "TMPDIR") if name in os.environ}
        return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(self.state / "cache")}

    @property
    def anchor(self) -> int:
        """PID 1 of the lab's namespaces as the machine sees it, 0 when the lab is down."""
        return next(iter(children(self.unit)), 0) if runs_from(self.state, self.unit) else 0

    @property
    def net(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.anchor}/ns/net"]

    @property
    def inside(self) -> list[str]:
        return ["nsenter", f"--target={self.anchor}", "--mount", "--net", "--pid"]

    @property
    def groups(self) -> list[Path]:
        return [mount / TASKS / str(self.unit) for mount in hierarchies()]

    @property
    def key(self) -> Path:
        return self.state / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    def _host(self, number: int) -> Host:
        last = FIRST + number - 1
        return Host(self, f"etcd-{number}", f"{NET}.{last}", f"{NET6}:{last}")

    def _seed(self, host: Host) -> None:
        """What tells one host from another: a layer between the common root filesystem and the host's own disk."""
        etc = self.state / "seed" / host.name / "etc"
        (etc / "ssh").mkdir(parents=True)
        _keygen(etc / "ssh" / "ssh_host_ed25519_key")
        public = (etc / "ssh" / "ssh_host_ed25519_key.pub").read_text(encoding="utf-8").rsplit(" ", 1)[0]
        with self.known_hosts.open("a", encoding="utf-8") as known:
            known.write(f"{host.name},{host.ip},{host.ip6} {public}\n")
        (etc / "ssh" / "lab_keys").write_text(
            self.key.with_suffix(".pub").read_text(encoding="utf-8"), encoding="utf-8"
        )
        (etc / "machine-id").write_text(uuid.uuid4().hex + "\n", encoding="utf-8")
        (etc / "hostname").write_text(host.name + "\n", encoding="utf-8")
        # as Debian's installer leaves it
        (etc / "hosts").write_text(f"127.0.0.1\tlocalhost\n127.0.1.1\t{host.name}\n::1\tlocalhost\n", encoding="utf-8")


def runs_from(state: Path, unit: int) -> bool:
    """Whether this process is the unit of the lab in `state`, and not another that got the number of a dead one."""
    file = Path(f"/proc/{unit}/cmdline")
    return alive(unit) and str(state).encode() in file.read_bytes().split(b"\0")


def _keygen(file: Path) -> None:
    output(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(file)])
