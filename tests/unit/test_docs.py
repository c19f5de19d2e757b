"""The documents are true: their commands exist, their tables are the program's, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from invoke import Collection, Program
from invoke.parser import Parser, ParserContext
from reference import hooks_page, namespace, tasks_page

from steps.core.base import errors
from steps.core.config.load import parse
from steps.ops.init import configuration

ROOT = Path(__file__).parents[2]
ALL = sorted(file.relative_to(ROOT).as_posix() for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
PLUGINS = "docs/how-to/write-a-plugin.md"
OURS = [name for name in ALL if name != PLUGINS]  # its commands are those of plugins that are not installed
FIRST = "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/invoke all"
SECOND = "tests/run"
READMES = ("README.md", "README.zh-CN.md")
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
def tasks() -> Collection:
    return namespace()


def check_invoke(words: list[str]) -> None:
    """Raises ParseError where Invoke would."""
    core = Parser(initial=ParserContext(args=Program().core_args()), ignore_unknown=True).parse_argv(words)
    if core[0].args.help.value:
        assert core[0].args.help.value in tasks().task_names
        return
    Parser(contexts=tasks().to_contexts()).parse_argv(core.unparsed)


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


@pytest.mark.parametrize("name", READMES)
def test_the_readme_has_the_two_commands(name: str) -> None:
    assert {f"{FIRST}\n", f"{SECOND}\n"} <= set(blocks(name, "sh"))


def numbers(cell: str) -> list[str]:
    """Return the versions and names in a cell that every language writes alike."""
    return re.findall(r"[A-Za-z]*\d[\w.]*", cell)


def test_readmes_of_both_languages_have_the_same_commands_links_and_tables() -> None:
    english, chinese = map(text, READMES)
    for pattern in (r"^```(?:sh|text)\n.*?^```", r"`[^`\n]+`", r"^(#+) "):
        kept = [re.findall(pattern, page, re.DOTALL | re.MULTILINE) for page in (english, chinese)]
        assert sorted(kept[0]) == sorted(kept[1])
    links = [
        [each for each in re.findall(r"\]\(([^)]+)\)", page) if each not in READMES] for page in (english, chinese)
    ]
    assert links[0] == links[1]
    rows = [re.findall(r"^\|.*\|$", page, re.MULTILINE) for page in (english, chinese)]
    assert [row.count("|") for row in rows[0]] == [row.count("|") for row in rows[1]]
    for ours, theirs in zip(*rows, strict=True):
        assert [numbers(cell) for cell in ours.split("|")] == [numbers(cell) for cell in theirs.split("|")]


def test_the_reference_of_tasks_is_made_from_the_tasks() -> None:
    assert text("docs/reference/tasks.md") == tasks_page(), "run .venv/bin/python tests/reference.py"


def test_the_reference_of_hooks_is_made_from_their_docstrings() -> None:
    assert text("docs/reference/hooks.md") == hooks_page(), "run .venv/bin/python tests/reference.py"


def test_deploy_on_hosts_shows_what_init_writes() -> None:
    nodes = [(f"etcd-{number}", f"10.0.0.{number}") for number in (1, 2, 3)]
    written = configuration("etcd", "root", nodes)
    assert blocks("docs/how-to/deploy-on-hosts.md", "toml") == [
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
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", text("docs/explanation/guarantees.md"), re.MULTILINE)
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


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ALL)
def test_links_lead_somewhere(name: str) -> None:
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text(name)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        file = (ROOT / name).parent.joinpath(path) if path else ROOT / name
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            missing.append(link)
    assert not missing


@pytest.mark.parametrize("name", ALL)
def test_every_page_that_is_named_exists(name: str) -> None:
    """Also in the prose, where it is no link."""
    prose = re.sub(r"^```.*?^```", "", text(name), flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"(?<![\w./])[\w./-]+\.md\b", prose))
    assert not [each for each in named if not any((base / each).exists() for base in (ROOT, (ROOT / name).parent))]


def test_every_page_is_reached_from_the_readme() -> None:
    reached, found = set(), ["README.md"]
    while found:
        name = found.pop()
        reached.add(name)
        for link in re.findall(r"\]\(([^)#\s]+\.md)", text(name)):
            target = (ROOT / name).parent.joinpath(link).resolve()
            if target.is_relative_to(ROOT) and (path := target.relative_to(ROOT).as_posix()) not in reached:
                found.append(path)
    assert not {name for name in ALL if name.startswith("docs/")} - reached


def test_the_sections_that_the_code_names_exist() -> None:
    sources = [
        *ROOT.glob("steps/**/*.py"),
        *ROOT.glob("plugins/*.py"),
        *ROOT.glob("examples/**/*.*"),
        ROOT / "etcd.toml",
    ]
    named = [
        found
        for file in sources
        for found in re.findall(
            r"\b(docs/[\w./-]+\.md)(?:, \"([^\"]+)\")?", file.read_text(encoding="utf-8").replace("\\'", "'")
        )
    ]
    assert len(named) > 3
    assert not [name for name, _ in named if not (ROOT / name).exists()]
    wrong = [(name, heading) for name, heading in named if heading and f"# {heading}\n" not in text(name)]
    assert not wrong


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_named_paths_exist(name: str) -> None:
    named = re.findall(r"`((?:steps|tests|templates|plugins|docs|examples)/[\w./-]*)`", text(name))
    assert not [path for path in named if "NAME" not in path and not (ROOT / path).exists()]


def _all(kind: type[errors.StepsError]) -> Iterator[type[errors.StepsError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _all(each)


def test_the_exit_codes_are_the_programs() -> None:
    table = text("docs/reference/exit-codes.md")
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    known = {error.exit_code for error in _all(errors.StepsError)} | {errors.DIFFERS, errors.INTERRUPTED}
    assert codes == [0, *sorted(known)]


def test_the_messages_are_the_programs() -> None:
    table = text("docs/reference/messages.md")
    messages = re.findall(
        r"`([^`]+)`", "\n".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|"))
    )
    files = [*ROOT.glob("steps/**/*.py"), *ROOT.glob("steps/**/*.sh")]
    source = re.sub(r'"\s+f?"', "", "".join(file.read_text(encoding="utf-8") for file in files))
    pieces = [piece.strip() for message in messages for piece in message.split("…")]
    assert len(messages) > 5
    assert not [piece for piece in pieces if piece and piece not in source]
