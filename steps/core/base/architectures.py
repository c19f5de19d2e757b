"""The CPUs that are met, by all their names: Go's (and so a release's), uname's, Debian's, in an ELF header."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """One CPU. `elf`: ELF class, byte order and e_machine, from the System V ABI's supplements (elf.h: EM_*).

    `debian`: its name there, where that is not Go's. `deployed`: etcd is released and tested for it, so a node may
    have it; a controller may have another one.
    """

    go: str
    machine: str
    elf: tuple[int, int, int]
    debian: str = ""
    deployed: bool = True


ARCHITECTURES = (
    Architecture("amd64", "x86_64", (2, 1, 62)),
    Architecture("arm64", "aarch64", (2, 1, 183)),
    Architecture("ppc64le", "ppc64le", (2, 1, 21), debian="ppc64el"),
    Architecture("s390x", "s390x", (2, 2, 22)),
    Architecture("riscv64", "riscv64", (2, 1, 243)),
    Architecture("386", "i686", (1, 1, 3), debian="i386", deployed=False),
    Architecture("arm", "armv7l", (1, 1, 40), debian="armhf", deployed=False),
)
DEPLOYED = tuple(each.machine for each in ARCHITECTURES if each.deployed)  # as uname says it


def go_name(machine: str) -> str:
    """Return what releases call a CPU (amd64, arm64 …); uname's own word where none is known."""
    return next((each.go for each in ARCHITECTURES if each.machine == machine), machine)


def debian_name(go: str) -> str:
    """Return what Debian calls a CPU, by Go's name for it."""
    return next((each.debian or go for each in ARCHITECTURES if each.go == go), go)


def of_elf(header: tuple[int, int, int]) -> str | None:
    """Return Go's name for class, byte order and e_machine of an ELF header; None where they are none of these."""
    return next((each.go for each in ARCHITECTURES if each.elf == header), None)
