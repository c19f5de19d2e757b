"""What a script on a node printed, read: lines, and frames.

A frame is a line of words, of which the last is the size in bytes of the text that follows it, and a newline behind
that. So whatever stands in the text (what etcd logs, what a process calls itself) is never taken for another line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SIZE = re.compile(r"[0-9]{1,9}")
_SHOWN = 60  # characters of a line that an error shows


class Damaged(ValueError):
    """An answer is cut off, or is not what its script prints. Whoever asked names the node."""


@dataclass(frozen=True)
class Head:
    """The first line of a frame: its words, and the size in bytes of the text behind it."""

    words: tuple[str, ...]
    size: int


def head(line: str) -> Head | None:
    """Return what the first line of a frame says; None where it is none."""
    *words, size = line.split(" ")
    return Head(tuple(words), int(size)) if _SIZE.fullmatch(size) else None


def decoded(raw: bytes) -> str:
    """Return what a node printed as text from which `encoded` makes the same bytes."""
    return raw.decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """Return the bytes that a node printed. Sizes count them: scripts run under LC_ALL=C."""
    return text.encode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """Return the text with a mark for each byte that is no UTF-8."""
    return encoded(text).decode("utf-8", "replace")


def number(word: str) -> int:
    """Return a number of at most nine digits. Raises Damaged."""
    if not _SIZE.fullmatch(word):
        raise unreadable(word)
    return int(word)


def unreadable(line: str) -> Damaged:
    """Return the error for a line that is not what its script prints."""
    return Damaged(f"this line of its answer makes no sense: {line[:_SHOWN]!r}")


class Answer:
    """What a script printed, read from the front. False once nothing is left."""

    def __init__(self, output: str) -> None:
        self._raw = encoded(output)
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._raw)

    def line(self) -> str:
        """Return the next line; where the last one has no newline, what there is of it."""
        end = self._raw.find(b"\n", self._at)
        end = len(self._raw) if end < 0 else end
        line, self._at = self._raw[self._at : end], end + 1
        return decoded(line)

    def starts(self, text: bytes) -> bool:
        return self._raw.startswith(text, self._at)

    def take(self, size: int) -> str:
        """Return the next `size` bytes. Raises Damaged where there are fewer."""
        end = self._at + size
        if end > len(self._raw):
            raise Damaged(f"its answer is cut off: {size} bytes should follow, {max(0, len(self._raw) - self._at)} do")
        text, self._at = self._raw[self._at : end], end
        return decoded(text)

    def text(self, size: int) -> str:
        """Return the text of a frame, behind which a newline must stand. Raises Damaged."""
        text = self.take(size)
        if not self.starts(b"\n"):
            raise Damaged(f"its answer is damaged: a text is longer than the {size} bytes that it should have")
        self._at += 1
        return text

    def rest(self) -> str:
        """Return all that is left."""
        return self.take(max(0, len(self._raw) - self._at))


def frames(output: str, kind: str, words: int) -> Iterator[tuple[tuple[str, ...], str]]:
    """Return the frames of an answer that consists of nothing else: the words behind `kind`, and the text.

    Raises Damaged where a line is not `kind`, that number of words, and a size.
    """
    answer = Answer(output)
    while answer:
        line = answer.line()
        found = head(line)
        if found is None or found.words[:1] != (kind,) or len(found.words) != words + 1:
            raise unreadable(line)
        yield found.words[1:], answer.text(found.size)
