"""status: who is who, right now."""

from __future__ import annotations

from typing import Any

from steps.core.errors import Unhealthy
from steps.core.hints import invoke
from steps.core.house import task


@task()
def status(c: Any, node: list[str] | None = None, json: bool = False) -> None:  # noqa: FBT001, FBT002  Invoke's way of flags
    """Member, endpoint, role, health, version, certificate; quick, without verify's write and handshakes"""
    del node, json
    from steps.core.etcd.health import HEAD, gather
    from steps.core.etcd.prepared import next_command

    command = c.command
    health = gather(command.ctx, command.nodes, thorough=False)
    command.report.data(health.as_json(command.cluster))
    command.report.table(HEAD, health.rows())
    for warning in health.warnings:
        command.report.warn(warning, in_document=True)
    if health.problems:
        silent = [command.cluster.node(each.name) for each in health.members if each.health == "no answer"]
        hint = next_command(command.ctx, silent) if silent else invoke("doctor")
        raise Unhealthy("the cluster is not healthy\n  " + "\n  ".join(health.problems), hint=hint)
