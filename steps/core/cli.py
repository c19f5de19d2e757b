"""The Invoke side: the namespace that tasks.py shows, and the executor that turns a whole command line into one run.

Invoke's executor class is named in invoke.yaml. Nothing here imports fabric, cryptography or pydantic.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit
from invoke.executor import Executor
from invoke.tasks import Call, Task

from steps.core.errors import DIFFERS, INTERRUPTED, PluginError, StepsError, UsageError
from steps.core.plugins import Plugins
from steps.core.step import Step, ordered

NODE_HELP = "only this node; repeat it, or separate with commas. One selection covers the whole command line"
CONFIG_HELP = "another file than etcd.toml beside tasks.py (or $ETCD_CONFIG)"


@dataclass
class House:
    """What was found when tasks.py was loaded. `pipeline`: the phases and the plugins' steps, in order."""

    root: Path
    plugins: Plugins
    pipeline: list[Step] = field(default_factory=list)

    def __deepcopy__(self, _memo: object) -> House:
        """Invoke copies every task when it loads a namespace; the house behind them stays one."""
        return self


class HouseTask(Task[Any]):
    """A task of ours. `steps`: names of the steps that it runs; `writes`: whether it takes the locks."""

    house: House
    steps: tuple[str, ...] = ()
    writes: bool = False
    options: frozenset[str] = frozenset()


def task(writes: bool = False, **helps: str) -> Callable[[Callable[..., None]], Callable[..., None]]:  # noqa: FBT001, FBT002  a decorator's keyword
    """Marks a function of steps/ops as a task; `helps` are its options' help strings."""

    def mark(body: Callable[..., None]) -> Callable[..., None]:
        body.task_options = {"writes": writes, "help": helps}  # type: ignore[attr-defined]  # read by namespace()
        return body

    return mark


def namespace(root: Path, phases: Sequence[type[Step]], operations: Sequence[Callable[..., None]]) -> Collection:
    """All tasks: the phases, `all`, the operations, and what plugins in `root`/plugins add. Never raises for a plugin."""
    plugins = Plugins.load(root / "plugins")
    house = House(root, plugins)
    builtin = [phase() for phase in phases]
    house.pipeline = list(builtin)
    collection = Collection()
    for number, step in enumerate(builtin, 1):
        collection.add_task(_step_task(house, step, f"[{number}/{len(builtin)}] "))
    collection.add_task(_all_task(house))
    for operation in operations:
        collection.add_task(_operation(house, operation))
    try:
        custom = [step for step, _ in plugins.steps()]
        house.pipeline = ordered(builtin, custom)
        for step in custom:
            collection.add_task(_step_task(house, step, ""))
        for extra in plugins.tasks():
            (collection.add_collection if isinstance(extra, Collection) else collection.add_task)(extra)
    except Exception as error:  # noqa: BLE001  whatever a plugin raises becomes its problem, and --list still works
        plugins.problems["steps"] = getattr(error, "message", str(error))
    collection.default = "contents"
    return collection


def _step_task(house: House, step: Step, prefix: str) -> HouseTask:
    def body(c: Any, node: list[str] | None = None, config: str | None = None) -> None:
        del node, config
        c.command.take([step.name])

    extra = {"verify": ("json",), "start": ("accept_downtime",)}.get(step.name, ())
    return _made(
        house, _with(body, extra), step.name, prefix + _first_line(step), steps=(step.name,), writes=not step.reads_only
    )


def _all_task(house: House) -> HouseTask:
    def body(c: Any, node: list[str] | None = None, config: str | None = None) -> None:
        del node, config
        c.command.take([step.name for step in c.command.pipeline])

    return _made(
        house,
        _with(body, ("accept_downtime",)),
        "all",
        "All phases in order, custom steps included",
        steps=("*",),
        writes=True,
    )


def _with(body: Callable[..., None], extra: Sequence[str]) -> Callable[..., None]:
    """The same body with options that only the executor reads; Invoke takes options from the signature."""
    import inspect

    if not extra:
        return body

    def wider(c: Any, node: list[str] | None = None, config: str | None = None, **_: Any) -> None:
        body(c, node, config)

    parameters = list(inspect.signature(body).parameters.values())
    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False) for name in extra]
    wider.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Invoke reads
    return wider


_HELPS = {
    "node": NODE_HELP,
    "config": CONFIG_HELP,
    "json": "one JSON document on stdout",
    "accept_downtime": "restart a member although the rest has no quorum",
}


def _made(
    house: House, body: Callable[..., None], name: str, doc: str, *, steps: tuple[str, ...] = (), writes: bool
) -> HouseTask:
    import inspect

    options = frozenset(inspect.signature(body).parameters) - {"c"}
    body.__doc__ = doc
    helps = {**_HELPS, **getattr(body, "task_options", {}).get("help", {})}
    made = HouseTask(
        body,
        name=name,
        iterable=["node"] if "node" in options else None,
        help={option: text for option, text in helps.items() if option in options},
        auto_shortflags=False,
    )
    made.house, made.steps, made.writes, made.options = house, steps, writes, options
    return made


def _operation(house: House, body: Callable[..., None]) -> HouseTask:
    options = body.task_options  # type: ignore[attr-defined]  # set by task()
    return _made(house, body, body.__name__.rstrip("_"), body.__doc__ or "", writes=options["writes"])


def _first_line(step: Step) -> str:
    return (type(step).__doc__ or "").strip().partition("\n")[0]


class StepsExecutor(Executor):
    """Runs a whole command line as one command: one configuration, one selection, one connection per node."""

    def execute(self, *tasks: Any) -> dict[Any, Any]:
        house = next(task.house for task in self.collection.tasks.values() if isinstance(task, HouseTask))
        calls = self.expand_calls(self.normalize(tasks))
        debug = bool(self.core and self.core[0].args.debug.value)
        with _signals():
            code = self._run(house, calls, debug=debug)
        if code:
            raise Exit(code=code)
        return {}

    def _run(self, house: House, calls: Sequence[Call], *, debug: bool) -> int:
        from steps.core.command import Command

        command = None
        try:
            helps = {
                name: (task.__doc__ or "").strip().partition("\n")[0] for name, task in self.collection.tasks.items()
            }
            command = Command(
                house, helps, calls, dry=bool(self.config.run.dry), sudo_password=self.config.sudo.password
            )
            for call in calls:
                self.config.load_collection(self.collection.configuration(call.called_as))
                context = call.make_context(self.config)
                context._set(command=command)  # noqa: SLF001  Invoke's own way to set what is no configuration
                call.task(context, *call.args, **call.kwargs)
            return DIFFERS if command.differs else 0
        except KeyboardInterrupt:
            _complain(
                "interrupted: what had begun on a node was finished, nothing else was started", _progress(command)
            )
            return INTERRUPTED
        except StepsError as error:
            if debug:
                raise
            _complain(f"error: {error.message}", f"next: {error.hint}" if error.hint else "", _progress(command))
            return error.exit_code
        finally:
            if command is not None:
                command.close()


def selection(calls: Sequence[Call], option: str) -> Any:
    """The one value of an option on the whole command line. Raises UsageError where two tasks were given different ones."""
    values = []
    for call in calls:
        value = call.kwargs.get(option)
        if isinstance(value, list):
            value = tuple(name.strip() for item in value for name in item.split(",") if name.strip())
        if value and value not in values:
            values.append(value)
    if len(values) > 1:
        shown = " and ".join(",".join(value) if isinstance(value, tuple) else str(value) for value in values)
        raise UsageError(
            f"two different --{option} on one command line: {shown}", hint="one selection covers the whole chain"
        )
    return values[0] if values else None


def config_file(house: House, chosen: str | None) -> Path:
    return Path(chosen or os.environ.get("ETCD_CONFIG") or house.root / "etcd.toml").expanduser().absolute()


def checked_plugins(house: House, disabled: Sequence[str]) -> Plugins:
    """The plugins, the disabled ones out. Raises PluginError where one that is wanted is broken."""
    house.plugins.raise_problems(disabled)
    house.plugins.disable(disabled)
    return house.plugins


def _progress(command: Any) -> str:
    return command.progress() if command is not None else ""


def _complain(*lines: str) -> None:
    sys.stdout.flush()
    for line in lines:
        if line:
            print(line, file=sys.stderr)


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and a lost terminal end a run as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = ["PluginError", "StepsExecutor", "namespace", "task"]
