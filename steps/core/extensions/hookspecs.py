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
    """Custom steps. Called when tasks.py loads: reads no configuration."""


@spec
def etcd_options() -> type[BaseModel]:  # type: ignore[empty-body]  # see above
    """The model of [plugins.NAME]. Called only when a configuration is read."""


@spec(firstresult=True)
def etcd_cert_backend(name: str, cluster: Cluster) -> CertBackend | None:
    """The certificate backend of that name; the first result wins."""


@spec(firstresult=True)
def etcd_release_source(name: str, cluster: Cluster) -> ReleaseSource | None:
    """The release source of that name; the first result wins."""


@spec
def etcd_validate(cluster: Cluster) -> list[str]:  # type: ignore[empty-body]  # see above
    """Problems, reported with the configuration's own."""


@spec
def etcd_flags(cluster: Cluster, node: Node) -> dict[str, str]:  # type: ignore[empty-body]  # see above
    """Extra etcd flags of a node; two plugins that set one flag are an error."""


@spec
def etcd_template_dirs(cluster: Cluster) -> list[Path]:  # type: ignore[empty-body]  # see above
    """Directories that are searched before templates/."""


@spec
def etcd_before_step(step: str, cluster: Cluster, nodes: Sequence[Node]) -> None:
    """Raising aborts the step before it begins."""


@spec
def etcd_after_step(step: str, cluster: Cluster, nodes: Sequence[Node], error: BaseException | None) -> None:
    """Runs after the step, after a failed one too."""


@spec
def etcd_before_restart(cluster: Cluster, node: Node) -> None:
    """Raising is a veto of that restart."""


@spec
def etcd_checks(cluster: Cluster, node: Node) -> list[Check]:  # type: ignore[empty-body]  # see above
    """Extra checks in `verify`."""


@spec
def etcd_tasks() -> list[Any]:  # type: ignore[empty-body]  # see above
    """Extra Invoke tasks and collections."""


NAMES = tuple(name for name in globals() if name.startswith("etcd_"))
