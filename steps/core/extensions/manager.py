"""A typed call for every hook, and what is made of the answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from steps.core.base.errors import PluginError, StepsError
from steps.core.base.hints import invoke
from steps.core.base.problem import Problem
from steps.core.extensions.loader import defined_at
from steps.core.extensions.registry import SHIPPED, Registry, Source
from steps.core.pipeline import former
from steps.core.pipeline.ordering import Misplaced, ordered
from steps.core.pipeline.step import Step

if TYPE_CHECKING:
    from pydantic import BaseModel

    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Check, Named
    from steps.core.release.contracts import ReleaseSource
    from steps.core.tls.contracts import CertBackend


class Plugins(Registry):
    """The registered plugins as the rest of the program knows them."""

    def __init__(self) -> None:
        super().__init__()
        self._owners: list[tuple[Step, Source]] | None = None

    # -- what plugins add to the command line ---------------------------------------------------------------------

    def steps(self) -> list[tuple[Step, Source]]:
        """The custom steps, each with the plugin that brought it, in the order of registration. Asked once."""
        if self._owners is None:
            self._owners = []
            for source, steps in reversed(list(self._collect("etcd_steps"))):
                for step in steps or ():
                    if problem := _not_a_step(step, source.origin):
                        self.note(source.name, problem)
                    else:
                        self._owners.append((step, source))
        return self._owners

    def placed(self, phases: Sequence[Step], taken: Collection[str]) -> list[Step]:
        """The pipeline with the plugins' steps; `taken` are names of other tasks.

        Steps that find no place are left out, with all others of their plugin, and become its problem.
        """
        steps = self.steps()
        while True:
            try:
                return ordered(phases, [step for step, _ in steps], taken)
            except Misplaced as error:
                blamed = {source.name for step, source in steps if step in error.steps}
                for step, source in steps:
                    if step in error.steps:
                        hint = f" ({error.hint})" if error.hint else ""
                        self.note(source.name, f"{defined_at(type(step), source.origin)}: {error.message}{hint}")
                steps = [(step, source) for step, source in steps if source.name not in blamed]

    def tasks(self, taken: Collection[str]) -> list[Any]:
        """Extra Invoke tasks and collections. A name in `taken` (or twice) becomes its plugin's problem."""
        from invoke.collection import Collection as Tasks
        from invoke.tasks import Task

        found: dict[str, Any] = {}
        for source, tasks in reversed(list(self._collect("etcd_tasks"))):
            for task in tasks or ():
                name = str(getattr(task, "name", "")).replace("_", "-")
                if not isinstance(task, (Task, Tasks)) or not name:
                    self.note(source.name, f"{source.origin}: etcd_tasks returned {task!r}; a task was expected")
                elif name in taken or name in found:
                    where = defined_at(getattr(task, "body", None), source.origin)
                    self.note(source.name, f"{where}: there is a task {name!r} already")
                else:
                    found[name] = task
        return list(found.values())

    def _collect(self, hook: str) -> Iterator[tuple[Source, Any]]:
        """As `_ask`, while tasks.py loads: an error becomes its plugin's problem."""
        for source, function in self.implementations(hook):
            try:
                yield source, self.answer(source, hook, function, {})
            except StepsError as error:
                hint = f" ({error.hint})" if error.hint else ""
                self.note(source.name, f"{error.message}{hint}")

    # -- what plugins say about a configuration -------------------------------------------------------------------

    def options(self) -> dict[str, type[BaseModel]]:
        """Plugin name → the model of its table; disabled plugins' too, so that their tables may stay."""
        return {
            source.name: self.answer(source, "etcd_options", source.plugin.etcd_options, {})
            for source in self.sources
            if "etcd_options" in source.hooks
        }

    def validate(self, cluster: Cluster) -> list[Problem]:
        """What plugins find wrong with the configuration, and backends and sources that nobody has."""
        problems = [
            Problem(f"plugin.{source.name}", str(message), key=f"plugins.{source.name}")
            for source, messages in self.ask("etcd_validate", cluster=cluster)
            for message in messages or ()
        ]
        wanted = [("etcd_cert_backend", "tls.backend", cluster.tls.backend)] if cluster.tls.enabled else []
        wanted += [
            ("etcd_release_source", f"release.sources[{index}]", name)
            for index, name in enumerate(cluster.release.sources)
        ]
        for hook, key, name in wanted:
            if self._first(hook, name, cluster) is None:
                there = sorted({name for source in self.sources for name in self.offers(source, hook, cluster)})
                hint = f"there are {', '.join(there)}; {invoke('plugins')} lists them with their plugins"
                problems.append(Problem("config.no-such-plugin", f"no plugin offers {name!r}", hint=hint, key=key))
        return problems

    def offers(self, source: Source, hook: str, cluster: Cluster) -> list[str]:
        """Return the backends or release sources that a plugin has, of the names that are known.

        These are its own, the configured ones, and those that it lists itself: a hook answers to a name, and has no
        list, so a plugin with several has them in OFFERS.
        """
        if hook not in source.hooks or not self.enabled(source):
            return []
        function = getattr(source.plugin, hook)
        listed: tuple[str, ...] = getattr(source.plugin, "OFFERS", ())
        names = {source.name, cluster.tls.backend, *cluster.release.sources, *listed}
        answers = {name: self.answer(source, hook, function, {"name": name, "cluster": cluster}) for name in names}
        return sorted(name for name, answer in answers.items() if answer is not None)

    def cert_backend(self, name: str, cluster: Cluster) -> CertBackend:
        return cast("CertBackend", self._wanted("etcd_cert_backend", name, cluster))

    def release_source(self, name: str, cluster: Cluster) -> ReleaseSource:
        return cast("ReleaseSource", self._wanted("etcd_release_source", name, cluster))

    def _first(self, hook: str, name: str, cluster: Cluster) -> tuple[Source, Any] | None:
        found = self.ask(hook, name=name, cluster=cluster)
        return next(((source, answer) for source, answer in found if answer is not None), None)

    def _wanted(self, hook: str, name: str, cluster: Cluster) -> Any:
        found = self._first(hook, name, cluster)
        if found is None:
            raise PluginError(f"no plugin offers {name!r}", hint=f"{invoke('plugins')} lists what there is")
        source, answer = found
        return answer if source.name == SHIPPED else _Blamed(answer, self, source)

    def flags(self, cluster: Cluster, node: Node) -> dict[str, str]:
        """The plugins' flags for a node.

        Raises PluginError where two plugins set the same one, and where the cluster's etcd does not take it.
        """
        from steps.core.config.flag_rules import misfit

        flags: dict[str, str] = {}
        owner: dict[str, str] = {}
        for source, answer in self.ask("etcd_flags", cluster=cluster, node=node):
            for flag, value in (answer or {}).items():
                if flag in owner:
                    raise PluginError(f"the plugins {owner[flag]} and {source.name} both set --{flag} on {node.name}")
                message, hint = misfit(flag, str(value), cluster.version)
                if message:
                    raise PluginError(f"the plugin {source.name} sets --{flag} on {node.name}: {message}", hint=hint)
                owner[flag], flags[flag] = source.name, str(value)
        return flags

    def template_dirs(self, cluster: Cluster) -> list[Path]:
        return [Path(path) for _, paths in self.ask("etcd_template_dirs", cluster=cluster) for path in paths or ()]

    # -- what plugins do while steps run --------------------------------------------------------------------------

    def before(self, step: str, cluster: Cluster, nodes: Sequence[Node]) -> None:
        """The step begins. Raises what a plugin raises: the step is not run."""
        self.running = step
        for _ in self.ask("etcd_before_step", step=step, cluster=cluster, nodes=nodes):
            pass

    def after(
        self, step: str, cluster: Cluster, nodes: Sequence[Node], error: BaseException | None
    ) -> list[StepsError]:
        """The step ended, well or with `error`. Every plugin hears of it; what they raise is returned."""
        arguments = {"step": step, "cluster": cluster, "nodes": nodes, "error": error}
        failures = []
        for source, function in self.implementations("etcd_after_step"):
            try:
                self.answer(source, "etcd_after_step", function, arguments)
            except StepsError as failure:
                failures.append(failure)
        self.running = ""
        return failures

    def before_restart(self, cluster: Cluster, node: Node) -> bool:
        """Whether there was anyone to ask."""
        return bool(list(self.ask("etcd_before_restart", cluster=cluster, node=node)))

    def checks(self, cluster: Cluster, node: Node) -> list[Check]:
        """The plugins' checks of a node; what one raises names its plugin and the node."""

        def guarded(source: Source, check: Check) -> Check:
            def run(ctx: Any) -> str | None:
                with self.blamed(source, f"check {check.name!r}", node.name):
                    return check.run(ctx)

            return replace(check, run=run, plugin=source.name)

        asked = self.ask("etcd_checks", cluster=cluster, node=node)
        return [guarded(source, check) for source, checks in asked for check in checks or ()]

    @contextmanager
    def answering(self, step: Named, part: str, node: str = "") -> Iterator[None]:
        """While a method of a step runs: a plugin's step answers for what it raises, a phase of ours does not."""
        source = next((source for known, source in self.steps() if known is step), None)
        if source is None:
            yield
            return
        with self.blamed(source, f"{type(step).__name__}.{part}", node, step.name):
            yield


def _not_a_step(step: object, origin: str) -> str:
    """Return why what a plugin returned cannot run as a step, with file and line; "" where it can."""
    if isinstance(step, type):
        return f"{origin}: etcd_steps returned the class {step.__name__}, not an instance; Step was expected"
    if not isinstance(step, Step):
        return f"{origin}: etcd_steps returned {step!r}; Step was expected"
    if problem := former.problem(step):
        return f"{defined_at(type(step).desired, origin)}: {problem}"
    return ""


class _Blamed:
    """A plugin's backend or release source, as it is; what its methods raise is told in the plugin's name."""

    def __init__(self, inner: Any, plugins: Plugins, source: Source) -> None:
        self._inner, self._plugins, self._source = inner, plugins, source

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def method(*arguments: Any, **named: Any) -> Any:
            from steps.core.tls.contracts import LeafProfile

            profile = next((each for each in arguments if isinstance(each, LeafProfile)), None)  # sign's second
            with self._plugins.blamed(
                self._source, f"{type(self._inner).__name__}.{name}", profile.name if profile else ""
            ):
                return found(*arguments, **named)

        return method
