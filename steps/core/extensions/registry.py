"""Finds plugins and calls them: built-ins, then entry points (group etcd_steps), then plugins/*.py, sorted.

The last registered is asked first, so a site's own file wins. What is wrong with a plugin is collected, not raised:
`invoke --list` still works then, and every other command stops before it touches anything. Whatever a plugin raises
later names the plugin, the hook, the step and the node: all calls go through `answer` and `blamed`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from steps.core.base.errors import PluginError, StepFailed, StepsError
from steps.core.base.hints import invoke
from steps.core.extensions import hookspecs
from steps.core.extensions.loader import load_file, located, wrong

if TYPE_CHECKING:
    from typing_extensions import Self

GROUP, SHIPPED = "etcd_steps", "shipped"
# What a hook answers; None stands for nothing.
_ANSWERS: dict[str, type] = {
    "etcd_steps": list,
    "etcd_options": type,
    "etcd_validate": list,
    "etcd_flags": dict,
    "etcd_template_dirs": list,
    "etcd_checks": list,
    "etcd_tasks": list,
}


@dataclass(frozen=True)
class Source:
    """A plugin: its name (that of [plugins.NAME]), where it came from, and its module or object."""

    name: str
    origin: str
    plugin: Any

    @property
    def packaged(self) -> bool:
        """It came with an installed package, not as a file of the site's own."""
        return self.origin.startswith("package ")

    @property
    def hooks(self) -> tuple[str, ...]:
        return tuple(name for name in hookspecs.NAMES if hasattr(self.plugin, name))


class Registry:
    """The registered plugins, whatever they do. `problems`: plugin's name → what is wrong with it."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("etcd")
        self._manager.add_hookspecs(hookspecs)
        self.sources: list[Source] = []
        self.problems: dict[str, str] = {}
        self.running = ""  # the step under way: from then on a plugin's error is a failed step

    @classmethod
    def load(cls, folder: Path, *, builtin: Any) -> Self:
        """All plugins: `builtin`, which is the program's own and asked last; `folder` holds the site's."""
        from importlib.metadata import entry_points

        plugins = cls()
        plugins.register(SHIPPED, "etcd-steps", builtin)
        for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
            plugins._load(entry.name, f"package {entry.value}", entry.load)
        for file in sorted(folder.glob("*.py")):
            plugins._load(file.stem, str(file), lambda file=file: load_file(file))  # type: ignore[misc]  # mypy#15459
        return plugins

    def _load(self, name: str, origin: str, load: Callable[[], Any]) -> None:
        try:
            plugin = load()
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever a foreign module raises becomes its problem
            self.note(name, located(origin, error))
            return
        self.register(name, origin, plugin)

    def register(self, name: str, origin: str, plugin: Any) -> None:
        """Registers a plugin whose hooks are all known, marked and rightly signed; notes the problem otherwise.

        A site's file takes the place of a package's plugin of the same name.
        """
        before = next((source for source in self.sources if source.name == name), None)
        source = Source(name, origin, plugin)
        if before is not None and (name == SHIPPED or before.packaged == source.packaged):
            self.note(name, f"{origin}: the plugin {name!r} exists already: {before.origin}")
            return
        if found := wrong(origin, plugin):
            self.note(name, found)
            return
        if before is not None:
            self._manager.unregister(before.plugin)
            self.sources.remove(before)
        try:
            self._manager.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            self.note(name, f"{origin}: {error}")
            return
        self.sources.append(source)

    def raise_problems(self, disabled: Sequence[str] = ()) -> None:
        """Raises PluginError where an enabled plugin is broken."""
        broken = [problem for name, problem in self.problems.items() if name not in disabled]
        if broken:
            raise PluginError(
                "\n".join(broken), hint="mend it, move it out of plugins/, or list it in [plugins] disable"
            )

    def disable(self, names: Sequence[str]) -> None:
        """Takes plugins out before a run. Raises PluginError for an unknown one."""
        known = {source.name: source for source in self.sources if source.name != SHIPPED}
        for name in names:
            if name in known and self.enabled(known[name]):
                self._manager.unregister(known[name].plugin)
            elif name not in known and name not in self.problems:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"{invoke('plugins')} lists them"
                raise PluginError(f"[plugins] disable: there is no plugin {name!r}", hint=hint)

    def enabled(self, source: Source) -> bool:
        return self._manager.is_registered(source.plugin)

    def note(self, name: str, problem: str) -> None:
        self.problems[name] = f"{self.problems[name]}\n{problem}" if name in self.problems else problem

    def implementations(self, hook: str) -> Iterator[tuple[Source, Callable[..., Any]]]:
        """In pluggy's order: the last registered first, `tryfirst` and `trylast` heeded."""
        named = {source.name: source for source in self.sources}
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            yield named[implementation.plugin_name], implementation.function

    def ask(self, hook: str, **arguments: Any) -> Iterator[tuple[Source, Any]]:
        for source, function in self.implementations(hook):
            yield source, self.answer(source, hook, function, arguments)

    def answer(self, source: Source, hook: str, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """One plugin's answer to a hook, of which it may take fewer arguments. Raises StepsError, in its name."""
        node, step = arguments.get("node"), arguments.get("step", "")
        names = signature(function).parameters
        with self.blamed(source, hook, node.name if node else "", step):
            answer = function(**{name: arguments[name] for name in names})
            kind = _ANSWERS.get(hook)
            if answer is not None and kind is not None and not isinstance(answer, kind):
                raise TypeError(f"returned {answer!r}, a {kind.__name__} was expected")
            return answer

    @contextmanager
    def blamed(self, source: Source, part: str, node: str = "", step: str = "") -> Iterator[None]:
        """Whatever is raised inside names the plugin, its part, the step and the node.

        An error of ours keeps its kind and exit code. Any other is a failed step, or, before any began, a wrong plugin.
        """
        if source.name == SHIPPED:
            yield
            return
        step = step or self.running
        where = f"plugin {source.name}: {part}"
        where += (f" in step {step}" if step else "") + (f" on {node}" if node else "")
        try:
            yield
        except StepsError as error:
            error.within(where)
            raise
        except (Exception, SystemExit) as error:
            kind = StepFailed if self.running else PluginError
            raise kind(f"{where}: {located(source.origin, error)}") from error
