"""One command line: its configuration, its selection, its locks, its connections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from shlex import quote
from typing import TYPE_CHECKING, Protocol

import filelock

from steps.core.base.errors import FAILED, Refused, UsageError
from steps.core.base.files import replace
from steps.core.base.hints import Hints, again, invoke
from steps.core.base.option import NODE
from steps.core.base.report import Report
from steps.core.base.user import holder, operator
from steps.core.base.work_directory import claim, open_keys
from steps.core.cli.options import given, selection
from steps.core.cli.project import House, HouseTask
from steps.core.config.model import Cluster, Node
from steps.core.context.context import Context
from steps.core.pipeline.engine import Engine
from steps.core.pipeline.step import Step
from steps.core.transport.node_lock import LOCK
from steps.core.transport.pool import Hosts

if TYPE_CHECKING:
    from threading import Event

    from invoke.tasks import Call
    from typing_extensions import Self

    from steps.core.cli.audit_log import RunLog


class TaskContext(Protocol):
    """What a task is called with: Invoke's context, which has the invocation."""

    @property
    def command(self) -> Invocation: ...


class Invocation:
    """One command line, for all of its tasks. `with` checks it at its beginning and closes at its end what was opened.

    Connections, lock and log are opened by the first task that needs them, through `open`.
    """

    def __init__(
        self,
        house: House,
        helps: Mapping[str, str],
        calls: Sequence[Call],
        *,
        dry: bool,
        sudo_password: str | None,
        told: Event,
        hints: Hints,
    ) -> None:
        """`helps`: task's name → its one line. `told`: see Hosts. `hints`: how this command line was typed.

        Raises UsageError.
        """
        self.house = house
        self.helps = helps
        self.task = ""  # the name of the one that runs
        self._calls = calls
        self._tasks = [call.task for call in calls if isinstance(call.task, HouseTask)]
        self._sudo_password = sudo_password
        self._told = told
        self._planning = any(task.path == "plan" for task in self._tasks)
        self.dry = dry or self._planning
        self._writes = any(task.writes for task in self._tasks) and not self.dry
        self.report = Report(json=bool(selection(calls, "json")), hints=hints)
        self._nodes = selection(calls, "node")
        self._done: list[str] = []
        self._current = ""
        self._cluster: Cluster | None = None
        self._ctx: Context | None = None
        self._engine: Engine | None = None
        self._log: RunLog | None = None
        self._opened = ExitStack()  # closes in reverse: connections, log, lock
        self._result = (FAILED, "ended by a bug")  # until `ended` says otherwise
        self._changed: dict[str, list[str]] = {}  # node → what this run has changed there

    def __enter__(self) -> Self:
        """Read etcd.toml, where a task needs it. Raises ConfigError, PluginError or UsageError: nothing was touched."""
        if self._planning and len(self._calls) > 1:
            raise UsageError(
                "plan stands alone: it is --dry all", hint=f"{invoke('--dry TASK')} with the tasks that you mean"
            )
        if any(NODE in task.options for task in self._tasks):
            _ = self.nodes  # a wrong file or an unknown node stops the command here
        return self

    def __exit__(self, *_raised: object) -> None:
        self._opened.close()

    def ended(self, code: int, error: str) -> None:
        """How the run ended, exit code and error message: its log keeps that."""
        self._result = (code, error)

    @property
    def cluster(self) -> Cluster:
        """What etcd.toml says; read when it is first asked for. Raises ConfigError or PluginError."""
        if self._cluster is None:
            self._cluster = self._load()
        return self._cluster

    def _load(self) -> Cluster:
        from steps.core.base.errors import ConfigError
        from steps.core.config import load as config

        file = self.house.config_file(self.config)
        plugins = self.house.plugins
        disabled = config.disabled(file)
        plugins.raise_problems(disabled)
        plugins.disable(disabled)
        cluster = config.load(file, options=plugins.options())
        problems = plugins.validate(cluster)
        if problems:
            raise ConfigError(str(file), config.located(file, problems))
        for warning in cluster.warnings:
            self.report.warn(warning)
        return cluster

    @property
    def config(self) -> str | None:
        """What --config was given, if it was."""
        chosen: str | None = selection(self._calls, "config")
        return chosen

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The selected nodes, in etcd.toml's order."""
        known = [node.name for node in self.cluster.nodes]
        for name in self._nodes or ():
            if name not in known:
                raise UsageError(f"--node {name}: there is no such node", hint=f"known: {', '.join(known)}")
        return tuple(node for node in self.cluster.nodes if not self._nodes or node.name in self._nodes)

    @property
    def pipeline(self) -> list[Step]:
        """The steps that `all` runs: those of disabled plugins are skipped."""
        gone = {step.name for step, source in self.house.plugins.steps() if source.name in self.cluster.disabled}
        return [step for step in self.house.pipeline if step.name not in gone]

    def open(self) -> Context:
        """Return what tasks and steps use of the nodes and the work directory; the same for the whole command line.

        Where something may be changed, the work directory is locked from now on, and the log begins. Raises Refused.
        """
        if self._ctx is None:
            self._ctx = self._open()
        return self._ctx

    def _open(self) -> Context:
        if self._writes:
            try:
                self._take_lock()
            except OSError as error:
                hint = "is its disk full or read-only, does it belong to somebody else? Nothing was changed"
                raise Refused(f"{self.cluster.work} cannot be written to: {error}", hint=hint) from error
        self._close_keys()
        hosts = Hosts(
            self.cluster,
            locked=self._writes,
            keep_keys=self._writes or self.dry,  # `all` meets the hosts that `plan` met
            sudo_password=self._sudo_password,
            told=self._told,
            new_key=self._new_host_key,
            paused=self.report.paused,
        )
        self._opened.callback(hosts.close)
        return Context(
            self.cluster,
            hosts,
            self.report,
            self.house.plugins,
            dry=self.dry,
            options=given(self._calls),
        )

    @property
    def differs(self) -> bool:
        """Whether a dry run has found something that a real one would change."""
        return self.dry and self._ctx is not None and self._ctx.differences > 0

    def take(self, names: Sequence[str]) -> None:
        """Runs these steps; `*` stands for all. Raises StepsError."""
        steps = {step.name: step for step in self.pipeline}
        for name in steps if "*" in names else names:
            if name not in steps:
                raise UsageError(f"the step {name} belongs to a disabled plugin", hint="[plugins] disable in etcd.toml")
            if self._told.is_set():
                raise KeyboardInterrupt
            self._current = name
            self._running(steps.values()).take(steps[name], f"[{list(steps).index(name) + 1}/{len(steps)}]")
            self._done.append(name)
            self._current = ""
        if self.dry:
            ctx = self.open()
            count, local = ctx.differences, ctx.locals
            here = (
                f" on the nodes; {local} file{'s' if local != 1 else ''} of this controller to write" if local else ""
            )
            self.report.tip((f"{count} change{'s' if count != 1 else ''}" if count else "nothing to do") + here)

    def _running(self, pipeline: Iterable[Step]) -> Engine:
        if self._engine is None:
            chosen = [name for task in self._tasks for name in task.steps]
            chain = [step for step in pipeline if "*" in chosen or step.name in chosen]
            self._engine = Engine(self.open(), self.nodes, chain)
        return self._engine

    def progress(self) -> str:
        """For the message after a failure: what is done and what is not."""
        if not self._current:
            return ""
        done = f"done: {', '.join(self._done)}; " if self._done else ""
        return f"{done}not done: {self._current}. A re-run is safe and goes on from here"

    def tell(self) -> None:
        """After a run that did not come to its end: what it has changed on each node."""
        if self._changed:
            rows = [(node.name, self._changed.get(node.name, [])) for node in self.nodes]
            table = [[name, str(len(changes)), changes[-1] if changes else "-"] for name, changes in rows]
            self.report.table(("NODE", "CHANGES", "THE LAST OF THEM"), table)

    def _take_lock(self) -> None:
        work = self.cluster.work
        claim(work)
        held = work / "lock.holder"
        lock = filelock.FileLock(work / LOCK, timeout=0, mode=0o600)
        try:
            lock.acquire()
        except filelock.Timeout:
            who = held.read_text().strip() if held.exists() else "unknown"
            raise Refused(
                f"another run works on {self.cluster.name}: {who}", hint=f"wait for it to end, then: {again()}"
            ) from None
        self._opened.callback(lock.release)
        replace(held, f"{holder()}\n".encode())
        self._open_log(operator())

    def _close_keys(self) -> None:
        for key in open_keys(self.cluster.work):
            found = f"{key} could be read by other users of this machine (mode {key.stat().st_mode & 0o777:04o})"
            advice = f"if another user may have read it, issue new certificates: {invoke('certs --renew')}"
            if self._writes:
                key.chmod(0o600)
                self.report.warn(f"{found} and is 0600 now; {advice}")
            else:
                self.report.warn(f"{found}: chmod 600 {quote(str(key))}; {advice}")

    def _open_log(self, who: str) -> None:
        from steps.core.cli.audit_log import RunLog, command_line

        self.report.heard = self._hear
        folder, names = self.cluster.work / "log", [node.name for node in self.nodes]
        with self._unbroken():
            self._log = RunLog(folder, who=who, command=command_line(self._calls), nodes=names)
        self._opened.callback(self._keep, lambda log: log.end(*self._result))

    def _new_host_key(self, said: str) -> None:
        """Shown always, and kept in the run's log: with JSON on stdout it is a warning on stderr."""
        (self.report.warn if self.report.json else self.report.change)(said)

    def _hear(self, kind: str, node: str, what: str) -> None:
        """`node`: one or several names, or none."""
        for name in node.split(", ") if kind == "change" and node else ():
            self._changed.setdefault(name, []).append(what)
        self._keep(lambda log: log.event(kind, self._current or self.task, node, what))

    def _keep(self, write: Callable[[RunLog], None]) -> None:
        if self._log is not None:
            with self._unbroken():
                write(self._log)

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """A log that cannot be written ends no run: half of a rolling restart would be worse."""
        try:
            yield
        except OSError as error:
            self._log = None
            self.report.warn(f"from here on nothing is kept in {self.cluster.work / 'log'}: {error.strerror}")
