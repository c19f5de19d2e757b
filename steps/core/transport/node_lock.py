"""The node's lock: an flock that lives exactly as long as the shell that took it, and what that started."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from steps.core.base.errors import Refused
from steps.core.config.model import Node

# Only in a directory where no other user may make a file is the lock surely ours: no link, no fifo, no other's words.
# What locks is the flock; the file says who has it. Who waits lets its new holder write that. A shell whose controller
# fell silent (a cut cable, a lost VPN) may wait for it for hours: the next run of the same work directory ends it, once
# it has had time to finish what it was doing.
_SCRIPT = """\
umask 077
mkdir -p {folder} || exit 73
case $(ls -ld {folder}) in d????-??-*) [ -O {folder} ];; *) false;; esac ||
{{ echo \
"$(ls -ld {folder}), uid $(id -u): the lock must lie in a directory of ours that nobody else may write"; exit 73; }}
exec 9>>{path} && chmod 600 {path} || exit 73
flock -w 0.5 9 || {{
{{ read -r who; read -r work run shell; }} <{path}
[ "$work" = {work} ] && [ "$run" != {run} ] && {{ flock -w 2 9 || {{
[ "/proc/$shell/fd/9" -ef {path} ] && read -r _ _ _ _ group _ <"/proc/$shell/stat" &&
kill -s TERM -- "-$group" && flock -w 3 9; }}; }}
}} || {{ printf 'locked by %s\\n' "$who"; exit 75; }}
printf '%s\\n%s %s %s\\n' {holder} {work} {run} $$ >{path}
"""


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
        words = {"folder": self.path.rpartition("/")[0], **vars(self)}
        return _SCRIPT.format(**{name: shlex.quote(word) for name, word in words.items()})


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
