"""Finds plugins and calls their hooks: built-ins, then entry points (group etcd_steps), then plugins/*.py, sorted.

pluggy asks the last registered first, so a site's own file wins. What is wrong with a plugin is collected, not raised:
`invoke --list` still works then, and every other command stops before it touches anything.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from steps.core import hooks
from steps.core.errors import PluginError, Problem, StepFailed, StepsError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from steps.core.contracts import CertBackend, Check, ReleaseSource
    from steps.core.model import Cluster, Node
    from steps.core.step import Step

SPECS = tuple(name for name in vars(hooks) if name.startswith("etcd_"))


@dataclass(frozen=True)
class Source:
    """A plugin: its name (that of [plugins.NAME]), where it came from, and its module or object."""

    name: str
    origin: str
    plugin: Any


class Plugins:
    """The registered plugins, and a typed call for every hook."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("etcd")
        self._manager.add_hookspecs(hooks)
        self.sources: list[Source] = []
        self.problems: dict[str, str] = {}

    @classmethod
    def load(cls, folder: Path) -> Plugins:
        """All plugins; `folder` holds the site's own."""
        from importlib.metadata import entry_points

        from steps.shipped import hooks as shipped

        plugins = cls()
        plugins.register("shipped", "etcd-steps", shipped)
        for entry in sorted(entry_points(group="etcd_steps"), key=lambda entry: entry.name):
            try:
                plugins.register(entry.name, f"package {entry.value}", entry.load())
            except Exception as error:  # noqa: BLE001  whatever a foreign package raises becomes its problem
                plugins.problems[entry.name] = _located(entry.value, error)
        for file in sorted(folder.glob("*.py")):
            try:
                plugins.register(file.stem, str(file), _module(file))
            except Exception as error:  # noqa: BLE001  whatever a site's file raises becomes its problem
                plugins.problems[file.stem] = _located(str(file), error)
        return plugins

    def register(self, name: str, origin: str, plugin: Any) -> None:
        """Registers a plugin whose hooks are all known, marked and rightly signed; notes the problem otherwise."""
        wrong = _wrong(origin, plugin)
        if wrong:
            self.problems[name] = wrong
            return
        try:
            self._manager.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            self._manager.set_blocked(name)
            self.problems[name] = f"{origin}: {error}"
            return
        self.sources.append(Source(name, origin, plugin))

    def raise_problems(self, disabled: Sequence[str] = ()) -> None:
        """Raises PluginError where an enabled plugin is broken."""
        broken = [problem for name, problem in self.problems.items() if name not in disabled]
        if broken:
            raise PluginError(
                "\n".join(broken), hint="mend it, move it out of plugins/, or list it in [plugins] disable"
            )

    def disable(self, names: Sequence[str]) -> None:
        """Takes plugins out before a run. Raises PluginError for an unknown one."""
        known = {source.name: source for source in self.sources}
        for name in names:
            if name in self.problems:
                continue
            if name not in known or name == "shipped":
                near = difflib.get_close_matches(name, known, 1)
                raise PluginError(
                    f"[plugins] disable: there is no plugin {name!r}", hint=f"did you mean {near[0]!r}?" if near else ""
                )
            self._manager.unregister(known[name].plugin)

    def steps(self) -> list[tuple[Step, Source]]:
        """The custom steps, each with the plugin that brought it."""
        found = []
        for source in self.sources:
            hook = getattr(source.plugin, "etcd_steps", None)
            if hook is not None:
                found += [(step, source) for step in hook()]
        return found

    def tasks(self) -> list[Any]:
        return [task for tasks in self._manager.hook.etcd_tasks() for task in tasks]

    def options(self) -> dict[str, type[BaseModel]]:
        """Plugin name → the model of its table."""
        named = ((source.name, getattr(source.plugin, "etcd_options", None)) for source in self.sources)
        return {name: hook() for name, hook in named if hook is not None}

    def validate(self, cluster: Cluster) -> list[Problem]:
        """What plugins find wrong with the configuration, and backends and sources that nobody has."""
        problems = [
            Problem("plugins", message)
            for messages in self._manager.hook.etcd_validate(cluster=cluster)
            for message in messages
        ]
        if (
            cluster.tls.enabled
            and self._manager.hook.etcd_cert_backend(name=cluster.tls.backend, cluster=cluster) is None
        ):
            problems.append(
                Problem("tls.backend", f"no plugin offers {cluster.tls.backend!r}", hint="invoke plugins lists them")
            )
        for index, name in enumerate(cluster.release.sources):
            if self._manager.hook.etcd_release_source(name=name, cluster=cluster) is None:
                problems.append(
                    Problem(
                        f"release.sources[{index}]", f"no plugin offers {name!r}", hint="shipped: path, github, debian"
                    )
                )
        return problems

    def cert_backend(self, name: str, cluster: Cluster) -> CertBackend:
        return self._manager.hook.etcd_cert_backend(name=name, cluster=cluster)  # type: ignore[no-any-return]  # validated

    def release_source(self, name: str, cluster: Cluster) -> ReleaseSource:
        return self._manager.hook.etcd_release_source(name=name, cluster=cluster)  # type: ignore[no-any-return]  # validated

    def flags(self, cluster: Cluster, node: Node) -> dict[str, str]:
        """The plugins' flags for a node. Raises PluginError where two plugins set the same one."""
        flags: dict[str, str] = {}
        owner: dict[str, str] = {}
        for source in self.sources:
            hook = getattr(source.plugin, "etcd_flags", None)
            if hook is None or not self._manager.is_registered(source.plugin):
                continue
            for flag, value in _call(source, "etcd_flags", cluster=cluster, node=node).items():
                if flag in owner:
                    raise PluginError(f"the plugins {owner[flag]} and {source.name} both set --{flag} on {node.name}")
                owner[flag], flags[flag] = source.name, value
        return flags

    def template_dirs(self, cluster: Cluster) -> list[Path]:
        return [path for paths in self._manager.hook.etcd_template_dirs(cluster=cluster) for path in paths]

    def checks(self, cluster: Cluster, node: Node) -> list[Check]:
        return [check for checks in self._manager.hook.etcd_checks(cluster=cluster, node=node) for check in checks]

    def before(self, step: str, cluster: Cluster, nodes: Sequence[Node]) -> None:
        self._each("etcd_before_step", step=step, cluster=cluster, nodes=nodes)

    def after(self, step: str, cluster: Cluster, nodes: Sequence[Node], error: BaseException | None) -> None:
        self._each("etcd_after_step", step=step, cluster=cluster, nodes=nodes, error=error)

    def before_restart(self, cluster: Cluster, node: Node) -> None:
        self._each("etcd_before_restart", cluster=cluster, node=node)

    def _each(self, hook: str, **arguments: Any) -> None:
        """A hook of every plugin, one by one, so that an error names its plugin."""
        for source in self.sources:
            if hasattr(source.plugin, hook) and self._manager.is_registered(source.plugin):
                _call(source, hook, **arguments)


def _call(source: Source, hook: str, **arguments: Any) -> Any:
    """One plugin's hook with the arguments that it asks for. What it raises is told as its own."""
    function = getattr(source.plugin, hook)
    wanted = inspect.signature(function).parameters
    try:
        return function(**{name: value for name, value in arguments.items() if name in wanted})
    except StepsError:
        raise
    except Exception as error:
        node = arguments.get("node")
        where = f" on {node.name}" if node is not None else ""
        at = f" in step {arguments['step']}" if "step" in arguments else ""
        raise StepFailed(f"plugin {source.name}: {hook}{at}{where}: {error}", hint=f"see {source.origin}") from error


def _module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"etcd_plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _located(origin: str, error: Exception) -> str:
    """file:line of the last frame in the plugin itself."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == origin]
    line = f":{frames[-1].lineno}" if frames else ""
    return f"{origin}{line}: {type(error).__name__}: {error}"


def _wrong(origin: str, plugin: Any) -> str:
    """What is wrong with the hooks of a module, with file and line; empty where nothing is."""
    members: Mapping[str, Any] = vars(plugin) if isinstance(plugin, ModuleType) else dict(inspect.getmembers(plugin))
    for name, value in members.items():
        marked = callable(value) and getattr(value, "etcd_impl", None) is not None
        if not (marked or (name.startswith("etcd_") and inspect.isfunction(value))):
            continue
        code = getattr(inspect.unwrap(value), "__code__", None)
        where = f"{origin}:{code.co_firstlineno}" if code is not None and isinstance(plugin, ModuleType) else origin
        if name not in SPECS:
            near = difflib.get_close_matches(name, SPECS, 1)
            return f"{where}: there is no hook {name}" + (f"; did you mean {near[0]}?" if near else "")
        if not marked:
            return f"{where}: {name} lacks the marker @hookimpl"
        known = inspect.signature(getattr(hooks, name)).parameters
        extra = [argument for argument in inspect.signature(value).parameters if argument not in known]
        if extra:
            return f"{where}: {name} takes {', '.join(known) or 'nothing'}, not {', '.join(extra)}"
    return ""
