"""A problem: one thing that is wrong, as data. Whoever finds it gives it a code, and nothing reads the words again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

SCHEMA = 1  # of every `--json`: what is in it is only added to while this number stays


@dataclass(frozen=True)
class Problem:
    """What is wrong. `str(problem)` is the line that people read.

    `code`: which problem it is, one of docs/reference/problems.md; a plugin's are `plugin.NAME`. `message`: the
    words, without the node's name and the key. `hint`: the next command, or what else to do; several lines where it
    takes several. `node`: the name of the node or member that it is about, "" for the whole cluster. `key`: a
    dotted path in etcd.toml (`nodes[1].ip`) that stands in `line` (1-based; 0 where unknown). `joint`: what stands
    between the node's name and the message; a blank where the node is the subject of the sentence.
    """

    code: str
    message: str
    hint: str = ""
    node: str = ""
    key: str = ""
    line: int = 0
    joint: str = ": "

    def __str__(self) -> str:
        return f"{self.node}{self.joint}{self.message}" if self.node else self.message

    def as_json(self) -> dict[str, Any]:
        """Return it as in every `--json`; `text` is the line that people read."""
        return {
            "code": self.code,
            "node": self.node,
            "message": self.message,
            "hint": self.hint,
            "key": self.key,
            "line": self.line,
            "text": str(self),
        }


def joined(problems: Iterable[Problem]) -> str:
    """Return all problems in one sentence, for an error's message."""
    return "; ".join(str(problem) for problem in problems)
