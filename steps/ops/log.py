"""log: what was done to the cluster, by whom and when."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

from steps.core.base.errors import UsageError
from steps.core.base.hints import invoke
from steps.core.base.option import JSON
from steps.core.base.problem import SCHEMA
from steps.core.cli.options import task

if TYPE_CHECKING:
    from steps.core.cli.invocation import TaskContext

HEAD = ("RUN", "WHEN (UTC)", "WHO", "COMMAND", "CHANGES", "SECONDS", "RESULT")


@task(options=(JSON,), count="how many runs; 10 if not said", run="one run, named as in the table: each of its changes")
def log(c: TaskContext, count: int = 10, run: str = "") -> None:
    """The last runs that could change something: who, when, what, how it ended"""
    from steps.core.cli.audit_log import runs

    report, folder = c.command.report, c.command.cluster.work / "log"
    if count < 1:
        raise UsageError(f"--count {count}: at least 1")
    found = [each for each in islice(runs(folder), None if run else count) if run in ("", each.run)]
    if run and not found:
        raise UsageError(f"--run {run}: there is no such run in {folder}", hint=invoke("log"))
    shown = [{**asdict(each), "changes": each.changes, "result": each.result} for each in found]
    report.data({"schema": SCHEMA, "runs": shown})
    if not found:
        report.line(f"nothing has been run yet: {folder} is empty")
        return
    rows = [
        (
            each.run,
            each.at[:19].replace("T", " "),
            each.who,
            each.command,
            str(each.changes),
            "-" if each.seconds is None else f"{each.seconds:.1f}",
            each.result,
        )
        for each in found
    ]
    report.table(HEAD, rows)
    if run:
        for event in found[0].events:
            where = " ".join(filter(None, (event["step"], event["node"])))
            warning = "warning: " if event["event"] == "warning" else ""
            report.line(f"  {event['at'][11:19]} {where}: {warning}{event['what']}")
        if found[0].error:
            report.line(found[0].error)
