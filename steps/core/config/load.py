"""etcd.toml → Cluster: read, checked as a whole, every problem reported at once, every default decided."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from steps.core.base.errors import ConfigError
from steps.core.base.hints import invoke
from steps.core.base.problem import Problem
from steps.core.base.user import whoami
from steps.core.config import cross_checks
from steps.core.config.findings import Finding, KeyPath
from steps.core.config.messages import dotted, show, translate, unknown
from steps.core.config.model import Cluster, Node, NodePaths
from steps.core.config.schema import (
    FLAGS,
    PROCESS,
    SECTIONS,
    Cfssl,
    Exec,
    NodeTable,
    Paths,
    Section,
    control,
)
from steps.core.config.toml_positions import key_lines

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LIMIT = 1 << 20
# Stands in for a required key that is missing or wrong, so that the rest of its table can still be read.
FILL = {"name": "unknown", "ip": "192.0.2.1", "version": "3.5.16"}
S = TypeVar("S", bound=BaseModel)


def load(file: Path, *, options: Mapping[str, type[BaseModel]] | None = None) -> Cluster:
    """Reads `file`; `options` are the plugins' own models by plugin name. Raises ConfigError with every problem."""
    try:
        with file.open("rb") as stream:
            data = stream.read(LIMIT + 1)
    except FileNotFoundError:
        raise ConfigError(str(file), [Problem("config.no-file", "there is no such file", hint=_init(file))]) from None
    except (OSError, ValueError) as error:
        raise ConfigError(str(file), [Problem("config.unreadable", f"cannot be read: {error}")]) from error
    return parse(data, file, options=options)


def disabled(file: Path) -> tuple[str, ...]:
    """[plugins] disable, read before the plugins are; whatever is wrong with the file, `load` tells."""
    try:
        plugins = tomllib.loads(file.read_text(encoding="utf-8")).get("plugins", {})
        return tuple(name for name in plugins.get("disable", ()) if isinstance(name, str))
    except (OSError, ValueError, AttributeError, TypeError):
        return ()


def parse(data: bytes, file: Path, *, options: Mapping[str, type[BaseModel]] | None = None) -> Cluster:
    """As `load`, of bytes that stand in `file`, whose directory relative paths start from."""
    text = _text(data, file)
    raw = _toml(text, file)
    reader = _Reader(raw, file.absolute().parent, options or {})
    reader.read()
    problems = [finding for finding in dict.fromkeys(reader.findings) if not finding.warning]
    if problems:
        lines = key_lines(text)
        located = [_problem(f, _line(lines, f.path)) for f in problems]
        raise ConfigError(str(file), sorted(located, key=lambda problem: problem.line))
    return reader.cluster(file)


def _problem(finding: Finding, line: int) -> Problem:
    return Problem(finding.code, finding.message, hint=finding.hint, key=dotted(finding.path), line=line)


def _text(data: bytes, file: Path) -> str:
    def wrong(message: str, line: int = 0) -> ConfigError:
        return ConfigError(str(file), [Problem("config.not-text", message, line=line)])

    if len(data) > LIMIT:
        raise wrong("found more than 1 MiB, allowed 1 MiB")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or data[:2].count(0) == 1:
        raise wrong("found UTF-16, allowed UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        raise wrong("found a byte order mark, allowed UTF-8 without one", 1)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise wrong("found a byte that is no UTF-8", data.count(b"\n", 0, error.start) + 1) from None


def _toml(text: str, file: Path) -> dict[str, Any]:
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(str(file), [Problem("config.not-toml", "lists or tables nested too deep")]) from None
    except ValueError as error:  # TOMLDecodeError, and int() of a number too long
        where = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", str(error))
        line, column = (int(where[1]), f", column {where[2]}") if where and where[1] else (0, "")
        cause = str(error)[: where.start()] if where else str(error)
        if re.match(r"Cannot (overwrite|declare|mutate|redefine)", cause):
            cause = f"the same key or table twice: {cause}"
        if where and not where[1]:
            line = text.rstrip().count("\n") + 1
        raise ConfigError(str(file), [Problem("config.not-toml", f"not TOML{column}: {cause}", line=line)]) from None
    if not raw:
        message = "the file is empty: it needs [cluster] name, [etcd] version and [[nodes]]"
        raise ConfigError(str(file), [Problem("config.empty", message, hint=_init(file.with_name("hosts.toml")))])
    return raw


def _init(file: Path) -> str:
    return f"{invoke(f'init --nodes etcd-1=10.0.0.1 --out {quote(str(file))}')} writes one"


class _Reader:
    """One reading of one file: what was understood of it, and what was wrong with it."""

    def __init__(self, raw: Mapping[str, Any], base: Path, options: Mapping[str, type[BaseModel]]) -> None:
        self.raw, self.base, self.options = raw, base, options
        self.findings: list[Finding] = []
        self.parts: dict[str, Any] = {}
        self.nodes: dict[int, NodeTable] = {}
        self.plugins: dict[str, BaseModel] = {}
        self.disabled: tuple[str, ...] = ()

    def read(self) -> None:
        known = [*SECTIONS, "nodes", "plugins"]
        self.findings += [unknown((key,), key, known) for key in self.raw if key not in known]
        for name, model in SECTIONS.items():
            self.parts[name] = self._absolute(self._section(model, self.raw.get(name, {}), (name,)))
        if control(str(self.base)):
            self.findings.append(
                Finding(
                    "config.directory-name",
                    (),
                    f"found control characters in the directory's name: {show(str(self.base))}",
                )
            )
        self._read_nodes()
        self._read_plugins()
        self._follow_service()
        tables = {**self.parts, "nodes": self.nodes, "count": self._count(), "broken": bool(self.findings)}
        self.findings += cross_checks.check(tables)

    def _count(self) -> int:
        nodes = self.raw.get("nodes")
        return len(nodes) if isinstance(nodes, list) else 0

    def _section(self, model: type[S], table: object, path: KeyPath) -> S:
        """The table as a model, without the fields that are wrong: reading one raises AttributeError."""
        found, problems = _validate(model, table, path)
        self.findings += problems
        if found is not None:
            return found
        bad = {_keys(problem.path[len(path) :], table) for problem in problems}
        rest = _without(table, bad) if isinstance(table, dict) else {}
        required = {name for name, field in model.model_fields.items() if field.is_required() and name not in rest}
        part = model.model_validate({**rest, **{name: FILL[name] for name in required}})
        for name in required | {str(keys[0]) for keys in bad if len(keys) == 1}:
            part.__dict__.pop(name, None)
        if not isinstance(table, dict):
            part.__dict__.clear()
        return part

    def _absolute(self, section: Section) -> Section:
        """Relative paths in the file are relative to the file."""
        paths = {name: self._here(value) for name, value in section.__dict__.items() if isinstance(value, Path)}
        return section.model_copy(update=paths) if paths else section

    def _here(self, path: str | Path) -> Path:
        return Path(os.path.normpath(self.base / os.path.expanduser(path)))  # noqa: PTH111 - Path's raises on ~nobody

    def _program(self, word: str) -> str:
        return str(self._here(word)) if "/" in word else word

    def _read_nodes(self) -> None:
        raw = self.raw.get("nodes")
        if not isinstance(raw, list) or not raw:
            found = "missing" if raw is None else f"found {show(raw)}"
            self.findings.append(
                Finding("config.nodes", ("nodes",), f"{found}, allowed one [[nodes]] table for each member")
            )
            return
        self.nodes = {index: self._section(NodeTable, table, ("nodes", index)) for index, table in enumerate(raw)}

    def _read_plugins(self) -> None:
        raw = self.raw.get("plugins", {})
        if not isinstance(raw, dict):
            self.findings.append(Finding("config.value", ("plugins",), f"found {show(raw)}, allowed a table"))
            return
        names = raw.get("disable", [])
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            self.disabled = tuple(names)
        else:
            self.findings.append(
                Finding(
                    "config.value", ("plugins", "disable"), f"found {show(names)}, allowed a list of plugins' names"
                )
            )
        for name, model in self.options.items():
            if name in raw or name not in self.disabled:
                found, problems = _validate(model, raw.get(name, {}), ("plugins", name), as_json=True)
                self.findings += problems
                if found is not None:
                    self.plugins[name] = found
        known = [*self.options, "disable"]
        for name in (name for name in raw if name not in known):
            path = ("plugins", name)
            self.findings.append(
                unknown(path, name, known)._replace(
                    code="config.no-such-plugin", message="no plugin of that name takes options"
                )
            )

    def _follow_service(self) -> None:
        """Puts in what differs under service "process"; hosts that are not understood are None to the cross_checks."""
        hosts = self.parts["hosts"]
        if not {"transport", "service"} <= hosts.__dict__.keys():
            self.parts.update(hosts=None, paths=None)
            return
        if hosts.transport == "local" and "service" not in hosts.model_fields_set:
            hosts = hosts.model_copy(update={"service": "process"})
        if hosts.service == "process":
            user = {"run_as": whoami()}
            hosts = _unset(hosts, {**PROCESS["hosts"], **user}).model_copy(update={"hardening": False})
            self.parts["release"] = _unset(self.parts["release"], PROCESS["release"])
            self.parts["paths"] = self._process_paths(self.parts["paths"])
        self.parts["hosts"] = hosts

    def _process_paths(self, paths: Paths) -> Paths:
        directory = f"{self._work()}/nodes/{{node}}"
        explicit = {name: str(self._here(getattr(paths, name))) for name in paths.model_fields_set - {"work"}}
        return _unset(
            paths, {"unit": directory, **{name: f"{directory}/{name}" for name in ("bin", "cert", "data", "wal")}}
        ).model_copy(update=explicit)

    def _work(self) -> Path:
        work = getattr(self.parts["paths"], "work", self.base)
        return Path(work, getattr(self.parts["cluster"], "name", FILL["name"]))

    def cluster(self, file: Path) -> Cluster:
        parts = self.parts
        named, etcd, tls = parts["cluster"], parts["etcd"], parts["tls"]
        process = parts["hosts"].service == "process"
        if tls.layout == "shared" and tls.cn is None:
            tls = tls.model_copy(update={"cn": "etcd"})
        cfssl: Cfssl = tls.cfssl.model_copy(update={"binary": self._program(tls.cfssl.binary)})
        program: Exec = tls.exec.model_copy(
            update={"argv": (*map(self._program, tls.exec.argv[:1]), *tls.exec.argv[1:])}
        )
        return Cluster(
            name=named.name,
            token=named.token,
            version=etcd.version,
            allow_two_members=named.allow_two_members,
            metrics_port=etcd.metrics_port,
            flags={**FLAGS, **(PROCESS["flags"] if process else {}), **etcd.flags},
            nodes=tuple(_node(node, parts["paths"]) for node in self.nodes.values()),
            release=parts["release"],
            hosts=parts["hosts"],
            ssh=parts["ssh"],
            tls=tls.model_copy(update={"cfssl": cfssl, "exec": program}),
            file=file,
            work=self._work(),
            disabled=self.disabled,
            options=self.plugins,
            warnings=tuple(f"{dotted(f.path)}: {f.message}" for f in dict.fromkeys(self.findings) if f.warning),
        )


def _node(table: NodeTable, paths: Paths) -> Node:
    fields = NodePaths.__dataclass_fields__
    own = {name: getattr(paths, name).replace("{node}", table.name) for name in fields}
    return Node(
        name=table.name,
        ip=table.ip,
        client_port=table.client_port,
        peer_port=table.peer_port,
        sans=table.sans,
        paths=NodePaths(**own),
        flags=table.flags,
        ssh=table.ssh,
    )


def _unset(section: S, defaults: Mapping[str, Any]) -> S:
    given = section.model_fields_set
    present = section.__dict__.keys()
    return section.model_copy(update={k: v for k, v in defaults.items() if k not in given and k in present})


def _validate(model: type[S], table: object, path: KeyPath, *, as_json: bool = False) -> tuple[S | None, list[Finding]]:
    """`as_json`: a plugin's model, read strictly but as JSON is, so that lists become tuples and texts paths."""
    try:
        if not as_json:
            return model.model_validate(table), []
        stray = (
            [] if model.model_config.get("extra") == "allow" or not isinstance(table, dict) else _stray(model, table)
        )
        found = model.model_validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        return None, list(dict.fromkeys(translate(model, problem, path) for problem in problems))
    strangers = [unknown((*path, key), key, list(model.model_fields)) for key in stray]
    return (None if strangers else found), strangers


def _stray(model: type[BaseModel], table: Mapping[str, Any]) -> list[str]:
    aliases = {field.alias for field in model.model_fields.values()}
    return [key for key in table if key not in model.model_fields and key not in aliases]


def _keys(loc: KeyPath, table: object) -> KeyPath:
    """The part of `loc` that leads through tables alone."""
    keys: list[str | int] = []
    for part in loc:
        if not isinstance(table, dict) or part not in table:
            break
        keys.append(part)
        table = table[part]
    return tuple(keys)


def _without(table: Mapping[str, Any], bad: set[KeyPath], path: KeyPath = ()) -> dict[str, Any]:
    return {
        key: _without(value, bad, (*path, key)) if isinstance(value, dict) else value
        for key, value in table.items()
        if (*path, key) not in bad
    }


def located(file: Path, problems: Iterable[Problem]) -> list[Problem]:
    """The same problems, with the lines of their keys in that file."""
    lines = {dotted(path): line for path, line in key_lines(file.read_text(encoding="utf-8")).items()}
    return [replace(each, line=lines.get(each.key) or lines.get(each.key.partition("[")[0], 0)) for each in problems]


def _line(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The key's line, else that of the table that should hold it."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), 0)
