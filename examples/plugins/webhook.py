"""Announces what happens to the cluster to a webhook: the start of each step that may restart members, and its end.

    [plugins.webhook]
    url = "https://chat.example.com/hooks/etcd"

The secret stands in the environment, never in a file: ETCD_WEBHOOK_TOKEN. `invoke announce "text"` sends a line of
your own. An announcement that fails is a warning: it must not stop the work that it announces.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from invoke.tasks import task

from steps.api import Cluster, Node, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel

TOKEN = "ETCD_WEBHOOK_TOKEN"  # noqa: S105  the variable's name
STEPS = ("units", "start")
DEADLINE = 5  # seconds


@hookimpl
def etcd_options() -> type[BaseModel]:
    from pydantic import BaseModel, ConfigDict, Field

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        url: str = Field(pattern=r"^(https://|http://127\.0\.0\.1[:/])")

    return Options


@hookimpl
def etcd_validate() -> list[str]:
    return [] if os.environ.get(TOKEN) else [f"the environment variable {TOKEN} is not set"]


@hookimpl
def etcd_before_step(step: str, cluster: Cluster, nodes: Sequence[Node]) -> None:
    if step in STEPS:
        send(cluster, f"{step} begins on {_names(nodes)}")


@hookimpl
def etcd_after_step(step: str, cluster: Cluster, nodes: Sequence[Node], error: BaseException | None) -> None:
    if step in STEPS or error is not None:
        send(cluster, f"{step} on {_names(nodes)} " + (f"failed: {error}" if error else "is done"))


@task
def announce(c: Any, text: str) -> None:
    """Send a line of your own to the webhook"""
    send(c.command.cluster, text)


@hookimpl
def etcd_tasks() -> list[Any]:
    return [announce]


def _names(nodes: Sequence[Node]) -> str:
    return ", ".join(node.name for node in nodes)


def send(cluster: Cluster, text: str) -> None:
    from urllib.request import Request, urlopen

    body = json.dumps({"text": f"{cluster.name}: {text}"}).encode()
    headers = {"Authorization": f"Bearer {os.environ.get(TOKEN, '')}", "Content-Type": "application/json"}
    request = Request(cluster.options["webhook"].url, body, headers)  # noqa: S310  the model allows https, and loopback
    try:
        with urlopen(request, timeout=DEADLINE):  # noqa: S310  see above
            return
    except OSError as error:
        sys.stderr.write(f"warning: the webhook did not take it: {error}\n")
