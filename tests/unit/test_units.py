"""What is rendered: the unit for old and new systemd, the script of a plain process, and every word as it was."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import on_hosts, on_loopback, seen
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.core.config.model import Cluster
from steps.core.etcd import flags
from steps.core.node.facts import UNIT_DIGEST
from steps.core.node.render import exec_argv, render, script_argv, unit_path, unit_word
from steps.core.node.resources import Directory, File
from steps.testing import make_context
from steps.units import ANALYZE, Units, lint

BARE = "[hosts]\nhardening = false\n"


def unit(systemd: int = 252, more: str = "", cluster: Cluster | None = None) -> str:
    cluster = cluster or on_hosts(more)
    (file,) = (each for each in Units().desired(make_context(cluster), cluster.nodes[0]) if isinstance(each, File))
    return str(file.known(seen(cluster, facts={"systemd": systemd})).content)


def sections(text: str) -> dict[str, list[tuple[str, str]]]:
    """Section → its directives, in order."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("["):
            found[line.strip("[]")] = []
        elif line:
            name, _, value = line.partition("=")
            list(found.values())[-1].append((name, value))
    return found


# Directive → the first systemd that has it (or, for SystemCallFilter, that knows all of its groups). From its NEWS.
SINCE = {
    "LimitCORE=0": 0,
    "TimeoutStartSec=120": 0,
    "UMask=0077": 0,
    "NotifyAccess=main": 0,
    "NoNewPrivileges=true": 0,
    "CapabilityBoundingSet=": 0,
    "ProtectHome=true": 0,
    "PrivateTmp=true": 0,
    "PrivateDevices=true": 0,
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK": 0,
    "SystemCallArchitectures=native": 0,
    "StartLimitIntervalSec=600": 230,
    "StartLimitBurst=75": 230,
    "MemoryDenyWriteExecute=true": 231,
    "ProtectSystem=strict": 232,
    "ReadWritePaths=/data/etcd/data /data/etcd": 232,
    "ProtectKernelTunables=true": 232,
    "ProtectKernelModules=true": 232,
    "ProtectControlGroups=true": 232,
    "RestrictRealtime=true": 232,
    "RemoveIPC=true": 232,
    "RestrictNamespaces=true": 233,
    "LockPersonality=true": 235,
    "SystemCallFilter=@system-service": 239,
    "SystemCallFilter=~@privileged @resources": 239,
    "SystemCallErrorNumber=EPERM": 239,
    "ProtectHostname=true": 242,
    "RestrictSUIDSGID=true": 242,
    "ProtectKernelLogs=true": 244,
    "ProtectClock=true": 245,
    "ProtectProc=invisible": 247,
    "ProcSubset=pid": 247,
    "RestartSteps=5": 254,
    "RestartMaxDelaySec=30": 254,
}
ALWAYS = {
    "RequiresMountsFor=/data/etcd/data /data/etcd/wal",
    "Type=notify",
    "User=etcd",
    "Group=etcd",
    "WorkingDirectory=/data/etcd/data",
    "Restart=on-failure",
    "RestartSec=5",
    "LimitNOFILE=65536",
}


def directives(text: str) -> set[str]:
    found = sections(text)
    lines = {f"{name}={value}" for section in ("Unit", "Service") for name, value in found[section]}
    plain = ("Description", "Documentation", "After", "Wants", "ExecStart", "Environment")
    return {line for line in lines if not line.startswith(plain)}


@pytest.mark.parametrize("systemd", [219, 229, 230, 231, 232, 237, 239, 241, 245, 252, 257])
def test_every_directive_by_systemds_version(systemd: int) -> None:
    wanted = ALWAYS | {line for line, since in SINCE.items() if since <= systemd}
    if systemd < 232:
        wanted.add("ProtectSystem=full")
    assert directives(unit(systemd)) == wanted


def test_where_directives_stand() -> None:
    found = sections(unit())
    assert list(found) == ["Unit", "Service", "Install"]
    assert {"StartLimitIntervalSec", "StartLimitBurst"} <= {name for name, _ in found["Unit"]}
    assert ("After", "network-online.target") in found["Unit"]
    assert ("Wants", "network-online.target") in found["Unit"]
    assert found["Install"] == [("WantedBy", "multi-user.target")]
    assert "RestartPreventExitStatus" not in unit()


@pytest.mark.parametrize("systemd", [219, 237, 252])
def test_without_hardening_it_is_the_how_tos(systemd: int) -> None:
    assert directives(unit(systemd, BARE)) == ALWAYS
    root = directives(unit(systemd, '[hosts]\nhardening = false\nrun_as = "root"\n'))
    assert root == {line for line in ALWAYS if not line.startswith(("User=", "Group="))}


def test_other_paths_are_the_ones_that_may_be_written() -> None:
    text = unit(more='[paths]\ndata = "/srv/a/data"\nwal = "/mnt/fast/etcd/wal"\n')
    assert "ReadWritePaths=/srv/a/data /mnt/fast/etcd\n" in text
    assert "WorkingDirectory=/srv/a/data\n" in text


def test_the_unit_starts_the_command_line() -> None:
    cluster = on_hosts()
    assert exec_argv(unit()) == flags.argv(cluster, cluster.nodes[0], {})


def test_the_digest_follows_every_lasting_line_and_no_other() -> None:
    def digest(text: str) -> str:
        (found,) = re.findall(rf"^Environment={UNIT_DIGEST}=([0-9a-f]{{16}})$", text, re.MULTILINE)
        return str(found)

    assert digest(unit()) == digest(unit(cluster=on_hosts(count=5))), "--initial-cluster is read once"
    others = [unit(237), unit(more=BARE), unit(more="[etcd.flags]\nmax-wals = 6\n")]
    assert len({digest(text) for text in [unit(), *others]}) == 4


def test_the_directories_that_etcd_needs_come_with_the_unit() -> None:
    cluster = on_hosts()
    found = [each for each in Units().desired(make_context(cluster), cluster.nodes[0]) if isinstance(each, Directory)]
    assert [(each.path, each.mode, each.owner, each.group) for each in found] == [
        (path, 0o700, "etcd", "etcd") for path in ("/data/etcd", "/data/etcd/data", "/data/etcd/wal")
    ]


def test_a_missing_value_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.j2").write_text("{{ nothing }}")
    with pytest.raises(Exception, match="'nothing' is undefined"):
        render("x.j2", [tmp_path])


def test_a_value_is_never_itself_a_template(tmp_path: Path) -> None:
    (tmp_path / "x.j2").write_text("{{ value }}")
    assert render("x.j2", [tmp_path], value="{{ 7*7 }}") == "{{ 7*7 }}"


def test_a_sites_template_is_found_first(tmp_path: Path) -> None:
    (tmp_path / "etcd.service.j2").write_text("mine")
    assert render("etcd.service.j2", [tmp_path]) == "mine"


# -- quoting ------------------------------------------------------------------------------------------------------

WORDS = {
    "--name=etcd-1": "--name=etcd-1",
    "--listen-peer-urls=https://[fd00::1]:2380": "--listen-peer-urls=https://[fd00::1]:2380",
    "50%": "50%%",
    "%H": "%%H",
    "$HOME": '"$$HOME"',
    "${x}": '"$${x}"',
    "a b": '"a b"',
    "": '""',
    ";": '";"',
    'say "hi"': '"say \\"hi\\""',
    "it's": '"it\'s"',
    "back\\slash": '"back\\\\slash"',
    "#x": '"#x"',
    "é": '"é"',
}


@pytest.mark.parametrize(("word", "written"), WORDS.items())
def test_a_word_of_exec_start(word: str, written: str) -> None:
    assert unit_word(word) == written
    assert exec_argv(f"[Service]\nExecStart=/bin/etcd {written}\n") == ("/bin/etcd", word)


@pytest.mark.parametrize("text", ["a\nb", "\0", "a\tb", "\x7f", "\x1b[31m", "\r"])
def test_control_characters_cannot_stand_in_a_unit(text: str) -> None:
    for quote in (unit_word, unit_path):
        with pytest.raises(ValueError, match="control character"):
            quote(text)


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\\\"'%$ ;#=-{}`\u2028\u00a0"))


@given(words=st.lists(TEXT, max_size=5), split=st.booleans())
def test_exec_argv_reads_what_unit_word_wrote(words: list[str], split: bool) -> None:  # noqa: FBT001  drawn
    line = (" \\\n  " if split else " ").join(["/bin/etcd", *map(unit_word, words)])
    assert exec_argv(f"[Unit]\n[Service]\nExecStart={line}\n\nRestart=on-failure\n") == ("/bin/etcd", *words)


@pytest.mark.parametrize("line", ['"/bin/etcd', "/bin/etcd --name='a", '/bin/etcd "--data-dir=/srv/e"tc"d'])
def test_exec_argv_quote_that_is_not_closed_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="No closing quotation"):
        exec_argv(f"[Service]\nExecStart={line}\n")
    with pytest.raises(ValueError, match="No closing quotation"):
        script_argv(f"exec env -i {line}\n")


PRINTF = shutil.which("printf") or "printf"


@settings(max_examples=40, deadline=None)
@given(words=st.lists(TEXT.filter(lambda text: "\0" not in text), min_size=1, max_size=5))
def test_etcd_sh_hands_every_word_to_etcd(words: list[str]) -> None:
    cluster = on_loopback()
    argv = (PRINTF, r"%s\0", *words)
    text = render("etcd.sh.j2", (), cluster=cluster, node=cluster.nodes[0], argv=argv)
    said = subprocess.check_output(["sh", "-c", text])
    assert said.decode("utf-8", "surrogateescape").split("\0")[:-1] == words
    assert script_argv(text) == argv


def test_etcd_sh_of_a_member() -> None:
    cluster = on_loopback()
    node = replace(cluster.nodes[0], flags={"log-outputs": "/tmp/it's a $(log)"})
    (file,) = (each for each in Units().desired(make_context(cluster), node) if isinstance(each, File))
    text = str(file.known(seen(cluster)).content)
    assert text.startswith("#!/bin/sh\n")
    assert "exec env -i /" in text
    assert script_argv(text) == flags.argv(cluster, node, {})
    flag_lines = text.partition("exec env -i ")[2].splitlines()[1:]
    assert all(line.startswith(("  --", "  '--")) for line in flag_lines if line)
    assert subprocess.run(["sh", "-n", "-c", text], check=False).returncode == 0


# -- the checks that run on the node --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [("exit 0", 0, ""), ("echo flag provided but not defined >&2; exit 2", 3, "not defined")],
)
def test_the_lint_asks_the_nodes_own_etcd_under_an_empty_environment(
    tmp_path: Path, answer: str, code: int, said: str
) -> None:
    etcd = tmp_path / "etcd"
    etcd.write_text(f'#!/bin/sh\n[ -z "$ETCD_NAME" ] || exit 9\n[ "$2" = --version ] || exit 8\n{answer}\n')
    etcd.chmod(0o755)
    ended = subprocess.run(
        ["sh", "-c", lint([str(etcd), "--x=a b"])], env={"ETCD_NAME": "x"}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == code
    assert said in ended.stdout


def test_the_lint_finds_that_there_is_no_etcd(tmp_path: Path) -> None:
    ended = subprocess.run(["sh", "-c", lint([f"{tmp_path}/etcd"])], capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert "No such file" in ended.stdout


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ("exit 0", 0),
        ('echo "$4:7: Unknown key name, ignoring"', 3),
        ('echo "$3:7: Unknown key name"; exit 0', 3),
        ("echo /lib/systemd/system/other.service: somebody elses trouble", 0),
        ("echo broken; exit 1", 3),
    ],
)
def test_systemd_analyze_says_no_for_the_units_own_faults_alone(tmp_path: Path, says: str, code: int) -> None:
    analyze = tmp_path / "systemd-analyze"
    analyze.write_text(
        f'#!/bin/sh\nset -- x "$@"\n[ "${{4##*/}}" = etcd.service ] || exit 0\n{says.replace("$3", "$4")}\n'
    )
    analyze.chmod(0o755)
    staged = tmp_path / ".etcd-steps.x1"
    staged.write_text("[Unit]\n")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    ended = subprocess.run(
        ["sh", "-c", ANALYZE, "units", staged], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == code, ended
