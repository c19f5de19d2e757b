"""The node's lock: an flock that lives exactly as long as the shell that took it, and what that started."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from steps.core.base.errors import Refused
from steps.core.base.shell import assigned, text
from steps.core.config.model import Node

_SCRIPT = text(__file__, "lock.sh")


@dataclass(frozen=True)
class Lock:
    """A node's lock: the file's path, and for others the words that say who holds it.

    Its directory is made (0700), and must belong to whoever logs in and be writable to no one else.

    `work` is the work directory of the controller, which lets only one run at a time in; `run` that run. So whoever
    finds the lock held by another run of the own work directory knows that it has ended.
    """

    path: str
    holder: str
    work: str
    run: str

    @property
    def script(self) -> str:
        """The text that takes the lock, for `sh`: it exits 73 where there can be no lock, 75 where it is held."""
        folder = self.path.rpartition("/")[0]
        words = assigned(LOCK=self.path, FOLDER=folder, HOLDER=self.holder, WORK=self.work, RUN=self.run)
        return f"{words}{_SCRIPT}"


LOCKS = "/run/etcd-steps"  # root's alone, on a node with systemd: anybody may write to /run/lock
LOCK = "lock"  # in the work directory; who has it is the only run there that writes


def work_directory(lock: Path) -> str:
    """Names the work directory whose lock this is; a copy, on another machine or since another boot, has another name.

    Where the machine does not say which boot this is (only Linux does), a name that nobody else ever has.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        file = lock.stat()
    except OSError:
        return os.urandom(16).hex()
    return f"{boot}:{file.st_dev}:{file.st_ino}"


def not_root(node: Node, uid: str) -> Refused:
    """Return the refusal of a login that is not root's."""
    hint = "set [ssh] sudo = true, or another [ssh] user"
    return Refused(f"we are logged in as uid {uid}, not as root", node=node.name, hint=hint)
