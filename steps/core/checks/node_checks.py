"""What a node must be like before anything on it is changed. Pure: preflight and doctor ask the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from steps.core.base.architectures import DEPLOYED
from steps.core.base.problem import Problem
from steps.core.config.model import Cluster, Node
from steps.core.etcd import instances, unit_text
from steps.core.etcd.identity import REPLACE, VANISHED, known_id, vanished, was_healthy
from steps.core.node import trust
from steps.core.node.facts import Look
from steps.core.node.paths import cert_directory, data_directories, unit_file, wal_parent
from steps.core.node.resources import Directory

SKEW = 1  # seconds between a node's clock and ours


def _systemd(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    if cluster.systemd and look.facts.systemd is None:
        yield Problem("node.no-systemd", "systemd is not running there", node=node.name)


def _architecture(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    del cluster
    if look.facts.cpu not in DEPLOYED:
        said = f"no etcd is made for its CPU ({look.facts.cpu or 'unknown'}), only for {', '.join(DEPLOYED)}"
        yield Problem("node.other-cpu", said, node=node.name)


def _root(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    if cluster.systemd and look.facts.uid:
        said = f"we are logged in as uid {look.facts.uid}, not as root: set [ssh] sudo = true, or another user"
        yield Problem("node.not-root", said, node=node.name)


def wal_mount(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """etcd renames <wal>.tmp to <wal>; over a mount point the kernel says "device or resource busy"."""
    wal = node.paths.wal
    if not look.facts.wal_is_mount or look.wal:
        return
    if look.member or known_id(cluster):  # the member's WAL exists somewhere: a new, empty one is no way
        said = f"{wal} is a mount point without a WAL, and the member has had one: mount the disk that holds it"
    else:
        said = f'{wal} is a mount point, which etcd cannot make its WAL: set [paths] wal = "{wal}/etcd/wal"'
    yield Problem("node.wal-mountpoint", said, node=node.name)


def two_wals(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """A snapshot restored without --wal-dir has its WAL inside the data: etcd would replay the old one over it."""
    del cluster
    inside = f"{node.paths.data}/member/wal"
    if look.facts.inner_wal and look.wal:
        said = (
            f"there is a WAL in {inside} next to the one in {node.paths.wal}, and etcd uses only the second: a "
            f"snapshot that was restored without --wal-dir={node.paths.wal} is undone by that"
        )
        yield Problem("node.two-wals", said, node=node.name)


def _two_wals(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """A living member has used the one WAL; a stopped one may be a restore that is to count."""
    if look.process is None:
        for problem in two_wals(cluster, node, look):
            more = ". Restore it again with that flag; if nothing was restored, keep the first elsewhere"
            yield replace(problem, message=problem.message + more)


def inhabited(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """Somebody else's directory is never made etcd's: not its owner's any more, and closed to all others."""
    if any(planted(cluster, node, look)):
        return  # what was seen is where a link leads
    needed = [*data_directories(cluster, node)]
    if f"{node.paths.cert}/ca.pem" not in look.entries:
        needed.append(cert_directory(cluster, node))
    for wanted in needed:
        if said := _inhabited(cluster, node, look, wanted):
            yield Problem("node.inhabited", said, node=node.name)


def _inhabited(cluster: Cluster, node: Node, look: Look, wanted: Directory) -> str:
    """Return what is wrong with one directory that is to become etcd's; "" where it may."""
    path, entry = wanted.path, look.entries.get(wanted.path)
    around_wal = path == wal_parent(node)
    inside = look.strangers.get(path) or ("its WAL" if around_wal and look.wal else "")
    if entry is None or not inside:
        return ""
    has_member = look.member or look.wal
    if has_member and not around_wal:
        return ""  # it is this member's data or WAL
    if has_member and path not in look.strangers and instances.ours(cluster, node, look):
        return ""  # it holds this member's WAL and nothing else: it is its own, and gets its owner back
    owned_by_another = cluster.systemd and entry.owner != wanted.owner
    open_to_others = entry.mode != wanted.mode and not has_member
    if not owned_by_another and not open_to_others:
        return ""
    lies = f"{path} belongs to {entry.owner} (mode {entry.mode:04o}) and holds {inside}"
    if has_member or (known_id(cluster) and path != node.paths.cert):  # what exists, or existed, has its place
        return f"{lies}, where a member's data is or was; its unit wants that directory for {wanted.owner} alone"
    name = next((key for key in ("wal", "data", "cert") if getattr(node.paths, key) == path), "wal")
    why = "around its WAL" if around_wal else "of its own"
    return (
        f"{lies}; etcd, as {wanted.owner}, must have a directory {why} for itself: "
        f'set [paths] {name} = "{path.rstrip("/")}/etcd/{name}"'
    )


def overrides(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """What stands beside the unit and overrides it: nobody would find that flag in etcd.toml."""
    loaded = [*look.unit.get("DropInPaths", "").split(), *look.unit.get("EnvironmentFiles", "").split()]
    files = dict.fromkeys(file for file in (*look.facts.drop_ins, *loaded) if file.startswith("/"))
    if cluster.systemd and files:
        said = (
            f"etcd.service is overridden by {', '.join(files)}: move what they say into etcd.toml (where data lies, it "
            "stays) and remove them"
        )
        yield Problem("node.overridden", said, node=node.name)
    if given := " ".join(look.facts.given_variables):
        said = (
            f"systemd gives {given} to every service, etcd too: `systemctl unset-environment {given}`, and see "
            "DefaultEnvironment= in /etc/systemd/system.conf"
        )
        yield Problem("node.given-variable", said, node=node.name)


def unreadable_unit(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """Return a unit that cannot be read: where the member has its data is unknown, and so what a change would do."""
    if why := unit_text.unreadable(cluster, node, look):
        yield Problem("node.unreadable-unit", f"{why}: correct the quotes in it", node=node.name)


def planted(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """Links and odd files below a directory that etcd may write to: root follows and opens none of them."""
    if not cluster.systemd:
        return
    paths = (wal_parent(node), node.paths.data, node.paths.wal)
    for link in dict.fromkeys(each for path in paths for each in trust.planted(look, path)):
        said = (
            f"{link}: it could lead anywhere, so root does not follow it. Look where it leads and who made it, "
            "and put the directory itself there, or a bind mount"
        )
        yield Problem("node.planted", said, node=node.name)
    for path in paths:
        if path in look.entries and look.entries[path].kind not in ("dir", "link"):
            said = f"{path} is no directory: look who made it, and move it away"
            yield Problem("node.planted", said, node=node.name)
    if odd := look.facts.odd_segment:
        said = f"{odd} is no plain file, so etcd did not make it: look who did, and move it away"
        yield Problem("node.planted", said, node=node.name)


def changeable(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """What root runs, and where root writes, only root may change. What we make so ourselves may be wrong as yet."""
    if not cluster.systemd:
        return
    paths = [f"{node.paths.bin}/etcd", node.paths.unit, str(PurePosixPath(node.paths.cert).parent)]
    for place, owners in dict.fromkeys(each for path in paths for each in trust.changeable(look, path)):
        said = (
            f"{place} ({owners}) can be changed by others than root, who would be root by it: "
            f"chown root:root {place} && chmod go-w {place}"
        )
        yield Problem("node.changeable", said, node=node.name)


def foreign_data(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    """Member data without a unit of ours is another cluster's, or an older one's; this cluster's own gets its unit."""
    known, found = known_id(cluster), look.facts.cluster_id
    if not look.member or look.process is not None or unit_file(cluster, node) in look.entries:
        return
    if not known or found != known:
        origin = f" of the cluster {found}" if found else ""
        said = (
            f"{node.paths.data} holds a member's data{origin} and there is no {unit_file(cluster, node)}: it belongs "
            "to something else, or to an earlier cluster. Find out to which, and which unit runs it (systemctl "
            "list-unit-files 'etcd*'); this node can be used once nothing needs that data there"
        )
        yield Problem("node.foreign-data", said, node=node.name)


def vanished_data(cluster: Cluster, node: Node, look: Look, *, served: bool = False) -> Iterator[Problem]:
    """Once the cluster was healthy, an empty node is a member that lost its data, never a new one.

    `served`: so says the live member list, whatever is remembered here.
    """
    if look.process is not None or any(planted(cluster, node, look)):  # where a link leads, nothing was looked for
        return
    if (served or was_healthy(cluster, node, look)) and (gone := vanished(node, look)):
        yield Problem("node.data-missing", f"{gone}: {VANISHED}. To go on, {REPLACE}", node=node.name)


def clock(cluster: Cluster, node: Node, look: Look) -> Iterator[Problem]:
    del cluster
    if abs(look.skew) > SKEW:
        said = f"its clock is {abs(look.skew)} s {'ahead of' if look.skew > 0 else 'behind'} this controller's"
        yield Problem("node.clock-skew", said, node=node.name)


CHECKS = (
    _root,
    _systemd,
    _architecture,
    wal_mount,
    _two_wals,
    inhabited,
    planted,
    changeable,
    overrides,
    unreadable_unit,
    foreign_data,
)


def foreign_ca(cluster: Cluster, node: Node, look: Look, ca: bytes | None) -> Iterator[Problem]:
    """A CA found on a node counts as existing: a controller without it must not make another."""
    if said := trusts_another(cluster, node, look, ca):
        copy = f"Copy the directory {cluster.work / 'ca'} (and certs) from the controller that made the cluster"
        yield Problem("node.foreign-ca", f"{said}. {copy}", node=node.name)


def trusts_another(cluster: Cluster, node: Node, look: Look, ca: bytes | None) -> str:
    """Return which CA the node trusts, where that is not `ca`; "" where it trusts that, or none."""
    entry = look.entries.get(f"{node.paths.cert}/ca.pem")
    if not cluster.tls.enabled or entry is None or entry.content is None:
        return ""
    from steps.core.tls import pki

    pem = entry.content.encode("utf-8", "surrogateescape")
    there = {pki.fingerprint(cert) for cert in pki.read(pem, f"{node.name}: ca.pem")}
    here = {pki.fingerprint(cert) for cert in pki.read(ca)} if ca else set()
    if there & here:
        return ""
    have = f"this controller has {', '.join(sorted(f[:16] for f in here))}" if here else "this controller has none"
    return f"trusts the CA {', '.join(sorted(f[:16] for f in there))}, {have}"
