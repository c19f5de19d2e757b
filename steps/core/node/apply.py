"""One script per node and step that makes what differs so: staged beside its destination, then renamed over it.

A run that is killed at any point leaves the old file or the new one; what it staged, the next run removes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.core.base.shell import quoted, text
from steps.core.node.diff import Change, decided, text_of, with_block
from steps.core.node.facts import Look
from steps.core.node.guard import ENTER, PLAIN
from steps.core.node.paths import HOSTS
from steps.core.node.resources import (
    Blob,
    Block,
    Command,
    Directory,
    File,
    Promise,
    Resource,
    Service,
    Stream,
    Symlink,
    User,
)

STAGED = ".etcd-steps."
CHECK_FAILED = 3  # the exit code where a File's `check` says no
_CHUNK = 1 << 18
_FUNCTIONS = text(__file__, "apply.sh")
_AS_OURSELVES = text(__file__, "apply_as_ourselves.sh")
_AS_ROOT = ENTER + text(__file__, "apply_as_root.sh")


@dataclass(frozen=True)
class Upload:
    """The script, and the packed files that follow it on stdin. `size` is their length in bytes."""

    script: str
    payload: Sequence[Path]
    size: int

    def chunks(self) -> Iterator[bytes]:
        for file in self.payload:
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk


def apply_script(changes: Sequence[Change], look: Look, *, owners: bool) -> Upload:
    """Prints `ok N` after the N-th change. `owners` False: nothing is chowned.

    Where a file's `on_change` fails or is not reached, the file is as it was (`undone N`): the next run tries again.
    """
    lines = [_FUNCTIONS, PLAIN, _AS_ROOT if owners else _AS_OURSELVES]
    kept = {
        index: (change.resource.path, f"{_parent(change.resource)}/{STAGED}old.{index}")
        for index, change in enumerate(changes)
        if change.content and isinstance(change.resource, File) and change.resource.on_change
    }
    undone = " ".join(f"{index}) back {index} {quoted(paths)};;" for index, paths in kept.items())
    lines.append(f"undo() {{ for i in $KEPT; do case $i in {undone} esac; done; }}")
    folders = {_parent(change.resource) for change in changes} - {""}
    staged = " ".join(sorted(f"{shlex.quote(folder)}/{STAGED}*" for folder in folders))
    lines += [f"tidy() {{ {f'rm -f -- {staged}' if staged else ':'}; }}", "tidy"]
    blobs, program = _blobs(changes), "zstd" if look.facts.has_zstd else "gzip"
    streams = dict.fromkeys(blob.stream for blob in blobs.values())
    lines += [_unpack(stream, program, blobs) for stream in streams]
    after: dict[str, None] = {}
    for index, change in enumerate(changes):
        made = [*_lines(change, look, owners=owners)]
        if index in kept:
            made.insert(-1, f"keep {index} {quoted(kept[index])}")
        lines += [*made, f"say ok {index}"]
        if isinstance(change.resource, File):
            after.update(dict.fromkeys(change.resource.on_change))
    lines.append(f"sync -- {quoted(sorted(folders))} 2>/dev/null || true" if folders else "")
    lines += after
    lines.append("KEPT=" if kept else "trap - EXIT")
    files = [stream.packed(program) for stream in streams]
    return Upload("\n".join(lines) + "\n", files, sum(file.stat().st_size for file in files))


def _blobs(changes: Sequence[Change]) -> dict[str, Blob]:
    """What travels in a stream, by its path on the node."""
    files = [change.resource for change in changes if change.content and isinstance(change.resource, File)]
    return {file.path: content for file in files if isinstance(content := decided(file), Blob)}


def _unpack(stream: Stream, program: str, blobs: Mapping[str, Blob]) -> str:
    """Stages those of the stream's files that change; the rest runs through. What is wrong shows at its end."""
    paths = {
        blob.path.name: f"{shlex.quote(path)} {_suffix(blob)}" for path, blob in blobs.items() if blob.stream == stream
    }
    parts = [
        f'temp {paths[name]}; part {size} >"$NEW"' if name in paths else f"part {size}" for name, size in stream.sizes
    ]
    unpack = f"head -c {stream.packed(program).stat().st_size} | {{ {program} -dc || echo broken >&4; }}"
    return "\n".join(
        [
            *(f"stage {path}" for path in paths.values()),
            f"b=$( ({unpack} | {{ {'; '.join(parts)}; cat; }} >/dev/null) 4>&1 )",
            f'[ -z "$b" ] || {{ echo "the upload was cut off or damaged: {program} cannot unpack it" >&2; exit 1; }}',
        ]
    )


def _suffix(blob: Blob) -> str:
    return shlex.quote(f".{blob.path.name}")


def _parent(resource: Resource) -> str:
    return (resource.path.rpartition("/")[0] or "/") if isinstance(resource, File | Symlink | Block) else ""


def _lines(change: Change, look: Look, *, owners: bool) -> Iterable[str]:
    resource = change.resource
    if isinstance(resource, User):
        name = shlex.quote(resource.name)
        return [f"add_user {name}"]
    if isinstance(resource, Service):
        name = shlex.quote(resource.name)
        verbs = ("enable" if resource.enabled else "disable", "start" if resource.running else "stop")
        return [f"unit {name} {quoted(verbs)}"]
    if isinstance(resource, Command):
        environment = [f"{name}={value}" for name, value in (resource.environment or {}).items()]
        return [f"{quoted(['env', *environment, *resource.argv])} </dev/null"]
    path = shlex.quote(resource.path)
    if isinstance(resource, Symlink):
        return [f"symlink {path} {shlex.quote(resource.target)}"]
    if isinstance(resource, Directory):
        return [f"folder {path} {resource.mode:04o} {shlex.quote(f'{resource.owner}:{resource.group}')}"]
    return _block(resource, look) if isinstance(resource, Block) else _file(change, resource, owners=owners)


def _file(change: Change, resource: File, *, owners: bool) -> Iterable[str]:
    path = shlex.quote(resource.path)
    attributes = [f"chmod {resource.mode:04o} -- "]
    if owners:
        attributes.insert(0, f"chown -- {shlex.quote(f'{resource.owner}:{resource.group}')} ")
    if not change.content:
        return [f"parent {path}", *(line + path for line in attributes)]
    content = decided(resource)
    if isinstance(content, Promise):
        raise TypeError(f"{resource.path}: its content was promised ({content.text}) and never made")
    if isinstance(content, Blob):
        stage = f"temp {path} {_suffix(content)}"
    else:
        stage = f"text {path} {_literal(text_of(content))}"
    check = []
    if resource.check:
        words = " ".join('"$NEW"' if word == "{}" else shlex.quote(word) for word in resource.check)
        check = [f"{words} </dev/null >&2 || {{ echo {path} was not replaced >&2; exit {CHECK_FAILED}; }}"]
    return [stage, *(line + '"$NEW"' for line in attributes), *check, f"place {path}"]


def _block(resource: Block, look: Look) -> Iterable[str]:
    entry = look.entries.get(resource.path)
    raw = with_block((entry.content or "") if entry else "", resource).encode("utf-8", "surrogateescape")
    path = shlex.quote(resource.path)
    if look.facts.hosts_is_mount and resource.path == HOSTS:  # nothing can be renamed over a mount point
        return [f"text {path} {_literal(raw)}", f"overwrite {path}"]
    return [f"text {path} {_literal(raw)}", 'chmod 0644 -- "$NEW"', f"like {path}", f"place {path}"]


def _literal(raw: bytes) -> str:
    """The word from which the shell's own printf %b makes these bytes: no program is started for a small file."""
    plain = raw.decode("latin-1").replace("\\", "\\\\")
    return shlex.quote(re.sub(r"[\x00\x80-\xff]", lambda byte: f"\\0{ord(byte[0]):03o}", plain))
