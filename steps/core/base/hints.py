"""Our own commands within messages. They are written anywhere, and completed at one place: where they are shown.

Who writes a hint does not know how this run was started. `invoke("start")` leaves marks in the text; `Hints.shown`
replaces them by what the command needs to act on the same cluster: --config, and Invoke's own options in front.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Noncharacters of Unicode: no text that comes from elsewhere has them.
_FRONT, _BEHIND = "\ufdd0", "\ufdd1"
_COMMAND = re.compile(f"invoke{_FRONT}([^{_BEHIND}]*){_BEHIND}")


def invoke(line: str) -> str:
    """Return the command `invoke LINE` for a message. The caller quotes what needs quotes in `line`."""
    return f"invoke{_FRONT} {line}{_BEHIND}"


def etcdctl(work: Path, line: str) -> str:
    """Return `etcdctl LINE` for a message, as it can be pasted on the controller: environment.sh of `work` in front."""
    return f". {shlex.quote(str(work / 'environment.sh'))} && etcdctl {line}"


def again(more: str = "") -> str:
    """Return the command that is running for a message; `more`: an option that its current task needs besides."""
    return f"invoke{_FRONT}{more}{_BEHIND}"


@dataclass(frozen=True)
class Hints:
    """How this run was started. `front`: Invoke's options in front of the tasks.

    `config`: what --config says, or $ETCD_CONFIG, which may have been set for this run alone.

    `running`: the words of this run's tasks, with an option (see `again`) put behind its current task.
    """

    front: Sequence[str] = ()
    config: str = ""
    running: Callable[[str], Sequence[str]] = shlex.split

    def shown(self, text: str) -> str:
        """Return the text with each command in it as it can be pasted."""
        return _COMMAND.sub(self._complete, text)

    def data(self, document: Any) -> Any:
        """Return a JSON document with each text in it as `shown` returns it."""
        if isinstance(document, str):
            return self.shown(document)
        if isinstance(document, dict):
            return {key: self.data(value) for key, value in document.items()}
        if isinstance(document, list | tuple):
            return [self.data(value) for value in document]
        return document

    def _complete(self, match: re.Match[str]) -> str:
        line = match[1]
        words = line.strip() if line.startswith(" ") else shlex.join(self.running(line))
        front = "".join(f" {shlex.quote(word)}" for word in self.front)
        named = not self.config or re.search(r"(^| )--config[ =]", words)
        return f"invoke{front} {words}" + ("" if named else f" --config {shlex.quote(self.config)}")
