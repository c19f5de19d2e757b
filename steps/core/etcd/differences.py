"""What etcd.toml would change on members that live, and which of it would harm them. Pure: no host is asked.

The plan, `all` and every phase compare first, before any unit is touched; what cannot be done rightly is a Problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from shlex import quote
from urllib.parse import SplitResult, urlsplit

from steps.core.base import pages
from steps.core.base.hints import etcdctl, invoke
from steps.core.base.problem import Problem
from steps.core.config.model import Cluster, Node
from steps.core.etcd import living
from steps.core.etcd.living import ANY, member_of
from steps.core.etcd.moves import one_by_one
from steps.core.etcd.views import Member
from steps.core.node.facts import Look
from steps.core.node.paths import unit_file

SCHEME = "living.scheme"


def of_node(cluster: Cluster, node: Node, look: Look, members: Sequence[Member] | None) -> Iterator[Problem]:
    """What is wrong between one node's member and etcd.toml, its directories apart. `members`: the list, if known."""
    found = living.present(cluster, node, look)
    if look.process is None and not look.member:
        return
    alive = look.process is not None
    if alive and not all(living.directories(found, look.facts)):
        said = f"where its data is cannot be seen from its process (pid {look.pid})"
        way = "wait until it has started, or stop it, then run the same again"
        yield Problem("living.unseen-data", said, hint=way, node=node.name)
    wrong = [url for url in _urls(found) if url.scheme != cluster.scheme]
    if wrong:
        yield _scheme(cluster, node, wrong[0].scheme)
        return
    if alive and cluster.systemd and (user := look.facts.running_as) not in (None, cluster.hosts.run_as):
        said = f'its etcd runs as {user}, etcd.toml says run_as = "{cluster.hosts.run_as}": it would lose its key'
        way = "\n".join(one_by_one(cluster, node))
        yield Problem("living.user", said, hint=way, node=node.name)
    if alive:
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
    way = f"set [tls] enabled = {enabled} again; to change it: {pages.CHANGE_THE_SCHEME}"
    return Problem(SCHEME, said, hint=way, node=node.name)


def _listening(
    cluster: Cluster, node: Node, found: Mapping[str, str], members: Sequence[Member] | None
) -> Iterator[Problem]:
    """Its peers reach a living member where it listens now: it is restarted elsewhere only once it was stopped."""
    wanted, listed = urlsplit(cluster.peer_url(node)), member_of(cluster, node, members)
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
    way = f'set name = "{name}" again; to give it another, replace the member: {pages.REPLACE_A_MEMBER}'
    said = f"its member is {name}, and etcd.toml gives it another name"
    return Problem("living.name", said, hint=way, node=node.name)


def _peer_url(cluster: Cluster, node: Node, now: str, identifier: str, *, updated: bool) -> Problem:
    url = cluster.peer_url(node)
    update = () if updated else (etcdctl(cluster.work, f"member update {identifier} --peer-urls={url}"),)
    then = "then the next member's in etcd.toml, and the same for it"
    steps = one_by_one(cluster, node, *update, then=then)
    if len(cluster.nodes) == 1:  # no other could be asked once it is stopped
        steps = (*update, *one_by_one(cluster, node))
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
        member = member_of(cluster, node, members)
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


def lines(problems: Sequence[Problem]) -> list[str]:
    """For a message: each problem, and each kind's hint once, with the first node's name in it."""
    shown: list[str] = []
    for code in dict.fromkeys(problem.code for problem in problems):
        same = [problem for problem in problems if problem.code == code]
        shown += map(str, same)
        shown += [f"    {line}" for line in same[0].hint.split("\n")]
    return shown
