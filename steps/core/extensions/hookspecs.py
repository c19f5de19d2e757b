"""Every hook that a plugin may implement, with its signature. pluggy project `etcd`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pydantic import BaseModel

    from steps.core.config.model import Cluster, Node
    from steps.core.context.context import Check
    from steps.core.pipeline.step import Step
    from steps.core.release.contracts import ReleaseSource
    from steps.core.tls.contracts import CertBackend

spec = pluggy.HookspecMarker("etcd")
hookimpl = pluggy.HookimplMarker("etcd")


@spec
def etcd_steps() -> list[Step]:  # type: ignore[empty-body]  # a specification has no body
    """Return a list of steps.

    Called when: tasks.py loads, without a configuration
    Thread: main
    May raise: no: the plugin counts as broken
    """


@spec
def etcd_options() -> type[BaseModel]:  # type: ignore[empty-body]  # see above
    """Return the pydantic model of `[plugins.NAME]`.

    Called when: a configuration is read
    Thread: main
    May raise: no: exit 2
    """


@spec(firstresult=True)
def etcd_cert_backend(name: str, cluster: Cluster) -> CertBackend | None:
    """Return the certificate backend of that name, or None; the first result wins.

    Called when: a configuration is checked; certificates are issued
    Thread: main
    May raise: yes
    """


@spec(firstresult=True)
def etcd_release_source(name: str, cluster: Cluster) -> ReleaseSource | None:
    """Return the release source of that name, or None; the first result wins.

    Called when: a configuration is checked; a release is needed
    Thread: main, prefetch
    May raise: yes
    """


@spec
def etcd_validate(cluster: Cluster) -> list[str]:  # type: ignore[empty-body]  # see above
    """Return a list of problems, reported with the configuration's own.

    Called when: a configuration was read
    Thread: main
    May raise: no: return the problem
    """


@spec
def etcd_flags(cluster: Cluster, node: Node) -> dict[str, str]:  # type: ignore[empty-body]  # see above
    """Return a dict of extra etcd flags; two plugins with the same flag are an error.

    Called when: the unit of a node is rendered
    Thread: main, node
    May raise: yes
    """


@spec
def etcd_template_dirs(cluster: Cluster) -> list[Path]:  # type: ignore[empty-body]  # see above
    """Return directories that are searched before templates/; extend `shipped/etcd.service.j2` there.

    Called when: a unit is rendered
    Thread: main, node, prefetch
    May raise: yes
    """


@spec
def etcd_before_step(step: str, cluster: Cluster, nodes: Sequence[Node]) -> None:
    """Return nothing.

    Called when: before each step; never in a dry run
    Thread: main
    May raise: yes: the step does not begin
    """


@spec
def etcd_after_step(step: str, cluster: Cluster, nodes: Sequence[Node], error: BaseException | None) -> None:
    """Return nothing.

    Called when: after each step, with its error after a failed one; never in a dry run
    Thread: main
    May raise: yes: the run fails; after a failed step a warning
    """


@spec
def etcd_before_restart(cluster: Cluster, node: Node) -> None:
    """Return nothing.

    Called when: before a member is restarted; never in a dry run
    Thread: main
    May raise: yes: a veto of that restart
    """


@spec
def etcd_checks(cluster: Cluster, node: Node) -> list[Check]:  # type: ignore[empty-body]  # see above
    """Return a list of `Check(name, run)`; `run(ctx)` returns None, or what is wrong.

    Called when: `verify`, for each member that could be asked
    Thread: main
    May raise: yes: a problem, or unknown
    """


@spec
def etcd_tasks() -> list[Any]:  # type: ignore[empty-body]  # see above
    """Return Invoke tasks and collections; `c.command.cluster` is the cluster, `c.command.open()` the `Context`.

    Called when: tasks.py loads
    Thread: main
    May raise: no: the plugin counts as broken
    """


NAMES = tuple(name for name in globals() if name.startswith("etcd_"))
