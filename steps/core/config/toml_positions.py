"""Where each key of a TOML text stands: tomllib gives positions for syntax errors only."""

from __future__ import annotations

import bisect
import contextlib
import re
from collections.abc import Iterator

SPACE = re.compile(r"[ \t]*")
BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
BARE = re.compile(r"[A-Za-z0-9_-]+")
STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'',
    re.DOTALL,
)
PLAIN = re.compile(r"[^,\]}#\r\n]*")

KeyPath = tuple[str | int, ...]


def key_lines(text: str) -> dict[KeyPath, int]:
    """Each key, table and list item of a valid TOML text → its line, from 1.

    Stops quietly where it does not understand: a line is a help, never a reason to fail.
    """
    scanner = _Scanner(text)
    with contextlib.suppress(ValueError, RecursionError):
        scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.lines: dict[KeyPath, int] = {}
        self.counts: dict[KeyPath, int] = {}

    def document(self) -> None:
        table: KeyPath = ()
        while self._skip(BLANK) < len(self.text):
            if self._take("[["):
                table = self._header(repeated=True)
            elif self._take("["):
                table = self._header(repeated=False)
            else:
                self._pair(table)

    def _header(self, *, repeated: bool) -> KeyPath:
        here, path = self.at, ()  # type: int, KeyPath
        keys = list(self._key())
        for index, key in enumerate(keys):
            path = (*path, key)
            self._mark(path, here)
            if repeated and index == len(keys) - 1:
                self.counts[path] = self.counts.get(path, 0) + 1
            if path in self.counts:
                path = (*path, self.counts[path] - 1)
                self._mark(path, here)
        self._expect("]]" if repeated else "]")
        return path

    def _pair(self, table: KeyPath) -> None:
        here = self.at
        path = table
        for key in self._key():
            path = (*path, key)
            self._mark(path, here)
        self._expect("=")
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        self._skip(SPACE)
        if self._take("["):
            self._items(path)
        elif self._take("{"):
            while self._skip(BLANK) < len(self.text) and not self._take("}"):
                self._pair(path)
                self._skip(BLANK)
                self._take(",")
        else:
            self._string() or self._skip(PLAIN)

    def _items(self, path: KeyPath) -> None:
        index = 0
        while self._skip(BLANK) < len(self.text) and not self._take("]"):
            self._mark((*path, index), self.at)
            self._value((*path, index))
            self._skip(BLANK)
            self._take(",")
            index += 1

    def _key(self) -> Iterator[str]:
        while True:
            self._skip(SPACE)
            bare = BARE.match(self.text, self.at)
            if bare:
                self.at = bare.end()
                yield bare[0]
            else:
                yield self._unquote(self._string())
            self._skip(SPACE)
            if not self._take("."):
                return

    def _unquote(self, quoted: str) -> str:
        if quoted.startswith("'"):
            return quoted[1:-1]
        escape = r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))"
        short = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}
        if not quoted:
            raise ValueError("no key")
        return re.sub(escape, lambda m: short.get(m[3], m[3]) if m[3] else chr(int(m[1] or m[2], 16)), quoted[1:-1])

    def _string(self) -> str:
        match = STRING.match(self.text, self.at)
        if not match:
            return ""
        self.at = match.end()
        return match[0]

    def _mark(self, path: KeyPath, at: int) -> None:
        self.lines.setdefault(path, bisect.bisect_right(self.starts, at))

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at

    def _take(self, token: str) -> bool:
        taken = self.text.startswith(token, self.at)
        self.at += len(token) * taken
        return taken

    def _expect(self, token: str) -> None:
        self._skip(SPACE)
        if not self._take(token):
            raise ValueError(token)
