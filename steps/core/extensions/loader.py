"""A plugin's own text: loading a file of it, judging its hooks, and saying file and line of what is wrong."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from steps.core.extensions import hookspecs


def load_file(file: Path) -> ModuleType:
    """The module in `file`, under a name of its own. Raises whatever it raises."""
    spec = importlib.util.spec_from_file_location(f"etcd_plugin_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pydantic look their annotations up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def located(origin: str, error: BaseException) -> str:
    """`file:line: what` of an error, at the last line of the plugin's own file, else where it was raised."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == origin] or [
        frame for frame in frames if "/steps/core/" not in frame.filename and "importlib" not in frame.filename
    ]
    place = f"{own[-1].filename}:{own[-1].lineno}" if own else origin
    return f"{place}: {type(error).__name__}: {error}"


def defined_at(thing: Any, origin: str) -> str:
    """file:line of a class or function, or just where its plugin came from."""
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (TypeError, OSError):
        return origin


def wrong(origin: str, plugin: Any) -> str:
    """What is wrong with the hooks of a module or object, with file and line; empty where nothing is."""
    members: Mapping[str, Any] = vars(plugin) if isinstance(plugin, ModuleType) else dict(inspect.getmembers(plugin))
    for name, value in members.items():
        marked = getattr(value, "etcd_impl", None) if callable(value) else None
        if not (marked or (name.startswith("etcd_") and inspect.isroutine(value))):
            continue
        code = getattr(inspect.unwrap(value), "__code__", None)
        where = f"{code.co_filename}:{code.co_firstlineno}" if code is not None else origin
        if name not in hookspecs.NAMES:
            near = difflib.get_close_matches(name, hookspecs.NAMES, 1)
            return f"{where}: there is no hook {name}" + (f"; did you mean {near[0]}?" if near else "")
        if not marked:
            return f"{where}: {name} lacks the marker @hookimpl"
        if marked.get("wrapper") or marked.get("hookwrapper"):
            return f"{where}: {name} is a wrapper; hooks are called one by one here, and none can wrap another"
        known = inspect.signature(getattr(hookspecs, name)).parameters
        extra = [argument for argument in inspect.signature(value).parameters if argument not in known]
        if extra:
            return f"{where}: {name} takes {', '.join(known) or 'nothing'}, not {', '.join(extra)}"
    return ""
