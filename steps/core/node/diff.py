"""What differs between what a node should have and what was seen there. Pure: no host is asked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from steps.core.base.digest import digest
from steps.core.base.errors import Refused
from steps.core.node.facts import LARGE, Entry, Look
from steps.core.node.resources import (
    Blob,
    Block,
    Command,
    Content,
    Directory,
    File,
    Promise,
    Resource,
    Service,
    Symlink,
    User,
)


@dataclass(frozen=True)
class Change:
    """A resource that is not as it should be. `what` is one line, `diff` the text's unified diff, if it may be shown.

    `content`: the bytes come too; False where only mode or owner differ.
    """

    resource: Resource
    what: str
    diff: str = ""
    content: bool = True


def changes(resources: Iterable[Resource], look: Look, *, owners: bool) -> list[Change]:
    """`owners` False: everything belongs to whoever runs this (members as plain processes): owners do not count."""
    found = []
    for resource in resources:
        change = _change(resource, look, owners=owners)
        if change is not None:
            found.append(change)
    return found


def text_of(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _change(resource: Resource, look: Look, *, owners: bool) -> Change | None:  # noqa: PLR0911  one line per kind
    if isinstance(resource, File):
        return _file(resource.known(look), look.entries.get(resource.path), owners)
    if isinstance(resource, User):
        return None if resource.name in look.users else Change(resource, f"user {resource.name} is created")
    if isinstance(resource, Service):
        wanted = ("enabled" if resource.enabled else "disabled", "active" if resource.running else "inactive")
        seen = look.states.get(resource.key, "").split()
        same = len(seen) == len(wanted) and all(a == b for a, b in zip(seen, wanted, strict=True))
        return None if same else Change(resource, f"service {resource.name}: {' and '.join(wanted)}")
    if isinstance(resource, Command):
        done = look.states.get(resource.key) == "done"
        return None if done else Change(resource, "runs " + " ".join(resource.argv))
    entry = look.entries.get(resource.path)
    if isinstance(resource, Block):
        return _block(resource, entry)
    if isinstance(resource, Symlink):
        if entry is not None and entry.kind == "link" and entry.target == resource.target:
            return None
        return Change(resource, f"{resource.path} -> {resource.target}")
    return _directory(resource, entry, owners)


def _attributes(resource: File | Directory, entry: Entry, owners: bool) -> str:  # noqa: FBT001  passed on from changes()
    wrong = []
    if entry.mode != resource.mode:
        wrong.append(f"mode {entry.mode:04o} -> {resource.mode:04o}")
    if owners and (entry.owner, entry.group) != (resource.owner, resource.group):
        wrong.append(f"owner {entry.owner}:{entry.group} -> {resource.owner}:{resource.group}")
    return ", ".join(wrong)


def _directory(resource: Directory, entry: Entry | None, owners: bool) -> Change | None:  # noqa: FBT001  see above
    if entry is None or entry.kind != "dir":
        return Change(resource, f"{resource.path}/ is created")
    wrong = _attributes(resource, entry, owners)
    return Change(resource, f"{resource.path}/ {wrong}") if wrong else None


def _file(resource: File, entry: Entry | None, owners: bool) -> Change | None:  # noqa: FBT001  see above
    content = decided(resource)
    if isinstance(content, Promise) and not content.digest:
        return Change(resource, f"{resource.path}: {content.text}")
    wanted = content.digest if isinstance(content, Blob | Promise) else digest(text_of(content))
    if entry is not None and entry.kind == "file" and entry.digest == wanted:
        wrong = _attributes(resource, entry, owners)
        return Change(resource, f"{resource.path} {wrong}", content=False) if wrong else None
    verb = "is created" if entry is None else "is replaced"
    if isinstance(content, Blob | Promise):
        seen = f"b2sum {entry.digest[:12]} -> " if entry is not None else "b2sum "
        what = content.description if isinstance(content, Blob) else content.text
        return Change(resource, f"{resource.path} {verb}: {what} ({seen}{wanted[:12]})")
    if resource.secret:
        return Change(resource, f"{resource.path} {verb} (secret, not shown)")
    before = entry.content if entry is not None and entry.content is not None else ""
    return Change(
        resource, f"{resource.path} {verb}", unified(resource.path, before, text_of(content).decode(errors="replace"))
    )


def decided(resource: File) -> Content:
    """The content, which must be known by now. Raises TypeError."""
    if callable(resource.content):
        raise TypeError(f"{resource.path}: its content was not decided for a node")
    return resource.content


def _block(resource: Block, entry: Entry | None) -> Change | None:
    before = entry.content if entry is not None else ""
    if before is None:
        raise Refused(f"{resource.path} cannot be read, or is larger than {LARGE >> 10} KB: no block is put into it")
    after = with_block(before, resource)
    if before == after:
        return None
    return Change(resource, f"{resource.path}: block {resource.marker!r}", unified(resource.path, before, after))


def with_block(text: str, block: Block) -> str:
    """`text` with the block between its two marker lines: replaced where it stands, else appended; removed if empty."""
    begin, end = f"# BEGIN {block.marker}\n", f"# END {block.marker}\n"
    new = f"{begin}{block.content}{end}" if block.content else ""
    head, found, rest = text.partition(begin)
    if found:
        _, closed, tail = rest.partition(end)
        # A block that lost its end marker keeps what follows it: better a stale line than somebody's lost one.
        return head + new + (tail if closed else rest)
    if not new:
        return text
    return text + ("" if text.endswith("\n") or not text else "\n") + new


def unified(path: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"{path} (now)", f"{path} (then)", n=2
    )
    told = "".join(line if line.endswith("\n") else line + "\n" for line in lines)
    return told.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # a terminal takes no other


def seen_after(look: Look, applied: Iterable[Change], *, now: int) -> Look:
    """The look as it is once these changes were made: what was written is known without asking again."""
    entries, users, states = dict(look.entries), set(look.users), dict(look.states)
    for change in applied:
        resource = change.resource
        if isinstance(resource, User):
            users.add(resource.name)
        elif isinstance(resource, Service):
            enabled = "enabled" if resource.enabled else "disabled"
            states[resource.key] = f"{enabled} {'active' if resource.running else 'inactive'}"
        elif isinstance(resource, Command):
            states[resource.key] = "done"
        else:
            entries[resource.path] = _written(resource, entries.get(resource.path), now)
    return replace(look, entries=entries, users=frozenset(users), states=states)


def _written(resource: File | Directory | Symlink | Block, before: Entry | None, now: int) -> Entry:
    if isinstance(resource, Symlink):
        return Entry("link", target=resource.target, mtime=now)
    if isinstance(resource, Block):
        return Entry("file", content=with_block((before.content or "") if before else "", resource), mtime=now)
    entry = Entry(
        "dir" if isinstance(resource, Directory) else "file", resource.mode, resource.owner, resource.group, mtime=now
    )
    if isinstance(resource, Directory):
        return entry
    content = decided(resource)
    if isinstance(content, Blob | Promise):
        return replace(entry, digest=content.digest)
    raw = text_of(content)
    shown = None if resource.secret else raw.decode(errors="replace")
    return replace(entry, digest=digest(raw), content=shown)
