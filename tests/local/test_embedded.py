"""The embedded default: `invoke all` in a fresh copy, as an ordinary user, with real etcd processes of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic
import pytest
from ports import free_ports, moved

ROOT = Path(__file__).parents[2]
WRITER = ROOT / "tests" / "hosts" / "writer.py"
PACKAGES = Path(pydantic.__file__).parents[1]
PHASES = ("env", "download", "distribute", "ca", "certs", "units", "start", "verify")
MEMBERS = ("etcd-1", "etcd-2", "etcd-3")
LIVELY = ("lock", "lock.holder", "log", "etcd.log", "data", "wal")  # what a run or a member writes by itself

Ended = subprocess.CompletedProcess[str]


@dataclass
class User:
    """Who runs the copies: `nobody` where the tests run as root. `python` is one that this user may run."""

    name: str
    home: Path
    python: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "USER": self.name,
            "LOGNAME": self.name,
            "PYTHONPATH": str(PACKAGES),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return {**{name: value for name, value in os.environ.items() if not name.startswith("ETCD")}, **own}

    def give(self, path: Path) -> None:
        for each in (path, *path.rglob("*")) if self.settings else ():
            os.chown(each, self.settings["user"], self.settings["group"], follow_symlinks=False)


@dataclass
class Copy:
    """A fresh clone's files with ports of its own."""

    root: Path
    user: User
    ports: list[int]

    @property
    def work(self) -> Path:
        return self.root / ".etcd" / "demo"

    def run(self, *argv: str, **environment: str) -> Ended:
        return subprocess.run(
            argv,
            cwd=self.root,
            env={**self.user.environment, **environment},
            text=True,
            capture_output=True,
            timeout=180,
            check=False,
            stdin=subprocess.DEVNULL,
            **self.user.settings,
        )

    def invoke(self, *words: str, code: int = 0, **environment: str) -> str:
        """Both streams, one after the other."""
        ended = self.run(self.user.python, "-m", "invoke", *words, **environment)
        assert ended.returncode == code, f"{ended.stdout}\n{ended.stderr}"
        assert "Traceback" not in ended.stderr
        return ended.stdout + ended.stderr

    def bash(self, script: str) -> str:
        invoke = f'invoke() {{ {self.user.python} -m invoke "$@"; }}\n'
        ended = self.run("bash", "-euc", invoke + script)
        assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def etcdctl(self, *words: str) -> str:
        return self.bash(f". .etcd/demo/environment.sh; etcdctl {' '.join(words)}")

    def pids(self) -> dict[str, int]:
        """The members that live."""
        found = {}
        for name in MEMBERS:
            with contextlib.suppress(OSError, ValueError):
                pid = int((self.work / "nodes" / name / "etcd.pid").read_text())
                if proc(pid, "cmdline")[:1] == [str(self.work / "nodes" / name / "bin" / "etcd")]:
                    found[name] = pid
        return found

    def configure(self, **flags: str) -> None:
        """etcd.toml as it came, with these flags."""
        lines = "".join(f'{name.replace("_", "-")} = "{value}"\n' for name, value in flags.items())
        text = (self.root / "etcd.toml.orig").read_text()
        (self.root / "etcd.toml").write_text(
            text.replace("[hosts]", f"[etcd.flags]\n{lines}\n[hosts]") if flags else text
        )

    def tree(self) -> set[tuple[str, int, int, int]]:
        """Every file of the work directory that nobody but a changing run writes, with inode, mtime and mode."""
        files = (path for path in self.work.rglob("*") if not any(part in LIVELY for part in path.parts))
        return {(str(path), s.st_ino, s.st_mtime_ns, s.st_mode) for path in files for s in [path.lstat()]}

    def end(self) -> None:
        for pid in self.pids().values():
            os.kill(pid, signal.SIGKILL)


def proc(pid: int, file: str) -> list[str]:
    return Path(f"/proc/{pid}/{file}").read_text().split("\0")[:-1]


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    home = Path(tempfile.mkdtemp(prefix="etcd-steps-"))
    home.chmod(0o755)
    account = pwd.getpwuid(os.getuid())
    found = User(account.pw_name, home, sys.executable)
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        settings = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}
        ordinary = User(nobody.pw_name, home, "", settings)
        for python in (sys.executable, *filter(None, (shutil.which("python3", path="/usr/bin:/usr/local/bin"),))):
            with contextlib.suppress(OSError):
                probe = [python, "-c", "import cryptography.x509, invoke, pydantic"]
                ran = subprocess.run(
                    probe, env=ordinary.environment, cwd="/", capture_output=True, check=False, **settings
                )
                if ran.returncode == 0:
                    ordinary.python = python
                    found = ordinary
                    break
    found.give(home)
    yield found
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def copies(user: User) -> Iterator[Callable[[str], Copy]]:
    made: list[Copy] = []

    def copy(name: str) -> Copy:
        root = user.home / name
        root.mkdir()
        for folder in ("steps", "templates", "plugins"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("tasks.py", "invoke.yaml"):
            shutil.copy(ROOT / file, root)
        text, ports = moved()
        for file in ("etcd.toml", "etcd.toml.orig"):
            (root / file).write_text(text)
        user.give(root)
        made.append(Copy(root, user, ports))
        return made[-1]

    yield copy
    for each in made:
        each.end()


@pytest.fixture
def fresh(copies: Callable[[str], Copy], request: pytest.FixtureRequest) -> Iterator[Copy]:
    copy = copies(re.sub(r"\W", "-", request.node.name))
    yield copy
    copy.end()


@dataclass
class Deployed:
    copy: Copy
    said: str
    healthy: dict[str, int]  # the members as they were when all was well


@pytest.fixture(scope="module")
def deployed(copies: Callable[[str], Copy]) -> Deployed:
    copy = copies("shared")
    return Deployed(copy, copy.invoke("all"), copy.pids())


@pytest.fixture
def cluster(deployed: Deployed) -> Copy:
    """The shared cluster, as etcd.toml came, and healthy, whatever the test before did to it."""
    copy = deployed.copy
    copy.configure()
    if copy.pids() != deployed.healthy:
        copy.invoke("all")
        deployed.healthy = copy.pids()
    return copy


# -- one command --------------------------------------------------------------------------------------------------


def test_one_command_ends_with_a_healthy_cluster(deployed: Deployed) -> None:
    said, copy = deployed.said, deployed.copy
    phases = re.findall(r"^==> \[(\d)/8\] (\w+)", said, re.MULTILINE)
    assert phases == [(str(n), p) for n, p in enumerate(PHASES, 1)]
    rows = re.findall(
        r"^(etcd-\d) +(https://127\.0\.0\.1:\d+) +(\w+) +(\w+) +([\d.]+) +(\d{4}-\d\d-\d\d)$", said, re.MULTILINE
    )
    assert [(name, url, health, version) for name, url, _, health, version, _ in rows] == [
        (name, f"https://127.0.0.1:{port}", "healthy", "3.5.16")
        for name, port in zip(MEMBERS, copy.ports[::2], strict=True)
    ]
    assert sorted(role for _, _, role, *_ in rows) == ["follower", "follower", "leader"]
    tip = said.strip().splitlines()[-1]
    assert f". {copy.work}/environment.sh && etcdctl endpoint health" in tip


def test_the_members_are_detached_and_carry_nothing_of_the_command(cluster: Copy) -> None:
    pids = cluster.pids()
    assert list(pids) == list(MEMBERS)
    owner = cluster.user.settings.get("user", os.getuid())
    for pid in pids.values():
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        assert (int(stat[2]), int(stat[3]), int(stat[4])) == (pid, pid, 0), "own group, own session, no terminal"
        assert Path(f"/proc/{pid}").stat().st_uid == owner
        assert proc(pid, "environ") == []
        files = {
            str(Path(f"/proc/{pid}/fd/{fd}").readlink())
            for fd in (0, 1, 2, 3, 9)
            if Path(f"/proc/{pid}/fd/{fd}").is_symlink()
        }
        assert not any("lock" in file or "pipe" in file for file in files)


def test_the_work_directory_is_private(cluster: Copy) -> None:
    assert cluster.work.stat().st_mode & 0o777 == 0o700
    keys = [path for path in cluster.work.rglob("*key*.pem") if not path.is_symlink()]
    assert len(keys) >= 2 * len(MEMBERS) + 2
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert not list(cluster.work.glob("nodes/*/cert/**/ca-key.pem")), "the CA's key stays with the controller"
    assert {path.stat().st_mode & 0o777 for path in cluster.work.glob("nodes/*/data")} == {0o700}


def test_the_second_run_changes_nothing(cluster: Copy) -> None:
    before, pids = cluster.tree(), cluster.pids()
    said = cluster.invoke("all")
    assert cluster.tree() ^ before == set()
    assert cluster.pids() == pids
    assert said.count("runs what is installed") == len(MEMBERS)
    assert not re.search(r"is (created|replaced|issued|started)|->|restarted", said)
    assert "nothing to do" in cluster.invoke("plan")


COUNTING = """
import collections, json, sys
from invoke.main import program
from steps.core.transport.pool import Hosts

asked, run = collections.Counter(), Hosts.run

def counted(self, node, *words, **more):
    asked[node.name] += 1
    return run(self, node, *words, **more)

Hosts.run = counted
program.run(["invoke", "all"], exit=False)
sys.stderr.write(json.dumps(asked))
"""


def test_nothing_to_do_costs_one_look_and_one_question(cluster: Copy) -> None:
    done = cluster.run(cluster.user.python, "-c", COUNTING)
    assert json.loads(done.stderr) == dict.fromkeys(MEMBERS, 2), done.stdout + done.stderr


def test_what_machines_read(cluster: Copy) -> None:
    for task in ("verify", "status"):
        told = json.loads(cluster.invoke(task, "--json"))
        assert (told["healthy"], [member["name"] for member in told["members"]]) == (True, list(MEMBERS))


def test_the_log_tells_the_last_runs(cluster: Copy) -> None:
    cluster.configure(heartbeat_interval="321")
    cluster.invoke("all")
    assert re.search(r" \S+@\S+ +invoke all +6 +[\d.]+ +done$", cluster.invoke("log", "--count", "1"), re.MULTILINE)
    (newest,) = json.loads(cluster.invoke("log", "--count", "1", "--json"))["runs"]
    assert (newest["command"], newest["changes"], newest["result"]) == ("invoke all", 6, "done")
    shown = cluster.invoke("log", "--run", newest["run"])
    assert shown.count("flags changed: --heartbeat-interval") == len(MEMBERS)


def test_a_terminal_sees_what_goes_on(cluster: Copy) -> None:
    """Whoever waits for a member that is started sees its name, which is gone once it serves."""
    cluster.invoke("stop", "--yes", "demo")
    ours, theirs = pty.openpty()
    argv, user = [cluster.user.python, "-m", "invoke", "start"], cluster.user
    environment = {**user.environment, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        argv, cwd=cluster.root, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, **user.settings
    ) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # how the end of a terminal reads
            while chunk := os.read(ours, 4096):
                said += chunk
    os.close(ours)
    assert process.returncode == 0, said
    assert re.search(r"etcd-3  start .*\d+:\d\d", said.decode()), said  # a line for the member, with a clock
    assert "etcd-3: etcd is started" in said.decode()
    assert cluster.pids().keys() == {*MEMBERS}


@pytest.mark.parametrize("phase", PHASES)
def test_each_phase_is_planned_alone(cluster: Copy, phase: str) -> None:
    assert cluster.invoke("--dry", phase).rstrip().endswith("nothing to do")


# -- talking to it ------------------------------------------------------------------------------------------------


def test_environment_sh_works_as_it_stands(cluster: Copy) -> None:
    said = cluster.run("bash", "-c", ". .etcd/demo/environment.sh && etcdctl endpoint health")
    assert said.returncode == 0, said.stderr
    assert (said.stdout + said.stderr).count("is healthy") == len(MEMBERS)


def test_environment_sh_exports_path_and_etcdctls_variables_alone(cluster: Copy) -> None:
    def exported(script: str) -> dict[str, str]:
        pairs = (pair.partition("=") for pair in cluster.bash(f"{script}env -0").split("\0") if pair)
        return {name: value for name, _, value in pairs if name != "_"}

    before, after = exported(""), exported(". .etcd/demo/environment.sh; ")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {"PATH", *(f"ETCDCTL_{name}" for name in ("ENDPOINTS", "CACERT", "CERT", "KEY"))}
    variables = "$VER ${NODE_IPS[@]} ${NODE_NAMES[@]} $ETCD_ENDPOINTS $ETCD_NODES $ETCD_DATA_DIR $ETCD_WAL_DIR"
    words = cluster.bash(
        f". .etcd/demo/environment.sh; . .etcd/demo/environment.sh; echo {variables}; echo $PATH"
    ).split()
    assert words[:7] == ["3.5.16", *["127.0.0.1"] * 3, *MEMBERS]
    assert words[7] == ",".join(f"https://127.0.0.1:{port}" for port in cluster.ports[::2])
    assert words[-1].count(str(cluster.work)) == 1, "sourced twice, PATH grows once"


def test_our_own_tasks_work_after_sourcing_it(cluster: Copy) -> None:
    said = cluster.bash(
        ". .etcd/demo/environment.sh; etcdctl put a b; invoke stop; invoke start; invoke status; etcdctl get a"
    )
    assert said.count("stopped") == len(MEMBERS)
    assert said.count(" healthy ") == len(MEMBERS)
    assert said.endswith("a\nb\n")


HOSTILE = {
    "ETCD_NAME": "x",
    "ETCD_DATA_DIR": "/nonexistent",
    "ETCD_INITIAL_CLUSTER_STATE": "existing",
    "ETCDCTL_ENDPOINTS": "bad",
    "ETCDCTL_API": "2",
    "ETCDCTL_CACERT": "/nonexistent",
    "ETCDCTL_USER": "root:wrong",
}


def test_a_hostile_environment_does_not_interfere(cluster: Copy) -> None:
    cluster.configure(heartbeat_interval="260")
    cluster.invoke("stop", **HOSTILE)
    cluster.invoke("all", **HOSTILE)
    said = json.loads(cluster.invoke("status", "--json", **HOSTILE))
    assert (said["healthy"], [member["health"] for member in said["members"]]) == (True, ["healthy"] * 3)
    cluster.invoke("verify", **HOSTILE)
    assert [proc(pid, "environ") for pid in cluster.pids().values()] == [[], [], []]


# -- operating it -------------------------------------------------------------------------------------------------


def test_stop_and_start(cluster: Copy) -> None:
    cluster.etcdctl("put", "kept", "yes")
    before, pids = cluster.tree(), cluster.pids()
    assert cluster.invoke("stop").count("stopped") == len(MEMBERS)
    assert cluster.pids() == {}
    assert not any(proc(pid, "cmdline") for pid in pids.values() if Path(f"/proc/{pid}").exists())
    assert "etcd-2" in cluster.invoke("status", code=5)
    assert "etcd-2" in cluster.invoke("verify", code=5)
    assert "etcd-2: etcd is not running" in cluster.invoke("--dry", "verify", code=5)
    cluster.invoke("stop")
    cluster.invoke("start")
    assert not set(cluster.pids().values()) & set(pids.values())
    assert cluster.etcdctl("get", "kept", "--print-value-only") == "yes\n"
    changed = {Path(path) for path, *_ in before ^ cluster.tree()}
    nodes = [cluster.work / "nodes" / name for name in MEMBERS]
    assert changed <= {*nodes, *(node / "etcd.pid" for node in nodes)}


def test_one_member_is_stopped_and_started(cluster: Copy) -> None:
    pids = cluster.pids()
    cluster.invoke("stop", "--node", "etcd-3")
    assert list(cluster.pids()) == ["etcd-1", "etcd-2"]
    assert "etcd-3" in cluster.invoke("status", code=5)
    cluster.invoke("start", "--node", "etcd-3")
    after = cluster.pids()
    assert {name for name in MEMBERS if after[name] != pids[name]} == {"etcd-3"}


@pytest.mark.parametrize("words", [(), ("--yes", "demo2"), ("--yes", "")])
def test_reset_wants_the_clusters_name(cluster: Copy, words: tuple[str, ...]) -> None:
    before, pids = cluster.tree(), cluster.pids()
    assert "--yes demo" in cluster.invoke("reset", *words, code=3)
    assert cluster.tree() ^ before == set()
    assert cluster.pids() == pids


def test_reset_renames_the_data_and_keeps_the_ca(cluster: Copy) -> None:
    cluster.etcdctl("put", "old", "yes")
    trust = {path: path.read_bytes() for path in (cluster.work / "ca").rglob("*.pem")}
    old = set(cluster.work.glob("nodes/*/*.old-*"))
    cluster.invoke("reset", "--yes", "demo")
    assert cluster.pids() == {}
    renamed = set(cluster.work.glob("nodes/*/*.old-*")) - old
    assert {path.name.partition(".")[0] for path in renamed} == {"data", "wal"}
    assert len(renamed) == 2 * len(MEMBERS)
    assert not list(cluster.work.glob("nodes/*/data")) + list(cluster.work.glob("nodes/*/wal"))
    assert "next: invoke all" in cluster.invoke("status", code=5)
    said = cluster.invoke("start", code=3)
    assert "next: invoke all" in said
    assert "is started" not in said
    cluster.invoke("all")
    assert cluster.etcdctl("get", "old") == "", "another cluster"
    assert {path: path.read_bytes() for path in (cluster.work / "ca").rglob("*.pem")} == trust
    assert all(path.exists() for path in renamed)


def test_data_that_vanished_is_never_started_empty(cluster: Copy) -> None:
    cluster.invoke("stop", "--node", "etcd-2")
    home = cluster.work / "nodes" / "etcd-2"
    for name in ("data", "wal"):
        (home / name).rename(home / f"{name}.away")
    assert "vanished" in cluster.invoke("all", code=3)
    assert list(cluster.pids()) == ["etcd-1", "etcd-3"]
    for name in ("data", "wal"):
        shutil.rmtree(home / name, ignore_errors=True)
        (home / f"{name}.away").rename(home / name)


def test_etcd_sh_without_data_or_wal_starts_nothing(cluster: Copy) -> None:
    cluster.invoke("stop", "--node", "etcd-2")
    assert "next: invoke start" in cluster.invoke("status", code=5)
    home = cluster.work / "nodes" / "etcd-2"
    for name in ("data/member", "wal"):
        (home / name).rename(home / "away")
        ran = cluster.run("sh", str(home / "etcd.sh"))
        assert ran.returncode == 1
        assert f"{home / name} is empty or missing: this member is not started without its data" in ran.stderr
        assert not (home / name).exists()
        assert "no member's data" in cluster.invoke("start", code=3)
        (home / "away").rename(home / name)
    cluster.invoke("start")


def test_start_before_any_deployment_is_refused_and_makes_nothing(fresh: Copy) -> None:
    said = fresh.invoke("start", code=3)
    assert f"etcd-3: {fresh.work}/nodes/etcd-3/bin/etcd, {fresh.work}/nodes/etcd-3/etcd.sh" in said
    assert "next: invoke all" in said
    assert "is started" not in said
    assert "next: invoke all" in fresh.invoke("status", code=5)
    assert not list(fresh.work.glob("nodes/*/etcd.*"))


def test_a_bad_value_leaves_the_other_members_the_script_that_they_run(cluster: Copy) -> None:
    pids = cluster.pids()
    scripts = {name: (cluster.work / "nodes" / name / "etcd.sh").read_text() for name in MEMBERS}
    cluster.configure(log_level="nonsense")
    said = cluster.invoke("all", code=1)
    (failed,) = pids.keys() - cluster.pids().keys()
    others = [name for name in MEMBERS if name != failed]
    assert f"  {', '.join(others)}: the former script is back: the next start takes what runs" in said
    assert all((cluster.work / "nodes" / name / "etcd.sh").read_text() == scripts[name] for name in others)
    assert {name: pids[name] for name in others} == cluster.pids()
    cluster.configure()
    cluster.invoke("all")
    assert {name: pid for name, pid in cluster.pids().items() if name != failed} == {
        name: pids[name] for name in others
    }


# -- a change of heart --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(cluster: Copy) -> Iterator[dict[str, int]]:
    """Somebody writes all the while; afterwards, what became of it."""
    pair = cluster.work / "certs" / "operator" / "live"
    urls = ",".join(f"https://127.0.0.1:{port}" for port in cluster.ports[::2])
    files = [f"--ca={cluster.work}/ca/ca.pem", f"--cert={pair}/cert.pem", f"--key={pair}/key.pem"]
    argv = [sys.executable, str(WRITER), f"--endpoints={urls}", *files]
    process = subprocess.Popen(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    result: dict[str, int] = {}
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "writing\n"
        yield result
    finally:
        process.send_signal(signal.SIGTERM)
        said, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    result.update(json.loads(said))


def test_a_changed_flag_is_a_rolling_restart_that_loses_nothing(cluster: Copy) -> None:
    before, pids = cluster.tree(), cluster.pids()
    cluster.configure(heartbeat_interval="300")
    planned = cluster.invoke("plan", code=4)
    assert planned.count("-  --heartbeat-interval=250") == planned.count("+  --heartbeat-interval=300") > 0
    assert set(re.findall(r"(etcd-\d)(?=[^:\n]*: will be restarted)", planned)) == set(MEMBERS)
    assert cluster.tree() ^ before == set()
    assert cluster.pids() == pids
    with writing(cluster) as result:
        cluster.invoke("all")
    after = cluster.pids()
    assert all(after[name] != pids[name] for name in MEMBERS)
    assert all("--heartbeat-interval=300" in proc(pid, "cmdline") for pid in after.values())
    assert (result["lost"], result["missing"]) == (0, 0), result
    assert result["acknowledged"] > 10


def test_what_is_installed_today_is_started_tomorrow_on_the_chosen_node_alone(cluster: Copy) -> None:
    before, pids = cluster.tree(), cluster.pids()
    cluster.configure(heartbeat_interval="310")
    cluster.invoke("units", "--node", "etcd-2")
    assert cluster.pids() == pids
    cluster.invoke("start", "--node", "etcd-2")
    after = cluster.pids()
    assert {name for name in MEMBERS if after[name] != pids[name]} == {"etcd-2"}
    assert {path for path, *_ in before ^ cluster.tree() if "/nodes/" in path and "/etcd-2" not in path} == set()


@pytest.mark.parametrize(("flag", "value", "code"), [("no-such-flag", "1", 3), ("max-wals", "x", 2)])
def test_a_flag_that_etcd_refuses_restarts_nobody(cluster: Copy, flag: str, value: str, code: int) -> None:
    before, pids = cluster.tree(), cluster.pids()
    cluster.configure(**{flag: value})
    assert flag in cluster.invoke("all", code=code)
    nodes = {str(cluster.work / "nodes" / name) for name in MEMBERS}
    assert {path for path, *_ in before ^ cluster.tree()} <= nodes, "something was staged there, and went again"
    assert cluster.pids() == pids


# -- what stands in the way ---------------------------------------------------------------------------------------


def test_taken_ports_are_named_with_their_holders_and_nothing_is_started(fresh: Copy) -> None:
    client, peer = fresh.ports[0], fresh.ports[3]
    servers = f"s = [socket.create_server(('127.0.0.1', port)) for port in ({client}, {peer})]"
    listen = f"import socket, sys; {servers}; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [fresh.user.python, "-c", listen], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **fresh.user.settings
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        name = Path(f"/proc/{holder.pid}/comm").read_text().strip()
        said = fresh.invoke("all", code=3)
        assert holder.stdin is not None
        holder.stdin.close()
    assert f"etcd-1: port {client} is taken by pid {holder.pid} ({name})" in said
    assert f"etcd-2: port {peer} is taken by pid {holder.pid} ({name})" in said
    assert "nothing was changed" in said
    assert fresh.pids() == {}
    assert (
        not list(fresh.work.glob("nodes/*/bin")) + list(fresh.work.glob("nodes/*/data")) + list(fresh.work.glob("ca/*"))
    )
    fresh.invoke("all")


def test_a_plan_for_a_fresh_directory_writes_nothing_at_all(fresh: Copy) -> None:
    home = fresh.root / "home"
    home.mkdir()
    fresh.user.give(home)

    def everything() -> Mapping[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in (fresh.root, *fresh.root.rglob("*"))
        }

    before = everything()
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "TMPDIR": str(home)}
    for words in (("plan",), ("--dry", "all"), ("--dry", "certs", "units"), ("--dry", "reset")):
        said = fresh.invoke(*words, code=4, **own)
        assert everything() == before, words
    assert "etcd-3: will be started" in fresh.invoke("plan", code=4, **own)
    assert "PRIVATE KEY" not in said


# -- killed -------------------------------------------------------------------------------------------------------


def kill_at(copy: Copy, phase: str, delay: float) -> None:
    """SIGKILL, so many seconds after that phase began."""
    argv = [copy.user.python, "-m", "invoke", "all"]
    with subprocess.Popen(
        argv,
        cwd=copy.root,
        env=copy.user.environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **copy.user.settings,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("==>") and line.strip().endswith(phase):
                break
        time.sleep(delay)
        process.kill()


def again(copy: Copy) -> str:
    """`invoke all`; an orphan of the killed run may hold a node's lock for a moment."""
    for _ in range(20):
        ended = copy.run(copy.user.python, "-m", "invoke", "all")
        if ended.returncode != 3 or "lock" not in ended.stderr:
            break
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_killed_run_converges(fresh: Copy) -> None:
    moments = [
        ("distribute", 0.05),
        ("distribute", 0.3),
        ("ca", 0),
        ("certs", 0.02),
        ("units", 0.05),
        ("start", 0),
        ("start", 0.1),
    ]
    trust: bytes | None = None
    for phase, delay in moments:
        kill_at(fresh, phase, delay)
        ca = fresh.work / "ca" / "ca.pem"
        now = ca.read_bytes() if ca.exists() else None
        assert trust in (None, now), "a CA is never made twice"
        trust = now
    assert " healthy " in again(fresh)
    assert list(fresh.work.rglob(".etcd-steps.*")) == []
    assert list(fresh.pids()) == list(MEMBERS)
    assert fresh.etcdctl("member", "list").count("started") == len(MEMBERS)
    assert "nothing to do" in fresh.invoke("plan")


def test_a_rolling_restart_that_was_killed_goes_on_from_what_lives(cluster: Copy) -> None:
    cluster.configure(heartbeat_interval="320")
    pids = cluster.pids()
    kill_at(cluster, "start", 0.6)
    again(cluster)
    after = cluster.pids()
    assert list(after) == list(MEMBERS)
    assert all(after[name] != pids[name] for name in MEMBERS)
    assert all("--heartbeat-interval=320" in proc(pid, "cmdline") for pid in after.values())


def test_a_data_path_that_was_edited_is_refused_before_anything_changes(cluster: Copy) -> None:
    pids, tree = cluster.pids(), cluster.tree()
    text = (cluster.root / "etcd.toml.orig").read_text()
    (cluster.root / "etcd.toml").write_text(text.replace("[hosts]", '[paths]\ndata = "else/{node}/data"\n\n[hosts]'))
    try:
        for task in ("plan", "all", "start"):
            said = cluster.invoke(task, code=3)
            assert (
                f"etcd-2: its data is in {cluster.work}/nodes/etcd-2/data, etcd.toml says {cluster.root}/else" in said
            )
    finally:
        cluster.configure()
    assert (cluster.pids(), cluster.tree()) == (pids, tree)
    assert not (cluster.root / "else").exists()


def test_client_ports_move_one_process_at_a_time(cluster: Copy) -> None:
    cluster.etcdctl("put", "kept", "on-the-move")
    pids, text = cluster.pids(), (cluster.root / "etcd.toml").read_text()
    fresh = iter(free_ports(len(MEMBERS)))
    (cluster.root / "etcd.toml").write_text(
        re.sub(r"(?m)^client_port = \d+", lambda _: f"client_port = {next(fresh)}", text)
    )
    try:
        assert cluster.invoke("verify").count(" serves at https://127.0.0.1:") == len(MEMBERS)
        cluster.invoke("doctor")
        cluster.invoke("all")
        assert not set(pids.values()) & set(cluster.pids().values())
        assert cluster.etcdctl("get", "--print-value-only", "kept") == "on-the-move\n"
        assert "nothing to do" in cluster.invoke("plan")
    finally:
        (cluster.root / "etcd.toml").write_text(text)
        cluster.invoke("all")
