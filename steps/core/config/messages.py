"""What is wrong in etcd.toml, in plain words: pydantic's errors as "found 70000, allowed 1 to 65535"."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from steps.core.base.urls import masked_url
from steps.core.config.findings import Finding, KeyPath

SECRETS = {"password", "passphrase", "passwd", "sudo_password", "secret", "token_secret", "key_password"}
# pydantic's errors in our words, where a field does not say itself what it allows (a plugin's own options).
WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a table",
    "model": "a table",
}
BOUNDS = {"ge": "{} or more", "gt": "more than {}", "le": "{} or less", "lt": "less than {}", "expected": "{}"}
BOUNDS |= {"min_length": "a length of {} or more", "max_length": "a length of {} or less", "pattern": "text like {}"}


def translate(model: type[BaseModel], error: Any, prefix: KeyPath) -> Finding:
    loc = tuple(part for part in error["loc"] if part != "[key]")
    path = (*prefix, *loc)
    owner, field = _field(model, loc)
    kind = error["type"]
    if kind == "extra_forbidden":
        return unknown(path, str(loc[-1]), list(owner.model_fields))
    allows = allowed(field) if field else "a table"
    if kind == "missing":
        return Finding("config.missing", path, f"missing, allowed {allows or 'a value'}")
    found = show(loc[-1] if "[key]" in error["loc"] else error["input"])
    context = error.get("ctx", {})
    if not allows:
        bound = next((words.format(context[name]) for name, words in BOUNDS.items() if name in context), "")
        allows = bound or WORDS.get(kind.split("_")[0], "")
    detail = str(context["error"]) if kind == "value_error" else ""
    return Finding(
        "config.value", path, f"found {found}, allowed {allows}" if allows else f"found {found}: {error['msg']}", detail
    )


def unknown(path: KeyPath, key: str, known: Sequence[str]) -> Finding:
    if key.lower() in SECRETS:
        return Finding(
            "config.secret",
            path,
            "a secret has no place in this file",
            "sudo's is asked for, or read from INVOKE_SUDO_PASSWORD; a key's passphrase is ssh-agent's",
        )
    near = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return Finding("config.unknown-key", path, "unknown key", hint)


def _field(model: type[BaseModel], loc: KeyPath) -> tuple[type[BaseModel], FieldInfo | None]:
    """The innermost table and field that `loc` leads to."""
    field: FieldInfo | None = None
    for part in loc:
        inner = _submodel(field.annotation) if field else model
        if inner is None or not isinstance(part, str):
            break
        model, field = inner, inner.model_fields.get(part)
        if field is None:
            break
    return model, field


def _submodel(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *get_args(annotation))
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def allowed(field: FieldInfo) -> str:
    """What a field allows, in plain words: its rule's, or its type's."""
    for extra in (field.json_schema_extra, *(meta.json_schema_extra for meta in _inner(field.annotation))):
        if isinstance(extra, dict) and "allowed" in extra:
            return str(extra["allowed"])
    if get_origin(field.annotation) is Literal:
        return " or ".join(json.dumps(choice) for choice in get_args(field.annotation))
    if field.annotation is bool:
        return WORDS["bool"]
    return WORDS["model"] if _submodel(field.annotation) else ""


def _inner(annotation: Any) -> Iterator[FieldInfo]:
    for argument in get_args(annotation):
        yield from (meta for meta in getattr(argument, "__metadata__", ()) if isinstance(meta, FieldInfo))


def show(value: object) -> str:
    """A value as TOML would write it, short, and without a URL's credentials."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, int) and value.bit_length() > 64:  # noqa: PLR2004 - TOML's integers
        return "a number of more than 64 bits"
    if isinstance(value, str):
        value = masked_url(value)
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"  # noqa: PLR2004 - one line


def dotted(path: KeyPath) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(masked_url(part), ensure_ascii=False)
            text += f".{name}" if text else name
    return text
