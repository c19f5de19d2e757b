"""The controller's own files: private, written whole, and on the disk before anybody relies on them."""

from __future__ import annotations

import os
from pathlib import Path


def private_directory(path: Path) -> None:
    """Make the directory, 0700 whatever the umask and whoever made it; directories above it that are missing, too."""
    missing = [parent for parent in path.parents if not parent.exists()]
    for directory in (*reversed(missing), path):
        directory.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)


def create(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """A file that was not there before, in its mode from the first byte on, on the disk. Raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def replace(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """The file with new content, by one rename: a reader sees the old one or the new one."""
    staged = path.with_name(f".{path.name}.new")
    staged.unlink(missing_ok=True)
    create(staged, content, mode=mode)
    staged.rename(path)
    sync(path.parent)


def sync(directory: Path) -> None:
    """Makes the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def text(file: Path) -> str:
    """Return what is in a file; "" where there is none."""
    return file.read_text() if file.exists() else ""
