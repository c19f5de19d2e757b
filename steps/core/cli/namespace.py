"""The tasks that `invoke` shows: the phases, `all`, the operations, and what plugins add."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit, ParseError
from invoke.parser import Parser
from invoke.program import Program

from steps.core.base.errors import WRONG
from steps.core.cli.debug import hide_passwords
from steps.core.cli.project import House, HouseTask
from steps.core.extensions.manager import Plugins
from steps.core.pipeline.step import Step

INVOKES_OWN = (".yaml", ".yml", ".json", ".py")  # what Invoke's own --config reads
_HELPS = {
    "node": "only this node; repeat it, or separate with commas. One selection covers the whole command line",
    "json": "one JSON document on stdout",
    "renew": "issue new certificates now, due or not; they are swapped in without a restart",
    "accept_downtime": "restart a member although the rest has no quorum",
}


def namespace(
    root: Path, phases: Sequence[type[Step]], operations: Sequence[Callable[..., None]], *, builtin: Any
) -> Collection:
    """All tasks; plugins are looked for in `root`/plugins. Never raises for a plugin: its problem is kept for later."""
    hide_passwords()  # before Invoke asks for sudo's, or reads it from the environment
    plugins = Plugins.load(root / "plugins", builtin=builtin)
    line = [phase() for phase in phases]
    house = House(root, plugins, list(line))
    collection = Collection()
    for number, step in enumerate(line, 1):
        collection.add_task(_step_task(house, step, f"[{number}/{len(line)}] "))
    everything = "All phases in order, custom steps included"
    collection.add_task(_made(house, _restarting(["*"]), "all", everything, steps=("*",), writes=True))
    for body in operations:
        options = body.task_options  # type: ignore[attr-defined]  # set by @task
        name = body.__name__.rstrip("_")
        *group, name = name.split("__")  # plugin__new is plugin.new
        where = _subcollection(collection, group[0]) if group else collection
        where.add_task(_made(house, body, name, body.__doc__ or "", **options))
    house.pipeline = plugins.placed(line, {*collection.tasks, *collection.collections})
    for step in house.pipeline:
        if step not in line:
            collection.add_task(_step_task(house, step, ""))
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


def _subcollection(collection: Collection, name: str) -> Collection:
    if name not in collection.collections:
        collection.add_collection(Collection(name))
    found: Collection = collection.collections[name]
    return found


def _step_task(house: House, step: Step, prefix: str) -> HouseTask:
    body = {"verify": _reading, "start": _restarting, "certs": _renewing}.get(step.name, _plain)([step.name])
    doc = prefix + (type(step).__doc__ or "").strip().partition("\n")[0]
    return _made(house, body, step.name, doc, steps=(step.name,), writes=not step.reads_only)


# Invoke reads a task's options from its signature. The executor reads them, for the whole command line at once.


def _plain(names: Sequence[str]) -> Callable[..., None]:
    def body(c: Any, node: list[str] | None = None) -> None:
        del node
        c.command.take(names)

    return body


def _reading(names: Sequence[str]) -> Callable[..., None]:
    def body(c: Any, node: list[str] | None = None, json: bool = False) -> None:  # noqa: FBT001, FBT002  Invoke's flags
        del node, json
        c.command.take(names)

    return body


def _renewing(names: Sequence[str]) -> Callable[..., None]:
    def body(c: Any, node: list[str] | None = None, renew: bool = False) -> None:  # noqa: FBT001, FBT002  Invoke's flags
        del node, renew
        c.command.take(names)

    return body


def _restarting(names: Sequence[str]) -> Callable[..., None]:
    def body(
        c: Any,
        node: list[str] | None = None,
        accept_downtime: bool = False,  # noqa: FBT001, FBT002  Invoke's flags
    ) -> None:
        del node, accept_downtime
        c.command.take(names)

    return body


def _made(
    house: House,
    body: Callable[..., None],
    name: str,
    doc: str,
    *,
    writes: bool,
    steps: tuple[str, ...] = (),
    helps: dict[str, str] | None = None,
) -> HouseTask:
    options = frozenset(inspect.signature(body).parameters) - {"c"}
    body.__doc__ = doc
    texts = {**_HELPS, **(helps or {})}
    made = HouseTask(
        body,
        name=name,
        iterable=["node"] if "node" in options else None,
        help={option: text for option, text in texts.items() if option in options},
        auto_shortflags=False,
    )
    made.house, made.steps, made.writes, made.options = house, steps, writes, options
    return made
