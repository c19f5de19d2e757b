"""One script per node and step that makes what differs so: staged beside its destination, then renamed over it.

A run that is killed at any point leaves the old file or the new one; what it staged, the next run removes.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from steps.core.node.compare import Change, decided, text_of, with_block
from steps.core.node.look import Look
from steps.core.node.look_script import quoted
from steps.core.resources import Blob, Block, Command, Directory, File, Promise, Resource, Service, Symlink, User

STAGED = ".etcd-steps."
CHECK_FAILED = 3  # the exit code where a File's `check` says no
_CHUNK = 1 << 18
_FUNCTIONS = f"""
set -eu
N=; trap '[ -z "$N" ] || rm -f -- "$N"' EXIT; trap 'exit 129' HUP; trap 'exit 143' TERM
say() {{ printf '%s\\n' "$*"; }}
temp() {{ N=$(mktemp "${{1%/*}}/{STAGED}XXXXXX"); }}
sized() {{ [ "$(stat -c %s -- "$N")" = "$1" ] || {{ echo "the upload of $2 was cut off" >&2; exit 1; }}; }}
take() {{ # path bytes-on-stdin size gz|raw
  (umask 022; mkdir -p -- "${{1%/*}}"); temp "$1"
  if [ "$4" = gz ]; then head -c "$2" | gzip -dc >"$N"; else head -c "$2" >"$N"; fi
  sized "$3" "$1"
}}
place() {{ sync -- "$N"; mv -fT -- "$N" "$1"; N=; }}
folder() {{ # path mode
  (umask 022; mkdir -p -- "${{1%/*}}"); [ -d "$1" ] || mkdir -m "$2" -- "$1"; chmod "$2" -- "$1"
}}
"""


@dataclass(frozen=True)
class Upload:
    """The script, and what follows it on stdin. `size` is that payload's length in bytes."""

    script: str
    payload: Sequence[bytes | Blob]
    size: int

    def chunks(self) -> Iterator[bytes]:
        for part in self.payload:
            if isinstance(part, bytes):
                yield part
                continue
            with part.gzip.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk


def apply_script(changes: Sequence[Change], look: Look, *, owners: bool) -> Upload:
    """Prints `ok N` after the N-th change. `owners` False: nothing is chowned."""
    lines, payload = [_FUNCTIONS], list[bytes | Blob]()
    folders = {_parent(change.resource) for change in changes} - {""}
    lines.append(
        f"rm -f -- {' '.join(sorted(shlex.quote(d) + '/' + STAGED + '*' for d in folders))}" if folders else ""
    )
    after: dict[str, None] = {}
    for index, change in enumerate(changes):
        lines += _lines(change, look, payload, owners=owners)
        lines.append(f"say ok {index}")
        if isinstance(change.resource, File):
            after.update(dict.fromkeys(change.resource.on_change))
    lines.append(f"sync -- {quoted(sorted(folders))} 2>/dev/null || true" if folders else "")
    lines += after
    size = sum(len(part) if isinstance(part, bytes) else part.gzip.stat().st_size for part in payload)
    return Upload("\n".join(lines) + "\n", payload, size)


def _parent(resource: Resource) -> str:
    return resource.path.rpartition("/")[0] if isinstance(resource, File | Symlink | Block) else ""


def _lines(change: Change, look: Look, payload: list[bytes | Blob], *, owners: bool) -> Iterable[str]:
    resource = change.resource
    if isinstance(resource, User):
        name = shlex.quote(resource.name)
        options = "--system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin"
        return [f"id -u {name} >/dev/null 2>&1 || useradd {options} {name} </dev/null"]
    if isinstance(resource, Service):
        name = shlex.quote(resource.name)
        verbs = ("enable" if resource.enabled else "disable", "start" if resource.running else "stop")
        return [f"systemctl --quiet {verb} {name} </dev/null" for verb in verbs]
    if isinstance(resource, Command):
        environment = [f"{name}={value}" for name, value in (resource.environment or {}).items()]
        return [f"{quoted(['env', *environment, *resource.argv])} </dev/null"]
    path = shlex.quote(resource.path)
    if isinstance(resource, Symlink):
        return [
            f'(umask 022; mkdir -p -- {shlex.quote(_parent(resource))}); temp {path}; rm -f -- "$N"',
            f'ln -s -- {shlex.quote(resource.target)} "$N"; mv -fT -- "$N" {path}; N=',
        ]
    if isinstance(resource, Directory):
        owner = [f"chown -- {shlex.quote(f'{resource.owner}:{resource.group}')} {path}"] if owners else []
        return [f"folder {path} {resource.mode:04o}", *owner]
    return (
        _block(resource, look, payload)
        if isinstance(resource, Block)
        else _file(change, resource, payload, owners=owners)
    )


def _file(change: Change, resource: File, payload: list[bytes | Blob], *, owners: bool) -> Iterable[str]:
    path = shlex.quote(resource.path)
    attributes = [f"chmod {resource.mode:04o} -- "]
    if owners:
        attributes.insert(0, f"chown -- {shlex.quote(f'{resource.owner}:{resource.group}')} ")
    if not change.content:
        return [line + path for line in attributes]
    content = decided(resource)
    if isinstance(content, Promise):
        raise TypeError(f"{resource.path}: its content was promised ({content.text}) and never made")
    if isinstance(content, Blob):
        payload.append(content)
        take = f"take {path} {content.gzip.stat().st_size} {content.path.stat().st_size} gz"
    else:
        raw = text_of(content)
        payload.append(raw)
        take = f"take {path} {len(raw)} {len(raw)} raw"
    check = []
    if resource.check:
        words = " ".join('"$N"' if word == "{}" else shlex.quote(word) for word in resource.check)
        check = [f"{words} </dev/null >&2 || {{ echo {path} was not replaced >&2; exit {CHECK_FAILED}; }}"]
    return [take, *(line + '"$N"' for line in attributes), *check, f"place {path}"]


def _block(resource: Block, look: Look, payload: list[bytes | Blob]) -> Iterable[str]:
    entry = look.entries.get(resource.path)
    raw = with_block((entry.content or "") if entry else "", resource).encode("utf-8", "surrogateescape")
    payload.append(raw)
    path = shlex.quote(resource.path)
    keep = f'[ ! -e {path} ] || {{ chown --reference={path} -- "$N"; chmod --reference={path} -- "$N"; }}'
    return [f"take {path} {len(raw)} {len(raw)} raw", 'chmod 0644 -- "$N"', keep, f"place {path}"]
