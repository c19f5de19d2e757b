"""docs/how-to/deploy-on-hosts.md, typed on real hosts: only the addresses, the key and the mirror are the lab's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import configs
from lab import ROOT, Lab
from releases import Releases

PAGE = ROOT / "docs/how-to/deploy-on-hosts.md"


def test_deploy_on_hosts_every_command_runs(lab: Lab, releases: Releases, tmp_path: Path) -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    write, plan, everything = (block for language, block in blocks if not language)
    lab.wipe()
    for number, host in enumerate(lab.hosts[:3], 1):
        write = write.replace(f"{host.name}=10.0.0.{number}", f"{host.name}={host.ip}")
    for name in ("tasks.py", "invoke.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)

    def typed(script: str) -> subprocess.CompletedProcess[str]:
        return lab.run(["bash", "-ec", script], cwd=tmp_path, check=False, timeout=300)

    done = typed(write)
    assert done.returncode == 0, done.stdout + done.stderr
    config = tmp_path / "hosts.toml"
    reached = {"ssh": {"key": str(lab.key)}, **releases.settings}
    config.write_text(configs.dumps(configs.merge(configs.loads(config.read_text()), reached)))
    # one shell for each block, so what the first one sets is set again
    again = "".join(line for line in write.splitlines(keepends=True) if "invoke init" not in line)
    for script, code, said in ((plan, 4, "changes"), (everything, 0, "etcd is healthy"), (plan, 0, "nothing to do")):
        done = typed(again + script)
        assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr
