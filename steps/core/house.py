"""What tasks.py found when it was loaded, and what a task of ours knows about itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from invoke.parser.argument import Argument
from invoke.tasks import Call, Task

from steps.core.errors import UsageError
from steps.core.plugins import Plugins
from steps.core.step import Step

Body = TypeVar("Body", bound=Callable[..., None])
CONFIG_HELP = "another file than etcd.toml beside tasks.py (or $ETCD_CONFIG)"


@dataclass
class House:
    """`pipeline`: the phases and the plugins' steps, in order. `root`: the directory of tasks.py."""

    root: Path
    plugins: Plugins
    pipeline: list[Step] = field(default_factory=list)

    def __deepcopy__(self, _memo: object) -> House:
        """Invoke copies every task when it loads a namespace; the house behind them stays one."""
        return self

    def config_file(self, chosen: str | None) -> Path:
        return Path(chosen or os.environ.get("ETCD_CONFIG") or self.root / "etcd.toml").expanduser().absolute()


class HouseTask(Task[Any]):
    """A task of ours. `steps`: names of the steps that it runs (`*`: all); `writes`: whether it takes the locks.

    Every one takes --config, whether its body does or not: the file is chosen once for the whole command line.
    """

    house: House
    steps: tuple[str, ...] = ()
    writes: bool = False
    options: frozenset[str] = frozenset()

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:  # noqa: FBT001  Invoke's signature
        """The options. Invoke lets a list stand without a value: `--node` alone would then mean all nodes."""
        arguments: list[Argument] = super().get_arguments(ignore_unknown_help)
        if "config" not in self.options:
            arguments.append(Argument(names=("config",), kind=str, help=CONFIG_HELP))
        for argument in arguments:
            if argument.kind is list:
                argument.raw_value = None
        return arguments

    def own(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the values on the command line that the body itself takes."""
        return {name: value for name, value in values.items() if name in self.options}


def task(*, writes: bool = False, steps: tuple[str, ...] = (), **helps: str) -> Callable[[Body], Body]:
    """Marks a function of steps/ops as a task; `steps`: what it runs of the pipeline; `helps`: its options' help."""

    def mark(body: Body) -> Body:
        body.task_options = {"writes": writes, "steps": steps, "helps": helps}  # type: ignore[attr-defined]  # read by namespace()
        return body

    return mark


def typed(calls: Sequence[Call], *, current: str = "", more: Sequence[str] = ()) -> list[str]:
    """Return the words of the tasks on a command line; `more`: an option put behind the task `current`, given or not.

    Of a foreign task only the name: its values may be secret.
    """
    words = []
    for call in calls:
        words.append(call.called_as or call.task.name)
        extra = more if call.task.name == current else ()
        if isinstance(call.task, HouseTask):
            given = [_flag(name, value) for name, value in call.kwargs.items()]
            words += [word for flag in given if flag[:1] != [*extra[:1]] for word in flag]
        words += extra
    return words


def _flag(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return [flag]
    if isinstance(value, list):
        return [word for item in value for word in (flag, str(item))]
    return [flag, str(value)] if value else []


def selection(calls: Sequence[Call], option: str) -> Any:
    """The one value of an option on the whole command line; None where it is not given.

    Raises UsageError where two tasks were given different ones, and where one names nothing (`--node "$UNSET"`).
    """
    values = []
    for call in calls:
        value = call.kwargs.get(option)
        if isinstance(value, list):
            given = bool(value)
            value = tuple(name.strip() for item in value for name in item.split(",") if name.strip())
            if given and not value:
                raise UsageError(f"--{option} names nothing", hint=f"leave --{option} out for all")
        if option == "config" and value == "":
            raise UsageError("--config names nothing", hint="leave --config out for etcd.toml")
        if value and value not in values:
            values.append(value)
    if len(values) > 1:
        shown = " and ".join(",".join(value) if isinstance(value, tuple) else str(value) for value in values)
        hint = "one selection covers the whole chain"
        raise UsageError(f"two different --{option} on one command line: {shown}", hint=hint)
    return values[0] if values else None
