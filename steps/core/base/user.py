"""Who runs us."""

from __future__ import annotations

import os
import pwd


def whoami() -> str:
    """The user's name, whatever the environment says; the number of a user without an entry, as containers have it."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
