"""Files in plugins/: which are taken, in which order, and what is said of one that cannot be used, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from clusters import on_hosts

from steps.builtin import hooks
from steps.core.base.errors import WRONG, PluginError
from steps.core.extensions.manager import Plugins


def load(folder: Path, **files: str) -> Plugins:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return Plugins.load(folder, builtin=hooks)


FLAGS = """\
from steps.api import hookimpl

@hookimpl
def etcd_flags(cluster, node):
    return {{"{flag}": "{value}"}}
"""
SOURCE = """\
from steps.api import hookimpl

class Mine:
    origin = "{origin}"

@hookimpl
def etcd_release_source(name, cluster):
    return Mine() if name in {names!r} else None
"""

BROKEN = {
    "an import that fails": ("import os\nimport nowhere_to_be_found\n", ":2: ModuleNotFoundError: No module named"),
    "a syntax error": ("x = 1\ny = = 2\n", ":2: invalid syntax"),
    "an error at its top": ("x = 1\n\n1 / 0\n", ":3: ZeroDivisionError"),
    "one that exits": ("import sys\nsys.exit(3)\n", ":2: SystemExit"),
    "an error deeper down": ("def f():\n    return {}['x']\n\nf()\n", ":2: KeyError"),
    "an unknown hook": (
        "from steps.api import hookimpl\n\n@hookimpl\ndef etcd_step(cluster):\n    return []\n",
        "there is no hook etcd_step",
    ),
    "no marker": ("def etcd_flags(cluster, node):\n    return {}\n", ":1: etcd_flags lacks the marker @hookimpl"),
    "an argument that no hook has": (
        "from steps.api import hookimpl\n\n@hookimpl\ndef etcd_flags(cluster, nodes):\n    return {}\n",
        "etcd_flags takes cluster, node, not nodes",
    ),
}


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_said_with_file_and_line_before_anything_is_touched(
    tmp_path: Path, text: str, said: str
) -> None:
    plugins = load(tmp_path, good=FLAGS.format(flag="max-wals", value=6), bad=text)
    assert list(plugins.problems) == ["bad"]
    assert f"{tmp_path}/bad.py:" in plugins.problems["bad"]
    assert said in plugins.problems["bad"]
    with pytest.raises(PluginError, match="bad") as caught:
        plugins.raise_problems()
    assert caught.value.exit_code == WRONG
    assert "disable" in caught.value.hint
    plugins.raise_problems(["bad"])
    plugins.disable(["bad"])
    assert plugins.flags(on_hosts(), on_hosts().nodes[0]) == {"max-wals": "6"}, "the others work"


def test_a_typo_in_a_hooks_name_is_told_with_the_nearest(tmp_path: Path) -> None:
    plugins = load(tmp_path, bad=BROKEN["an unknown hook"][0])
    assert "did you mean etcd_steps" in plugins.problems["bad"]


def test_all_broken_ones_are_told_at_once(tmp_path: Path) -> None:
    plugins = load(tmp_path, **{f"p{n}": text for n, (text, _) in enumerate(BROKEN.values())})
    with pytest.raises(PluginError) as caught:
        plugins.raise_problems()
    assert all(f"p{n}.py:" in caught.value.message for n in range(len(BROKEN)))


def test_the_last_file_is_asked_first_and_a_site_wins_over_what_is_shipped(tmp_path: Path) -> None:
    plugins = load(
        tmp_path,
        b_late=SOURCE.format(origin="late", names=("x",)),
        a_early=SOURCE.format(origin="early", names=("x", "y", "github")),
    )
    assert plugins.problems == {}
    found = [plugins.release_source(name, on_hosts()).origin for name in ("x", "y", "github")]  # type: ignore[attr-defined]  # Mine's
    assert found == ["late", "early", "early"]


def test_a_disabled_plugin_is_not_asked_and_an_unknown_one_is_a_typo(tmp_path: Path) -> None:
    plugins = load(tmp_path, limits=FLAGS.format(flag="max-wals", value=6))
    plugins.disable(["limits"])
    assert plugins.flags(on_hosts(), on_hosts().nodes[0]) == {}
    with pytest.raises(PluginError, match="no plugin 'limit'") as caught:
        plugins.disable(["limit"])
    assert "'limits'" in caught.value.hint


def test_two_plugins_that_set_one_flag_are_named(tmp_path: Path) -> None:
    plugins = load(tmp_path, a=FLAGS.format(flag="max-wals", value=6), b=FLAGS.format(flag="max-wals", value=6))
    with pytest.raises(PluginError, match="--max-wals on etcd-1") as caught:
        plugins.flags(on_hosts(), on_hosts().nodes[0])
    assert caught.value.exit_code == WRONG


def test_a_folder_that_is_absent_or_empty_holds_no_plugins(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no plugin")
    for folder in (tmp_path, tmp_path / "absent"):
        plugins = Plugins.load(folder, builtin=hooks)
        assert plugins.problems == {}
        assert [source.name for source in plugins.sources][:1] == ["shipped"]
