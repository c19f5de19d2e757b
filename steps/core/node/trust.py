"""Who else may change what root runs, reads or writes on a node: asked of a look. guard.py asks the node the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from steps.core.node.facts import Entry, Look

_OTHERS, _GROUP = 0o002, 0o020  # bits of a mode: who else may write


def changeable(look: Look, path: str) -> Iterator[tuple[str, str]]:
    """Yield what at `path` and above it another user than root may change, with its owner and mode, from / on."""
    for place in _way(path):
        entry = look.entries.get(place)
        if entry is not None and not sole(entry):
            yield place, f"{entry.owner}:{entry.group}, mode {entry.mode:04o}"


def planted(look: Look, path: str) -> Iterator[str]:
    """Yield each link on the way to `path` that another user than root may have put there, and where it is."""
    above = ""
    for place in _way(path):
        entry = look.entries.get(place)
        if entry is None:
            return
        linked = entry.owner if entry.kind == "link" else entry.through
        if linked and (above or linked != "root"):
            yield f"{place} is a link of {linked}'s" + (f" in {above}" if above else "")
        above = above or ("" if sole(entry) else f"{place}, which belongs to {entry.owner} (mode {entry.mode:04o})")


def sole(entry: Entry) -> bool:
    """Return whether only root may change it. What a link leads to is not asked here."""
    others = 0 if entry.kind == "link" else entry.mode & (_OTHERS | (0 if entry.group == "root" else _GROUP))
    return entry.owner == "root" and not others


def _way(path: str) -> Iterator[str]:
    """Yield the directories above `path`, from / on, and `path`."""
    pure = PurePosixPath(path)
    yield from (str(place) for place in (*reversed(pure.parents), pure))
