"""What known_hosts files say of a host's key, read as OpenSSH reads them (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_FIELDS = 3  # names, type and key; a marker may come before them, a comment after
REVOKED = "@revoked"


class BadLine(Exception):
    """A line of a known_hosts file that says nothing; `file` and `line` are where."""

    def __init__(self, file: Path, line: int) -> None:
        super().__init__(f"{file}, line {line}, is no line of a known_hosts file")
        self.file, self.line = file, line


@dataclass(frozen=True)
class Entry:
    """One line: the names as they stand there, the key's type (`ssh-ed25519`) and the key itself."""

    file: Path
    line: int
    marker: str
    names: str
    kind: str
    key: bytes

    def matches(self, name: str) -> bool:
        """Return whether the line is about `name`: a host, or `[host]:port` where the port is not 22."""
        if self.names.startswith("|1|"):
            return _hashed(self.names, name)
        found = False
        for pattern in self.names.lower().split(","):
            if pattern.startswith("!"):
                if _fits(pattern[1:], name):
                    return False
            elif _fits(pattern, name):
                found = True
        return found


@dataclass(frozen=True)
class Verdict:
    """What the files say of an offered key. `against`: the line that speaks against it."""

    known: bool = False
    against: Entry | None = None


class KnownHosts:
    """The lines of several files, read once."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = tuple(entries)

    def kinds(self, name: str) -> list[str]:
        """Return the types of the keys that are known of `name`: the ones to ask the host for."""
        return list(dict.fromkeys(entry.kind for entry in self._about(name)))

    def check(self, name: str, kind: str, key: bytes) -> Verdict:
        """Return whether `key` is known for `name`, or which line is against it.

        Stricter than OpenSSH, where any one file that has the key is enough: a file that has another key of this type
        is against it, and so is a host of which only keys of other types are known (it was asked for those).
        """
        revoked = next((entry for entry in self._entries if entry.marker == REVOKED and entry.key == key), None)
        if revoked is not None:
            return Verdict(against=revoked)
        about = list(self._about(name))
        if not about and name.startswith("["):  # a port of its own: OpenSSH takes the plain host's key as well
            plain = name[1:].partition("]:")[0]
            return Verdict(known=any(entry.key == key for entry in self._about(plain)))
        for file in dict.fromkeys(entry.file for entry in about):
            same = [entry for entry in about if entry.file == file and entry.kind == kind]
            if same and not any(entry.key == key for entry in same):
                return Verdict(against=same[0])
        known = any(entry.key == key for entry in about)
        return Verdict(known, about[0] if about and not known else None)

    def _about(self, name: str) -> Iterator[Entry]:
        name = name.lower()
        return (entry for entry in self._entries if not entry.marker and entry.matches(name))


def read(files: Sequence[Path], *, lenient: Sequence[Path] = ()) -> KnownHosts:
    """Return what the files say; a missing one says nothing.

    Raises BadLine, and OSError where a file is there and cannot be read. Of `lenient` files (the user's and the
    system's), bad lines are skipped, and so is one that cannot be read: OpenSSH does the same.
    """
    entries: list[Entry] = []
    for file in dict.fromkeys([*files, *lenient]):
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            if file in files and not isinstance(error, FileNotFoundError):
                raise
            continue
        for number, line in enumerate(text.splitlines(), 1):
            entry = parse(line, file, number)
            if entry is not None:
                entries.append(entry)
            elif file in files and line.strip() and not line.lstrip().startswith("#"):
                raise BadLine(file, number)
    return KnownHosts(entries)


def parse(line: str, file: Path, number: int) -> Entry | None:
    """Return the line as an entry; None for a comment, an empty line and one that is broken."""
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0) if words[0].startswith("@") else ""
    if len(words) < _FIELDS:
        return None
    try:
        key = base64.b64decode(words[2], validate=True)
    except binascii.Error:
        return None
    kind = words[1]
    if key[4 : 4 + len(kind)] != kind.encode():  # a key begins with the length and the name of its own type
        return None
    return Entry(file, number, marker, words[0], kind, key)


def fingerprint(kind: str, key: bytes) -> str:
    """Return type and fingerprint as OpenSSH prints them: SHA256:… without padding."""
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    return f"{kind} SHA256:{digest}"


def encoded(key: bytes) -> str:
    """Return a key as it stands in a line."""
    return base64.b64encode(key).decode()


def _fits(pattern: str, name: str) -> bool:
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, name) is not None


def _hashed(names: str, name: str) -> bool:
    _, _, salt, digest = [*names.split("|"), "", ""][:4]
    try:
        wanted = hmac.new(base64.b64decode(salt), name.encode(), "sha1").digest()
        return hmac.compare_digest(base64.b64decode(digest), wanted)
    except binascii.Error:
        return False
