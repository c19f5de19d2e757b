"""verify: is the cluster what etcd.toml says, from end to end?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from steps.core.base.errors import NodeFailed, Refused, StepsError, Unknown
from steps.core.base.hints import etcdctl, invoke
from steps.core.base.option import JSON
from steps.core.base.problem import Problem
from steps.core.pipeline.step import Step

if TYPE_CHECKING:
    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Context
    from steps.core.health.verdict import Health


class Verify(Step):
    """Ask systemd, every member and every port; write, read and compare"""

    name = "verify"
    reads_only: ClassVar[bool] = True
    options = (JSON,)

    def ahead(self, cluster: Cluster, ctx: Context) -> None:
        """What verifies is loaded."""
        del cluster, ctx
        import steps.core.health.health
        import steps.core.health.tls_probe  # noqa: F401 - for later

    def run(self, cluster: Cluster, nodes: Sequence[Node], ctx: Context) -> None:
        from steps.core.health.health import gather, glance
        from steps.core.health.judge import releases
        from steps.core.health.verdict import HEAD

        if ctx.dry and ctx.differences:
            for warning in releases(cluster):
                ctx.warn(warning)
            ctx.say("will be asked once the changes are made")
            return
        health = glance(ctx, nodes) if ctx.dry else gather(ctx, nodes, thorough=True)
        if cluster.tls.enabled:
            from steps.core.health.tls_probe import passing_for_peers

            health.warnings += passing_for_peers(ctx.store)
        _extra(cluster, nodes, ctx, health)
        for warning in health.warnings:
            ctx.report.warn(warning, in_document=True)
        ctx.report.data(health.as_json(cluster))
        ctx.report.table(HEAD, health.rows())
        error = health.error(invoke("doctor"))
        if ctx.dry and isinstance(error, Unknown):  # a plan that could not ask is no plan
            raise Refused.because(error)
        if error is not None:
            raise error
        ctx.report.tip(f"{cluster.name} is healthy. Talk to it: {etcdctl(cluster.work, 'endpoint health')}")


def _extra(cluster: Cluster, nodes: Sequence[Node], ctx: Context, health: Health) -> None:
    met = {member.name for member in health.members if member.checked}
    for node in nodes:
        for check in ctx.plugins.checks(cluster, node) if node.name in met else ():
            try:
                wrong = check.run(ctx)
            except (NodeFailed, Refused) as error:  # one check that fails hides nothing of what the others found
                health.unknown.append(error.message)
                continue
            except StepsError as error:
                health.problems.append(Problem(f"plugin.{check.plugin}", error.message, hint=error.hint))
                continue
            if wrong:
                said = f"{check.name}: {wrong}"
                health.problems.append(Problem(f"plugin.{check.plugin}", said, node=node.name))
