"""What was done, by whom and when: one file of JSON lines for each run that may write, in the work directory's log/.

    start    run, at (UTC, ISO 8601), who, pid, command, nodes (the selected ones)
    change   at, step, node ("" or one or several names), what
    warning  the same
    end      at, seconds, code (the exit code), error ("" or the message that the user saw)

A run that was killed has no end. What is written is what the user was shown, so no secret comes in.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from steps.core.base.files import create, private_directory
from steps.core.cli.options import typed

if TYPE_CHECKING:
    from invoke.tasks import Call

KEPT = 100  # runs


class RunLog:
    """The file of the run that goes on. Safe for threads; raises OSError where nothing can be written."""

    def __init__(self, folder: Path, *, who: str, command: str, nodes: Sequence[str]) -> None:
        """Starts the file, 0600, and removes all but the newest KEPT."""
        private_directory(folder)
        now = datetime.now(timezone.utc)
        self.run = f"{now:%Y%m%d-%H%M%S}-{os.getpid()}"
        self._file = folder / f"{self.run}.jsonl"
        self._since = time.monotonic()
        self._lock = Lock()
        create(self._file, b"")
        start = {"run": self.run, "who": who, "pid": os.getpid(), "command": command, "nodes": list(nodes)}
        self._write("start", start)
        for old in sorted(folder.glob("*.jsonl"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def event(self, kind: str, step: str, node: str, what: str) -> None:
        """`kind`: change or warning."""
        self._write(kind, {"step": step, "node": node, "what": what})

    def end(self, code: int, error: str) -> None:
        self._write("end", {"seconds": round(time.monotonic() - self._since, 1), "code": code, "error": error})

    def _write(self, event: str, values: dict[str, Any]) -> None:
        at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        line = json.dumps({"event": event, "at": at, **values}) + "\n"
        with self._lock, self._file.open("ab") as stream:
            stream.write(line.encode())


@dataclass(frozen=True)
class Run:
    """One run, read back. `code` and `seconds` are None where it has no end: it goes on, or it was killed."""

    run: str
    at: str
    who: str
    command: str
    nodes: tuple[str, ...]
    events: tuple[dict[str, Any], ...] = field(repr=False)
    seconds: float | None = None
    code: int | None = None
    error: str = ""

    @property
    def changes(self) -> int:
        return sum(event["event"] == "change" for event in self.events)

    @property
    def result(self) -> str:
        if self.code is None:
            return "no end: it goes on, or it was killed"
        first = self.error.partition("\n")[0]
        return f"exit {self.code}" + (f": {first}" if first else "") if self.code else "done"


def runs(folder: Path) -> Iterator[Run]:
    """The runs in the log, the newest first. A line that was cut off by a kill is left out."""
    for file in sorted(folder.glob("*.jsonl"), reverse=True):
        events = list(_events(file))
        start = next((event for event in events if event["event"] == "start"), {})
        end = next((event for event in events if event["event"] == "end"), {})
        yield Run(
            run=file.stem,
            at=start.get("at", ""),
            who=start.get("who", ""),
            command=start.get("command", ""),
            nodes=tuple(start.get("nodes", ())),
            events=tuple(event for event in events if event["event"] not in ("start", "end")),
            seconds=end.get("seconds"),
            code=end.get("code"),
            error=end.get("error", ""),
        )


def _events(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # the run was killed while it wrote this
            continue
        if isinstance(event, dict) and "event" in event:
            yield event


def command_line(calls: Sequence[Call]) -> str:
    """The command line as our tasks took it. Of a foreign task only the name: its values may be secret."""
    return shlex.join(["invoke", *typed(calls)])
