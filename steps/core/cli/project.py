"""What tasks.py found when it was loaded, and what a task of ours knows about itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invoke.parser.argument import Argument
from invoke.tasks import Task

from steps.core.base.option import Option
from steps.core.extensions.manager import Plugins
from steps.core.pipeline.step import Step

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

    `path`: its name with its group's. Every one takes --config: the file is chosen once for the whole command line, as
    are the values of `options`, which the body does not take.
    """

    house: House
    path: str = ""
    steps: tuple[str, ...] = ()
    writes: bool = False
    options: tuple[Option[Any], ...] = ()

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:  # noqa: FBT001  Invoke's signature
        """The options. Invoke lets a list stand without a value: `--node` alone would then mean all nodes."""
        arguments: list[Argument] = super().get_arguments(ignore_unknown_help)
        arguments += [_argument(option) for option in self.options]
        arguments.append(Argument(names=("config",), kind=str, help=CONFIG_HELP))
        for argument in arguments:
            if argument.kind is list:
                argument.raw_value = None
        return arguments

    def own(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the values on the command line that the body itself takes."""
        shared = {"config", *(option.name for option in self.options)}
        return {name: value for name, value in values.items() if name not in shared}


def _argument(option: Option[Any]) -> Argument:
    kind = list if isinstance(option.default, tuple) else type(option.default)
    default = None if kind is list else option.default
    typed = option.name.replace("_", "-")
    attribute = option.name if option.name != typed else None  # Invoke makes an alias of it, and of itself: a circle
    return Argument(names=(typed,), attr_name=attribute, kind=kind, default=default, help=option.help)
