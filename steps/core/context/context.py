"""What a step may use while it runs: the nodes, the stores, releases, and what plugins answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from steps.core.base import files
from steps.core.base.errors import StepsError
from steps.core.base.option import Option
from steps.core.base.report import Report
from steps.core.config.model import Cluster, Node
from steps.core.context.nodes import Nodes
from steps.core.node.diff import unified
from steps.core.transport.pool import Hosts

if TYPE_CHECKING:
    from steps.core.release.contracts import ReleaseSource
    from steps.core.release.releases import Staged
    from steps.core.tls.authority import Authority
    from steps.core.tls.contracts import CertBackend
    from steps.core.tls.store import Store

T = TypeVar("T")
FETCH_DEADLINE = 900  # seconds for one architecture's release, all sources together


class Named(Protocol):
    """A step, as far as plugins need to know it."""

    @property
    def name(self) -> str: ...


class Extensions(Protocol):
    """What a run needs of plugins: a typed call for each hook. Whatever they raise names the plugin and the hook."""

    def cert_backend(self, name: str, cluster: Cluster) -> CertBackend: ...

    def release_source(self, name: str, cluster: Cluster) -> ReleaseSource: ...

    def flags(self, cluster: Cluster, node: Node) -> dict[str, str]: ...

    def template_dirs(self, cluster: Cluster) -> list[Path]: ...

    def before(self, step: str, cluster: Cluster, nodes: Sequence[Node]) -> None: ...

    def after(
        self, step: str, cluster: Cluster, nodes: Sequence[Node], error: BaseException | None
    ) -> list[StepsError]: ...

    def before_restart(self, cluster: Cluster, node: Node) -> bool: ...

    def checks(self, cluster: Cluster, node: Node) -> list[Check]: ...

    def answering(self, step: Named, part: str, node: str = "") -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Check:
    """One more thing that verify looks at. `run` returns None where all is well, else what is wrong.

    `plugin`: the name of the plugin that it is of; filled in by whoever asks for it.
    """

    name: str
    run: Callable[[Context], str | None]
    plugin: str = ""


class Context(Nodes):
    """One command line's means: the nodes, the stores of the work directory, releases, and what plugins answer."""

    def __init__(
        self,
        cluster: Cluster,
        hosts: Hosts,
        report: Report,
        plugins: Extensions,
        *,
        dry: bool,
        options: Mapping[Option[Any], Any] | None = None,
    ) -> None:
        """`options`: what was given on the command line for options of steps."""
        super().__init__(cluster, hosts, report, dry=dry)
        self._options = options or {}
        self.plugins = plugins
        self._staged: dict[str, Staged | None] = {}
        self._recorded: dict[str, Mapping[str, str]] = {}

    def option(self, option: Option[T]) -> T:
        """Return what was given on the command line for an option of a step, else its default."""
        given: T = self._options.get(option, option.default)
        return given

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

        if arch not in self._recorded:
            self._recorded[arch] = record.digests(
                files.text(self.cluster.work / record.FILE),
                self.cluster.version,
                arch,
                sources=dict(self._sources()),
                pin=self._pin(arch),
            )
        return self._recorded[arch]

    def record(self, staged: Staged) -> None:
        """Keeps the digests of what is about to be distributed in the work directory."""
        from steps.core.release import record

        self._recorded.clear()
        file = self.cluster.work / record.FILE
        self.write(file, record.with_release(files.text(file), staged))

    def write(self, file: Path, text: str) -> None:
        """Keeps a small file in the work directory, mode 0600; in a dry run only says what would change."""
        before = files.text(file)
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


def _reporting(source: Any, progress: Callable[[int, int | None], None]) -> Any:
    """The source with its `progress` (bytes done, bytes in all) set, if it is a dataclass that has one."""
    has = is_dataclass(source) and any(each.name == "progress" for each in fields(source))
    return replace(source, progress=progress) if has else source
