"""What a host says reaches the terminal as text: no control character of it does."""

from __future__ import annotations

import io
import json

import pytest

from steps.core.base.report import Report
from steps.core.base.visible import visible
from steps.core.cli.executor import _complain

HOSTILE = "mips\x1b[2J\x1b]0;owned\x07\r\x9b1A\x7f\u202e"
SHOWN = r"mips\x1b[2J\x1b]0;owned\x07\r\x9b1A\x7f\u202e"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_report_of_a_hostile_hosts_words_shows_control_characters(stream: type[io.StringIO]) -> None:
    said = stream()
    report = Report(said)
    report.say(HOSTILE, "etcd-1")
    report.change(HOSTILE, "etcd-1", f"-{HOSTILE}\n+127.0.0.1\tlocalhost\n")
    report.warn(HOSTILE)
    report.tip(HOSTILE)
    report.phase("env", "1/8")
    report.table(("NODE", "WHY"), [("etcd-1", HOSTILE)])
    text = said.getvalue()
    assert text.count(SHOWN) == 6
    foreign = set(HOSTILE) - set("mips[2J]0;owned1A") - {"\x1b"}  # rich's own colours begin with it
    assert not foreign & set(text)
    assert "\x1b[2J" not in text
    assert "\x1b]" not in text


def test_report_in_json_shows_control_characters_on_both_streams(capsys: pytest.CaptureFixture[str]) -> None:
    said = io.StringIO()
    report = Report(said, json=True)
    report.warn(HOSTILE, "etcd-1")
    report.data({"why": HOSTILE})
    assert SHOWN in capsys.readouterr().err
    assert json.loads(said.getvalue())["why"] == HOSTILE
    assert said.getvalue().replace("\n", "").isprintable()


def test_error_with_control_characters_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    _complain(f"error: {HOSTILE}", f"next: {HOSTILE}")
    assert capsys.readouterr().err == f"error: {SHOWN}\nnext: {SHOWN}\n"


def test_visible_of_plain_words_is_the_words() -> None:
    words = "größe 日本 a\tb\nc"
    assert visible(words) == words
    assert visible("bytes \udcff") == r"bytes \udcff"


def test_warn_what_the_document_has_is_not_said_on_stderr_too(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(io.StringIO(), json=True)
    report.warn("of a defect", in_document=True)
    assert capsys.readouterr().err == ""
    report.warn("of a clock")
    assert capsys.readouterr().err == "  warning: of a clock\n"
