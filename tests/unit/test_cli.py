"""The command line as it is typed, with a configuration of its own: what is refused before anything happens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_ports

from steps import PIPELINE

ROOT = Path(__file__).parents[2]
HEAVY = ("cryptography", "pydantic", "fabric", "paramiko", "asyncssh", "urllib3", "rich", "jinja2")
PORTS = free_ports(6)
GOOD = f"""\
[cluster]
name = "demo"
[etcd]
version = "3.5.16"
[hosts]
transport = "local"
[[nodes]]
name = "etcd-1"
ip = "127.0.0.1"
client_port = {PORTS[0]}
peer_port = {PORTS[1]}
[[nodes]]
name = "etcd-2"
ip = "127.0.0.1"
client_port = {PORTS[2]}
peer_port = {PORTS[3]}
[[nodes]]
name = "etcd-3"
ip = "127.0.0.1"
client_port = {PORTS[4]}
peer_port = {PORTS[5]}
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("tasks.py", "invoke.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "etcd.toml").write_text(GOOD)
    (tmp_path / "plugins").mkdir()
    return tmp_path


def invoke(clone: Path, line: str, **environment: str) -> tuple[int, str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
    env |= {"PYTHONPATH": str(ROOT), "https_proxy": "http://127.0.0.1:1", **environment}  # init asks a mirror
    argv = [sys.executable, "-m", "invoke", *line.split()]
    ended = subprocess.run(argv, cwd=clone, env=env, capture_output=True, text=True, check=False, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


REFUSED = {
    "an unknown node": ("units --node etcd-9", "--node etcd-9: there is no such node", "known: etcd-1, etcd-2, etcd-3"),
    "two selections": (
        "certs --node etcd-1 units --node etcd-2",
        "two different --node on one command line",
        "whole chain",
    ),
    "two files": ("certs --config a.toml units --config b.toml", "two different --config", "whole chain"),
    "no such file": ("all --config nowhere.toml", "nowhere.toml: 1 problem", "invoke init"),
    "plan in a chain": ("plan certs", "plan stands alone", "invoke --dry"),
    "a node of nothing": ("units --node ,", "--node names nothing", ""),
}


@pytest.mark.parametrize(("line", "said", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_said_before_anything_is_touched(clone: Path, line: str, said: str, hint: str) -> None:
    code, out, err = invoke(clone, line)
    assert code == 2
    assert said in err
    assert hint in err
    assert "Traceback" not in err
    assert out == ""
    assert not (clone / ".etcd").exists()


def test_every_problem_of_a_file_is_told_with_its_line(clone: Path) -> None:
    (clone / "etcd.toml").write_text(GOOD.replace("3.5.16", "latest").replace("[hosts]", "[hosts]\nnodez = 1"))
    code, _, err = invoke(clone, "all")
    assert code == 2
    assert "2 problems" in err
    assert "line 4: etcd.version" in err
    assert "line 6: hosts.nodez: unknown key" in err


def test_a_file_may_be_named_by_option_or_environment(clone: Path) -> None:
    (clone / "other.toml").write_text("[nonsense]\n")
    for code, _, err in (invoke(clone, "plan --config other.toml"), invoke(clone, "plan", ETCD_CONFIG="other.toml")):
        assert code == 2
        assert f"{clone}/other.toml: " in err


def test_debug_shows_where_it_happened(clone: Path) -> None:
    code, _, err = invoke(clone, "--debug units --node etcd-9")
    assert code != 0
    assert "Traceback" in err
    assert "there is no such node" in err


@pytest.mark.parametrize("asked", ["", "1"])
def test_what_was_imported_once_is_not_compiled_again(clone: Path, tmp_path: Path, asked: str) -> None:
    """Unless the user has asked Python for that."""
    kept = tmp_path / "kept"
    assert invoke(clone, "--list", PYTHONPYCACHEPREFIX=str(kept), PYTHONDONTWRITEBYTECODE=asked)[0] == 0
    assert bool([*kept.rglob("namespace.*.pyc")]) is not bool(asked)


def test_a_bare_invoke_is_the_table_of_contents(clone: Path) -> None:
    bare, listed = invoke(clone, ""), invoke(clone, "--list")
    assert bare[0] == listed[0] == 0
    for code, out, err in (bare, invoke(clone, "contents")):
        assert (code, err) == (0, "")
        places = [out.index(f"[{number}/8]") for number in range(1, 9)]
        assert places == sorted(places)
        assert all(f"  {phase.name} " in out for phase in PIPELINE)
    assert all(f"[{number}/8]" in listed[1] for number in range(1, 9))
    assert all(f" {name} " in listed[1] for name in ("all", "plan", "status", "stop", "reset", "client", "init"))
    assert not (clone / ".etcd").exists()


@pytest.mark.parametrize("task", ["all", "certs", "start", "verify", "reset"])
def test_every_option_has_its_help(clone: Path, task: str) -> None:
    code, out, _ = invoke(clone, f"--help {task}")
    assert code == 0
    assert "--node" in out
    assert "--config" in out
    lines = out.partition("Options:")[2].splitlines()
    bare = [line for line in lines if line.strip().startswith("-") and len(line.split()) < 2]
    for line in bare:
        following = lines[lines.index(line) + 1]
        assert following.strip(), line


def test_a_broken_plugin_stops_all_but_the_list(clone: Path) -> None:
    (clone / "plugins" / "bad.py").write_text("import nowhere_to_be_found\n")
    code, _, err = invoke(clone, "plan")
    assert code == 2
    assert "plugins/bad.py:1: ModuleNotFoundError" in err
    assert not (clone / ".etcd").exists()
    code, out, _ = invoke(clone, "--list")
    assert code == 0
    assert "[1/8]" in out
    (clone / "etcd.toml").write_text(f'{GOOD}\n[plugins]\ndisable = ["bad"]\n')
    code, out, err = invoke(clone, "plan")
    assert code == 4, err
    assert "bad" in out + err, "it is warned of"


def test_a_disabled_plugins_step_stays_listed_and_is_skipped(clone: Path) -> None:
    (clone / "plugins" / "extra.py").write_text(
        "from steps.api import Step, hookimpl\n\n"
        'class Extra(Step):\n    """Something more"""\n    name = "extra"\n    after = "env"\n\n'
        "@hookimpl\ndef etcd_steps():\n    return [Extra()]\n"
    )
    assert "Something more" in invoke(clone, "--list")[1]
    assert "==> [2/9] extra" in invoke(clone, "plan")[1]
    (clone / "etcd.toml").write_text(f'{GOOD}\n[plugins]\ndisable = ["extra"]\n')
    assert "Something more" in invoke(clone, "--list")[1]
    code, out, _ = invoke(clone, "plan")
    assert (code, "extra" in out) == (4, False)
    code, _, err = invoke(clone, "--dry extra")
    assert code == 2
    assert "disabled" in err


def test_reset_on_no_terminal_wants_the_name(clone: Path) -> None:
    code, _, err = invoke(clone, "reset")
    assert code == 3
    assert "--yes demo" in err


def test_an_unknown_task_is_invokes_own_error(clone: Path) -> None:
    code, _, err = invoke(clone, "al")
    assert code == 1
    assert "al" in err
    assert "Traceback" not in err


def test_loading_the_tasks_loads_nothing_heavy(clone: Path) -> None:
    loaded = f"[name for name in {HEAVY!r} if name in sys.modules]"
    code = f"import sys; sys.path.insert(0, {str(clone)!r}); import tasks; print({loaded})"
    argv = [sys.executable, "-c", code]
    said = subprocess.run(argv, cwd=clone, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)})
    assert said.stdout == "[]\n"


ALONE = GOOD.partition('[[nodes]]\nname = "etcd-2"')[0]
# A step after which there is no space left for the log; and then it does what the test says.
FULL = """\
from steps.api import Step, StepFailed, hookimpl

class Full(Step):
    \"""Fill the disk\"""
    name = "full"
    after = "env"

    def prepare(self, cluster, nodes, ctx):
        (log,) = (cluster.work / "log").iterdir()
        log.unlink()
        log.symlink_to("/dev/full")
        ctx.change("the disk is filled")
        %s

@hookimpl
def etcd_steps():
    return [Full()]
"""


SHOWN = """
import subprocess

from steps.api import Step, hookimpl

class Shown(Step):
    name = "shown"
    after = "env"

    def prepare(self, cluster, nodes, ctx):
        ctx.say(subprocess.run(["env"], capture_output=True, text=True, check=True).stdout)

@hookimpl
def etcd_steps():
    return [Shown()]
"""


@pytest.mark.parametrize(("end", "code"), [("pass", 0), ('raise StepFailed("it broke")', 1)])
def test_a_full_disk_ends_the_log_and_neither_the_run_nor_its_exit_code(clone: Path, end: str, code: int) -> None:
    (clone / "etcd.toml").write_text(ALONE)
    (clone / "plugins" / "full.py").write_text(FULL % end)
    work = clone / ".etcd" / "demo"
    ended, out, err = invoke(clone, "full ca")
    assert (ended, "it broke" in err) == (code, code == 1)
    assert "Traceback" not in err
    assert out.count("No space left on device") == 1
    assert f"warning: from here on nothing is kept in {work}/log: No space left on device" in out
    assert (work / "ca" / "ca.pem").exists() is (code == 0)


def test_a_log_that_cannot_be_begun_breaks_no_run(clone: Path) -> None:
    (clone / "etcd.toml").write_text(ALONE)
    work = clone / ".etcd" / "demo"
    work.mkdir(parents=True)
    (work / "log").touch()
    code, out, err = invoke(clone, "ca")
    assert (code, err) == (0, "")
    assert f"warning: from here on nothing is kept in {work}/log: File exists" in out
    assert (work / "ca" / "ca.pem").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("init --nodes a=10.0.0.1 --out /proc/nowhere/etcd.toml", "/proc/nowhere/etcd.toml"),
        ("client kube --out /proc/nowhere", "/proc/nowhere"),
    ],
)
def test_what_this_machine_cannot_do_is_no_traceback(clone: Path, words: str, said: str) -> None:
    (clone / "etcd.toml").write_text(ALONE)
    assert invoke(clone, "ca")[0] == 0
    code, _, err = invoke(clone, words)
    assert code == 1
    assert err.startswith("error: on this machine: ")
    assert said in err
    assert "Traceback" not in err


def test_a_client_goes_where_one_says_and_changes_nothing_else_there(clone: Path) -> None:
    (clone / "etcd.toml").write_text(ALONE)
    out = clone / "shared"
    out.mkdir(mode=0o755)
    assert invoke(clone, f"ca client kube --out {out}")[0] == 0
    assert out.stat().st_mode & 0o777 == 0o755
    assert (out / "kube-key.pem").stat().st_mode & 0o777 == 0o600
    (out / "ca.pem").write_text("another CA's")
    code, _, err = invoke(clone, f"client kube --out {out}")
    assert (code, f"{out}/ca.pem is another CA's" in err) == (3, True)
    assert (out / "ca.pem").read_text() == "another CA's"


def test_a_dry_run_writes_no_file_at_all(clone: Path) -> None:
    (clone / "etcd.toml").write_text(ALONE)
    before = sorted(clone.rglob("*"))
    code, out, _ = invoke(clone, "--dry init --nodes a=10.0.0.1 --out new.toml")
    assert (code, "new.toml will be written" in out, 'name = "a"' in out) == (0, True, True)
    for kind in ("step", "backend"):
        code, out, _ = invoke(clone, f"--dry plugin.new --name motd --kind {kind}")
        assert (code, "motd.py will be written" in out or "will be written" in out) == (0, True)
    assert sorted(clone.rglob("*")) == before


def test_an_unknown_backend_is_told_with_those_that_there_are(clone: Path) -> None:
    (clone / "etcd.toml").write_text(ALONE + '\n[tls]\nbackend = "vault"\n')
    (clone / "plugins" / "own.py").write_text(
        "from steps.api import hookimpl\n\nOFFERS = ('ours', 'step')\n\n"
        "@hookimpl\ndef etcd_cert_backend(name):\n    return object() if name in ('step', 'ours') else None\n"
    )
    line = ALONE.count("\n") + 3
    code, _, err = invoke(clone, "ca")
    assert code == 2
    assert f"line {line}: tls.backend: no plugin offers 'vault' (there are builtin, ours, step;" in err


def test_a_template_that_is_none_names_its_line(clone: Path) -> None:
    (clone / "etcd.toml").write_text(ALONE)
    (clone / "own").mkdir()
    (clone / "own" / "etcd.sh.j2").write_text("\n{% if %}\n")
    (clone / "plugins" / "own.py").write_text(
        f"from steps.api import hookimpl\n\n@hookimpl\ndef etcd_template_dirs():\n    return [{str(clone / 'own')!r}]\n"
    )
    code, _, err = invoke(clone, "--dry units")
    assert "Traceback" not in err
    assert (code, "etcd.sh.j2, line 2: " in err) == (2, True)


def test_the_environment_of_what_we_start_has_no_password(clone: Path) -> None:
    (clone / "etcd.toml").write_text(ALONE)
    (clone / "plugins" / "shown.py").write_text(SHOWN)
    code, out, _ = invoke(clone, "shown", INVOKE_SUDO_PASSWORD="hunter2")
    assert (code, "hunter2" in out) == (0, False)


def test_a_work_directory_that_cannot_be_written_to_is_refused(clone: Path) -> None:
    (clone / ".etcd").touch()
    code, out, err = invoke(clone, "ca")
    assert (code, out) == (3, "")
    assert f"{clone}/.etcd/demo cannot be written to" in err
    assert "Traceback" not in err


DESIRED = """\
from steps.api import File, Step, hookimpl

class Mine(Step):
    \"""A file of ours\"""
    name = "mine"
    after = "env"

    def desired(self, {first}, node):
        yield File(f"{{node.paths.unit}}/mine.txt", {first}.name)

@hookimpl
def etcd_steps():
    return [Mine()]
"""


def test_plugin_with_desired_as_0_1_had_it_still_works(clone: Path) -> None:
    (clone / "etcd.toml").write_text(ALONE)
    (clone / "plugins" / "mine.py").write_text(DESIRED.format(first="cluster"))
    ended, out, err = invoke(clone, "mine")
    assert (ended, err) == (0, ""), out
    (file,) = (clone / ".etcd").rglob("mine.txt")
    assert file.read_text() == "demo"


def test_plugin_with_another_desired_is_wrong_with_file_and_line(clone: Path) -> None:
    (clone / "etcd.toml").write_text(ALONE)
    (clone / "plugins" / "mine.py").write_text(DESIRED.format(first="c"))
    ended, _, err = invoke(clone, "env")
    assert ended == 2
    said = "Mine.desired takes 'c' first; desired(self, ctx, node) was expected"
    assert f"{clone}/plugins/mine.py:8: {said}" in err


GROUPED = """
from pathlib import Path

from steps import PIPELINE
from steps.builtin import hooks
from steps.core.base.hints import invoke
from steps.core.cli.groups import Group
from steps.core.cli.namespace import namespace
from steps.core.cli.options import task
from steps.ops import OPERATIONS


@task()
def rotate(c):
    \"""A new CA, phase by phase\"""
    c.command.report.line(f"{c.command.task}: {invoke('ca')}")


ns = namespace(Path(__file__).parent, PIPELINE, (Group("ca", (rotate,)), *OPERATIONS), builtin=hooks)
"""


def test_group_with_a_phase_of_its_name_is_typed_and_listed_without_doubling(clone: Path) -> None:
    (clone / "tasks.py").write_text(GROUPED)
    for line in ("--list", "contents", "--complete -- ca"):
        ended, out, err = invoke(clone, line)
        assert (ended, err) == (0, "")
        assert {"ca", "ca.rotate"} <= set(out.split()), line
        assert "ca.ca" not in out
    assert invoke(clone, "ca.rotate") == (0, "ca.rotate: invoke ca\n", "")
    assert "--node" in invoke(clone, "--help ca")[1]
    assert "--node" not in invoke(clone, "--help ca.rotate")[1]
    (clone / "etcd.toml").write_text(ALONE)
    ended, out, _ = invoke(clone, "--dry ca --node etcd-1 ca.rotate")
    assert (ended, out.count("CA will be created"), out.count("ca.rotate: ")) == (4, 1, 1)
    assert "No idea what 'ca.ca' is!" in invoke(clone, "ca.ca")[2]


GREETS = """\
from steps.api import Option, Step, hookimpl

LOUD = Option("be_loud", "in capitals", default=False)
WORD = Option("word", "what is said", default="hello", in_all=True)

class Greet(Step):
    \"""Say something\"""
    name = "greet"
    after = "env"
    options = (LOUD, WORD)

    def prepare(self, cluster, nodes, ctx):
        word = ctx.option(WORD)
        ctx.say(word.upper() if ctx.option(LOUD) else word)

@hookimpl
def etcd_steps():
    return [Greet()]
"""


def test_option_of_a_step_is_declared_by_it_alone(clone: Path) -> None:
    (clone / "etcd.toml").write_text(ALONE)
    (clone / "plugins" / "greet.py").write_text(GREETS)
    for line, said in (
        ("greet", "hello"),
        ("greet --be-loud", "HELLO"),
        ("greet --word good-day --be-loud", "GOOD-DAY"),
    ):
        ended, out, err = invoke(clone, f"--dry {line}")
        assert (ended, err) == (0, ""), out
        assert said in out.split(), line
    assert "--word" in invoke(clone, "--help all")[1]
    assert "--be-loud" not in invoke(clone, "--help all")[1]
    ended, _, err = invoke(clone, "--dry greet --word a greet --word b")
    assert (ended, "two different --word on one command line: a and b" in err) == (2, True)
    assert "No idea what '--be-loud' is!" in invoke(clone, "env --be-loud")[2]
