"""What a task takes: marking a function as a task, and the one selection of a whole command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from invoke.tasks import Call, Task

from steps.core.base.errors import UsageError
from steps.core.base.option import Option
from steps.core.cli.project import HouseTask

Body = TypeVar("Body", bound=Callable[..., None])


@dataclass(frozen=True)
class Declared:
    """What @task was given; `helps`: the help of each parameter of the function."""

    writes: bool
    steps: tuple[str, ...]
    options: tuple[Option[Any], ...]
    helps: Mapping[str, str]


def task(
    *, writes: bool = False, steps: tuple[str, ...] = (), options: tuple[Option[Any], ...] = (), **helps: str
) -> Callable[[Body], Body]:
    """Mark a function of steps/ops as a task. What its parameters are named, are options of its own.

    `steps`: what it runs of the pipeline; `options`: those that the whole command line shares; `helps`: the help of its
    own options.
    """

    def mark(body: Body) -> Body:
        body.declared = Declared(writes, steps, options, helps)  # type: ignore[attr-defined]  # read by namespace()
        return body

    return mark


def typed(calls: Sequence[Call], *, current: str = "", more: Sequence[str] = ()) -> list[str]:
    """Return the words of the tasks on a command line; `more`: an option put behind the task `current`, given or not.

    Of a foreign task only the name: its values may be secret.
    """
    words = []
    for call in calls:
        name = path(call.task)
        words.append(call.called_as or name)
        extra = more if name == current else ()
        if isinstance(call.task, HouseTask):
            given = [_flag(name, value) for name, value in call.kwargs.items()]
            words += [word for flag in given if flag[:1] != [*extra[:1]] for word in flag]
        words += extra
    return words


def path(task: Task[Any]) -> str:
    """Return the task's name as it is typed: with its group's, if it has one."""
    name: str = task.path if isinstance(task, HouseTask) else task.name
    return name


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


def given(calls: Sequence[Call]) -> dict[Option[Any], Any]:
    """Return what is given on the command line, by option. Raises UsageError, as `selection` does."""
    declared = {option for call in calls if isinstance(call.task, HouseTask) for option in call.task.options}
    values = {
        option: selection([call for call in calls if _declares(call, option)], option.name) for option in declared
    }
    return {option: value for option, value in values.items() if value is not None}


def _declares(call: Call, option: Option[Any]) -> bool:
    return isinstance(call.task, HouseTask) and option in call.task.options
