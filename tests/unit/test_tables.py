"""Tables fit a terminal, and no endpoint in them is ever cut."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.core.base import tables
from steps.core.base.report import Report
from steps.core.health.verdict import HEAD

LONG = "https://[2001:db8:1234:5678:9abc:def0:1234:5678]:2379"
FQDN = "https://etcd-1.data-centre-west.clusters.example.internal:2379"
ROW = ("etcd-1", "https://192.168.1.220:2379", "follower", "healthy, host not checked", "3.5.30", "2027-11-26")


def test_lines_without_a_width_are_one_for_each_row() -> None:
    assert tables.lines(("A", "BB"), [("x", "a b"), ("yyy", "c")]) == ["A     BB", "x     a b", "yyy   c"]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("endpoint", [ROW[1], LONG, FQDN])
def test_lines_fit_the_width_and_keep_the_endpoint(endpoint: str, width: int) -> None:
    lines = tables.lines(HEAD, [(ROW[0], endpoint, *ROW[2:])] * 3, width)
    assert max(map(len, lines)) <= width
    assert sum(endpoint in line for line in lines) == 3


def test_lines_too_wide_for_columns_become_blocks() -> None:
    assert tables.lines(("A", "B"), [("x" * 9, "y" * 9), ("z", "")], 12) == [
        "A   xxxxxxxxx",
        "B   yyyyyyyyy",
        "",
        "A   z",
        "B   ",
    ]


@given(
    st.lists(st.tuples(*[st.text("ab c", max_size=12)] * 3), min_size=1, max_size=4),
    st.integers(5, 40),
)
def test_lines_cut_no_word(rows: list[tuple[str, ...]], width: int) -> None:
    lines = tables.lines(("H", "I", "J"), rows, width)
    words = [word for row in rows for cell in row for word in cell.split()]
    shown = " ".join(lines).split()
    assert sorted(words) == sorted(word for word in shown if word not in {"H", "I", "J"})


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_table_on_a_terminal_is_as_wide_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    Report(screen).table(HEAD, [(ROW[0], LONG, *ROW[2:])])
    lines = screen.getvalue().splitlines()
    assert any(LONG in line for line in lines)
    piped = io.StringIO()
    Report(piped).table(HEAD, [ROW])
    assert len(piped.getvalue().splitlines()) == 2
