"""May anything be changed at all? Asked of what was seen on every selected node, before the first change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from steps.core import ground
from steps.core.errors import Refused, StepFailed
from steps.core.etcd import current, instances, living, upgrade
from steps.core.etcd.ask import Member
from steps.core.etcd.rolling import CLUSTER_ID, REPLACE, VANISHED, known_id, vanished, was_healthy
from steps.core.hints import again
from steps.core.model import Cluster, Node
from steps.core.node import trust
from steps.core.node.look import ARCHITECTURES, Look
from steps.core.node.places import cert_directory, data_directories, unit_file, wal_parent
from steps.core.release.binaries import own_arch

if TYPE_CHECKING:
    from steps.core.context import Context

SKEW = 1  # seconds between a node's clock and ours
BACKDATED = 3600  # seconds before its making at which a certificate starts, at most


def preflight(ctx: Context, nodes: Sequence[Node], *, fetches: bool = False, starts: bool = True) -> None:
    """Raises Refused with every node's problems; warns of what may stay. Changes nothing on any node.

    `fetches`: whether this run may fetch a release; `starts`: whether it may start members.
    """
    cluster = ctx.cluster
    problems = [*_twins(ctx, nodes), *_clusters(ctx, nodes)]
    ctx.members = _listed(ctx, nodes)
    unborn = living.unborn(cluster, ctx.members)
    foreign = {node.name: said for node in nodes if (said := _foreign(ctx, node, ctx.look(node)))}
    compared = current.problems(ctx, [node for node in nodes if node.name not in foreign], starts=starts)
    problems += living.lines(compared)
    served = living.published(cluster, ctx.members)
    explained = unborn | {problem.node for problem in compared}  # why nothing is where etcd.toml says
    for node in nodes:
        look = ctx.look(node)
        if node.name in foreign:
            problems.append(f"{node.name}: {foreign[node.name]}")
            continue
        problems += [f"{node.name}: {problem}" for check in _CHECKS for problem in check(cluster, node, look)]
        problems += [f"{node.name}: {problem}" for problem in ground.problems(ctx, node, look)]
        if node.name not in explained:
            gone = vanished_data(cluster, node, look, served=node.name in served)
            problems += [f"{node.name}: {problem}" for problem in gone]
        problems += [f"{node.name}: {problem}" for problem in ports(ctx, node, look)]
        problems += [f"{node.name}: {problem}" for problem in upgrade.refusals(ctx, node, look)]
        problems += [f"{node.name}: {problem}" for problem in foreign_ca(cluster, node, look, ctx.store.ca())]
        problems += [f"{node.name}: {problem}" for problem in _not_yet_valid(ctx, node, look)]
        for warning in _warnings(cluster, node, look):
            ctx.warn(warning, node)
    problems += _majority_lost(ctx, [node for node in nodes if node.name not in explained])
    if fetches and not problems:
        problems += _unserved(ctx, nodes)
    if problems:
        raise Refused("preflight: nothing was changed\n  " + "\n  ".join(problems), hint=f"fix these, then: {again()}")


def _foreign(ctx: Context, node: Node, look: Look) -> str:
    """An etcd that this tool did not deploy has the node's ports: its cluster is left alone.

    One that etcd.service itself runs, as the member and on the data that etcd.toml names, may become this tool's.
    """
    cluster = ctx.cluster
    living = look.process is not None
    taken = any(port in look.listening for port in (node.client_port, node.peer_port))
    if not cluster.systemd or not taken or (living and instances.ours(cluster, node, look)):
        return ""
    instance = instances.foreign(cluster, node, look, instances.parse(ctx.sh(node, instances.script()).out))
    if instance is None:
        return ""
    replaced = look.unit.get("FragmentPath") == unit_file(cluster, node) and not look.unit.get("EnvironmentFiles")
    same = (instance.data, instance.wal, instance.options.get("name")) == (node.paths.data, node.paths.wal, node.name)
    if instance.pid == look.pid and replaced and same:
        return ""
    return (
        f"{instance.described}. This tool has not deployed it, and does not take it over. To have its keys in a "
        'cluster of this tool: docs/operations.md, "A cluster that something else made"'
    )


def _listed(ctx: Context, nodes: Sequence[Node]) -> tuple[Member, ...] | None:
    """The live member list. One of the other nodes is asked for it where it decides over a stopped member:

    whether one that is empty has lost anything, and whether an address that was edited is the one its peers know.
    """
    found = ctx.members if ctx.members is not None else current.members(ctx, nodes)
    if found is not None or len(nodes) == len(ctx.cluster.nodes):
        return found
    for node in nodes:
        look = ctx.look(node)
        if any(vanished_data(ctx.cluster, node, look)) or any(living.differences(ctx.cluster, node, look, None)):
            return current.others(ctx, nodes)
    return None


def _twins(ctx: Context, nodes: Sequence[Node]) -> Iterator[str]:
    """Cloned machines share a machine-id; one machine under two names shares its boot, too."""
    if ctx.cluster.hosts.transport == "local":
        return
    seen: dict[str, Node] = {}
    for node in nodes:
        facts = ctx.look(node).facts
        twin = seen.setdefault(facts.get("machine", node.name), node)
        if twin is node:
            continue
        if ctx.look(twin).facts.get("boot") == facts.get("boot"):
            yield f"{twin.name} and {node.name} are the same machine (one machine-id, one boot)"
        else:
            ctx.warn(f"has the machine-id of {twin.name}: a cloned machine should get its own", node)


def _clusters(ctx: Context, nodes: Sequence[Node]) -> Iterator[str]:
    """Data that another cluster has written: etcd would run with it, unready for ever ("cluster ID mismatch")."""
    known = known_id(ctx.cluster)
    seen = {node.name: cluster for node in nodes if (cluster := ctx.look(node).facts.get("cluster"))}
    if not known:
        if len(set(seen.values())) > 1:
            listed = ", ".join(f"{name}: {cluster}" for name, cluster in seen.items())
            yield f"the members' data is of different clusters ({listed}): find out which of them is this one"
        return
    for node in nodes:
        if (found := seen.get(node.name, known)) != known:
            yield (
                f"{node.name}: a foreign cluster: the ID in {node.paths.wal} is {found}, this cluster's is {known}. "
                f"Compare the addresses in etcd.toml, find this member's own data; if the cluster was made anew by "
                f"hand, remove {ctx.cluster.work / CLUSTER_ID}"
            )


def _majority_lost(ctx: Context, nodes: Sequence[Node]) -> Iterator[str]:
    """Members are replaced one by one only while the others have a quorum."""
    cluster = ctx.cluster
    lost = [node.name for node in nodes if any(vanished_data(cluster, node, ctx.look(node)))]
    if len(cluster.nodes) - len(lost) < cluster.quorum:
        yield (
            f"{len(lost)} of {len(cluster.nodes)} members have lost their data ({', '.join(lost)}): without a quorum "
            "none can be replaced. Find the data first: are disks not mounted, were [paths] changed? Only where it is "
            "lost for good, restore a snapshot on all members"
        )


def _unserved(ctx: Context, nodes: Sequence[Node]) -> Iterator[str]:
    """For a CPU that is not the controller's, not every source has a release: it is fetched before the first change."""
    for arch in sorted({ctx.arch(node) for node in nodes} - {own_arch()}):
        try:
            if ctx.release(arch) is None:
                ctx.fetch(arch)
        except StepFailed as error:
            names = ", ".join(node.name for node in nodes if ctx.arch(node) == arch)
            yield f"{names}: no etcd for this CPU: {error.message}"


def _systemd(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    del node
    if cluster.systemd and "systemd" not in look.facts:
        yield "systemd is not running there"


def _architecture(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    del cluster, node
    if look.facts["arch"] not in ARCHITECTURES:
        yield f"no etcd is made for its CPU ({look.facts['arch']}), only for {', '.join(ARCHITECTURES)}"


def _root(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    del node
    if cluster.systemd and look.facts.get("uid", "0") != "0":
        yield f"we are logged in as uid {look.facts['uid']}, not as root: set [ssh] sudo = true, or another user"


def wal_mount(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    """etcd renames <wal>.tmp to <wal>; over a mount point the kernel says "device or resource busy"."""
    wal = node.paths.wal
    if "walmount" not in look.facts or look.wal:
        return
    if look.member or known_id(cluster):  # the member's WAL exists somewhere: a new, empty one is no way
        yield f"{wal} is a mount point without a WAL, and the member has had one: mount the disk that holds it"
        return
    yield f'{wal} is a mount point, which etcd cannot make its WAL: set [paths] wal = "{wal}/etcd/wal"'


def two_wals(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    """A snapshot restored without --wal-dir has its WAL inside the data: etcd would replay the old one over it."""
    del cluster
    inside = f"{node.paths.data}/member/wal"
    if "innerwal" in look.facts and look.wal:
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
    told = [look.facts.get("dropins", ""), look.unit.get("DropInPaths", ""), look.unit.get("EnvironmentFiles", "")]
    files = dict.fromkeys(file for file in " ".join(told).split() if file.startswith("/"))
    if cluster.systemd and files:
        yield (
            f"etcd.service is overridden by {', '.join(files)}: move what they say into etcd.toml (where data lies, it "
            "stays) and remove them"
        )
    if given := look.facts.get("given"):
        yield (
            f"systemd gives {given} to every service, etcd too: `systemctl unset-environment {given}`, and see "
            "DefaultEnvironment= in /etc/systemd/system.conf"
        )


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
    if odd := look.facts.get("odd"):
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
    known, found = known_id(cluster), look.facts.get("cluster", "")
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


_CHECKS = (
    _root,
    _systemd,
    _architecture,
    wal_mount,
    _two_wals,
    inhabited,
    planted,
    changeable,
    overrides,
    foreign_data,
)


def ports(ctx: Context, node: Node, look: Look) -> Iterator[str]:
    """The node's ports are free, or its own etcd has them: it was told so."""
    own = " ".join(look.process.argv) if look.process is not None else ""
    wanted = (node.client_port, node.peer_port, ctx.cluster.metrics_port)
    taken = [port for port in wanted if port in look.listening and not re.search(rf":{port}\b", own)]
    if not taken:
        return
    owners = ctx.sh(node, owners_script([inode for port in taken for _, inode in look.listening[port]])).out.split("\n")
    holders = dict(line.split(" ", 1) for line in owners if " " in line)
    for port in taken:
        inodes = [inode for _, inode in look.listening[port]]
        who = next(
            (holders[inode] for inode in inodes if inode in holders), f"a process of uid {look.listening[port][0][0]}"
        )
        yield f"port {port} is taken by {who}"


def owners_script(inodes: Sequence[str]) -> str:
    """Prints `inode pid N (name)` for each socket inode whose process can be seen."""
    pattern = "|".join(f"*'-> socket:[{inode}]'" for inode in inodes)
    # One process lists all descriptors: a readlink for each takes seconds. -b: a file's name cannot look like a line.
    return f"""
ls -lb /proc/[0-9]*/fd 2>/dev/null | while read -r l; do case $l in
  /proc/*) p=${{l#/proc/}}; p=${{p%%/*}};;
  {pattern}) read -r n 2>/dev/null </proc/$p/comm || continue; i=${{l##*[}}; echo "${{i%]}} pid $p ($n)";;
esac; done
true
"""


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


def _not_yet_valid(ctx: Context, node: Node, look: Look) -> Iterator[str]:
    """Before its notBefore a certificate is worth nothing: on a node whose clock is that far behind."""
    if not ctx.cluster.tls.enabled or look.skew >= -SKEW:
        return
    from steps.core.tls import pki, profiles

    pair, ca = ctx.store.pair(profiles.leaf_name(ctx.cluster, node)), ctx.store.ca()
    starts = [pki.read(pem)[0].not_valid_before_utc.timestamp() for pem in (ca, pair.cert if pair else None) if pem]
    if pair is None or ca is None:
        starts.append(ctx.now() - BACKDATED)
    if ctx.now() + look.skew < max(starts):
        yield f"its clock is {-look.skew} s behind: there its certificate is not valid yet. Set the clock (NTP)"


def _warnings(cluster: Cluster, node: Node, look: Look) -> Iterator[str]:
    yield from clock(cluster, node, look)
    yield from ground.written_in_place(cluster, look)
    token = living.installed(cluster, node, look).get("initial-cluster-token", cluster.token)
    if look.member and token != cluster.token:
        yield f"[cluster] token was {token}: etcd reads it at its first start only, its members keep theirs"
    total = look.space[node.paths.data].total
    quota = int(cluster.flags.get("quota-backend-bytes", "0"))
    if total < quota:
        yield f"{node.paths.data} is on {total >> 20} MB, less than quota-backend-bytes ({quota >> 20} MB)"
