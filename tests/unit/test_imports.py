"""What import-linter (pyproject.toml) cannot see of the imports: plugins, heavy libraries, tasks.py."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps import PIPELINE

ROOT = Path(__file__).parents[2]
PHASES = tuple(phase.name for phase in PIPELINE)
HEAVY = {"cryptography", "pydantic", "fabric", "paramiko", "asyncssh", "urllib3", "rich", "jinja2"}
# Modules that are themselves imported only inside functions: they have what is heavy on top.
LAZY = {
    "steps.builtin.ca",
    "steps.builtin.debian",
    "steps.builtin.github",
    "steps.builtin.path",
    "steps.core.config.cross_checks",
    "steps.core.config.findings",
    "steps.core.config.flag_rules",
    "steps.core.config.load",
    "steps.core.config.messages",
    "steps.core.config.schema",
    "steps.core.health.tls_probe",
    "steps.core.release.record",
    "steps.core.release.releases",
    "steps.core.release.web",
    "steps.core.tls.authority",
    "steps.core.tls.handshake",
    "steps.core.tls.pki",
    "steps.core.tls.store",
    "steps.core.tls.validate",
    "steps.core.transport.host_keys",
    "steps.core.transport.login",
    "steps.core.transport.login_errors",
    "steps.core.transport.ssh",
    "steps.testing",
}


def module(file: Path) -> str:
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


SOURCES = {module(file): ast.parse(file.read_text()) for file in sorted(ROOT.glob("steps/**/*.py"))}


def typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(node: ast.AST, *, deep: bool) -> Iterator[str]:
    """The modules that are imported at run time; `deep`: inside functions too."""
    for child in ast.iter_child_nodes(node):
        if typing_only(child) or (isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and not deep):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            base = child.module or ""
            yield from (full if (full := f"{base}.{alias.name}") in SOURCES else base for alias in child.names)
        else:
            yield from imports(child, deep=deep)


def ours(name: str, *, deep: bool = True) -> set[str]:
    return {found for found in imports(SOURCES[name], deep=deep) if found.partition(".")[0] == "steps"}


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


PLUGINS = sorted([*ROOT.glob("plugins/*.py"), *ROOT.glob("examples/plugins/**/*.py")])


@pytest.mark.parametrize("file", PLUGINS, ids=lambda file: file.name)
def test_plugins_import_the_api_alone(file: Path) -> None:
    found = set(imports(ast.parse(file.read_text()), deep=True))
    assert {name for name in found if under(name, "steps")} <= {"steps.api", "steps.testing"}


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - LAZY))
def test_what_is_heavy_is_imported_where_it_is_used(name: str) -> None:
    top = set(imports(SOURCES[name], deep=False))
    assert {found for found in top if found.partition(".")[0] in HEAVY} == set()
    assert top & LAZY == set(), "these bring what is heavy with them"


def test_tasks_py_has_no_logic() -> None:
    tree = ast.parse((ROOT / "tasks.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.If, ast.For, ast.ClassDef))]
    assert {name for name in imports(tree, deep=True) if under(name, "steps")} == {"steps.program"}
