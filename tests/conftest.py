"""Options of the whole test run; and the demo, which may run meanwhile."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from ports import demo_ports_taken

HOSTS = Path(__file__).parent / "hosts"  # they have a network of their own


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="interrupt runs at 30 moments of each kind, not at 8")
    parser.addoption("--seed", type=int, default=random.randrange(1 << 32), help="of the moments of interruption")


def pytest_configure() -> None:
    """A shell's background job ignores SIGINT, nohup SIGHUP: they would hand that on to the runs that tests end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="module")
def _next_to_the_demo(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that uses a port of the demo fails in every run, not only in those where the demo runs."""
    with nullcontext() if HOSTS in request.path.parents else demo_ports_taken():
        yield


def pytest_report_header(config: pytest.Config) -> str:
    return f"moments of interruption: --seed={config.getoption('--seed')}"
