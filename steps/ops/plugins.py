"""plugins, plugin.new: what was found, what it adds; and the first file of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.core.errors import StepsError, UsageError
from steps.core.house import task

if TYPE_CHECKING:
    from steps.core.command import Command
    from steps.core.model import Cluster
    from steps.core.plugins import Plugins, Source

OFFERS = {"backends": "etcd_cert_backend", "sources": "etcd_release_source"}


@task()
def plugins(c: Any, config: str | None = None, json: bool = False) -> None:  # noqa: FBT001, FBT002  Invoke's flags
    """Every plugin: where it came from, its hooks, what it adds; and the pipeline as it will run"""
    del config, json
    command: Command = c.command
    report = command.report
    trouble: StepsError | None = None
    cluster = None
    try:
        cluster = command.cluster
    except StepsError as error:  # the list is wanted most when something is wrong
        trouble = error
    found = listing(command, cluster)
    report.data(found)
    for plugin in found["plugins"]:
        state = "" if plugin["enabled"] else " (disabled)"
        report.line(f"{plugin['name']}{state}: {plugin['origin']}")
        for kind in ("hooks", "steps", *OFFERS):
            if plugin[kind]:
                report.line(f"  {kind}: {', '.join(plugin[kind])}")
    for name, problem in found["problems"].items():
        report.line(f"{name} (broken): {problem}")
    report.line("\npipeline: " + " -> ".join(found["pipeline"]))
    if trouble is not None:
        raise trouble


def listing(command: Command, cluster: Cluster | None) -> dict[str, Any]:
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
            entry[kind] = sorted(_offers(known, source, hook, cluster)) if cluster is not None else []
        entries.append(entry)
    pipeline = command.pipeline if cluster is not None else command.house.pipeline
    return {"plugins": entries, "pipeline": [step.name for step in pipeline], "problems": dict(known.problems)}


def _offers(known: Plugins, source: Source, hook: str, cluster: Cluster) -> Iterator[str]:
    """The names that the plugin answers to: it is asked, with its own name, the configured ones and its literals.

    The hook takes a name and has no list; the names that it compares with stand in its code as constants.
    """
    if hook not in source.hooks:
        return
    code = getattr(getattr(source.plugin, hook), "__code__", None)
    literals = {text for text in getattr(code, "co_consts", ()) if isinstance(text, str)}
    # a tuple or set of names is one constant
    literals |= {n for c in getattr(code, "co_consts", ()) if isinstance(c, tuple | frozenset) for n in c}
    for name in {source.name, cluster.tls.backend, *cluster.release.sources, *literals}:
        if isinstance(name, str) and known.offered(source, hook, name, cluster):
            yield name


@task(kind="step or backend")
def plugin__new(c: Any, name: str, kind: str = "step") -> None:
    """Write plugins/NAME.py, which works as it is, and its test in plugins/tests"""
    from steps.core.scaffold import written

    if kind not in ("step", "backend"):
        raise UsageError(f"--kind {kind}: step or backend")
    root: Path = c.command.house.root
    files = written(root / "plugins", name, kind)
    c.command.report.line(f"{files[0]}: a {kind}. Its test: pytest {files[1]}")
    c.command.report.tip("next: invoke plugins, then " + (f"invoke --dry {name}" if kind == "step" else "its sign()"))
