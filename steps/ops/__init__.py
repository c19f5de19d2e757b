"""What operates a cluster, one file each."""

from __future__ import annotations

from steps.core.cli.groups import Group
from steps.ops.client import client
from steps.ops.contents import contents
from steps.ops.doctor import doctor
from steps.ops.init import init
from steps.ops.log import log
from steps.ops.plan import plan
from steps.ops.plugins import new, plugins
from steps.ops.remove_ca_key import remove_ca_key
from steps.ops.reset import reset
from steps.ops.status import status
from steps.ops.stop import stop

OPERATIONS = (
    plan,
    status,
    doctor,
    log,
    stop,
    reset,
    client,
    remove_ca_key,
    init,
    plugins,
    Group("plugin", (new,)),
    contents,
)
