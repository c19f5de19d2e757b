"""doctor: what is wrong, how that is known, and the command that mends it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from steps.core.base.errors import DONE, UNHEALTHY, Unhealthy, Unknown
from steps.core.base.hints import again
from steps.core.base.option import JSON, NODE
from steps.core.base.problem import SCHEMA
from steps.core.cli.options import task
from steps.core.doctor.collect import (
    gather,
)
from steps.core.node import ca_key

if TYPE_CHECKING:
    from steps.core.cli.invocation import TaskContext
    from steps.core.doctor.rules import Finding


@task(options=(NODE, JSON))
def doctor(c: TaskContext) -> None:
    """What is wrong, how that is known, and the command that fixes it; reads only; exit 5: unhealthy, 6: unknown"""
    from steps.core.doctor.rules import diagnose

    command = c.command
    evidence = gather(command.open(), command.nodes)
    findings = diagnose(evidence)
    report = command.report
    copies = [case.node for case in evidence.nodes if case.look is not None and case.look.facts.has_ca_key]
    if said := ca_key.warning(command.cluster, copies):
        report.warn(said)
    codes = {finding.code for finding in findings} - {DONE}
    state = "unhealthy" if UNHEALTHY in codes else "unknown" if codes else "healthy"
    problems = [finding.problem for finding in findings if finding.code != DONE]
    report.data(
        {
            "schema": SCHEMA,
            "cluster": command.cluster.name,
            "well": not codes,
            "state": state,
            "findings": [asdict(each) for each in findings],
            "problems": [problem.as_json() for problem in problems],
        }
    )
    for finding in findings:
        report.line(shown(finding))
    if codes:
        names = ", ".join(f"{f.node or 'cluster'}: {f.failure}" for f in findings)
        error = Unhealthy if UNHEALTHY in codes else Unknown
        hint = f"take them in this order, then: {again()}"
        raise error(f"{len(findings)} found: {names}", hint=hint, problems=problems)
    nothing = "nothing is wrong here, and nothing is this tool's" if findings else "nothing is wrong"
    report.tip(f"{nothing} with {command.cluster.name}, as far as is known" if not findings else nothing)


def shown(finding: Finding) -> str:
    lines = [f"{finding.node or 'the cluster'}: {finding.what}  [{finding.failure}]"]
    lines += [f"    known by: {seen}" for seen in finding.evidence]
    return "\n".join([*lines, f"    mended by: {finding.mend}"])
