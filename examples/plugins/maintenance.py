"""A veto: living members are restarted in the maintenance window only. First starts and certificates are not restarts.

[plugins.maintenance]
window = "01:00-05:00"            # UTC; it may pass midnight
"""

from __future__ import annotations

from datetime import datetime, time, timezone
from typing import TYPE_CHECKING

from steps.api import Cluster, Refused, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel


@hookimpl
def etcd_options() -> type[BaseModel]:
    from pydantic import BaseModel, ConfigDict, Field

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        window: str = Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")

    return Options


def is_open(window: str, now: time) -> bool:
    begins, ends = (time.fromisoformat(text) for text in window.split("-"))
    return begins <= now < ends if begins <= ends else now >= begins or now < ends


@hookimpl
def etcd_before_restart(cluster: Cluster) -> None:
    window = cluster.options["maintenance"].window
    now = datetime.now(timezone.utc).time()
    if not is_open(window, now):
        raise Refused(f"it is {now:%H:%M} UTC, restarts are for {window}", hint="wait, or change [plugins.maintenance]")
