"""Problems are data: each code that the program gives stands in docs/reference/problems.md, and no other does."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.core.base.errors import CertificateError, ConfigError, NodeFailed, Refused
from steps.core.base.problem import Problem, joined
from steps.core.doctor.failures import FAILURES

ROOT = Path(__file__).parents[2]
SOURCES = sorted((*ROOT.glob("steps/**/*.py"), *ROOT.glob("plugins/*.py")))


def given(tree: ast.Module, call: ast.Call) -> ast.expr | None:
    """Return the expression that is the code of the problem which this call makes; None where it makes none."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    for keyword in call.keywords:
        if name in {"Problem", "replace", "_replace"} and keyword.arg == "code":
            return keyword.value
    makes = name == "Problem" or (name == "problem" and len(call.args) == 2)
    finding = name == "Finding" and any(
        isinstance(each, ast.ImportFrom) and each.module == "steps.core.config.findings" for each in tree.body
    )
    return call.args[0] if call.args and (makes or finding) else None


def values(tree: ast.Module, code: ast.expr) -> Iterator[str]:
    """Yield what that expression may be; NAME stands for what is known only when the program runs."""
    if isinstance(code, ast.Constant):
        yield str(code.value)
    elif isinstance(code, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "NAME" for part in code.values)
    elif isinstance(code, ast.IfExp):
        yield from values(tree, code.body)
        yield from values(tree, code.orelse)
    elif isinstance(code, ast.Name):
        for each in ast.walk(tree):
            if isinstance(each, ast.Assign) and code.id in {getattr(target, "id", "") for target in each.targets}:
                yield from values(tree, each.value)


def used() -> set[str]:
    found: set[str] = set()
    for file in SOURCES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and (code := given(tree, call)) is not None:
                found |= set(values(tree, code))
    return found


def documented() -> list[str]:
    rows = re.findall(r"^\| `([a-z]+\.[\w-]+)` \|", (ROOT / "docs/reference/problems.md").read_text(), re.MULTILINE)
    return [str(row) for row in rows]


def test_codes_of_the_program_are_those_of_the_page() -> None:
    codes = (used() - {"doctor.NAME"}) | {f"doctor.{name}" for name in FAILURES}
    assert len(codes) > 100
    assert sorted(documented()) == sorted(codes)


def test_codes_are_given_as_words_that_this_test_can_read() -> None:
    """A code that is computed would be on no page."""
    for file in SOURCES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        arguments = {each.arg for each in ast.walk(tree) if isinstance(each, ast.arg)}
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and (code := given(tree, call)) is not None:
                found = list(values(tree, code))
                handed_on = getattr(code, "attr", "") == "code" or getattr(code, "id", "") in arguments
                assert found or handed_on, f"{file}:{call.lineno}"
                assert all(re.fullmatch(r"[a-z]+\.([a-z0-9-]+|NAME)", each) for each in found), f"{file}:{call.lineno}"


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem("x.y", "no leader"), "no leader"),
        (Problem("x.y", "etcd does not run", node="etcd-1"), "etcd-1: etcd does not run"),
        (Problem("x.y", "is a learner", node="etcd-1", joint=" "), "etcd-1 is a learner"),
    ],
)
def test_problem_is_shown_as_one_line_with_its_node(problem: Problem, line: str) -> None:
    assert str(problem) == line
    assert joined([problem, problem]) == f"{line}; {line}"
    document = json.loads(json.dumps(problem.as_json()))
    assert (document["code"], document["node"], document["text"]) == ("x.y", problem.node, line)


def test_errors_carry_their_problems() -> None:
    problem = Problem("config.value", "found 3", key="a.b", line=7)
    assert ConfigError("etcd.toml", [problem]).problems == (problem,)
    assert Refused("no", problems=[problem]).problems == (problem,)
    found = CertificateError("etcd-1", [problem, "a plugin's words"])
    assert [each.code for each in found.problems] == ["config.value", "certificate.unusable"]
    assert found.message == "etcd-1: found 3; a plugin's words"


def test_error_as_problem_names_its_node_once() -> None:
    failed = NodeFailed("etcd-1", "lost")
    assert str(failed.problem("health.unreachable", "etcd-1")) == failed.message == "etcd-1: lost"
    assert str(Refused("no route").problem("health.unreachable", "etcd-1")) == "etcd-1: no route"
    other = Refused("no route", node="etcd-10").problem("health.unreachable", "etcd-1")
    assert (other.node, str(other)) == ("etcd-1", "etcd-1: etcd-10: no route")
    assert Refused.because(failed).problem("health.unreachable", "etcd-1").message == "lost"
