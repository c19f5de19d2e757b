"""What etcd.toml would change on members that live, and which of it would harm them. Pure: no host is asked.

The plan, `all` and every phase compare first, before any unit is touched; what cannot be done rightly is a Problem.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from shlex import quote
from urllib.parse import SplitResult, urlsplit

from steps.core.base.hints import etcdctl, invoke
from steps.core.base.problem import Problem
from steps.core.config.model import Cluster, Node
from steps.core.etcd import unit_text
from steps.core.etcd.views import Member
from steps.core.node.facts import Look, NodeFacts
from steps.core.node.paths import unit_file, wal_parent

ANY = ("0.0.0.0", "::")  # noqa: S104  listening on every address
OPERATIONS = "docs/operations.md"
SCHEME = "living.scheme"


@dataclass(frozen=True)
class Move:
    """A directory of a member that etcd.toml has elsewhere. `living`: its process has the old one open."""

    key: str  # data or wal, as in [paths]
    old: str
    new: str
    living: bool


def options(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Flags by name without dashes, as Go reads them (`--a=b`, `-a b`); below them, the ETCD_… variables."""
    found = {name.removeprefix("ETCD_").lower().replace("_", "-"): value for name, value in (environment or {}).items()}
    words = list(argv[1:])
    while words:
        name, separator, value = words.pop(0).partition("=")
        if not name.startswith("-"):
            continue
        if not separator and words and not words[0].startswith("-"):
            value = words.pop(0)
        found[name.lstrip("-")] = value
    return found


def present(cluster: Cluster, node: Node, look: Look) -> dict[str, str]:
    """The options of the living process; where none lives, of the unit that is on the node."""
    return (
        installed(cluster, node, look) if look.process is None else options(look.process.argv, look.facts.environment)
    )


def installed(cluster: Cluster, node: Node, look: Look) -> dict[str, str]:
    """The options of the unit that is on the node; empty where there is none, or where it cannot be read."""
    if unit_text.unreadable(cluster, node, look):  # which the preflight refuses
        return {}
    return options(unit_text.command(cluster, unit_text.installed(cluster, node, look)))


def directories(found: Mapping[str, str], facts: NodeFacts) -> tuple[str, str]:
    """Where a member with these options has its data and its WAL, normalised; "" where that is not known.

    What the process has open counts first. Without --wal-dir etcd has the WAL inside the data directory.
    """
    data, wal = found.get("data-dir", ""), found.get("wal-dir", "")
    if facts.open_database:
        data = facts.open_database.removesuffix("/member/snap/db")
    if facts.open_segment:
        wal = str(PurePosixPath(facts.open_segment).parent)
    data = data if data.startswith("/") and "$" not in data else ""
    if not wal and data and not found.get("config-file"):
        wal = f"{data}/member/wal"
    wal = wal if wal.startswith("/") and "$" not in wal else ""
    return (str(PurePosixPath(data)) if data else ""), (str(PurePosixPath(wal)) if wal else "")


def moves(cluster: Cluster, node: Node, look: Look) -> list[Move]:
    """The directories that the member has elsewhere than etcd.toml says. The WAL comes first: it may be inside."""
    living = look.process is not None
    data, wal = directories(present(cluster, node, look), look.facts if living else NodeFacts())
    if not living and look.facts.inner_wal and not look.wal:  # whatever the unit says by now
        wal = f"{node.paths.data}/member/wal"
    pairs = (("wal", wal, node.paths.wal), ("data", data, node.paths.data))
    return [Move(key, old, new, living) for key, old, new in pairs if old and old != str(PurePosixPath(new))]


def moves_script(found: Sequence[Move]) -> str:
    """Prints `KEY STATE` for each: same (both paths are one directory), old, new, both or none (where data lies)."""
    lines = ['holds() { for f in "$1"/member "$1"/*.wal; do [ ! -e "$f" ] || return 0; done; return 1; }']
    lines += [
        f"if [ {quote(move.old)} -ef {quote(move.new)} ]; then s=same\n"
        f"elif holds {quote(move.old)}; then s=old; ! holds {quote(move.new)} || s=both\n"
        f"else s=none; ! holds {quote(move.new)} || s=new; fi; echo {move.key} $s"
        for move in found
    ]
    return "\n".join([*lines, "true", ""])


def moved(cluster: Cluster, node: Node, found: Sequence[Move], states: Mapping[str, str]) -> Iterator[Problem]:
    """`states`: what moves_script printed. What was moved by hand, stopped, is at the new path only."""
    harmful = [move for move in found if _harms(move, states.get(move.key, ""))]
    if not harmful:
        return
    twice = [move for move in harmful if not move.living and states.get(move.key) == "both"]
    if twice:
        said = "; ".join(f"a member's {_WHAT[move.key]} is in {move.old} and in {move.new}" for move in twice)
        way = "move aside the copy that is not the last one used: mv -T DIRECTORY DIRECTORY.old"
        yield Problem("living.data-twice", said, hint=way, node=node.name)
        return
    said = " and ".join(f"its {_WHAT[move.key]} is in {move.old}, etcd.toml says {move.new}" for move in harmful)
    way = "\n".join(_moving(cluster, node, harmful))
    yield Problem("living.data-elsewhere", f"{said}: there it would start empty", hint=way, node=node.name)


def _harms(move: Move, state: str) -> bool:
    """What is not known of a directory counts as harm."""
    return state not in (("same",) if move.living else ("same", "new", "none"))


_WHAT = {"data": "data", "wal": "WAL"}


def _moving(cluster: Cluster, node: Node, found: Sequence[Move]) -> tuple[str, ...]:
    owner = cluster.hosts.run_as if cluster.systemd else ""
    parent = wal_parent(node)
    made = [f"install -d -o {owner} -g {owner} -m 0700 {quote(parent)}" if owner else f"mkdir -p {quote(parent)}"]
    if (home := str(PurePosixPath(node.paths.data).parent)) != parent:
        made.append(f"mkdir -p {quote(home)}")
    made += [f"mv -T {quote(move.old)} {quote(move.new)}" for move in found]
    keys = ", ".join(f'{move.key} = "{move.old}"' for move in found if not move.old.endswith("/member/wal"))
    back = (f"or leave the data where it is: [paths] {keys}",) if keys else ()
    return (*_one_by_one(cluster, node, f"on its host: {' && '.join(made)}"), *back)


def _one_by_one(
    cluster: Cluster, node: Node, *between: str, then: str = "the same for the next member"
) -> tuple[str, ...]:
    """One member is stopped, changed and started while the others serve; then the next."""
    sure = f" --yes {cluster.name}" if len(cluster.nodes) - 1 < cluster.quorum else ""
    lines = (invoke(f"stop --node {node.name}{sure}"), *between, invoke(f"all --node {node.name}"))
    others = (then,) if len(cluster.nodes) > 1 else ()
    return (*lines, *others)


def differences(cluster: Cluster, node: Node, look: Look, members: Sequence[Member] | None) -> Iterator[Problem]:
    """What is wrong between one node's member and etcd.toml, its directories apart. `members`: the list, if known."""
    found = present(cluster, node, look)
    if look.process is None and not look.member:
        return
    living = look.process is not None
    if living and not all(directories(found, look.facts)):
        said = f"where its data is cannot be seen from its process (pid {look.pid})"
        way = "wait until it has started, or stop it, then run the same again"
        yield Problem("living.unseen-data", said, hint=way, node=node.name)
    wrong = [url for url in _urls(found) if url.scheme != cluster.scheme]
    if wrong:
        yield _scheme(cluster, node, wrong[0].scheme)
        return
    if living and cluster.systemd and (user := look.facts.running_as) not in (None, cluster.hosts.run_as):
        said = f'its etcd runs as {user}, etcd.toml says run_as = "{cluster.hosts.run_as}": it would lose its key'
        way = "\n".join(_one_by_one(cluster, node))
        yield Problem("living.user", said, hint=way, node=node.name)
    if living:
        yield from _listening(cluster, node, found, members)
    elif members is None and len(cluster.nodes) > 1:
        yield from _stopped(cluster, node, found)


def _urls(found: Mapping[str, str]) -> list[SplitResult]:
    """The URLs that decide over TLS: loopback may be plain."""
    words = ",".join(found.get(name, "") for name in ("listen-peer-urls", "listen-client-urls")).split(",")
    urls = [urlsplit(word.strip()) for word in words if "://" in word]
    return [url for url in urls if url.hostname not in ("127.0.0.1", "::1", "localhost")] or urls


def _scheme(cluster: Cluster, node: Node, scheme: str) -> Problem:
    enabled = "true" if scheme == "https" else "false"
    said = f"its cluster was made with {scheme}, etcd.toml says {cluster.scheme}: its members would lose each other"
    way = f'set [tls] enabled = {enabled} again; to change it: {OPERATIONS}, "From http to https"'
    return Problem(SCHEME, said, hint=way, node=node.name)


def _listening(
    cluster: Cluster, node: Node, found: Mapping[str, str], members: Sequence[Member] | None
) -> Iterator[Problem]:
    """Its peers reach a living member where it listens now: it is restarted elsewhere only once it was stopped."""
    wanted, listed = urlsplit(cluster.peer_url(node)), _listed(cluster, node, members)
    if listed is not None and cluster.peer_url(node) not in listed.peer_urls:
        return  # said of the member list
    urls = [urlsplit(word) for word in found.get("listen-peer-urls", "").split(",") if "://" in word]
    if urls and not any(url.port == wanted.port and url.hostname in (wanted.hostname, *ANY) for url in urls):
        now = urls[0].geturl()
        identifier = listed.id if listed is not None else "ID"
        yield _peer_url(cluster, node, now, identifier, updated=listed is not None)


def _stopped(cluster: Cluster, node: Node, found: Mapping[str, str]) -> Iterator[Problem]:
    """Without a member list, the unit that is there says what the others know of a stopped member."""
    name, url = found.get("name", node.name), found.get("initial-advertise-peer-urls", "")
    if name != node.name:
        yield _name(node, name)
    elif url and cluster.peer_url(node) not in url.split(","):
        yield _peer_url(cluster, node, url, "ID", updated=False)


def _name(node: Node, name: str) -> Problem:
    way = f'set name = "{name}" again; to give it another, replace the member: {OPERATIONS}, "A member\'s data is gone"'
    said = f"its member is {name}, and etcd.toml gives it another name"
    return Problem("living.name", said, hint=way, node=node.name)


def _peer_url(cluster: Cluster, node: Node, now: str, identifier: str, *, updated: bool) -> Problem:
    url = cluster.peer_url(node)
    update = () if updated else (etcdctl(cluster.work, f"member update {identifier} --peer-urls={url}"),)
    then = "then the next member's in etcd.toml, and the same for it"
    steps = _one_by_one(cluster, node, *update, then=then)
    if len(cluster.nodes) == 1:  # no other could be asked once it is stopped
        steps = (*update, *_one_by_one(cluster, node))
    if updated:
        said = f"it listens for its peers at {now}, etcd.toml says {url}"
    else:
        said = f"its peers know it as {now}, etcd.toml says {url}: they would not find it"
    first = "set ip and peer_port again, or have one member's alone changed in etcd.toml, and in this order:"
    return Problem("living.peer-url", said, hint="\n".join([first, *steps]), node=node.name)


def membership(
    cluster: Cluster, looks: Mapping[str, Look], members: Sequence[Member], *, starts: bool
) -> Iterator[Problem]:
    """What is wrong between the live member list and etcd.toml. `starts`: this run would start members."""
    matched: set[str] = set()
    for node in cluster.nodes:
        member = _listed(cluster, node, members)
        look = looks.get(node.name)
        if member is None:
            if (problem := _absent(cluster, node, look, starts=starts)) is not None:
                yield problem
            continue
        matched.add(member.id)
        if cluster.peer_url(node) not in member.peer_urls:
            yield _elsewhere(cluster, node, member)
        elif member.started and member.name != node.name:
            yield _name(node, member.name)
        elif not member.started and starts and look is not None and not (look.member or look.wal or look.process):
            way = "\n".join(_joining(cluster, node, added=True))
            yield Problem("living.unstarted", "it was added and has never started", hint=way, node=node.name)
    for member in members:
        if member.id not in matched:
            yield _unlisted(cluster, member)


def _listed(cluster: Cluster, node: Node, members: Sequence[Member] | None) -> Member | None:
    """The node's member: who has its peer URL, else who has its name."""
    url = cluster.peer_url(node)
    found = [member for member in members or () if url in member.peer_urls]
    return next(iter([*found, *(member for member in members or () if member.name == node.name)]), None)


def unborn(cluster: Cluster, members: Sequence[Member] | None) -> set[str]:
    """The nodes that the cluster has never had as started members: empty, they have lost nothing."""
    if members is None:
        return set()
    found = {node.name: _listed(cluster, node, members) for node in cluster.nodes}
    return {name for name, member in found.items() if member is None or not member.started}


def published(cluster: Cluster, members: Sequence[Member] | None) -> set[str]:
    """The nodes with a member that has served: empty, they have lost their data, whatever this controller remembers."""
    listed = {node.name: _listed(cluster, node, members) for node in cluster.nodes}
    return {name for name, member in listed.items() if member is not None and member.started and member.client_urls}


def _absent(cluster: Cluster, node: Node, look: Look | None, *, starts: bool) -> Problem | None:
    if look is not None and (look.member or look.process is not None):
        said = "its host holds a member's data, and the member list has neither its name nor its URL: was it removed?"
        way = f"delete its table from etcd.toml, or move {node.paths.data} and {node.paths.wal} aside and add it anew"
        return Problem("living.removed", said, hint=way, node=node.name)
    if not starts:
        return None
    way = "\n".join(_joining(cluster, node, added=False))
    return Problem("living.new", "it is new: the cluster has never had this member", hint=way, node=node.name)


def _joining(cluster: Cluster, node: Node, *, added: bool) -> tuple[str, ...]:
    if not cluster.systemd:
        return ("members are not added by this program yet: take its table out of etcd.toml again",)
    state, unit = "--initial-cluster-state", quote(unit_file(cluster, node))
    edits = f"sed -i -e s/{state}=new/{state}=existing/ -e /^AssertDirectoryNotEmpty=/d {unit}"
    first = (
        "members are not added by this program yet; by hand, one at a time:",
        invoke(f"env download distribute ca certs units --node {node.name}"),
        etcdctl(cluster.work, f"member add {node.name} --peer-urls={cluster.peer_url(node)}"),
    )
    return (
        *(() if added else first),
        f"on its host: {edits} && systemctl daemon-reload && systemctl enable --now etcd",
        invoke("all"),
    )


def _elsewhere(cluster: Cluster, node: Node, member: Member) -> Problem:
    urls = ",".join(member.peer_urls)
    before, then = urlsplit(member.peer_urls[0] if member.peer_urls else ""), urlsplit(cluster.peer_url(node))
    if before.scheme != then.scheme and before.netloc == then.netloc:
        return _scheme(cluster, node, before.scheme)
    return _peer_url(cluster, node, urls, member.id, updated=False)


def _unlisted(cluster: Cluster, member: Member) -> Problem:
    url = urlsplit(member.peer_urls[0] if member.peer_urls else "")
    ports = [("peer_port", url.port, 2380)]
    ports += [("client_port", urlsplit(client).port, 2379) for client in member.client_urls[:1]]
    table = [f'name = "{member.name}"', f'ip = "{url.hostname}"']
    table += [f"{key} = {port}" for key, port, usual in ports if port not in (None, usual)]
    name = member.name or member.id
    said = f"it is a member of {cluster.name} (ID {member.id}, {','.join(member.peer_urls)}) and is not in etcd.toml"
    way = (
        f"is this etcd.toml an old one? Its table: [[nodes]] {'  '.join(table)}",
        "to remove it from the cluster, and then stop its etcd:",
        etcdctl(cluster.work, f"member remove {member.id}"),
        invoke("all"),
    )
    return Problem("living.unlisted", said, hint="\n".join(way), node=name)


def serving(
    cluster: Cluster,
    looks: Mapping[str, Look],
    known: Mapping[str, int] | None = None,
    members: Sequence[Member] | None = None,
) -> Cluster:
    """The cluster with each member's client port as it is now: its process's, else the `known` one, else the list's.

    What is asked of the members is asked of these URLs; etcd.toml's are true once each was restarted.
    """
    ports = {
        node.name: known[node.name]
        if known and node.name in known and node.name not in looks
        else _port(cluster, node, looks.get(node.name), members)
        for node in cluster.nodes
    }
    if all(ports[node.name] == node.client_port for node in cluster.nodes):
        return cluster
    return replace(cluster, nodes=tuple(replace(node, client_port=ports[node.name]) for node in cluster.nodes))


def _port(cluster: Cluster, node: Node, look: Look | None, members: Sequence[Member] | None) -> int:
    if look is not None:
        found = options(look.process.argv, look.facts.environment) if look.process is not None else {}
        return listens(node, found.get("listen-client-urls", "").split(","))
    member = _listed(cluster, node, members)
    return listens(node, member.client_urls if member is not None else ())


def listens(node: Node, urls: Collection[str]) -> int:
    """The client port at the node's own address, of these URLs; etcd.toml's where it is among them, or none is."""
    found = [urlsplit(url.strip()) for url in urls if "://" in url]
    ports = [url.port for url in found if url.port and url.hostname in (node.ip, *ANY)]
    return node.client_port if node.client_port in ports or not ports else ports[0]


def lines(problems: Sequence[Problem]) -> list[str]:
    """For a message: each problem, and each kind's hint once, with the first node's name in it."""
    shown: list[str] = []
    for code in dict.fromkeys(problem.code for problem in problems):
        same = [problem for problem in problems if problem.code == code]
        shown += map(str, same)
        shown += [f"    {line}" for line in same[0].hint.split("\n")]
    return shown
