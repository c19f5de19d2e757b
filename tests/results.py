"""What pytest left out and why, and the count: `results.py FILE [--hosts]`, FILE being its JUnit XML.

With --hosts the exit code is 1 where the tests on real hosts did not all run.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

HOSTS = "tests.hosts."


@dataclass
class Results:
    """`left_out`: each reason, with how many tests have it. `hosts`, `hosts_left_out`: tests on real hosts."""

    passed: int = 0
    failed: int = 0
    hosts: int = 0
    hosts_left_out: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, xml: str) -> Results:
        results = cls()
        for case in ET.fromstring(xml).iter("testcase"):
            host = case.get("classname", "").startswith(HOSTS)
            results.hosts += host
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                results.failed += 1
            elif skipped is not None:
                results.left_out[skipped.get("message", "no reason given")] += 1
                results.hosts_left_out += host
            else:
                results.passed += 1
        return results

    def lines(self) -> list[str]:
        reasons = [f"left out: {_tests(count)}: {reason}" for reason, count in sorted(self.left_out.items())]
        return [*(reasons or ["left out: nothing"]), f"{self.passed} passed, {self.failed} failed"]


def _tests(count: int) -> str:
    return f"{count} test{'s' if count > 1 else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--hosts", action="store_true", help="fail where the tests on real hosts did not all run")
    args = parser.parse_args()
    try:
        results = Results.read(args.file.read_text(encoding="utf-8"))
    except (OSError, ET.ParseError) as error:
        sys.exit(f"pytest left no results: {error}")
    if args.hosts and (results.hosts_left_out or not results.hosts):
        sys.exit(f"the tests on real hosts did not all run: {results.hosts_left_out} of {results.hosts} were left out")
    sys.stdout.write("\n".join(results.lines()) + "\n")


if __name__ == "__main__":
    main()
