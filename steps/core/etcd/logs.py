"""A member's log as data: which start a line belongs to, who says it, how grave it is. Pure.

Clients influence what a log holds: their keys and user names stand in warnings. So a line is never searched as text;
of etcd's JSON only `msg` and `error` are read, and of what is less than an error only messages that are known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from steps.core.node.service import START

# plain: neither a logger's nor systemd's, as what Go itself prints of a flag or a panic.
Level = Literal["fatal", "error", "minor", "plain", "systemd"]

_STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"  # SD_MESSAGE_UNIT_STARTING, systemd.journal-fields(7)
_ZAP: Mapping[str, Level] = {"fatal": "fatal", "panic": "fatal", "dpanic": "fatal", "error": "error"}
_CAPNSLOG = re.compile(r"\d{4}-\d\d-\d\d [\d:.]+ ([CEWNIDT]) \| (.*)")  # etcd 3.4 where it writes to a file
_ERR, _CRIT = 3, 2  # syslog(3)
_FAILED_STEP = re.compile(r"Failed at step|Failed to set up mount namespacing|Changing to the requested .* failed")
_FAILED = re.compile(r"Main process exited|Failed with result")
_LONGEST = 400  # characters of a line that are shown


@dataclass(frozen=True)
class Line:
    """One line. `text`: as it is shown; `said`: its message and its error; `start`: number of the start, from 0."""

    text: str
    said: str
    level: Level
    start: int = 0


def read(output: str) -> list[Line]:
    """Return the lines of what service.log_script printed: journalctl's JSON, or the log of a plain process."""
    lines: list[Line] = []
    start = 0
    for raw in output.splitlines():
        entry = _document(raw)
        if entry is not None and "__REALTIME_TIMESTAMP" in entry:
            start += entry.get("MESSAGE_ID") == _STARTING
            lines += [_journal(text, entry, start) for text in _message(entry).splitlines() if text.strip()]
        elif raw == START:
            start += 1
        elif raw.strip():
            lines.append(_line(raw, start))
    return lines


def last_start(lines: Sequence[Line], *, restarting: bool) -> tuple[Line, ...]:
    """Return the lines of the last start alone, so that old troubles are not read as new ones.

    `restarting`: it is started again and again; a try under way that has not failed yet gives way to the one before.
    """
    last = max((line.start for line in lines), default=0)
    found = tuple(line for line in lines if line.start == last)
    before = tuple(line for line in lines if line.start == last - 1)
    return before if restarting and not _failed(found) and _failed(before) else found


def telling(lines: Sequence[Line], *, otherwise: int = 8) -> list[str]:
    """Return the lines that say why a member ended, without a stack trace; the last ones, `otherwise`, if none does."""
    return [line.text[:_LONGEST] for line in (_grave(lines)[-3:] or lines[-otherwise:])]


def _failed(lines: Sequence[Line]) -> bool:
    """Return whether these are the lines of a start that came to a bad end; one that was stopped did not."""
    return bool(_grave(lines)) or any(line.level == "systemd" and _FAILED.search(line.said) for line in lines)


def _grave(lines: Sequence[Line]) -> list[Line]:
    return [
        line
        for line in lines
        if line.level == "fatal" or (line.level == "systemd" and _FAILED_STEP.search(line.said) is not None)
    ]


def _document(raw: str) -> dict[str, Any] | None:
    if not raw.startswith("{"):
        return None
    try:
        document = json.loads(raw)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _message(entry: Mapping[str, Any]) -> str:
    """Return MESSAGE: a text, or a list of bytes where it is not UTF-8, or null where it is too long."""
    message = entry.get("MESSAGE")
    if isinstance(message, list):
        return bytes(byte for byte in message if isinstance(byte, int)).decode("utf-8", "replace")
    return message if isinstance(message, str) else ""


def _journal(text: str, entry: Mapping[str, Any], start: int) -> Line:
    if entry.get("SYSLOG_IDENTIFIER") in ("systemd", "(etcd)"):  # the second is systemd's child before it is etcd
        return Line(text, text, "systemd", start)
    if entry.get("_TRANSPORT") == "journal":  # etcd 3.4 as a service: the level is the entry's own
        priority = int(entry.get("PRIORITY", "6"))
        return Line(text, text, "fatal" if priority <= _CRIT else "error" if priority == _ERR else "minor", start)
    return _line(text, start)


def _line(text: str, start: int) -> Line:
    if (document := _document(text)) is not None:
        said = ": ".join(str(document[name]) for name in ("msg", "error") if document.get(name))
        return Line(text, said, _ZAP.get(str(document.get("level")), "minor"), start)
    if found := _CAPNSLOG.fullmatch(text):
        return Line(text, found[2].partition(": ")[2], {"C": "fatal", "E": "error"}.get(found[1], "minor"), start)  # type: ignore[arg-type]
    return Line(text, text, "fatal" if text.startswith(("panic: ", "fatal error: ")) else "plain", start)
