"""status: who is who, right now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steps.core.base.hints import invoke
from steps.core.base.option import JSON, NODE
from steps.core.cli.options import task

if TYPE_CHECKING:
    from steps.core.cli.invocation import TaskContext


@task(options=(NODE, JSON))
def status(c: TaskContext) -> None:
    """Member, endpoint, role, health, version, certificate; quick, without verify's write and handshakes"""
    from steps.core.checks.prepared import next_command
    from steps.core.health.health import gather
    from steps.core.health.verdict import HEAD

    command = c.command
    health = gather(command.open(), command.nodes, thorough=False)
    command.report.data(health.as_json(command.cluster))
    command.report.table(HEAD, health.rows())
    for warning in health.warnings:
        command.report.warn(warning, in_document=True)
    silent = [command.cluster.node(each.name) for each in health.members if each.silent]
    error = health.error(next_command(command.open(), silent) if silent else invoke("doctor"))
    if error is not None:
        raise error
