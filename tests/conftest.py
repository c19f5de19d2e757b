"""Options of the whole test run."""

from __future__ import annotations

import random
import signal

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="interrupt runs at 30 moments of each kind, not at 8")
    parser.addoption("--seed", type=int, default=random.randrange(1 << 32), help="of the moments of interruption")


def pytest_configure() -> None:
    """A shell's background job ignores SIGINT, and would hand that on to the runs that tests interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config: pytest.Config) -> str:
    return f"moments of interruption: --seed={config.getoption('--seed')}"
