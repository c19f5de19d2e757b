"""plugins, plugin.new: what was found, what it adds; and the first file of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.core.base.errors import StepsError, UsageError
from steps.core.base.hints import invoke
from steps.core.base.option import JSON
from steps.core.base.problem import SCHEMA, Problem
from steps.core.cli.options import task

if TYPE_CHECKING:
    from steps.core.cli.invocation import Invocation, TaskContext
    from steps.core.config.model import Cluster

OFFERS = {"backends": "etcd_cert_backend", "sources": "etcd_release_source"}


@task(options=(JSON,))
def plugins(c: TaskContext) -> None:
    """Every plugin: where it came from, its hooks, what it adds; and the pipeline as it will run"""
    command = c.command
    report = command.report
    trouble: StepsError | None = None
    cluster = None
    try:
        cluster = command.cluster
    except StepsError as error:  # the list is wanted most when something is wrong
        trouble = error
    found, known = listing(command, cluster), command.house.plugins.problems
    problems = [Problem(f"plugin.{name}", said) for name, said in known.items()]
    problems += trouble.problems if trouble is not None else ()
    report.data({"schema": SCHEMA, **found, "problems": [problem.as_json() for problem in problems]})
    for plugin in found["plugins"]:
        state = "" if plugin["enabled"] else " (disabled)"
        report.line(f"{plugin['name']}{state}: {plugin['origin']}")
        for kind in ("hooks", "steps", *OFFERS):
            if plugin[kind]:
                report.line(f"  {kind}: {', '.join(plugin[kind])}")
    for name, said in known.items():
        report.line(f"{name} (broken): {said}")
    report.line("\npipeline: " + " -> ".join(found["pipeline"]))
    if trouble is not None:
        raise trouble


def listing(command: Invocation, cluster: Cluster | None) -> dict[str, Any]:
    """`plugins` as data. Without a configuration nobody can say which backends and sources a plugin has."""
    known = command.house.plugins
    steps = known.steps()
    entries = []
    for source in known.sources:
        entry: dict[str, Any] = {
            "name": source.name,
            "origin": source.origin,
            "enabled": known.enabled(source),
            "hooks": list(source.hooks),
            "steps": [step.name for step, owner in steps if owner is source],
        }
        for kind, hook in OFFERS.items():
            entry[kind] = known.offers(source, hook, cluster) if cluster is not None else []
        entries.append(entry)
    pipeline = command.pipeline if cluster is not None else command.house.pipeline
    return {"plugins": entries, "pipeline": [step.name for step in pipeline]}


@task(kind="step or backend")
def new(c: TaskContext, name: str, kind: str = "step") -> None:
    """Write plugins/NAME.py, which works as it is, and its test in plugins/tests"""
    from steps.core.cli.scaffold import written

    if kind not in ("step", "backend"):
        raise UsageError(f"--kind {kind}: step or backend")
    root: Path = c.command.house.root
    files = written(root / "plugins", name, kind, dry=c.command.dry)
    if c.command.dry:
        c.command.report.line(f"{files[0]} and {files[1]} will be written")
        return
    c.command.report.line(f"{files[0]}: a {kind}. Its test: pytest {files[1]}")
    c.command.report.tip(
        f"next: {invoke('plugins')}, then " + (invoke(f"--dry {name}") if kind == "step" else "its sign()")
    )
