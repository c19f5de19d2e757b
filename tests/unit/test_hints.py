"""A hint can be pasted as it stands, and acts on the same cluster."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke import Collection
from invoke.parser import Parser
from test_cli import ALONE, GOOD, ROOT, clone, invoke

from steps.core.base import hints
from steps.core.base.hints import Hints, again, etcdctl

__all__ = ["clone"]

NS: Collection = runpy.run_path(str(ROOT / "tasks.py"))["ns"]
# Texts of files that are written, which are no hints of a run.
WRITTEN = ("steps/env.py",)


def given(*front: str, config: str = "") -> Hints:
    return Hints(front, config, lambda more: ["stop", *shlex.split(more), "all"])


@pytest.mark.parametrize(
    ("how", "text", "shown"),
    [
        (given(), hints.invoke("start"), "invoke start"),
        (given(config="b.toml"), hints.invoke("start --node etcd-1"), "invoke start --node etcd-1 --config b.toml"),
        (given(config="my b.toml"), hints.invoke("all"), "invoke all --config 'my b.toml'"),
        (given(config="b.toml"), hints.invoke("plan --config c.toml"), "invoke plan --config c.toml"),
        (given("--search-root", "/a b"), hints.invoke("all"), "invoke --search-root '/a b' all"),
        (given(config="b.toml"), f"first {hints.invoke('ca')}, then {again()}.", None),
        (given(config="b.toml"), again("--yes demo"), "invoke stop --yes demo all --config b.toml"),
    ],
)
def test_shown_completes_each_command(how: Hints, text: str, shown: str | None) -> None:
    expected = shown or "first invoke ca --config b.toml, then invoke stop all --config b.toml."
    assert how.shown(text) == expected
    assert how.data({"a": [text, 1, None]}) == {"a": [expected, 1, None]}


def _bare(file: Path) -> Iterator[str]:
    """The texts that name a command of ours without `invoke(…)`, docstrings left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {node.body[0].value for node in ast.walk(tree) if isinstance(node, documented) and _has_doc(node)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and node not in docs else None
        if isinstance(text, str) and re.search(r"\binvoke [-a-z{@]", text):
            yield f"{file.relative_to(ROOT)}:{node.lineno}: {text!r}"


def _has_doc(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)


def test_no_message_names_a_command_by_hand() -> None:
    files = sorted([*ROOT.glob("steps/**/*.py"), *ROOT.glob("plugins/*.py"), *ROOT.glob("examples/plugins/*.py")])
    assert [line for file in files if str(file.relative_to(ROOT)) not in WRITTEN for line in _bare(file)] == []


def test_a_command_by_hand_would_be_found(tmp_path: Path) -> None:
    file = ROOT / "steps" / "core" / "base" / "hints.py"
    assert not [*_bare(file)]
    tree = 'def f(node: str) -> str:\n    """Says `invoke all`."""\n    return f"then: invoke start --node {node}"\n'
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "x.py").write_text(tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_hints.ROOT", tmp_path)
        assert [*_bare(tmp_path / "steps" / "x.py")] == ["steps/x.py:3: 'then: invoke start --node '"]


@pytest.mark.parametrize("name", sorted(NS.task_names))
def test_every_task_takes_config(name: str) -> None:
    required = {"client": ["kube"], "init": ["--nodes", "a=10.0.0.1"], "plugin.new": ["--name", "x"]}
    words = [name, *required.get(name, []), "--config", "other.toml"]
    (context,) = Parser(contexts=NS.to_contexts()).parse_argv(words)
    assert context.as_kwargs["config"] == "other.toml"


@pytest.mark.parametrize("name", ["status", "plan", "all", "contents", "doctor", "log", "plugins"])
def test_config_behind_any_task_is_no_traceback(clone: Path, name: str) -> None:
    (clone / "b.toml").write_text("[nonsense]\n")
    code, _, err = invoke(clone, f"{name} --config b.toml")
    assert "Traceback" not in err
    assert code == (0 if name == "contents" else 2)
    assert name == "contents" or f"{clone}/b.toml: " in err


@pytest.mark.parametrize("line", ["--config b.toml --dry all", "--dry -f b.toml all", "--dry --config=b.toml all"])
def test_config_in_front_of_a_task_is_refused_with_where_it_goes(clone: Path, line: str) -> None:
    (clone / "b.toml").write_text(GOOD)
    code, out, err = invoke(clone, line)
    assert (code, out) == (2, "")
    assert "in front of a task is Invoke's own" in err
    assert re.search(r"next: invoke --dry all --config b.toml$", err, re.MULTILINE)


def test_config_in_front_that_is_invokes_own_stays_so(clone: Path) -> None:
    (clone / "more.yaml").write_text("run:\n  echo: false\n")
    assert invoke(clone, "--config more.yaml contents")[0] == 0


def test_a_config_of_nothing_is_refused(clone: Path) -> None:
    code, _, err = invoke(clone, "plan --config=")
    assert (code, "--config names nothing" in err) == (2, True)


HINTED = {
    "by option": ("reset --config b.toml", {}, "next: invoke reset --config b.toml --yes demo"),
    "by the environment": ("reset", {"ETCD_CONFIG": "b.toml"}, "next: invoke reset --yes demo --config b.toml"),
    "neither": ("reset --node etcd-1", {}, "next: invoke reset --node etcd-1 --yes demo"),
    "another name": ("reset --yes prod", {}, "next: invoke reset --yes demo"),
    "in a chain": ("reset all --config b.toml", {}, "next: invoke reset --yes demo all --config b.toml"),
    "no such file": (
        "all --config c.toml",
        {},
        "(invoke init --nodes etcd-1=10.0.0.1 --out {clone}/c.toml --config c.toml writes one)",
    ),
}


@pytest.mark.parametrize(("line", "environment", "hint"), HINTED.values(), ids=HINTED)
def test_the_hint_of_a_failure_acts_on_the_same_cluster(
    clone: Path, line: str, environment: dict[str, str], hint: str
) -> None:
    (clone / "b.toml").write_text(ALONE)
    code, _, err = invoke(clone, line, **environment)
    assert code != 0
    assert hint.format(clone=clone) in err, err


FOREIGN = """\
from invoke import task
from steps.api import hookimpl

@task
def announce(c, text):
    print(text, c.command.cluster.name)

@hookimpl
def etcd_tasks():
    return [announce]
"""


def test_config_behind_a_plugins_task_is_refused_with_what_works(clone: Path) -> None:
    (clone / "plugins" / "own.py").write_text(FOREIGN)
    (clone / "b.toml").write_text(ALONE)
    code, _, err = invoke(clone, "announce hello --config b.toml")
    assert (code, "takes no --config" in err) == (2, True), err
    assert "next: env ETCD_CONFIG=b.toml invoke announce hello\n" in err
    assert invoke(clone, "announce hello", ETCD_CONFIG="b.toml")[:2] == (0, "hello demo\n")


def test_etcdctl_of_a_work_directory_with_a_blank_can_be_pasted() -> None:
    assert etcdctl(Path("/srv/my etcd"), "member list") == ". '/srv/my etcd/environment.sh' && etcdctl member list"
