"""The pages about plugins and signers, block by block: each is run as a reader would run it."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ports import moved

from steps.core.extensions.manager import Plugins
from steps.testing import check_backend, load_plugin, make_cluster

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("write-a-plugin", "own-ca")
PAGE = "\n".join((ROOT / "docs" / "how-to" / f"{name}.md").read_text() for name in PAGES)
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TASKS = """
from pathlib import Path
from steps.program import tasks
ns = tasks(Path(__file__).resolve().parent)
"""


def block(language: str, has: str) -> str:
    """The one block of that language with that text in it."""
    found = [number for number, (kind, text) in enumerate(BLOCKS) if kind == language and has in text]
    assert len(found) == 1, f"{language} with {has!r}: {len(found)} blocks"
    return str(BLOCKS[found[0]][1])


def house(root: Path) -> Path:
    """A project as a site has it: tasks.py, invoke.yaml, the default etcd.toml on other ports, plugins/."""
    (root / "plugins").mkdir(parents=True)
    (root / "tasks.py").write_text(TASKS)
    shutil.copy(ROOT / "invoke.yaml", root)
    (root / "etcd.toml").write_text(moved()[0])
    return root


def sh(root: Path, script: str, *, code: int = 0, path: Path | None = None) -> str:
    """What a script prints that runs in `root` with this interpreter's programs first on the PATH."""
    programs = path or Path(sys.executable).parent
    env = {key: value for key, value in os.environ.items() if not key.startswith(("ETCD_", "PYTEST"))}
    env |= {"PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "200", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(["sh", "-ec", script], cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_first_one(tmp_path: Path) -> None:
    script = block("sh", "plugin.new hello")
    *before, dry = script.strip().splitlines()
    said = sh(house(tmp_path), "\n".join(before))
    assert "hello: " in said
    assert "env -> hello -> download" in said
    assert "Say here what it does" in said
    assert "1 passed" in said
    assert "hello.txt" in sh(tmp_path, dry, code=4)
    assert "exists and is not written over" in sh(tmp_path, "invoke plugin.new hello", code=3)
    assert "step or backend" in sh(tmp_path, "invoke plugin.new other --kind veto", code=2)
    assert "cannot name a plugin" in sh(tmp_path, "invoke plugin.new Other-1", code=2)


def test_the_step_and_its_options(tmp_path: Path) -> None:
    root = house(tmp_path)
    (root / "plugins" / "motd.py").write_text(block("python", "class Motd(Step)"))
    with (root / "etcd.toml").open("a") as file:
        file.write("\n" + block("toml", "[plugins.motd]"))
    said = sh(root, "invoke --dry motd --node etcd-2", code=4)
    assert "Welcome to etcd-2 of demo" in said
    assert "etcd-1" not in said
    found = json.loads(sh(root, "invoke plugins --json"))
    (motd,) = (plugin for plugin in found["plugins"] if plugin["name"] == "motd")
    assert (motd["steps"], motd["enabled"]) == (["motd"], True)
    assert motd["origin"] == str(root / "plugins" / "motd.py")
    assert found["pipeline"].index("motd") == found["pipeline"].index("distribute") + 1
    text = (root / "etcd.toml").read_text()
    (root / "etcd.toml").write_text(text + '\n[plugins]\ndisable = ["motd"]\n')
    assert "motd (disabled)" in sh(root, "invoke plugins")
    assert "belongs to a disabled plugin" in sh(root, "invoke motd", code=2)
    assert "motd" in sh(root, "invoke --list")


SIGNS = """#!/bin/sh
# stands in for {name}: what is on stdin, or in the file, is signed by openssl
{read}
exec openssl x509 -req {input} -CA {ca}/ca.pem -CAkey {ca}/ca-key.pem -copy_extensions copy -days "$days" {output}
"""
STAND_INS = {
    "vault": ("for w; do case $w in ttl=*d) days=${w#ttl=}; days=${days%d};; esac; done", "", ""),
    "step": (
        (
            "for w; do case $w in --not-after=*h) h=${w#*=}; days=$((${h%h} / 24));; "
            "*/csr) i=$w;; */crt) o=$w;; esac; done"
        ),
        '-in "$i"',
        '-out "$o"',
    ),
}


@pytest.mark.parametrize("name", STAND_INS)
def test_the_lines_for_exec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    exec_ = load_plugin(ROOT / "plugins" / "exec.py")
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=corporate -days 3650"
    usage = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign"
    command = f"{new} {usage} -keyout ca-key.pem -out ca.pem"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    read, source, output = STAND_INS[name]
    program = tmp_path / name
    program.write_text(SIGNS.format(name=name, read=read, input=source, output=output, ca=tmp_path))
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    cluster = make_cluster(tmp_path, block("toml", '"vault"' if name == "vault" else "step ca sign"))
    check_backend(exec_.etcd_cert_backend("exec", cluster))


@pytest.mark.parametrize("name", ["cfssl", "csr"])
def test_own_ca_table_of_a_shipped_backend_chooses_it(tmp_path: Path, name: str) -> None:
    """What they sign, tests/local/test_backends.py shows with the real programs."""
    (tmp_path / "corporate-ca.pem").touch()
    tables = {"cfssl": block("toml", 'source = "debian"'), "csr": block("toml", '"csr"')}
    cluster = make_cluster(tmp_path, tables[name])
    assert load_plugin(ROOT / "plugins" / f"{name}.py").etcd_cert_backend(name, cluster) is not None


def test_the_backend_and_its_test(tmp_path: Path) -> None:
    root = house(tmp_path)
    assert "`invoke plugin.new mine --kind backend`" in PAGE
    sh(root, "invoke plugin.new mine --kind backend")
    assert "2 passed" in sh(root, "pytest -q -p no:cacheprovider plugins/tests")
    (root / "plugins" / "tests" / "test_mine.py").write_text(block("python", "check_backend"))
    assert "1 passed" in sh(root, "pytest -q -p no:cacheprovider plugins/tests")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "store" / "3.5.16" / "amd64"
    folder.mkdir(parents=True)
    sums = []
    for name in ("etcd", "etcdctl", "etcdutl"):
        (folder / name).write_text(name)
        sums.append(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n")
    (folder / "SHA256SUMS").write_text("".join(sums))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "store")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_release_source(tmp_path: Path, store: str) -> None:
    from steps.core.base.errors import StepFailed

    file = tmp_path / "artifacts.py"
    file.write_text(block("python", "class Artifacts"))
    plugin = load_plugin(file)
    toml = block("toml", "[plugins.artifacts]").replace("https://artifacts.example.com/etcd", store)
    cluster = make_cluster(tmp_path, toml, plugin, "artifacts")
    plugins = Plugins()
    plugins.register("artifacts", str(file), plugin)
    source = plugins.release_source("artifacts", cluster)
    (tmp_path / "into").mkdir()
    release = source.fetch("3.5.16", "amd64", tmp_path / "into", 20)
    assert {name: file.read_text() for name, file in release.binaries.items()} == {
        name: name for name in ("etcd", "etcdctl", "etcdutl")
    }
    (tmp_path / "store/3.5.16/amd64/etcd").write_text("evil")
    (tmp_path / "again").mkdir()
    with pytest.raises(StepFailed, match=r"plugin artifacts: Artifacts\.fetch: .*SHA256SUMS of the artifact store"):
        source.fetch("3.5.16", "amd64", tmp_path / "again", 20)


def test_the_package_is_built_installed_and_used(tmp_path: Path) -> None:
    root, package = house(tmp_path / "site"), tmp_path / "package"
    package.mkdir()
    (package / "motd.py").write_text(block("python", "class Motd(Step)"))
    (package / "pyproject.toml").write_text(block("toml", "[project.entry-points.etcd_steps]"))
    fresh = tmp_path / "venv"
    venv.create(fresh, with_pip=False, symlinks=True)
    # What the project depends on is not fetched again: the fresh environment reads it where it lies.
    (site,) = fresh.glob("lib/python3*/site-packages")
    spec = importlib.util.find_spec("invoke")
    assert spec is not None
    (site / "deps.pth").write_text(f"{Path(str(spec.origin)).parents[1]}\n{ROOT}\n")
    programs = {
        "invoke": f"#!{fresh}/bin/python\nfrom invoke.main import program\nprogram.run()\n",
        "pip": f'#!/bin/sh\nexec {sys.executable} -m pip --python {fresh}/bin/python "$@"\n',
    }
    for name, text in programs.items():
        (fresh / "bin" / name).write_text(text)
        (fresh / "bin" / name).chmod(0o700)
    build, install, use = block("sh", "pip wheel").strip().splitlines()
    sh(package, f"{build}\n{install} --no-index", path=fresh / "bin")
    assert list(site.glob("etcd_steps_motd-1.0.0.dist-info"))
    said = sh(root, use, path=fresh / "bin")
    assert "motd: package motd" in said
    assert "distribute -> motd -> ca" in said
    assert "This is etcd-1 of demo" in sh(root, "invoke --dry motd", code=4, path=fresh / "bin")
    # a site's own file of that name wins
    text = (package / "motd.py").read_text().replace('"This is"', '"Here is"')
    (root / "plugins" / "motd.py").write_text(text)
    assert "Here is etcd-1 of demo" in sh(root, "invoke --dry motd", code=4, path=fresh / "bin")


def test_every_block_is_run() -> None:
    """By the tests above: `block` is called there with a literal for each."""
    calls = [node for node in ast.walk(ast.parse(Path(__file__).read_text())) if isinstance(node, ast.Call)]
    wanted = [
        (str(ast.literal_eval(call.args[0])), literal.value)
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "block"
        for literal in ast.walk(call.args[1])
        if isinstance(literal, ast.Constant) and isinstance(literal.value, str)
    ]
    for kind, text in BLOCKS:
        assert any(kind == language and part in text for language, part in wanted), f"no test runs this block:\n{text}"


BROKEN = {
    "no such anchor": (
        'name, after = "x", "nowhere"',
        r"x\.py:2: the step 'x' runs beside 'nowhere', which does not exist",
    ),
    "a built-in task": ('name, after = "status", "env"', r"x\.py:2: there is a task 'status' already"),
    "a phase": ('name, after = "certs", "env"', r"x\.py:2: there is a step 'certs' already"),
    "itself": ('name, after = "x", "x"', r"x\.py:2: the step 'x' runs beside 'x'"),
}


@pytest.mark.parametrize("how", [*BROKEN, "a cycle"])
def test_a_misplaced_step_stops_every_command_but_the_list(tmp_path: Path, how: str) -> None:
    root = house(tmp_path)
    lines = "from steps.api import Step, hookimpl\nclass {name}(Step):\n    {body}\n"
    hook = "@hookimpl\ndef etcd_steps():\n    return [{names}]\n"
    if how == "a cycle":
        first, second = 'name, after = "x", "y"', 'name, after = "y", "x"'
        text = lines.format(name="X", body=first) + lines.format(name="Y", body=second)
        text += hook.format(names="X(), Y()")
        message = r"x\.py:5: the steps [xy] -> [xy] -> [xy] wait for each other"
    else:
        body, message = BROKEN[how]
        text = lines.format(name="X", body=body) + hook.format(names="X()")
    (root / "plugins" / "x.py").write_text(text)
    listed = sh(root, "invoke --list")
    assert "[8/8]" in listed
    assert re.search(message, listed)
    stopped = sh(root, "invoke all", code=2)
    assert re.search(message, stopped)
    assert "==>" not in stopped
    assert not (root / ".etcd").exists()
    shown = sh(root, "invoke plugins", code=2)
    assert "x (broken)" in shown
    assert "builtin" in shown or "shipped" in shown
