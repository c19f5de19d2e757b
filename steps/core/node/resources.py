"""What a node should have, as data. A step yields these; the engine looks, compares and applies them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steps.core.node.facts import Look


SUFFIXES = {"zstd": ".zst", "gzip": ".gz"}  # by the program that unpacks it


@dataclass(frozen=True)
class Stream:
    """Large files of the controller, one behind another and packed as one: what they have in common travels once.

    `path` lacks the suffix of the program that unpacks it; `sizes`: each file's name and bytes, in their order.
    """

    path: Path
    sizes: tuple[tuple[str, int], ...]

    def packed(self, program: str) -> Path:
        """The file that `program` unpacks: a key of SUFFIXES."""
        return self.path.with_name(self.path.name + SUFFIXES[program])


@dataclass(frozen=True)
class Blob:
    """A large file on the controller, with its `digest` (steps.core.base.digest), and the stream in which it travels.

    A node has it at one path.
    """

    path: Path
    digest: str
    stream: Stream
    description: str = ""


@dataclass(frozen=True)
class Promise:
    """Content that only a real run makes or fetches; `text` says what it will be, `digest` is its own, where known."""

    text: str
    digest: str = ""


Content = bytes | str | Blob | Promise


@dataclass(frozen=True)
class File:
    """A regular file at `path`. `secret` content is never shown in a diff.

    `content` may be a function of what the node turned out to be (its architecture, its systemd).

    `on_change`: shell commands, run once per node after the step's files, when this file changed.
    `check`: a command run on the node before the file is replaced; `{}` is the staged file; non-zero keeps the old.
    `plain` before a program's name runs it as nobody (steps.core.node.guard).
    """

    path: str
    content: Content | Callable[[Look], Content]
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    secret: bool = False
    on_change: tuple[str, ...] = ()
    check: tuple[str, ...] = ()

    def known(self, look: Look) -> File:
        """The same file with its content decided for this node."""
        return replace(self, content=self.content(look)) if callable(self.content) else self


@dataclass(frozen=True)
class Directory:
    path: str
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True)
class Symlink:
    """A symbolic link, swapped by one rename."""

    path: str
    target: str


@dataclass(frozen=True)
class User:
    """A system user of that name with a group of its own, without a login."""

    name: str


@dataclass(frozen=True)
class Block:
    """Lines kept between two markers in a file that belongs to others (`/etc/hosts`); the rest is left as it is."""

    path: str
    marker: str
    content: str


@dataclass(frozen=True)
class Service:
    """A systemd unit, enabled or not, running or not."""

    name: str
    enabled: bool = True
    running: bool = True

    @property
    def key(self) -> str:
        """Under which a node's state of it is kept."""
        return f"service:{self.name}"


@dataclass(frozen=True)
class Command:
    """Runs `argv` on the node unless the shell command `unless` succeeds there."""

    argv: tuple[str, ...]
    unless: str
    environment: Mapping[str, str] | None = None

    @property
    def key(self) -> str:
        """Under which a node's state of it is kept."""
        return f"command:{self.argv!r} unless {self.unless!r}"


Resource = File | Directory | Symlink | User | Block | Service | Command
PATHLESS = (User, Service, Command)  # about no path of the node
