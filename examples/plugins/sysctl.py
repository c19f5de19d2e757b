"""Kernel settings that etcd likes, as a step of its own: `invoke sysctl --node etcd-2`, and part of `invoke all`.

[plugins.sysctl]                  # optional
settings = { "vm.swappiness" = 1, "net.ipv4.tcp_keepalive_time" = 300 }
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from steps.api import Check, Cluster, File, Node, Resource, Step, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel

    from steps.api import Context

PATH = "/etc/sysctl.d/60-etcd.conf"
DEFAULTS = {"vm.swappiness": 1, "net.core.somaxconn": 1024}


def settings(cluster: Cluster) -> dict[str, int]:
    options = cluster.options.get("sysctl")
    return options.settings if options is not None else DEFAULTS


class Sysctl(Step):
    """Set the kernel's parameters for etcd"""

    name = "sysctl"
    after = "env"

    def desired(self, ctx: Context, node: Node) -> Iterator[Resource]:
        del node  # the same everywhere
        lines = [f"{key} = {value}\n" for key, value in sorted(settings(ctx.cluster).items())]
        yield File(PATH, "".join(lines), on_change=(f"sysctl --load={PATH}",))


@hookimpl
def etcd_steps() -> list[Step]:
    return [Sysctl()]


@hookimpl
def etcd_options() -> type[BaseModel]:
    from pydantic import BaseModel, ConfigDict

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        settings: dict[str, int] = DEFAULTS

    return Options


@hookimpl
def etcd_checks(cluster: Cluster, node: Node) -> list[Check]:
    """Somebody may have changed a parameter by hand since."""

    def differs(ctx: Context) -> str | None:
        wanted = settings(cluster)
        paths = " ".join(f"/proc/sys/{key.replace('.', '/')}" for key in wanted)
        have = ctx.sh(node, f"cat {paths}").out.split()
        wrong = [f"{k} is {h}, not {v}" for (k, v), h in zip(wanted.items(), have, strict=False) if h != str(v)]
        return "; ".join(wrong) or None

    return [Check("sysctl", differs)]
