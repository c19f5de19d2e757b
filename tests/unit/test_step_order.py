"""Where custom steps take their place, and why some cannot."""

from __future__ import annotations

import re

import pytest

from steps import PIPELINE
from steps.core.base.errors import WRONG, PluginError
from steps.core.base.option import Option
from steps.core.pipeline.ordering import ordered
from steps.core.pipeline.step import Step


def step(name: str, *, after: str = "", before: str = "") -> Step:
    return type("Custom", (Step,), {"name": name, "after": after, "before": before, "__doc__": "x"})()


def with_options(name: str, *options: Option[str]) -> Step:
    found = step(name, after="ca")
    found.options = options  # type: ignore[misc]  # of this one alone
    return found


PHASES = [phase() for phase in PIPELINE]
NAMES = ["env", "download", "distribute", "ca", "certs", "units", "start", "verify"]


def names(*custom: Step) -> list[str]:
    return [each.name for each in ordered(PHASES, custom)]


def test_the_pipeline_by_itself() -> None:
    assert names() == NAMES


PLACES = {
    "after": ([step("a", after="certs")], "ca certs a units"),
    "before": ([step("a", before="start")], "units a start verify"),
    "first of all": ([step("a", before="env")], "a env download"),
    "last of all": ([step("a", after="verify")], "start verify a"),
    "several after one": ([step(n, after="certs") for n in "abc"], "certs a b c units"),
    "several before one": ([step(n, before="units") for n in "abc"], "certs a b c units"),
    "both sides": ([step("a", after="certs"), step("b", before="units")], "certs a b units"),
    "after a custom step": ([step("a", after="certs"), step("b", after="a")], "certs a b units"),
    "after one that comes later": ([step("b", after="a"), step("a", after="certs")], "certs a b units"),
    "before a custom step": ([step("b", before="a"), step("a", after="certs")], "certs b a units"),
    "a chain": ([step("c", after="b"), step("b", after="a"), step("a", before="env")], "a b c env"),
}


@pytest.mark.parametrize(("custom", "part"), PLACES.values(), ids=PLACES)
def test_a_step_takes_its_place(custom: list[Step], part: str) -> None:
    found = names(*custom)
    assert part in " ".join(found)
    assert sorted(found) == sorted([*NAMES, *(each.name for each in custom)])
    assert [name for name in found if name in NAMES] == NAMES, "the phases keep their order"


REFUSED = {
    "a typo": ([step("a", after="cert")], "did you mean 'certs'"),
    "nothing like it": ([step("a", after="zzzz")], "known: env, download"),
    "itself": ([step("a", after="a")], "does not exist"),
    "no anchor": ([step("a")], "either `after` or `before`"),
    "two anchors": ([step("a", after="ca", before="certs")], "either `after` or `before`"),
    "a phase's name": ([step("units", after="ca")], "'units' already"),
    "twice": ([step("a", after="ca"), step("a", before="env")], "'a' already"),
    "a circle of two": ([step("a", after="b"), step("b", after="a")], "wait for each other"),
    "a circle of three": ([step("a", after="b"), step("b", before="c"), step("c", after="a")], "wait for each other"),
    "no name": ([step("", after="ca")], "no name"),
    "an option's name": ([step("--list", after="ca")], "no name"),
    "an option of all": ([with_options("a", Option("node", "x", default=""))], "cannot have an option 'node'"),
    "a phase's option": ([with_options("a", Option("renew", "x", default=""))], "that another step has already"),
    "no option's name": ([with_options("a", Option("a b", "x", default=""))], "cannot have an option 'a b'"),
    "two words": ([step("a b", after="ca")], "no name"),
}


@pytest.mark.parametrize(("custom", "message"), REFUSED.values(), ids=REFUSED)
def test_a_step_that_has_no_place(custom: list[Step], message: str) -> None:
    with pytest.raises(PluginError) as caught:
        ordered(PHASES, custom)
    assert re.search(re.escape(message), f"{caught.value.message} {caught.value.hint}")
    assert caught.value.exit_code == WRONG


def test_another_tasks_name() -> None:
    with pytest.raises(PluginError, match="task 'status' already"):
        ordered(PHASES, [step("status", after="ca")], taken={"status"})
