"""Signals that end a command: each is remembered, also where what it raises is lost."""

from __future__ import annotations

import os
import signal

import pytest

from steps.core.cli.executor import ENDING, _signals


@pytest.mark.parametrize("number", ENDING)
def test_signals_that_end_a_command_are_remembered_and_raised(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with _signals() as told:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert told.is_set()
    assert signal.getsignal(number) == before


def test_signals_second_one_while_the_first_is_handled_is_no_loss() -> None:
    def twice() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    with _signals() as told:
        with pytest.raises(KeyboardInterrupt):
            twice()
        assert told.is_set()


@pytest.mark.parametrize("number", ENDING)
def test_signals_that_are_ignored_stay_so(number: signal.Signals) -> None:
    """`nohup invoke all &`: SIGHUP and, in the background of a script, SIGINT are ignored before we start."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with _signals() as told:
            os.kill(os.getpid(), number)
        assert not told.is_set()
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)
