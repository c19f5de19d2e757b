"""What a local user of a node, or the user that runs etcd, plants there: it is not run, not followed, not believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from host import Host
from lab import Lab

Config = Callable[..., Path]

OLD_LOCK = "/run/lock/etcd-steps.lock"
AS_OPS = "runuser -u ops -- sh -c"
PLANTED = {
    "a fifo": f"mkfifo {OLD_LOCK}",
    "a directory": f"mkdir {OLD_LOCK}",
    "a lock that is held": f"echo owned >{OLD_LOCK}; setsid flock {OLD_LOCK} sleep 60 </dev/null >/dev/null 2>&1 &",
}


@pytest.fixture(scope="module")
def shared(lab: Lab) -> list[Host]:
    lab.wipe()
    return lab.hosts[:3]


def test_lock_that_a_local_user_plants_stops_no_run(lab: Lab, shared: list[Host], config: Config) -> None:
    file, victim = config(), shared[1]
    for what, how in PLANTED.items():
        victim.sh(f"{AS_OPS} '{how}'")
        done = lab.invoke(file, "env", timeout=60)
        assert done.returncode == 0, f"{what}: {done.stdout}{done.stderr}"
        victim.sh(f"fuser -k {OLD_LOCK}; rm -rf {OLD_LOCK}", check=False)
    assert victim.sh("stat -c '%A %U:%G' /run/etcd-steps /run/etcd-steps/lock").splitlines() == [
        "drwx------ root:root",
        "-rw------- root:root",
    ]
    assert "Permission denied" in victim.sh(f"{AS_OPS} 'flock /run/etcd-steps/lock true' 2>&1", check=False)
