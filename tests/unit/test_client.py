"""client: where its files go, and what they never replace."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from test_cli import ALONE, clone, invoke  # noqa: F401 - a fixture

from steps.core.base.worktree import tracking_root


@pytest.fixture
def made(clone: Path) -> Path:  # noqa: F811 - the fixture
    """A clone with a CA."""
    (clone / "etcd.toml").write_text(ALONE)
    assert invoke(clone, "ca")[0] == 0
    return clone


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", ["ca", "CA", "kube-key", "ca-key", "root-KEY"])
def test_client_with_a_name_whose_files_collide_is_refused(made: Path, name: str) -> None:
    out = made / "out"
    assert invoke(made, f"client kube --out {out}")[0] == 0
    before = contents(out)
    code, _, err = invoke(made, f"client {name} --out {out}")
    assert (code, f"the name '{name}' is taken" in err) == (2, True)
    assert contents(out) == before


def test_client_over_somebody_elses_files_is_refused(made: Path) -> None:
    out = made / "out"
    out.mkdir()
    for name in ("kube.pem", "kube-key.pem"):
        (out / name).write_text("another program's")
        code, _, err = invoke(made, f"client kube --out {out}")
        assert (code, f"{out / name} is not of a client of" in err) == (3, True)
        assert contents(out) == {name: b"another program's"}
        (out / name).unlink()


@pytest.mark.parametrize("below", ["", "ca/builtin", "certs/operator/live"])
def test_client_into_the_work_directory_is_refused(made: Path, below: str) -> None:
    (work,) = (made / ".etcd").iterdir()
    before = sorted(work.rglob("*.pem"))
    code, _, err = invoke(made, f"client cert --out {work / below}")
    assert (code, "is in the work directory" in err) == (3, True)
    assert sorted(work.rglob("*.pem")) == before


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
def test_client_where_git_would_take_the_key_warns(made: Path) -> None:
    out = made / "out"
    assert "git would take" not in invoke(made, f"client kube --out {out}")[1]
    subprocess.run(["git", "init", "-q", str(made)], check=True)
    code, said, _ = invoke(made, f"client kube --out {out}")
    assert (code, f"warning: git would take {out}/kube-key.pem into {made}: " in said) == (0, True)
    (made / ".gitignore").write_text("*-key.pem\n")
    assert "git would take" not in invoke(made, f"client kube --out {out}")[1]


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
def test_the_work_directory_is_ignored_by_git(made: Path) -> None:
    subprocess.run(["git", "init", "-q", str(made)], check=True)
    (key,) = made.glob(".etcd/*/ca/builtin/ca-key.pem")
    assert tracking_root(key) is None
    listed = subprocess.check_output(["git", "-C", str(made), "status", "--porcelain", "-uall"], text=True)
    assert ".pem" not in listed


def test_tracking_root_without_git_takes_no_chances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert tracking_root(tmp_path / "new" / "deep" / "x-key.pem") == tmp_path
    assert tracking_root(Path("/proc/x-key.pem")) is None
