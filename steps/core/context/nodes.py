"""What a step may do on nodes: what was seen there, scripts, words for the user."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from steps.core.base import files
from steps.core.base.errors import NodeFailed, Refused
from steps.core.base.frames import Damaged
from steps.core.base.hints import again
from steps.core.base.report import Report
from steps.core.config.model import Cluster, Node
from steps.core.etcd.views import Member
from steps.core.node.facts import Look, Process
from steps.core.node.inspect import parse
from steps.core.node.inspect_script import look_script
from steps.core.node.paths import cert_directory, data_directories, unit_file
from steps.core.node.resources import File, Promise, Resource
from steps.core.transport.pool import Hosts
from steps.core.transport.shell_session import Result

if TYPE_CHECKING:
    from steps.core.context.etcd_client import EtcdClient

T = TypeVar("T")


class Nodes:
    """The nodes of one command line. `dry`: nothing may be changed anywhere.

    `differences` counts what would be changed of the cluster, `locals` what of this controller's own files.
    """

    def __init__(self, cluster: Cluster, hosts: Hosts, report: Report, *, dry: bool) -> None:
        self.cluster = cluster
        self.dry = dry
        self.report = report
        self.looks: dict[str, Look] = {}
        self.found: dict[str, Look] = {}  # as `looks` was before this run changed anything
        self.members: tuple[Member, ...] | None = None  # the live member list, where the preflight could ask for it
        self.differences = 0
        self.locals = 0
        self._hosts = hosts

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

    @cached_property
    def etcd(self) -> EtcdClient:
        """What the members of the cluster are asked through."""
        from steps.core.context.etcd_client import EtcdClient

        return EtcdClient(self)

    @property
    def serving(self) -> Cluster:
        """The cluster with the client ports at which its members answer now. See EtcdClient."""
        return self.etcd.serving

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
            from steps.core.etcd.listing import listed, with_listing

            script = with_listing(self.cluster, node, script)
        result = self.sh(node, script)
        if not result.ok:
            raise Refused(f"looking at it failed: {result.err.strip()[-300:]}", node=node.name)
        try:
            out = result.out
            if listing:
                out, self.members = listed(out)
            look = parse(out, wanted)
        except Damaged as error:
            raise Refused(f"looking at it failed: {error}", node=node.name, hint=again()) from error
        clock = look.facts.clock
        if clock is None:
            raise Refused("looking at it failed: its answer does not say the time", node=node.name, hint=again())
        look = replace(look, skew=max(0, clock - self.now()) or min(0, clock - before))
        if look.process is None or look.facts.running_version or not (version := self._version(node, look.process)):
            return look
        return replace(look, facts=replace(look.facts, running_version=version))

    def _version(self, node: Node, process: Process) -> str:
        """Return the version of a living etcd that is not the installed one, "" where it is unknown.

        What a process is, is never run to find out: what was distributed is known, and else it is asked, as a client.
        """
        from steps.core.release import record

        if known := record.version_of(files.text(self.cluster.work / record.FILE), process.exe):
            return known
        return self.etcd.version(node)

    def sh(self, node: Node, script: str, *, deadline: float = 60) -> Result:
        """Runs a shell script on the node (root over SSH); `deadline` in seconds. Raises NodeFailed if it is lost."""
        return self._hosts.run(node, script, deadline=deadline)

    def answer(self, node: Node, script: str, read: Callable[[str], T], *, deadline: float = 60) -> T:
        """Run a script on the node, and return what `read` makes of what it prints.

        Raises NodeFailed where the node is lost, and where `read` says that the answer is Damaged.
        """
        out = self.sh(node, script, deadline=deadline).out
        try:
            return read(out)
        except Damaged as error:
            raise NodeFailed(node.name, f"its answer cannot be read: {error}", hint=again()) from error

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
            raise Refused.because(error) from error

    def dial(self, through: Node, ip: str, port: int, *, direct: bool = True) -> Any:
        """A TCP channel from a node (else, where its sshd forbids that, `direct`) to an address. See Hosts.dial."""
        return self._hosts.dial(through, (ip, port), direct=direct)

    @property
    def hosts(self) -> Hosts:
        return self._hosts

    def arch(self, node: Node) -> str:
        return self.look(node).arch

    @staticmethod
    def now() -> int:
        return int(time.time())
