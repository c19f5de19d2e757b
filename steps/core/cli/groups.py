"""Tasks in groups: `plugin.new`, and `ca` next to `ca.rotate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from invoke.collection import Collection

from steps.core.cli.project import HouseTask


@dataclass(frozen=True)
class Group:
    """Operations that are called NAME.TASK. NAME alone is the phase or the operation of that name, if there is one."""

    name: str
    tasks: tuple[Callable[..., None], ...]


class TaskGroup(Collection):
    """A sub-collection that has its default task not inside: nothing is listed, or can be typed, as `ca.ca`."""

    def __init__(self, name: str, default_task: HouseTask | None) -> None:
        super().__init__(name)
        self._default_task = default_task

    def task_with_config(self, name: str | None) -> tuple[Any, dict[str, Any]]:
        """Return the task and its configuration; without a name the group's own task."""
        if not name and self._default_task is not None:
            return self._default_task, self.configuration()
        found: tuple[Any, dict[str, Any]] = super().task_with_config(name)
        return found


def add_group(collection: Collection, group: Group, tasks: list[HouseTask]) -> None:
    """Add the group's tasks; whatever else is added to `collection` under the group's name must be there already."""
    made = TaskGroup(group.name, collection.tasks.get(group.name))
    for task in tasks:
        made.add_task(task)
    collection.collections[group.name] = made  # add_collection() refuses a name that is a task's, too
