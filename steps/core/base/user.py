"""Who runs us."""

from __future__ import annotations

import os
import pwd
import socket
import time


def whoami() -> str:
    """The user's name, whatever the environment says; the number of a user without an entry, as containers have it."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def operator() -> str:
    """Return who runs us, and where: user@host."""
    return f"{whoami()}@{socket.gethostname()}"


def holder() -> str:
    """Return what a lock of this run says of its holder."""
    return f"{operator()}, pid {os.getpid()}, since {time.strftime('%F %T %Z')}"
