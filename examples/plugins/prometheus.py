"""For Prometheus: etcd's extensive metrics, and each certificate's end for node_exporter's textfile collector.

[plugins.prometheus]              # optional
directory = "/var/lib/prometheus/node-exporter"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from steps.api import Cluster, Directory, File, Node, Promise, Resource, Step, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel

    from steps.api import Context

METRIC = "etcd_certificate_not_after_seconds"


class Prometheus(Step):
    """Write when each node's certificate ends, for node_exporter's textfile collector"""

    name = "prometheus"
    after = "certs"

    def desired(self, ctx: Context, node: Node) -> Iterator[Resource]:
        cluster = ctx.cluster
        if not cluster.tls.enabled:
            return
        directory = cluster.options["prometheus"].directory
        yield Directory(directory)
        yield File(f"{directory}/etcd_certificate.prom", _metric(cluster, node))


def _metric(cluster: Cluster, node: Node) -> str | Promise:
    from steps.api import Store, pki

    pair = Store(cluster.work).pair("shared" if cluster.tls.layout == "shared" else node.name)
    if pair is None:
        return Promise("the end of a certificate that is not issued yet")
    ends = int(pki.read(pair.cert)[0].not_valid_after_utc.timestamp())
    labels = f'cluster="{cluster.name}",member="{node.name}"'
    return f"# HELP {METRIC} notAfter, Unix seconds.\n# TYPE {METRIC} gauge\n{METRIC}{{{labels}}} {ends}\n"


@hookimpl
def etcd_steps() -> list[Step]:
    return [Prometheus()]


@hookimpl
def etcd_options() -> type[BaseModel]:
    from pydantic import BaseModel, ConfigDict, Field

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        directory: str = Field("/var/lib/prometheus/node-exporter", pattern=r"^/[\w./-]+$")

    return Options


@hookimpl
def etcd_flags() -> dict[str, str]:
    """Histograms of gRPC's latencies too."""
    return {"metrics": "extensive"}
