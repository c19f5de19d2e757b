"""What all contenders deploy, taken from hosts that the project has deployed: so flags and files are equal."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host import Host, each
from lab import Lab
from rootfs import locked

from steps.builtin.debian import unpacked
from steps.core.release.binaries import own_arch

UNIT = "etc/systemd/system/etcd.service"
CERT = "etc/etcd/cert"
CA, PAIR = f"/{CERT}/ca.pem", f"--cert=/{CERT}/etcd.pem --key=/{CERT}/etcd-key.pem"
HEALTH = f"/usr/local/bin/etcdctl --endpoints=https://127.0.0.1:2379 --cacert={CA} {PAIR} endpoint health"
DEADLINE = 120  # seconds, to fetch cfssl

# A host as it was before any deployment, without the seconds that a boot takes.
CLEAN = f"""
systemctl kill -s KILL etcd 2>/dev/null; systemctl disable --now etcd 2>/dev/null; systemctl reset-failed etcd
rm -rf /data /etc/etcd /usr/local/bin/etcd* /{UNIT} ~/.ansible
systemctl daemon-reload
userdel etcd 2>/dev/null
sed -i '/^# BEGIN/,/^# END/d' /etc/hosts
sync
true
"""


@dataclass(frozen=True)
class Kit:
    """A folder with what `hosts` get, however they get it; `config` is the project's etcd.toml for them."""

    folder: Path
    lab: Lab
    hosts: Sequence[Host]
    config: Path

    @property
    def names(self) -> list[str]:
        return [host.name for host in self.hosts]

    @property
    def packed(self) -> int:
        """Bytes of one host's compressed tar."""
        return (self.folder / "tar" / f"{self.names[0]}.tar.gz").stat().st_size

    def clean(self) -> None:
        """The hosts have nothing, and the controller knows no cluster; its release cache stays."""
        each(lambda host: host.sh(CLEAN), self.hosts)
        shutil.rmtree(self.config.parent / ".etcd", ignore_errors=True)

    def argv(self) -> list[set[str]]:
        """What etcd was started with on each host: equal for all contenders, or the comparison is none."""
        script = "tr '\\0' '\\n' <\"/proc/$(systemctl show etcd --property=MainPID --value)/cmdline\""
        return each(lambda host: set(host.sh(script).splitlines()), self.hosts)


def make(lab: Lab, count: int, folder: Path, **changes: Any) -> Kit:
    """Deploys on the first `count` hosts with the project itself, and takes what it finds there. Leaves it running."""
    hosts = lab.ensure(count)
    (folder / "ours").mkdir(parents=True)
    nodes = [{"name": host.name, "ip": host.ip} for host in hosts]
    config = lab.config(into=folder / "ours", nodes=nodes, **changes)
    kit = Kit(folder, lab, hosts, config)
    kit.clean()
    done = lab.invoke(config, "all")
    if done.returncode:
        raise RuntimeError(f"invoke all on {count} hosts:\n{done.stdout}{done.stderr}")
    for name in ("bin", "cert", "tar", "cfssl"):
        (folder / name).mkdir()
    _files(kit)
    _unit(kit)
    _settings(kit)
    return kit


def _files(kit: Kit) -> None:
    paths = f"/usr/local/bin/etcd* /{UNIT} /etc/hosts $(ls -d /{CERT}/*.pem)"
    for host in kit.hosts:
        raw = kit.folder / "tar" / f"{host.name}.tar"
        source = kit.folder / "source"
        host.sh(f"tar -chPf /tmp/kit.tar {paths}")
        root = Path(f"/proc/{host.leader()}/root")
        shutil.copyfile(root / "tmp/kit.tar", raw)
        host.sh("rm /tmp/kit.tar")
        with tarfile.open(raw) as found:
            found.extractall(source, filter="tar")
        if host is kit.hosts[0]:
            for binary in (source / "usr/local/bin").iterdir():
                shutil.copy2(binary, kit.folder / "bin")
        certs = kit.folder / "cert" / host.name
        shutil.copytree(source / CERT, certs)
        _tar(kit.folder / "tar" / f"{host.name}.tar.gz", source)
        raw.unlink()
        shutil.rmtree(source)


def _tar(file: Path, source: Path) -> None:
    """What the host has, and empty data directories, owned by the user that the host will have."""
    with tarfile.open(file, "w:gz", compresslevel=6, format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                archive.add(path, str(path.relative_to(source)), filter=_owned)
        for name in ("data/etcd", "data/etcd/data", "data/etcd/wal"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o700
            archive.addfile(_owned(folder), io.BytesIO())


def _owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
    ours = member.name.startswith(("data", CERT))
    member.uname = member.gname = "etcd" if ours else "root"
    member.uid = member.gid = 0
    return member


def _unit(kit: Kit) -> None:
    """The project's own unit, with the node's name and address as variables: jinja2's and sed's."""
    first = kit.hosts[0]
    lines = [line for line in first.sh(f"cat /{UNIT}").splitlines() if "DIGEST" not in line]
    text = "\n".join(lines) + "\n"
    for name, node, ip in (
        ("etcd.service.j2", "{{ node }}", "{{ ip }}"),
        ("etcd.service.template", "##NODE_NAME##", "##NODE_IP##"),
    ):
        words = re.split(r"(\s--initial-cluster=\S+)", text)  # which is the same on all nodes
        words[::2] = [re.sub(rf"\b{first.name}\b", node, re.sub(rf"\b{first.ip}\b", ip, word)) for word in words[::2]]
        (kit.folder / name).write_text("".join(words), encoding="utf-8")


def _settings(kit: Kit) -> None:
    lab, folder = kit.lab, kit.folder
    ips = [host.ip for host in kit.hosts]
    ssh = f"Host *\n User root\n IdentityFile {lab.key}\n UserKnownHostsFile {lab.known_hosts}\n BatchMode yes\n"
    names = "".join(f"Host {host.name}\n HostName {host.ip}\n" for host in kit.hosts)
    inventory = "".join(f"{host.name} ansible_host={host.ip}\n" for host in kit.hosts)
    known = {"ssh_user": "root", "ssh_key": str(lab.key), "ssh_known_hosts_file": str(lab.known_hosts)}
    data = [
        (host.name, {**known, "ssh_hostname": host.ip, "ssh_config_file": "/dev/null", "kit": str(folder)})
        for host in kit.hosts
    ]
    written = {
        "health": HEALTH,
        "hosts": "".join(f"{host.ip} {host.name}\n" for host in kit.hosts),
        "ssh_config": names + ssh,
        "environment.sh": f"NODE_IPS=({' '.join(ips)})\nNODE_NAMES=({' '.join(kit.names)})\n",
        "inventory.ini": inventory + f"[all:vars]\nansible_user=root\nkit={folder}\n",
        "inventory.py": f"hosts = {data!r}\n",
        "ansible.cfg": (
            f"[defaults]\nforks = {len(ips)}\nprivate_key_file = {lab.key}\ninterpreter_python = /usr/bin/python3\n"
            "[ssh_connection]\npipelining = True\n"
            f"ssh_args = -F none -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={lab.known_hosts}\n"
        ),
        **{f"cfssl/{name}": json.dumps(document) for name, document in _cfssl(ips).items()},
    }
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")


def _cfssl(ips: Sequence[str]) -> Mapping[str, Any]:
    """The how-to's three files."""
    names = [{"C": "CN", "ST": "BeiJing", "L": "BeiJing", "O": "etcd", "OU": "opsnull"}]
    key = {"algo": "rsa", "size": 2048}
    usages = ["signing", "key encipherment", "server auth", "client auth"]
    profiles = {"etcd-cluster": {"usages": usages, "expiry": "876000h"}}
    return {
        "ca-config.json": {"signing": {"default": {"expiry": "876000h"}, "profiles": profiles}},
        "ca-csr.json": {"CN": "kubernetes-ca", "key": key, "names": names, "ca": {"expiry": "876000h"}},
        "etcd-csr.json": {"CN": "etcd", "hosts": ["127.0.0.1", *ips], "key": key, "names": names},
    }


def cfssl() -> Path:
    """The directory of cfssl and cfssljson, from Debian's package; fetched once."""
    with locked("cfssl") as cache:
        home = cache / "cfssl"
        if not home.exists():
            staged = cache / ".cfssl"
            shutil.rmtree(staged, ignore_errors=True)
            unpacked(["golang-cfssl"], "trixie", own_arch(), state=cache / "apt", into=staged, deadline=DEADLINE)
            staged.rename(home)
    return home / "usr/bin"
