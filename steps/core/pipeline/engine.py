"""Looks once, then takes each step: prepare, compare, apply. The only place that knows about dry runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from steps.core.base.errors import NodeFailed, Refused
from steps.core.base.hints import again
from steps.core.config.model import Node
from steps.core.context.context import Context
from steps.core.node.apply import CHECK_FAILED, apply_script
from steps.core.node.diff import Change, changes, seen_after
from steps.core.node.facts import Look
from steps.core.node.resources import File, Resource
from steps.core.pipeline import former
from steps.core.pipeline.step import Step
from steps.core.transport.pool import collected

FAR_FUTURE = 1 << 40
SLOWEST_LINK = 100_000  # bytes a second below which an upload counts as hung


class Engine:
    """Runs steps on the selected nodes. `chain`: all steps of the command line, so that one look suffices."""

    def __init__(self, ctx: Context, nodes: Sequence[Node], chain: Sequence[Step]) -> None:
        self._ctx = ctx
        self._nodes = tuple(nodes)
        self._chain = tuple(chain)

    def look(self) -> None:
        """Looks at every selected node, once; then the preflight says whether anything may be changed at all."""
        if self._ctx.looks:
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._ahead)
            self._ctx.looks.update(self._ctx.each(self._nodes, self._look_at))
            ahead.result()
        self._ctx.found.update(self._ctx.looks)
        from steps.core.checks.preflight import preflight

        starts = any(step.name == "start" for step in self._chain)
        fetches = not self._ctx.dry and any(step.name == "download" for step in self._chain)
        preflight(self._ctx, self._nodes, fetches=fetches, starts=starts)

    def take(self, step: Step, position: str = "") -> None:
        """One step on all selected nodes. Raises StepsError after every node has been heard.

        Plugins hear of the step before and after, but never in a dry run: nobody knows what they do.
        """
        ctx = self._ctx
        if not step.reads_only:
            self.look()
        ctx.report.phase(step.name, position)
        if ctx.dry:
            self._run(step)
            return
        try:
            ctx.plugins.before(step.name, ctx.cluster, self._nodes)
            self._run(step)
        except BaseException as error:
            for failure in ctx.plugins.after(step.name, ctx.cluster, self._nodes, error):
                ctx.warn(failure.message)
            raise
        if failures := ctx.plugins.after(step.name, ctx.cluster, self._nodes, None):
            raise collected(failures)

    def _ahead(self) -> None:
        for step in self._chain:
            with self._ctx.plugins.answering(step, "ahead"):
                step.ahead(self._ctx.cluster, self._ctx)

    def _run(self, step: Step) -> None:
        ctx = self._ctx
        with ctx.plugins.answering(step, "prepare"):
            step.prepare(ctx.cluster, self._nodes, ctx)
        if step.runs:
            with ctx.plugins.answering(step, "run"):
                step.run(ctx.cluster, self._nodes, ctx)
        else:
            self._all(step)

    def _desired(self, step: Step, node: Node) -> list[Resource]:
        with self._ctx.plugins.answering(step, "desired", node.name):
            return list(former.desired(step, self._ctx, node))

    def _all(self, step: Step) -> None:
        """Compares all nodes, then changes those that differ, in the batches that the step asks for."""
        ctx = self._ctx
        found = {node.name: self._differences(step, node) for node in self._nodes}
        if ctx.dry:
            self._tell(found)
            for node in self._nodes:
                self._made(node, found[node.name], FAR_FUTURE)
            return
        changing = [node for node in self._nodes if found[node.name]]
        for batch in step.batches(ctx.cluster, changing, ctx) if changing else ():
            done: dict[str, list[Change]] = {}
            try:
                ctx.each(batch, partial(self._apply, step, found, done))
            finally:
                self._tell(done)

    def _differences(self, step: Step, node: Node) -> list[Change]:
        look = self._ctx.look(node)
        wanted = [r.known(look) if isinstance(r, File) else r for r in self._desired(step, node)]
        return changes(wanted, look, owners=self._ctx.cluster.systemd)

    def _made(self, node: Node, found: Sequence[Change], now: int) -> None:
        self._ctx.looks[node.name] = seen_after(self._ctx.look(node), found, now=now)

    def _look_at(self, node: Node) -> Look:
        self._ctx.hosts.open(node)  # first: the rest is done while other nodes' connections open
        resources = [each for step in self._chain for each in self._desired(step, node)]
        try:
            return self._ctx.look_at(node, resources, listing=node is self._nodes[0])
        except NodeFailed as error:  # nothing was changed yet, and nothing will be
            raise Refused.because(error) from error

    def _apply(
        self, step: Step, differences: Mapping[str, list[Change]], done: dict[str, list[Change]], node: Node
    ) -> None:
        """Leaves in `done` what was changed, also where it raises."""
        ctx, found = self._ctx, differences[node.name]
        upload = apply_script(found, ctx.look(node), owners=ctx.cluster.systemd)
        with ctx.report.transfer(node.name, upload.size) as sent:
            deadline = 60 + upload.size / SLOWEST_LINK
            result = ctx.hosts.run(node, upload.script, upload.chunks(), deadline=deadline, sent=sent)
        told = result.out.splitlines()
        reached = found[: sum(line.startswith("ok ") for line in told)]
        made = [change for index, change in enumerate(reached) if f"undone {index}" not in told]
        done[node.name] = made
        self._made(node, made, ctx.now())
        if result.ok:
            return
        failing = found[len(reached)].what if len(reached) < len(found) else "what follows the files"
        cause = f"{step.name} failed at: {failing}"
        hint = f"mend the cause, then: {again()}"
        if result.code == CHECK_FAILED:
            said = result.err.strip().splitlines()[-8:]
            raise Refused("\n    ".join([cause, *said]), node=node.name, hint=hint)
        raise NodeFailed(node.name, cause, stderr=result.err, hint=hint)

    def _tell(self, made: dict[str, list[Change]]) -> None:
        """Every change once, with all nodes that it is made on, in etcd.toml's order."""
        together: dict[tuple[str, str], list[str]] = {}
        for node in self._nodes:
            for change in made.get(node.name, ()):
                together.setdefault((change.what, change.diff), []).append(node.name)
        for (what, diff), names in together.items():
            self._ctx.change(what, ", ".join(names), diff, count=len(names))
