"""The tutorial and the how-to guides, typed: every block ```sh runs, in its order, on a cluster of this machine.

What is for a host, or has a placeholder in it, stands in a block without `sh`: tests/hosts/test_documented_hosts.py
types the guide for hosts, and the other tests on hosts do the rest.
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
TUTORIAL = ROOT / "docs/tutorial/first-cluster.md"
# Its commands are those of plugins; tests/local/test_plugins_page.py runs them.
HOW_TO = [file for file in sorted((ROOT / "docs/how-to").glob("*.md")) if file.name != "write-a-plugin.md"]
KEY, ARCHIVE = "home/kube/kube-apiserver-key.pem", "home/demo-ca.tar.gz"


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


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


def run(script: str, clone: Path, code: int = 0) -> str:
    """Return what a script prints; `code`: what it must end with."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
    cache = kept.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    home = clone / "home"
    home.mkdir(exist_ok=True)
    env = {**kept, "HOME": str(home), "XDG_CACHE_HOME": cache}
    env |= {"PATH": f"{PROGRAMS}:{kept['PATH']}", "ETCD_CONFIG": str(clone / "etcd.toml")}
    done = subprocess.run(["bash", "-e", "-c", script], cwd=clone, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def constant(output: str) -> list[str]:
    """Return the lines of a run without what another run has otherwise: ports, roles, dates, the order of restarts."""
    for pattern in (r":\d+ +(leader|follower) +", r"\d{4}-\d\d-\d\d", r"is in the cache: .*"):
        output = re.sub(pattern, "*", output)
    lines = output.splitlines()
    restarts = [number for number, line in enumerate(lines) if ": restarted: " in line]
    lines[restarts[0] : restarts[-1] + 1] = sorted(lines[restarts[0] : restarts[-1] + 1])
    return lines


def test_how_to_guides_most_have_commands_to_run() -> None:
    assert len([page for page in HOW_TO if blocks(page)]) > 7


@pytest.mark.parametrize("page", [page for page in HOW_TO if blocks(page)], ids=lambda page: page.stem)
def test_how_to_guide_every_command_runs(clone: Path, page: Path) -> None:
    for script in ("invoke all", *blocks(page)):
        run(script, clone)
    secrets = [clone / name for name in (KEY, ARCHIVE) if (clone / name).exists()]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in secrets)
    assert len(secrets) == (page.stem in ("add-a-client", "back-up-the-ca"))
    kept = {"tasks.py", "invoke.yaml", "etcd.toml", ".etcd", "home"}
    assert {file.name for file in clone.iterdir()} == kept, "what is documented leaves nothing in the checkout"
    if page.stem == "stop-start-reset":
        assert list((clone / ".etcd/demo/nodes/etcd-1").glob("data.old-*"))


def test_tutorial_every_command_runs_and_shows_what_it_says(clone: Path) -> None:
    install, use, again, change, look, end = blocks(TUTORIAL)
    assert install.endswith("&& .venv/bin/invoke all\n")  # the README's first command
    said = run("invoke all", clone).replace(str(clone), "/srv/etcd-steps")
    assert said.splitlines()[-1].startswith("demo is healthy")
    assert f"```\n{said.splitlines()[-1]}\n```" in TUTORIAL.read_text(encoding="utf-8")
    assert "hello" in run(use.replace(". .venv/bin/activate\n", ""), clone)
    plan, *rest = again.splitlines()
    assert "nothing to do" in run(plan, clone)
    assert "etcd is started" not in run("\n".join(rest), clone)
    text = (clone / "etcd.toml").read_text()
    text = text.replace("#[etcd.flags]", "[etcd.flags]").replace(
        "#heartbeat-interval = 250", "heartbeat-interval = 300"
    )
    (clone / "etcd.toml").write_text(text)
    plan, everything = change.splitlines()
    assert "flags changed: --heartbeat-interval" in run(plan, clone, code=4)
    shown = re.search(
        r"^```text\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert shown is not None
    assert constant(run(everything, clone).replace(str(clone), "/srv/etcd-steps")) == constant(shown[1])
    stop, status, doctor, start = look.splitlines()
    run(stop, clone)
    assert "etcd-2" in run(status, clone, code=5)
    assert "invoke start --node etcd-2" in run(doctor, clone, code=5)
    run(f"{start}\ninvoke verify", clone)
    run(end, clone)
    assert list((clone / ".etcd/demo/nodes/etcd-1").glob("data.old-*"))
