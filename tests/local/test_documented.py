"""docs/operations.md, typed: every block ```sh of it runs, in its order, on a cluster of this machine.

What is for a host, or has a placeholder in it, stands in a block without `sh`: the host tests do it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ports import moved

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A directory that looks like a clone, with the shipped etcd.toml on other ports; its members end with the test."""
    for name in ("tasks.py", "invoke.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    text, _ = moved()
    (tmp_path / "etcd.toml").write_text(text)
    yield tmp_path
    for file in tmp_path.glob(".etcd/demo/nodes/*/etcd.pid"):
        with suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)


def typed(script: str, clone: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
    cache = kept.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    home = clone / "home"
    home.mkdir(exist_ok=True)
    env = {**kept, "HOME": str(home), "XDG_CACHE_HOME": cache}
    env |= {"PATH": f"{PROGRAMS}:{kept['PATH']}", "ETCD_CONFIG": str(clone / "etcd.toml")}
    return subprocess.run(["bash", "-e", "-c", script], cwd=clone, env=env, capture_output=True, text=True, check=False)


def test_every_command_of_the_operations_runs(clone: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    scripts = ["invoke all", *re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
    assert len(scripts) > 5
    for script in scripts:
        done = typed(script, clone)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    secrets = [clone / "home" / name for name in ("kube/kube-apiserver-key.pem", "demo-ca.tar.gz")]
    assert [file.stat().st_mode & 0o777 for file in secrets] == [0o600, 0o600]
    kept = {"tasks.py", "invoke.yaml", "etcd.toml", ".etcd", "home"}
    assert {file.name for file in clone.iterdir()} == kept, "what is documented leaves nothing in the checkout"
    assert list((clone / ".etcd/demo/nodes/etcd-1").glob("data.old-*"))
