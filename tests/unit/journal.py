"""Lines of logs as etcd writes them and as journalctl prints them."""

from __future__ import annotations

import json

STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"


def zap(level: str, msg: str, error: str = "", **more: str) -> str:
    """A line of etcd 3.5."""
    return json.dumps({"level": level, "ts": "2026", "msg": msg, **({"error": error} if error else {}), **more})


def entry(message: object, *, systemd: bool = False, priority: int = 6, transport: str = "stdout", id: str = "") -> str:  # noqa: A002  the field's name
    """One entry, as `journalctl --output=json` prints it."""
    fields = {
        "__REALTIME_TIMESTAMP": "1",
        "MESSAGE": message,
        "PRIORITY": str(priority),
        "_TRANSPORT": "journal" if systemd else transport,
        "SYSLOG_IDENTIFIER": "systemd" if systemd else "etcd",
    }
    return json.dumps({**fields, **({"MESSAGE_ID": id} if id else {})})
