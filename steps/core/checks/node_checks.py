"""What a node must be like before anything on it is changed. Pure: preflight and doctor ask the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from steps.core.config.model import Cluster, Node
from steps.core.etcd import instances, unit_text
from steps.core.etcd.identity import REPLACE, VANISHED, known_id, vanished, was_healthy
from steps.core.node import trust
from steps.core.node.facts import ARCHITECTURES, Look
from steps.core.node.paths import cert_directory, data_directories, unit_file, wal_parent

if TYPE_CHECKING:
    pass

SKEW = 1  # seconds between a node's clock and ours


def _systemd(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    del node
    if cluster.systemd and look.facts.systemd is None:
        yield "systemd is not running there"


def _architecture(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    del cluster, node
    if look.facts.cpu not in ARCHITECTURES:
        yield f"no etcd is made for its CPU ({look.facts.cpu or 'unknown'}), only for {', '.join(ARCHITECTURES)}"


def _root(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    del node
    if cluster.systemd and look.facts.uid:
        yield f"we are logged in as uid {look.facts.uid}, not as root: set [ssh] sudo = true, or another user"


def wal_mount(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    """etcd renames <wal>.tmp to <wal>; over a mount point the kernel says "device or resource busy"."""
    wal = node.paths.wal
    if not look.facts.wal_is_mount or look.wal:
        return
    if look.member or known_id(cluster):  # the member's WAL exists somewhere: a new, empty one is no way
        yield f"{wal} is a mount point without a WAL, and the member has had one: mount the disk that holds it"
        return
    yield f'{wal} is a mount point, which etcd cannot make its WAL: set [paths] wal = "{wal}/etcd/wal"'


def two_wals(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    """A snapshot restored without --wal-dir has its WAL inside the data: etcd would replay the old one over it."""
    del cluster
    inside = f"{node.paths.data}/member/wal"
    if look.facts.inner_wal and look.wal:
        yield (
            f"there is a WAL in {inside} next to the one in {node.paths.wal}, and etcd uses only the second: a "
            f"snapshot that was restored without --wal-dir={node.paths.wal} is undone by that"
        )


def _two_wals(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    """A living member has used the one WAL; a stopped one may be a restore that is to count."""
    if look.process is None:
        for problem in two_wals(cluster, node, look):
            yield f"{problem}. Restore it again with that flag; if nothing was restored, keep the first elsewhere"


def inhabited(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    """Somebody else's directory is never made etcd's: not its owner's any more, and closed to all others."""
    if any(planted(cluster, node, look)):
        return  # what was seen is where a link leads
    parent = wal_parent(node)
    ours = look.member or look.wal
    deployed = instances.ours(cluster, node, look)
    known = {directory.path: directory for directory in data_directories(cluster, node)}
    if f"{node.paths.cert}/ca.pem" not in look.entries:
        known[node.paths.cert] = cert_directory(cluster, node)
    for path, wanted in known.items():
        entry = look.entries.get(path)
        inside = look.strangers.get(path) or ("its WAL" if path == parent and look.wal else "")
        if entry is None or not inside or (ours and path != parent):
            continue
        if ours and deployed and path not in look.strangers:
            continue  # it holds this member's data and nothing else: it is its own, and gets its owner back
        foreign = cluster.systemd and entry.owner != wanted.owner
        if foreign or (entry.mode != wanted.mode and not ours):
            lies = f"{path} belongs to {entry.owner} (mode {entry.mode:04o}) and holds {inside}"
            if ours or (known_id(cluster) and path != node.paths.cert):  # what exists, or existed, has its place
                yield f"{lies}, where a member's data is or was; its unit wants that directory for {wanted.owner} alone"
                continue
            name = next((key for key in ("wal", "data", "cert") if getattr(node.paths, key) == path), "wal")
            why = "around its WAL" if path == parent else "of its own"
            yield (
                f"{lies}; etcd, as {wanted.owner}, must have a directory {why} for itself: "
                f'set [paths] {name} = "{path.rstrip("/")}/etcd/{name}"'
            )


def overrides(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    """What stands beside the unit and overrides it: nobody would find that flag in etcd.toml."""
    del node
    loaded = [*look.unit.get("DropInPaths", "").split(), *look.unit.get("EnvironmentFiles", "").split()]
    files = dict.fromkeys(file for file in (*look.facts.drop_ins, *loaded) if file.startswith("/"))
    if cluster.systemd and files:
        yield (
            f"etcd.service is overridden by {', '.join(files)}: move what they say into etcd.toml (where data lies, it "
            "stays) and remove them"
        )
    if given := " ".join(look.facts.given_variables):
        yield (
            f"systemd gives {given} to every service, etcd too: `systemctl unset-environment {given}`, and see "
            "DefaultEnvironment= in /etc/systemd/system.conf"
        )


def unreadable_unit(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    """Return a unit that cannot be read: where the member has its data is unknown, and so what a change would do."""
    if problem := unit_text.unreadable(cluster, node, look):
        yield f"{problem}: correct the quotes in it"


def planted(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    """Links and odd files below a directory that etcd may write to: root follows and opens none of them."""
    if not cluster.systemd:
        return
    paths = (wal_parent(node), node.paths.data, node.paths.wal)
    for link in dict.fromkeys(each for path in paths for each in trust.planted(look, path)):
        yield (
            f"{link}: it could lead anywhere, so root does not follow it. Look where it leads and who made it, "
            "and put the directory itself there, or a bind mount"
        )
    for path in paths:
        if path in look.entries and look.entries[path].kind not in ("dir", "link"):
            yield f"{path} is no directory: look who made it, and move it away"
    if odd := look.facts.odd_segment:
        yield f"{odd} is no plain file, so etcd did not make it: look who did, and move it away"


def changeable(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    """What root runs, and where root writes, only root may change. What we make so ourselves may be wrong as yet."""
    if not cluster.systemd:
        return
    paths = [f"{node.paths.bin}/etcd", node.paths.unit, str(PurePosixPath(node.paths.cert).parent)]
    for place in dict.fromkeys(each for path in paths for each in trust.changeable(look, path)):
        yield (
            f"{place} can be changed by others than root, who would be root by it: "
            f"chown root:root {place.partition(' (')[0]} && chmod go-w {place.partition(' (')[0]}"
        )


def foreign_data(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    """Member data without a unit of ours is another cluster's, or an older one's; this cluster's own gets its unit."""
    known, found = known_id(cluster), look.facts.cluster_id
    if not look.member or look.process is not None or unit_file(cluster, node) in look.entries:
        return
    if not known or found != known:
        origin = f" of the cluster {found}" if found else ""
        yield (
            f"{node.paths.data} holds a member's data{origin} and there is no {unit_file(cluster, node)}: it belongs "
            "to something else, or to an earlier cluster. Find out to which, and which unit runs it (systemctl "
            "list-unit-files 'etcd*'); this node can be used once nothing needs that data there"
        )


def vanished_data(cluster: Cluster, node: Node, look: Look, *, served: bool = False) -> Iterator[str]:
    """Once the cluster was healthy, an empty node is a member that lost its data, never a new one.

    `served`: so says the live member list, whatever is remembered here.
    """
    if look.process is not None or any(planted(cluster, node, look)):  # where a link leads, nothing was looked for
        return
    if (served or was_healthy(cluster, node, look)) and (gone := vanished(node, look)):
        yield f"{gone}: {VANISHED}. To go on, {REPLACE}"


def clock(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    del cluster, node
    if abs(look.skew) > SKEW:
        yield f"its clock is {abs(look.skew)} s {'ahead of' if look.skew > 0 else 'behind'} this controller's"


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


def foreign_ca(cluster: Cluster, node: Node, look: Look, ca: bytes | None) -> Iterator[str]:
    """A CA found on a node counts as existing: a controller without it must not make another."""
    entry = look.entries.get(f"{node.paths.cert}/ca.pem")
    if not cluster.tls.enabled or entry is None or entry.content is None:
        return
    from steps.core.tls import pki

    there = {
        pki.fingerprint(cert)
        for cert in pki.read(entry.content.encode("utf-8", "surrogateescape"), f"{node.name}: ca.pem")
    }
    here = {pki.fingerprint(cert) for cert in pki.read(ca)} if ca else set()
    if there & here:
        return
    have = f"this controller has {', '.join(sorted(f[:16] for f in here))}" if here else "this controller has none"
    yield (
        f"trusts the CA {', '.join(sorted(f[:16] for f in there))}, {have}. Copy the directory "
        f"{cluster.work / 'ca'} (and certs) from the controller that made the cluster"
    )
