"""One host: systemd and sshd in a container, with a link to the lab's bridge and a disk in memory."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from processes import LabError, alive, children, comm, daemon, output, read_pid, wait

if TYPE_CHECKING:
    from lab import Lab

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REBOOT = 133  # systemd-nspawn --keep-unit leaves the restart to its caller
BOOT = f"""
cd "/run/lab/$1" || exit
while systemd-nspawn --quiet --boot --register=no --keep-unit --machine="$1" --directory=root --console=pipe \
    --network-namespace-path="/run/netns/$1" --link-journal=no --resolv-conf=off --timezone=off
[ $? = {REBOOT} ]; do :; done
"""
FRESH = """set -e
mkdir -p "/run/lab/$1"
cd "/run/lab/$1"
if mountpoint -q root; then umount root; fi
rm -rf upper work
mkdir -p upper work root
mount -t overlay -o "lowerdir=$2:$3,upperdir=upper,workdir=work" overlay root
"""
T = TypeVar("T")


@dataclass(frozen=True)
class Host:
    """One host. It has sshd, a user `ops` with passwordless sudo and a user `pw` whose sudo wants rootfs.PASSWORD."""

    lab: Lab = field(repr=False, compare=False)
    name: str
    ip: str
    ip6: str

    def sh(self, script: str, *, check: bool = True, timeout: float = 60) -> str:
        """What `script` prints, run as root inside the host, without ssh. Raises LabError if it fails."""
        argv = [*self.enter(), "sh", "-c", script]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL
        )
        if check and done.returncode:
            raise LabError(f"{self.name}: exit code {done.returncode}: {script}\n{done.stdout}{done.stderr}")
        return done.stdout

    def enter(self) -> list[str]:
        """The words that run a program inside the host."""
        leader = self.leader()
        if not leader:
            raise LabError(f"{self.name} is off: see {self._log}")
        return ["nsenter", f"--target={leader}", "--all", "env", "-i", f"PATH={PATH}", "HOME=/root", "TERM=xterm"]

    def leader(self) -> int:
        """The host's PID 1 as the machine sees it, 0 while it is off."""
        pid = read_pid(self._pid)
        for program in ("nsenter", "sh", "systemd-nspawn", "systemd"):
            if not pid or comm(pid) != program:
                return 0
            if program != "systemd":
                pid = next(iter(children(pid)), 0)
        return pid

    def net(self, *argv: str) -> str:
        """What a program of this machine (nft, tc, ip) prints in the host's network namespace."""
        namespace = f"--net=/proc/{self.lab.anchor}/root/run/netns/{self.name}"
        return output(["nsenter", namespace, *argv])

    def boot(self) -> None:
        """Switches the host on and waits until it runs."""
        groups = [str(group / self.name) for group in self.lab.groups]
        for group in groups:
            Path(group).mkdir(parents=True, exist_ok=True)
        joined = "; ".join(f"echo $$ > {shlex.quote(group)}/cgroup.procs" for group in groups)
        inside = [*self.lab.inside, "sh", "-c", BOOT, "boot", self.name]
        daemon(inside, pid=self._pid, log=self._log, before=joined)
        self.heal()
        wait(self._running, 60, f"{self.name} does not boot: see {self._log}")

    def reboot(self) -> None:
        old = self.leader()
        self.sh("systemctl reboot", check=False)
        wait(lambda: self.leader() not in {old, 0}, 120, f"{self.name} does not go down")
        wait(self._running, 60, f"{self.name} does not come back: see {self._log}")

    def poweroff(self) -> None:
        """An orderly shutdown. Then nobody answers for its address."""
        self.sh("systemctl poweroff", check=False)
        self._off()

    def crash(self) -> None:
        """The power fails. What was written stays, as on a disk without a cache."""
        if leader := self.leader():
            os.kill(leader, signal.SIGKILL)
        self._off()

    def cut(self) -> None:
        """Pulls the network cable."""
        self.lab.output(["ip", "link", "set", self.name, "down"])

    def heal(self) -> None:
        """Plugs the cable in, and removes what `limit` and nftables did to the host's network."""
        self.lab.output(["ip", "link", "set", self.name, "up"])
        self.net("nft", "flush", "ruleset")
        if "qdisc tbf" in self.net("tc", "qdisc", "show", "dev", "host0"):
            self.net("tc", "qdisc", "del", "dev", "host0", "root")

    def limit(self, rate: str) -> None:
        """What the host sends is held to `rate` (`1mbit`)."""
        self.net(*f"tc qdisc replace dev host0 root tbf rate {rate} burst 32kbit latency 400ms".split())

    def wipe(self) -> None:
        """A new disk: nothing is left of what was done to the host. It keeps its host key, machine-id and addresses."""
        self.crash()
        self.fresh()
        self.boot()

    def fresh(self) -> None:
        seed = self.lab.state / "seed" / self.name
        output([*self.lab.inside, "sh", "-c", FRESH, "fresh", self.name, str(seed), str(self.lab.rootfs)])

    def exec_requests(self) -> int:
        """How many commands sshd was asked to run since the host booted."""
        count = "journalctl --sync; journalctl -q -o cat -t sshd -t sshd-session | grep -c '^Starting session: command'"
        return int(self.sh(count, check=False))

    def _off(self) -> None:
        pid = read_pid(self._pid)
        wait(lambda: not alive(pid), 120, f"{self.name} does not go off")
        self.cut()

    def _running(self) -> bool:
        return bool(self.leader()) and self.sh("systemctl is-system-running", check=False).strip() in {
            "running",
            "degraded",
        }

    @property
    def _pid(self) -> Path:
        return self.lab.state / f"{self.name}.pid"

    @property
    def _log(self) -> Path:
        return self.lab.state / f"{self.name}.log"


@contextmanager
def broken(host: Host, how: str, mend: str) -> Iterator[None]:
    """What `how` breaks, `mend` mends, whatever happens in between."""
    host.sh(how)
    try:
        yield
    finally:
        host.sh(mend)


def each(work: Callable[[Host], T], hosts: Sequence[Host]) -> list[T]:
    """`work` on all hosts at once."""
    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return list(pool.map(work, hosts))
