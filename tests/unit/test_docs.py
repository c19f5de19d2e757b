"""The documents are true: their commands exist, their tables are the program's, their links lead somewhere."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from invoke import Collection, Program
from invoke.parser import Parser, ParserContext

from steps.core.base import errors
from steps.core.config.load import parse
from steps.ops.init import configuration

ROOT = Path(__file__).parents[2]
ALL = sorted(file.relative_to(ROOT).as_posix() for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
OURS = [name for name in ALL if name != "docs/plugins.md"]  # its commands are those of plugins that are not installed
FIRST = "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/invoke all"
SECOND = "tests/run"
BASE = '[cluster]\nname = "demo"\n[etcd]\nversion = "3.5.30"\n[[nodes]]\nname = "etcd-1"\nip = "10.0.0.1"\n'


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(name), re.DOTALL | re.MULTILINE)


def commands(name: str) -> Iterator[list[str]]:
    """Each command of the shell blocks, as words, without variables before it."""
    for line in "".join(blocks(name, "sh")).splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, "&&"]:
            if word not in {"&&", ";", "|", "||"}:
                command += [word] if command or not re.match(r"\w+=", word) else []
            elif command:
                yield command
                command = []


def spoken(name: str) -> Iterator[list[str]]:
    """Each `invoke …` within the prose, TASK standing for any."""
    prose = re.sub(r"^```.*?^```", "", text(name), flags=re.DOTALL | re.MULTILINE)
    for words in re.findall(r"`(?:\.venv/bin/)?invoke ([^`]+)`", prose):
        yield ["invoke", *words.replace("TASK", "status").split()]


@cache
def namespace() -> Collection:
    found: Collection = runpy.run_path(str(ROOT / "tasks.py"))["ns"]
    return found


def check_invoke(words: list[str]) -> None:
    """Raises ParseError where Invoke would."""
    core = Parser(initial=ParserContext(args=Program().core_args()), ignore_unknown=True).parse_argv(words)
    if core[0].args.help.value:
        assert core[0].args.help.value in namespace().task_names
        return
    Parser(contexts=namespace().to_contexts()).parse_argv(core.unparsed)


def helps() -> dict[str, str]:
    tasks = namespace().task_names
    return {name: (namespace()[name].__doc__ or "").strip().partition("\n")[0] for name in tasks}


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists(name: str) -> None:
    for words in (*commands(name), *spoken(name)):
        if words[0] == "tests/hosts/lab":
            assert f'add_parser("{words[1]}"' in text("tests/hosts/cli.py"), words
            words = words[2:] if words[1] == "run" else []  # noqa: PLW2901 - what the lab runs is a command too
        if not words:
            continue
        if words[0].endswith("invoke"):
            check_invoke(words[1:])
        if words[0].startswith(("tests/", ".ci/")):
            assert (ROOT / words[0]).stat().st_mode & 0o100, words
        for path in words:
            if path.startswith(("tests/", "examples/", "docs/")):
                assert (ROOT / path).exists(), words


@pytest.mark.parametrize("line", ["certs --no-such-option", "no-such-task", "client", "all --config"])
def test_a_wrong_command_would_be_found(line: str) -> None:
    with pytest.raises(Exception, match=r"No idea|did not receive|needed value"):
        check_invoke(line.split())


def test_the_readme_has_the_two_commands() -> None:
    assert {f"{FIRST}\n", f"{SECOND}\n"} <= set(blocks("README.md", "sh"))


def test_the_readmes_tasks_are_the_tasks() -> None:
    found = text("README.md").partition("<!-- tasks")[2].partition("<!-- end -->")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", found, re.MULTILINE)
    wanted = helps()
    phases = sorted((name for name in wanted if wanted[name].startswith("[")), key=lambda name: wanted[name])
    table = [(name, wanted[name]) for name in (*phases, *sorted(set(wanted) - set(phases)))]
    assert rows == table, "the README's table should be:\n" + "\n".join(
        f"| `{name}` | {says} |" for name, says in table
    )


def test_the_readme_shows_what_init_writes() -> None:
    nodes = [(f"etcd-{number}", f"10.0.0.{number}") for number in (1, 2, 3)]
    written = configuration("etcd", "root", nodes)
    assert blocks("README.md", "toml") == [
        "".join(line for line in written.splitlines(keepends=True) if line[0] != "#")
    ]


@pytest.mark.parametrize("name", OURS)
def test_toml_is_valid(name: str) -> None:
    for block in blocks(name, "toml"):
        parse((block if "[cluster]" in block else block + BASE).encode(), ROOT / "etcd.toml")


def written_tests() -> set[str]:
    return {
        name for file in ROOT.glob("tests/**/test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }


def test_each_promise_names_a_test_that_exists() -> None:
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", text("docs/security.md"), re.MULTILINE)
    promised = [match[1] for _, row in rows if (match := re.search(r"\| `(test_\w+)` $", row))]
    assert [number for number, _ in rows] == [str(each + 1) for each in range(len(promised))]
    assert not set(promised) - written_tests()


def test_threat_model_each_limit_names_a_test_that_exists() -> None:
    page = text("docs/explanation/threat-model.md")
    limits = re.findall(r"^\| The attacker wants .*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    rows = [row for table in limits for row in table.splitlines()]
    holding = [re.search(r"\| `(test_\w+)` \|$", row) for row in rows]
    assert len(limits) == page.count("| The attacker wants ") == page.count("\n## ") - 2, "one for each who attacks"
    assert not [row for row, found in zip(rows, holding, strict=True) if not found]
    assert not {found[1] for found in holding if found} - written_tests()


@pytest.mark.parametrize("name", ALL)
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", text(name))
    missing = [link for link in links if "://" not in link and not (ROOT / name).parent.joinpath(link).exists()]
    assert not missing


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_named_paths_exist(name: str) -> None:
    named = re.findall(r"`((?:steps|tests|templates|plugins|docs|examples)/[\w./-]*)`", text(name))
    assert not [path for path in named if "NAME" not in path and not (ROOT / path).exists()]


def _all(kind: type[errors.StepsError]) -> Iterator[type[errors.StepsError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _all(each)


def test_the_exit_codes_are_the_programs() -> None:
    table = text("docs/operations.md").partition("## Exit codes")[2]
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    known = {error.exit_code for error in _all(errors.StepsError)} | {errors.DIFFERS, errors.INTERRUPTED}
    assert codes == [0, *sorted(known)]


def test_the_messages_are_the_programs() -> None:
    table = text("docs/operations.md").partition("## Messages")[2].partition("## ")[0]
    messages = re.findall(
        r"`([^`]+)`", "\n".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|"))
    )
    source = re.sub(r'"\s+f?"', "", "".join(file.read_text(encoding="utf-8") for file in ROOT.glob("steps/**/*.py")))
    pieces = [piece.strip() for message in messages for piece in message.split("…")]
    assert len(messages) > 5
    assert not [piece for piece in pieces if piece and piece not in source]
