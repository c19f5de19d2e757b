"""The tasks that `invoke` shows: the phases, `all`, the operations, and what plugins add."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.exceptions import Exit, ParseError
from invoke.parser import Parser
from invoke.program import Program

from steps.core.base.errors import WRONG
from steps.core.base.option import NODE
from steps.core.cli.debug import hide_passwords
from steps.core.cli.groups import Group, add_group
from steps.core.cli.options import Declared
from steps.core.cli.project import House, HouseTask
from steps.core.extensions.manager import Plugins
from steps.core.pipeline.step import Step

if TYPE_CHECKING:
    from steps.core.cli.invocation import TaskContext

INVOKES_OWN = (".yaml", ".yml", ".json", ".py")  # what Invoke's own --config reads


def namespace(
    root: Path, phases: Sequence[type[Step]], operations: Sequence[Callable[..., None] | Group], *, builtin: Any
) -> Collection:
    """All tasks; plugins are looked for in `root`/plugins. Never raises for a plugin: its problem is kept for later."""
    hide_passwords()  # before Invoke asks for sudo's, or reads it from the environment
    plugins = Plugins.load(root / "plugins", builtin=builtin)
    line = [phase() for phase in phases]
    house = House(root, plugins, list(line))
    collection = Collection()
    for number, step in enumerate(line, 1):
        collection.add_task(_step_task(house, step, f"[{number}/{len(line)}] "))
    groups = [entry for entry in operations if isinstance(entry, Group)]
    for entry in operations:
        if not isinstance(entry, Group):
            collection.add_task(_operation(house, entry))
    for group in groups:
        add_group(collection, group, [_operation(house, body, group.name) for body in group.tasks])
    house.pipeline = plugins.placed(line, {"all", *collection.tasks, *collection.collections})
    for step in house.pipeline:
        if step not in line:
            collection.add_task(_step_task(house, step, ""))
    collection.add_task(_all(house))
    for extra in plugins.tasks({*collection.tasks, *collection.collections}):
        (collection.add_collection if isinstance(extra, Collection) else collection.add_task)(extra)
    for name, problem in plugins.problems.items():
        sys.stderr.write(f"warning: plugin {name} is broken: {problem}\n")
    collection.default = "contents"
    _check_config(collection, sys.argv[1:])
    return collection


def _check_config(collection: Collection, argv: Sequence[str]) -> None:
    """Raise Exit where Invoke would take an etcd.toml for its own --config, and end in a traceback.

    It does so in front of a task, and behind a plugin's task that has no such option.
    """
    if not any(word.startswith(("--config", "-f")) for word in argv):
        return
    initial = Program().initial_context
    try:
        core = Parser(initial=initial, ignore_unknown=True).parse_argv(list(argv))
        behind = Parser(initial=initial, contexts=collection.to_contexts()).parse_argv(list(core.unparsed))
    except ParseError:  # Invoke finds the same, and says it
        return
    front, within = core[0].args.config.value, behind[0].args.config.value
    chosen = within or front
    if not chosen or Path(chosen).suffix in INVOKES_OWN:
        return
    tasks = core.unparsed or ["TASK"]
    options = _without_config(argv[: len(argv) - len(core.unparsed)])
    if within:
        said = "this task of a plugin takes no --config"
        hint = ["env", f"ETCD_CONFIG={chosen}", "invoke", *options, *_without_config(tasks)]
    else:
        said = "--config in front of a task is Invoke's own; ours stands behind the last task"
        hint = ["invoke", *options, *tasks, "--config", chosen]
    raise Exit(f"error: --config {chosen}: {said}\nnext: {shlex.join(hint)}", code=WRONG)


def _without_config(words: Sequence[str]) -> list[str]:
    kept, rest = [], iter(words)
    for word in rest:
        if word in ("--config", "-f"):
            next(rest, None)
        elif not word.startswith("--config="):
            kept.append(word)
    return kept


def _step_task(house: House, step: Step, prefix: str) -> HouseTask:
    def body(c: TaskContext) -> None:
        c.command.take([step.name])

    help_line = (type(step).__doc__ or "").strip().partition("\n")[0]
    made = _made(house, body, step.name, prefix + help_line)
    made.steps, made.writes, made.options = (step.name,), not step.reads_only, (NODE, *step.options)
    return made


def _all(house: House) -> HouseTask:
    def body(c: TaskContext) -> None:
        c.command.take(["*"])

    made = _made(house, body, "all", "All phases in order, custom steps included")
    options = [option for step in house.pipeline for option in step.options if option.in_all]
    made.steps, made.writes, made.options = ("*",), True, (NODE, *dict.fromkeys(options))
    return made


def _operation(house: House, body: Callable[..., None], group: str = "") -> HouseTask:
    declared: Declared = body.declared  # type: ignore[attr-defined]  # set by @task
    made = _made(house, body, body.__name__.rstrip("_"), body.__doc__ or "", declared.helps)
    made.steps, made.writes, made.options = declared.steps, declared.writes, declared.options
    if group:
        made.path = f"{group}.{made.name}"
    return made


def _made(
    house: House, body: Callable[..., None], name: str, doc: str, helps: Mapping[str, str] | None = None
) -> HouseTask:
    body.__doc__ = doc
    made = HouseTask(body, name=name, help=dict(helps or {}), auto_shortflags=False)
    made.house, made.path = house, name.replace("_", "-")  # as Invoke has it
    return made
