"""contents: the table of contents, in the order in which things happen; what a bare `invoke` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steps.core.base.hints import invoke
from steps.core.cli.options import task

if TYPE_CHECKING:
    from steps.core.cli.invocation import TaskContext


@task()
def contents(c: TaskContext) -> None:
    """This table: the phases in order, and the operations"""
    house, helps = c.command.house, c.command.helps
    names = [step.name for step in house.pipeline if step.name in helps]
    width = max(map(len, helps))
    lines = [f"etcd.toml becomes a cluster: {invoke('all')}. Its phases, in order:", ""]
    lines += [f"  {name.ljust(width)}  {helps[name]}" for name in names]
    lines += ["", "Operations:", ""]
    lines += [f"  {name.ljust(width)}  {helps[name]}" for name in sorted(set(helps) - set(names))]
    lines += ["", "Behind invoke, --help TASK shows a task's options; --dry TASK only says what it would change."]
    for line in lines:
        c.command.report.line(line)
