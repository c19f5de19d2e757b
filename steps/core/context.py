"""What a step may use while it runs: the nodes' looks, scripts on nodes, words for the user, the stores."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from steps.core import files
from steps.core.errors import NodeFailed, Refused
from steps.core.hints import again
from steps.core.model import Cluster, Node
from steps.core.node.compare import unified
from steps.core.node.hosts import Hosts
from steps.core.node.look import Look, Process, parse
from steps.core.node.look_script import look_script
from steps.core.node.places import cert_directory, data_directories, unit_file
from steps.core.node.session import Result
from steps.core.report import Report
from steps.core.resources import File, Promise, Resource

if TYPE_CHECKING:
    from steps.core.contracts import ReleaseSource
    from steps.core.etcd.ask import Member
    from steps.core.plugins import Plugins
    from steps.core.release.releases import Staged
    from steps.core.tls.authority import Authority
    from steps.core.tls.store import Store

T = TypeVar("T")
FETCH_DEADLINE = 900  # seconds for one architecture's release, all sources together


class Context:
    """One command line's means. `dry`: nothing may be changed anywhere.

    `differences` counts what would be changed of the cluster, `locals` what of this controller's own files.
    """

    def __init__(
        self,
        cluster: Cluster,
        hosts: Hosts,
        report: Report,
        plugins: Plugins,
        *,
        dry: bool,
        accept_downtime: bool = False,
        renew: bool = False,
    ) -> None:
        self.cluster = cluster
        self.dry = dry
        self.accept_downtime = accept_downtime
        self.renew = renew
        self.report = report
        self.plugins = plugins
        self.looks: dict[str, Look] = {}
        self.found: dict[str, Look] = {}  # as `looks` was before this run changed anything
        self.members: tuple[Member, ...] | None = None  # the live member list, where the preflight could ask for it
        self.ports: dict[str, int] = {}  # client ports of living members, where no look says them
        self.differences = 0
        self.locals = 0
        self._hosts = hosts
        self._staged: dict[str, Staged | None] = {}

    def say(self, message: str, node: Node | None = None) -> None:
        self.report.say(message, node.name if node else "")

    def warn(self, message: str, node: Node | None = None) -> None:
        self.report.warn(message, node.name if node else "")

    def change(self, message: str, node: Node | str | None = None, diff: str = "", *, count: int = 1) -> None:
        """Something changes (or, in a dry run, would): said, and counted. `node` may be several nodes' names."""
        self.differences += count
        name = node if isinstance(node, str) else node.name if node else ""
        self.report.change(message, name, diff if self.dry else "")

    def local(self, message: str, diff: str = "") -> None:
        """A file of this controller alone changes, or would: said, and no difference of the cluster."""
        self.locals += 1
        self.report.change(f"on this controller: {message}", diff=diff if self.dry else "")

    def look(self, node: Node) -> Look:
        """What was seen on the node, with what this run has changed since."""
        return self.looks[node.name]

    @property
    def serving(self) -> Cluster:
        """The cluster with the client ports at which its members answer now; etcd.toml's are true after a restart."""
        from steps.core.etcd.living import serving

        return serving(self.cluster, self.looks, self.ports, self.members)

    def look_at(self, node: Node, resources: Sequence[Resource] = (), *, listing: bool = False) -> Look:
        """Looks at the node now: at `resources`, at what a start needs, at what a living process is compared with.

        `listing`: its member is asked for the member list meanwhile, which `members` keeps. Raises Refused.
        """
        home = node.paths.cert
        paths = (unit_file(self.cluster, node), f"{node.paths.bin}/etcd", f"{home}/ca.pem", f"{home}/etcd.pem")
        directories = (cert_directory(self.cluster, node), *data_directories(self.cluster, node))
        wanted = [*(File(path, Promise("")) for path in paths), *directories, *resources]
        before = self.now()
        script = look_script(self.cluster, node, wanted)
        if listing:
            from steps.core.etcd.current import listed, with_listing

            script = with_listing(self.cluster, node, script)
        result = self.sh(node, script)
        if not result.ok:
            raise Refused(f"{node.name}: looking at it failed: {result.err.strip()[-300:]}")
        out = result.out
        if listing:
            out, self.members = listed(out)
        try:
            look = parse(out, wanted)
        except ValueError as error:
            raise Refused(f"{node.name}: looking at it failed: {error}", hint=again()) from error
        clock = int(look.facts["clock"])
        look = replace(look, skew=max(0, clock - self.now()) or min(0, clock - before))
        if look.process is None or "living" in look.facts or not (version := self._version(node, look.process)):
            return look
        return replace(look, facts={**look.facts, "living": version})

    def _version(self, node: Node, process: Process) -> str:
        """Return the version of a living etcd that is not the installed one, "" where it is unknown.

        What a process is, is never run to find out: what was distributed is known, and else it is asked, as a client.
        """
        from steps.core.release import record

        if known := record.version_of(_text(self.cluster.work / record.FILE), process.exe):
            return known
        from steps.core.etcd.ask import parse as answers
        from steps.core.etcd.ask import version_script

        seen = answers(self.sh(node, version_script(self.cluster, node)).out).statuses
        status = seen.get(self.cluster.client_url(node))
        version = status.version if status is not None else ""
        return version if re.fullmatch(r"\d+\.\d+\.\d+", version) else ""

    def sh(self, node: Node, script: str, *, deadline: float = 60) -> Result:
        """Runs a shell script on the node (root over SSH); `deadline` in seconds. Raises NodeFailed if it is lost."""
        return self._hosts.run(node, script, deadline=deadline)

    def each(self, nodes: Sequence[Node], work: Callable[[Node], T]) -> dict[str, T]:
        """`work` on all nodes in parallel; failures are collected and raised together."""

        def shown(node: Node) -> T:
            with self.report.busy(node.name):
                return work(node)

        return self._hosts.each(nodes, shown)

    def reach(self, nodes: Sequence[Node]) -> None:
        """Ask each node for nothing, before a change that must not end at half of them. Raises Refused."""
        try:
            self.each(nodes, lambda node: self.sh(node, ":\n"))
        except NodeFailed as error:
            raise Refused(error.message, hint=error.hint) from error

    def dial(self, through: Node, ip: str, port: int, *, direct: bool = True) -> Any:
        """A TCP channel from a node (else, where its sshd forbids that, `direct`) to an address. See Hosts.dial."""
        return self._hosts.dial(through, (ip, port), direct=direct)

    @property
    def hosts(self) -> Hosts:
        return self._hosts

    @cached_property
    def store(self) -> Store:
        """The certificates in the work directory."""
        from steps.core.tls.store import Store

        return Store(self.cluster.work)

    @cached_property
    def authority(self) -> Authority:
        """The configured certificate backend, with the store that keeps what it signs."""
        from steps.core.tls.authority import Authority

        return Authority(self.cluster, self.plugins.cert_backend(self.cluster.tls.backend, self.cluster), self.store)

    def arch(self, node: Node) -> str:
        return self.look(node).arch

    def release(self, arch: str) -> Staged | None:
        """What the cache has of the configured release for `arch`; verified once per run. Writes nothing."""
        from steps.core.release import releases

        if arch not in self._staged:
            self._staged[arch] = releases.cached(
                self._sources(),
                self.cluster.version,
                arch,
                cache=releases.default_cache(),
                pin=self._pin(arch),
                say=self.say,
            )
        return self._staged[arch]

    def fetch(self, arch: str) -> Staged:
        """As `release`, fetched from the first source that serves it where the cache has nothing. Raises StepFailed."""
        from steps.core.release import releases

        staged = self.release(arch)
        if staged is None:
            with self.report.transfer(f"etcd {self.cluster.version} ({arch})") as progress:
                staged = self._staged[arch] = releases.fetch(
                    [(name, _reporting(source, progress)) for name, source in self._sources()],
                    self.cluster.version,
                    arch,
                    cache=releases.default_cache(),
                    pin=self._pin(arch),
                    deadline=FETCH_DEADLINE,
                    say=self.say,
                )
        return staged

    def recorded(self, arch: str) -> Mapping[str, str]:
        """The binaries' digests, where the configured release was distributed before, from whichever controller."""
        from steps.core.release import record

        return record.digests(
            _text(self.cluster.work / record.FILE),
            self.cluster.version,
            arch,
            sources=dict(self._sources()),
            pin=self._pin(arch),
        )

    def record(self, staged: Staged) -> None:
        """Keeps the digests of what is about to be distributed in the work directory."""
        from steps.core.release import record

        file = self.cluster.work / record.FILE
        self.write(file, record.with_release(_text(file), staged))

    def write(self, file: Path, text: str) -> None:
        """Keeps a small file in the work directory, mode 0600; in a dry run only says what would change."""
        before = _text(file)
        if before == text:
            return
        self.local(f"{file} is {'replaced' if before else 'written'}", diff=unified(str(file), before, text))
        if not self.dry:
            files.private_directory(file.parent)
            files.replace(file, text.encode())

    def link(self, link: Path, target: Path) -> None:
        """Keeps a symbolic link in the work directory."""
        if link.is_symlink() and link.readlink() == target:
            return
        if self.dry:
            self.local(f"{link} -> {target}")
            return
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged = link.with_name(f".{link.name}.new")
        staged.unlink(missing_ok=True)
        staged.symlink_to(target)
        staged.replace(link)

    def _sources(self) -> list[tuple[str, ReleaseSource]]:
        names = self.cluster.release.sources
        return [(name, self.plugins.release_source(name, self.cluster)) for name in names]

    def _pin(self, arch: str) -> str | None:
        return self.cluster.release.sha256.get(arch)

    @staticmethod
    def now() -> int:
        return int(time.time())


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _reporting(source: Any, progress: Callable[[int, int | None], None]) -> Any:
    """The source with its `progress` (bytes done, bytes in all) set, if it is a dataclass that has one."""
    has = is_dataclass(source) and any(each.name == "progress" for each in fields(source))
    return replace(source, progress=progress) if has else source
