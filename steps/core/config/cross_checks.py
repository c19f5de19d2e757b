"""The rules between the keys of etcd.toml: each a generator that reads tables and yields what is wrong.

`check` hands every rule the tables that its parameters name. A field that is itself wrong is missing from its table:
a rule that reads it stops there, so that one mistake is reported once and all the others still are.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from steps.core.base import versions
from steps.core.base.user import whoami
from steps.core.config.findings import Finding, KeyPath, Nodes, flag_tables, having
from steps.core.config.flag_rules import TLS_FLAGS, flag_names, flag_pairs, flag_values, flag_versions
from steps.core.config.schema import ClusterTable, Etcd, Hosts, Paths, Ssh, Tls

SYSTEM = {
    "/",
    *("/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/srv"),
    *("/sys", "/tmp", "/usr", "/var"),  # noqa: S108 - refused here, not used
}
SYSTEM |= {"/usr/lib", "/usr/local", "/var/lib", "/var/log", "/var/tmp"}  # noqa: S108 - refused here, not used
KERNEL = ("/dev", "/proc", "/sys")
# ProtectHome and PrivateTmp of the hardened unit hide these from etcd.
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - refused here, not used


def check(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Runs every rule whose tables are there; a None stands for one that could not be understood."""
    for rule in RULES:
        wanted = {name: tables[name] for name in inspect.signature(rule).parameters}
        if None not in wanted.values():
            with contextlib.suppress(AttributeError) if tables["broken"] else contextlib.nullcontext():
                yield from rule(**wanted)


def _inside(path: str, *parents: str) -> bool:
    return any(path == parent or path.startswith(parent.rstrip("/") + "/") for parent in parents)


def version(etcd: Etcd) -> Iterator[Finding]:
    """What is only warned of stands in the health: here it would be said by every command."""
    message, hint = versions.refusal(etcd.version)
    if message:
        yield Finding("config.version", ("etcd", "version"), message, hint)


def members(cluster: ClusterTable, count: int) -> Iterator[Finding]:
    if count == 2 and not cluster.allow_two_members:  # noqa: PLR2004 - two is the point
        hint = "one or three members, or [cluster] allow_two_members = true"
        yield Finding("config.members", ("nodes",), "found 2 members: the loss of either stops the cluster", hint)
    elif count and count % 2 == 0:
        yield Finding(
            "config.members", ("nodes",), f"{count} members survive no more failures than {count - 1}", warning=True
        )
    if count > 7:  # noqa: PLR2004 - docs/v3.6/faq: "no more than seven"
        yield Finding("config.members", ("nodes",), f"{count} members: over 7, every write gets slower", warning=True)


def names(nodes: Nodes) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, node in having(nodes, "name"):
        first = seen.setdefault(node.name, index)
        if first != index:
            yield Finding(
                "config.duplicate", ("nodes", index, "name"), f'found "{node.name}" twice: it is nodes[{first}] too'
            )


def addresses(nodes: Nodes, hosts: Hosts, count: int) -> Iterator[Finding]:
    if hosts.transport == "local":
        return
    seen: dict[str, int] = {}
    for index, node in having(nodes, "ip"):
        first = seen.setdefault(node.ip, index)
        if first != index:
            yield Finding(
                "config.duplicate", ("nodes", index, "ip"), f'found "{node.ip}" twice: it is nodes[{first}] too'
            )
        if count > 1 and (node.ip.startswith("127.") or node.ip == "::1"):
            yield Finding(
                "config.loopback",
                ("nodes", index, "ip"),
                f'found "{node.ip}", a loopback address that no other host can reach',
                'members of this machine: [hosts] transport = "local"',
            )


def ports(nodes: Nodes, etcd: Etcd, hosts: Hosts) -> Iterator[Finding]:
    """No two listeners on one address; under "local" all members share the machine's."""
    seen: dict[tuple[str, int], str] = {}
    owners: dict[str, int] = {}
    found: dict[KeyPath, Finding] = {}
    for index, node in having(nodes, "ip", "client_port", "peer_port"):
        if hosts.transport != "local" and owners.setdefault(node.ip, index) != index:
            continue  # a duplicate address says it all
        listeners: dict[KeyPath, int] = {
            ("nodes", index, "client_port"): node.client_port,
            ("nodes", index, "peer_port"): node.peer_port,
            **({("etcd", "metrics_port"): etcd.metrics_port} if etcd.metrics_port else {}),
        }
        places = [(path, node.ip, port) for path, port in listeners.items()]
        if hosts.transport == "local" and node.ip not in {"127.0.0.1", "::1"}:
            # As own_urls has it.
            places.append((("nodes", index, "client_port"), "127.0.0.1", node.client_port))
        for path, ip, port in places:
            owner = f"{path[-1]} of nodes[{index}]"
            first = seen.setdefault((ip, port), owner)
            if first != owner:
                message = f"found {ip} port {port} twice: {owner} and {first}"
                found.setdefault(path, Finding("config.port-twice", path, message))
    yield from found.values()


def services(hosts: Hosts, count: int) -> Iterator[Finding]:
    path = ("hosts", "service")
    if hosts.transport == "ssh" and hosts.service == "process":
        yield Finding(
            "config.service",
            path,
            'found "process" with transport "ssh", allowed "systemd"',
            "process is for this machine",
        )
    if hosts.service == "process" and hosts.run_as != whoami():
        message = f'found "{hosts.run_as}", allowed "{whoami()}": a process runs as whoever starts it'
        yield Finding("config.run-as", ("hosts", "run_as"), message, 'remove it, or service = "systemd"')
    if hosts.transport == "local" and hosts.service == "systemd" and count > 1:
        yield Finding(
            "config.service", path, f'found "systemd" with transport "local" and {count} members, allowed "process"'
        )


def node_paths(paths: Paths, hosts: Hosts, count: int) -> Iterator[Finding]:
    systemd = hosts.service == "systemd"
    for name, path in _node_directories(paths).items():
        where = ("paths", name)
        if systemd and not path.startswith("/"):
            yield Finding("config.path", where, f'found "{path}", allowed an absolute path')
        elif path in SYSTEM or _inside(path, *KERNEL):
            better = f"a directory of its own, such as {path.rstrip('/')}/etcd/{name}"
            yield Finding("config.path", where, f'found "{path}", a directory of the system', better)
        elif systemd and hosts.hardening and name != "unit" and _inside(path, *HIDDEN):
            better = f"allowed outside {', '.join(HIDDEN)}"
            yield Finding("config.path", where, f'found "{path}", which the hardened unit cannot see', better)
        elif name == "wal" and (parent := path.rstrip("/").rpartition("/")[0] or "/") in SYSTEM | {"/"}:
            message = f'found "{path}": etcd must own the directory around its WAL, which is {parent}'
            yield Finding("config.path", where, message, f"{path.rstrip('/')}/etcd/wal")
        if name == "bin" and "=" in path:
            yield Finding(
                "config.path",
                where,
                f'found "{path}", which env(1) would take for a variable',
                'a directory without "="',
            )
        if not systemd and count > 1 and "{node}" not in path:
            yield Finding(
                "config.path", where, f'found "{path}" for {count} members of one machine', 'it needs "{node}"'
            )


def overlaps(paths: Paths, hosts: Hosts) -> Iterator[Finding]:
    """A WAL inside member/ is etcd's to delete; binaries and certificates inside the data would leave with it.

    What lies next to the WAL etcd could replace, for the directory is its own: root runs and reads nothing there.
    """
    directories = _node_directories(paths)
    data, wal = paths.data, paths.wal
    if data == wal:
        yield Finding("config.path-overlap", ("paths", "wal"), f'found "{wal}", which is data too', "two directories")
    elif _inside(wal, f"{data}/member"):
        yield Finding(
            "config.path-overlap",
            ("paths", "wal"),
            f"found \"{wal}\" inside data's member directory, which is etcd's own",
        )
    elif _inside(data, wal):
        yield Finding("config.path-overlap", ("paths", "data"), f'found "{data}" inside wal')
    holders = {data, wal} - SYSTEM  # those are refused anyway
    for name in {"bin", "cert", "unit"} & directories.keys():
        if _inside(directories[name], *holders):
            yield Finding("config.path-overlap", ("paths", name), f'found "{directories[name]}" inside data or wal')
        elif hosts.service == "systemd" and _inside(directories[name], *({str(PurePosixPath(wal).parent)} - SYSTEM)):
            yield Finding(
                "config.path-overlap",
                ("paths", name),
                f'found "{directories[name]}" next to the WAL, in a directory that is etcd\'s',
            )


def _node_directories(paths: Paths) -> dict[str, str]:
    return {name: path for name, path in paths.__dict__.items() if name != "work"}


def tls_off(tls: Tls, etcd: Etcd, nodes: Nodes) -> Iterator[Finding]:
    if tls.enabled:
        return
    for name in sorted(tls.model_fields_set - {"enabled"}):
        yield Finding("config.tls-off", ("tls", name), "set, but [tls] enabled = false", "remove one of them")
    for where, flags in flag_tables(etcd, nodes):
        for name in TLS_FLAGS:
            if name in flags:
                yield Finding("config.tls-off", (*where, name), "set, but [tls] enabled = false", "remove one of them")


def subject(tls: Tls) -> Iterator[Finding]:
    country = tls.subject.get("C", "CN")
    if not re.fullmatch("[A-Z]{2}", country):
        yield Finding(
            "config.subject", ("tls", "subject", "C"), f'found "{country}", allowed two capital letters (ISO 3166)'
        )


def backends(tls: Tls) -> Iterator[Finding]:
    if tls.backend in {"csr", "exec"}:
        if tls.ca_file is None:
            yield Finding(
                "config.backend", ("tls", "ca_file"), f'missing: backend "{tls.backend}" needs the CA\'s certificate'
            )
        if tls.distribute_ca_key:
            yield Finding(
                "config.backend",
                ("tls", "distribute_ca_key"),
                f'found true, but backend "{tls.backend}" has no CA key here',
            )
    if tls.backend == "exec" and not tls.exec.argv:
        yield Finding("config.backend", ("tls", "exec", "argv"), 'missing: backend "exec" needs a program')
    source = tls.cfssl.source
    if source not in {None, "debian"} and tls.cfssl.sha256 is None:
        yield Finding("config.backend", ("tls", "cfssl", "sha256"), "missing: a download needs its digest")


def lifetimes(tls: Tls) -> Iterator[Finding]:
    if tls.leaf_days > tls.ca_days:
        message = f"{tls.leaf_days} days are shortened to the CA's {tls.ca_days}"
        yield Finding("config.lifetime", ("tls", "leaf_days"), message, warning=True)


def ssh_key(ssh: Ssh, hosts: Hosts) -> Iterator[Finding]:
    if ssh.key is None or hosts.transport == "local":
        return
    try:
        mode = stat.S_IMODE(ssh.key.stat().st_mode)
    except OSError as error:
        yield Finding(
            "config.ssh-key", ("ssh", "key"), f"found {ssh.key}: {error.strerror}, allowed a private key's file"
        )
        return
    if mode & 0o077 and ssh.key.suffix != ".pub":  # a .pub names a key that ssh-agent holds
        yield Finding(
            "config.ssh-key",
            ("ssh", "key"),
            f"found {ssh.key} with mode {mode:04o}, allowed 0600",
            f"chmod 600 {ssh.key}",
        )


RULES: tuple[Callable[..., Iterator[Finding]], ...] = (
    version,
    members,
    names,
    addresses,
    ports,
    services,
    node_paths,
    overlaps,
    tls_off,
    subject,
    backends,
    lifetimes,
    ssh_key,
    flag_names,
    flag_values,
    flag_pairs,
    flag_versions,
)
