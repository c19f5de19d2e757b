"""One table for the CPUs: each name leads to the same one."""

from __future__ import annotations

import pytest

from steps.core.base.architectures import ARCHITECTURES, DEPLOYED, Architecture, debian_name, go_name, of_elf


@pytest.mark.parametrize("known", ARCHITECTURES, ids=lambda each: each.go)
def test_architecture_is_found_by_each_of_its_names(known: Architecture) -> None:
    assert go_name(known.machine) == known.go
    assert of_elf(known.elf) == known.go
    assert debian_name(known.go) == (known.debian or known.go)
    assert (known.machine in DEPLOYED) is known.deployed


def test_architecture_that_is_unknown_keeps_unames_word() -> None:
    assert (go_name("mips64"), debian_name("mips64"), of_elf((2, 1, 8))) == ("mips64", "mips64", None)
    assert DEPLOYED == ("x86_64", "aarch64", "ppc64le", "s390x", "riscv64")
