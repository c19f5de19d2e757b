"""Looks once, then takes each step: prepare, compare, apply. The only place that knows about dry runs."""

from __future__ import annotations

from collections.abc import Sequence

from steps.core.apply import CHECK_FAILED, apply_script
from steps.core.compare import Change, changes, seen_after
from steps.core.context import Context
from steps.core.errors import NodeFailed, Refused
from steps.core.look import Look, look_script, parse
from steps.core.model import Cluster, Node
from steps.core.places import unit_file
from steps.core.resources import File, Promise, Resource
from steps.core.step import Step

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
        self._ctx.looks.update(self._ctx.each(self._nodes, self._look_at))
        from steps.core.preflight import preflight

        preflight(self._ctx, self._nodes)

    def take(self, step: Step, position: str = "") -> None:
        """One step on all selected nodes. Raises StepsError after every node has been heard."""
        ctx = self._ctx
        if not step.reads_only:
            self.look()
        ctx.report.phase(step.name, position)
        ctx.plugins.before(step.name, ctx.cluster, self._nodes)
        error: BaseException | None = None
        try:
            step.prepare(ctx.cluster, self._nodes, ctx)
            if step.runs:
                step.run(ctx.cluster, self._nodes, ctx)
            else:
                self._all(step)
        except BaseException as raised:
            error = raised
            raise
        finally:
            ctx.report.end()
            ctx.plugins.after(step.name, ctx.cluster, self._nodes, error)

    def _all(self, step: Step) -> None:
        made: dict[str, list[Change]] = {}
        try:
            self._ctx.each(self._nodes, lambda node: self._bring(step, node, made))
        finally:
            self._ctx.report.end()
            self._tell(made)

    def _look_at(self, node: Node) -> Look:
        cluster = self._ctx.cluster
        resources = _always(cluster, node)
        for step in self._chain:
            resources += step.desired(cluster, node)
        result = self._ctx.sh(node, look_script(cluster, node, resources))
        if not result.ok:
            raise Refused(f"{node.name}: looking at it failed: {result.err.strip()[-300:]}")
        return parse(result.out, resources)

    def _bring(self, step: Step, node: Node, made: dict[str, list[Change]]) -> None:
        ctx = self._ctx
        look = ctx.look(node)
        owners = ctx.cluster.systemd
        wanted = [r.known(look) if isinstance(r, File) else r for r in step.desired(ctx.cluster, node)]
        found = changes(wanted, look, owners=owners)
        made[node.name] = found
        if found and not ctx.dry:
            self._apply(step, node, made, owners=owners)
        ctx.looks[node.name] = seen_after(look, found, now=ctx.now() if not ctx.dry else FAR_FUTURE)

    def _apply(self, step: Step, node: Node, made: dict[str, list[Change]], *, owners: bool) -> None:
        """Leaves in `made` what was done, also where it raises."""
        ctx = self._ctx
        found, made[node.name] = made[node.name], []
        upload = apply_script(found, ctx.look(node), owners=owners)
        with ctx.report.transfer(node.name, upload.size) as sent:
            deadline = 60 + upload.size / SLOWEST_LINK
            result = ctx.hosts.run(node, upload.script, upload.chunks(), deadline=deadline, sent=sent)
        done = sum(line.startswith("ok ") for line in result.out.splitlines())
        made[node.name] = found[:done]
        if result.ok:
            return
        failing = found[done].what if done < len(found) else "what follows the files"
        cause = f"{step.name} failed at: {failing}"
        hint = f"mend the cause, then: invoke {step.name} --node {node.name}"
        if result.code == CHECK_FAILED:
            said = result.err.strip().splitlines()[-8:]
            raise Refused("\n    ".join([f"{node.name}: {cause}", *said]), hint=hint)
        raise NodeFailed(node.name, cause, stderr=result.err, hint=hint)

    def _tell(self, made: dict[str, list[Change]]) -> None:
        """Every change once, with all nodes that it is made on, in etcd.toml's order."""
        together: dict[tuple[str, str], list[str]] = {}
        for node in self._nodes:
            for change in made.get(node.name, ()):
                together.setdefault((change.what, change.diff), []).append(node.name)
        for (what, diff), names in together.items():
            self._ctx.change(what, ", ".join(names), diff, count=len(names))


def _always(cluster: Cluster, node: Node) -> list[Resource]:
    """Looked at whatever the chain is: what the living process is compared with."""
    return [
        File(unit_file(cluster, node), Promise("")),
        File(f"{node.paths.bin}/etcd", Promise("")),
        File(f"{node.paths.cert}/ca.pem", Promise("")),
    ]
