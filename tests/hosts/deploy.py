"""A cluster that the project's own `invoke` made on the lab's hosts, and what a test wants to know of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import configs
from host import Host, each
from lab import ROOT, Lab

# What we keep on a node; data and WAL are etcd's own and change all the time.
MANAGED = "/usr/local/bin /etc/etcd /etc/systemd/system /etc/hosts /etc/passwd /etc/group"
FILES = f"find {MANAGED} -printf '%p %i %m %u:%g %s %T@ %C@ %l\\n' | sort"
PROCESS = "systemctl show etcd --property=MainPID,ActiveEnterTimestampMonotonic,NRestarts,UnitFileState"
STOPPING, STARTED = "de5b426a63be47a7b6ac3eaac82e2f6f", "39f53479d3a045ac8e11786248231fbf"  # systemd's message ids
EVENTS = f"journalctl --sync; journalctl -q -o json UNIT=etcd.service MESSAGE_ID={STOPPING} + MESSAGE_ID={STARTED}"
CONTACTS = "journalctl --sync; journalctl -q -o cat -t sshd -t sshd-session | grep -c '^Connection from'"
INVOKE = str(Path(sys.executable).with_name("invoke"))
Done = subprocess.CompletedProcess[str]


@dataclass
class Deployed:
    """One etcd.toml and the hosts in it."""

    lab: Lab
    config: Path
    hosts: Sequence[Host]

    def invoke(self, *args: str, code: int = 0, **more: Any) -> Done:
        """`invoke ARGS`, which must end with `code` and never with a traceback."""
        done = self.lab.invoke(self.config, *args, **more)
        said = f"invoke {' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in said, said
        assert done.returncode == code, said
        return done

    def edit(self, **changes: Any) -> None:
        """Merges `changes` into etcd.toml, table by table."""
        document = configs.merge(configs.loads(self.config.read_text()), changes)
        self.config.write_text(configs.dumps(document))

    @property
    def name(self) -> str:
        return str(configs.loads(self.config.read_text())["cluster"]["name"])

    @property
    def work(self) -> Path:
        return self.config.parent / ".etcd" / self.name

    @property
    def operator(self) -> dict[str, Path]:
        """The operator's files, as the writer takes them."""
        live = self.work / "certs" / "operator" / "live"
        return {"ca": self.work / "ca" / "ca.pem", "cert": live / "cert.pem", "key": live / "key.pem"}

    def etcdctl(self, *args: str, asked: Host | None = None) -> str:
        """What etcdctl says on the controller after `. environment.sh`; it asks any member, or the one of `asked`."""
        script = f"ETCDCTL_ENDPOINTS=https://{asked.ip}:2379; " if asked else ""
        script = f'. "$0"; {script}exec etcdctl "$@"'
        return self.lab.output(["bash", "-euc", script, str(self.work / "environment.sh"), *args])

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.invoke("status", "--json").stdout))

    def leader(self) -> str:
        (leader,) = [member["name"] for member in self.status()["members"] if member["role"] == "leader"]
        return str(leader)

    def cluster_id(self) -> int:
        return int(json.loads(self.etcdctl("-w", "json", "member", "list"))["header"]["cluster_id"])

    def wait_healthy(self, seconds: float = 60) -> None:
        """Polls `invoke status` until it is content."""
        end = time.monotonic() + seconds
        while (done := self.lab.invoke(self.config, "status")).returncode:
            assert time.monotonic() < end, done.stdout + done.stderr


def deploy(lab: Lab, folder: Path, base: str | Path, *, hosts: int = 3, **changes: Any) -> Deployed:
    """New disks and an etcd.toml in `folder`; nothing is run yet. `changes`: see Lab.config."""
    lab.wipe()
    return Deployed(lab, lab.config(base, into=folder, **changes), lab.hosts[:hosts])


def three(lab: Lab, folder: Path, **changes: Any) -> Deployed:
    """Three members, which `invoke all` made from the default etcd.toml with `changes`."""
    made = deploy(lab, folder, "", nodes=[{"name": host.name, "ip": host.ip} for host in lab.hosts[:3]], **changes)
    made.invoke("all")
    return made


def pids(hosts: Sequence[Host]) -> list[int]:
    return each(lambda host: int(host.sh("systemctl show etcd --property=MainPID --value")), hosts)


def state(hosts: Sequence[Host]) -> list[str]:
    """Processes and managed files, with inode, mode, owner, size, mtime, ctime: equal where nothing was touched."""
    return each(lambda host: host.sh(f"{PROCESS}; {FILES}"), hosts)


def requests(hosts: Sequence[Host]) -> list[tuple[int, int]]:
    """SSH connections and exec requests that each host has seen since it booted."""
    return each(lambda host: (int(host.sh(CONTACTS, check=False)), host.exec_requests()), hosts)


def outages(hosts: Sequence[Host]) -> list[tuple[float, float, str]]:
    """Each time that systemd stopped a member: when, when it was ready again (Unix seconds), whose; oldest first."""
    found = []
    for host, said in zip(hosts, each(lambda host: host.sh(EVENTS), hosts), strict=True):
        down = 0.0
        for line in said.splitlines():
            event = json.loads(line)
            at = int(event["__REALTIME_TIMESTAMP"]) / 1e6
            if event["MESSAGE_ID"] == STOPPING:
                down = at
            elif down:
                found.append((down, at, host.name))
                down = 0.0
        assert not down, f"{host.name} was stopped and is not ready again"
    return sorted(found)


def rolled(hosts: Sequence[Host], before: int = 0) -> list[str]:
    """Who was restarted, in order, not counting the first `before` outages; never two at a time."""
    found = outages(hosts)[before:]
    for (_, back, name), (down, _, other) in pairwise(found):
        assert back <= down, f"{other} was stopped before {name} was back"
    return [name for _, _, name in found]


def leftovers(hosts: Sequence[Host]) -> str:
    """What killed runs left on the nodes: staged files, temporary directories."""
    return "".join(each(lambda host: host.sh("find / -xdev -name '*etcd-steps.*'"), hosts))


def project(folder: Path, plugin: str) -> Path:
    """A directory as ours, with this plugin."""
    (folder / "plugins").mkdir()
    for name in ("tasks.py", "invoke.yaml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "plugins" / "site.py").write_text(plugin)
    return folder
