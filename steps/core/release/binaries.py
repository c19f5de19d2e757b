"""What a file on the controller is: an ELF binary of which architecture, an etcd of which version."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import selectors
import signal
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, cast

from steps.core.base.architectures import go_name, of_elf
from steps.core.base.errors import StepFailed

BINARIES = ("etcd", "etcdctl", "etcdutl")  # etcdutl exists from 3.5 on
REQUIRED = ("etcd", "etcdctl")

MAX_PRINTED = 16 << 20  # bytes that a program prints; a certificate has some 2 KB, what apt lists less than 1 MB
_CHUNK = 1 << 16
_HEADER = 20  # bytes, up to and with e_machine


def own_arch() -> str:
    """This machine's architecture in Go's words (amd64, arm64 …)."""
    return go_name(platform.machine())


def elf_arch(path: Path) -> str | None:
    """The architecture in a file's ELF header, in Go's words; None where the file is no ELF binary that we know."""
    with path.open("rb") as file:
        header = file.read(_HEADER)
    if len(header) < _HEADER or header[:4] != b"\x7fELF":
        return None
    kind, order = header[4], header[5]
    (machine,) = struct.unpack(">H" if order == 2 else "<H", header[18:20])  # noqa: PLR2004 - ELFDATA2MSB
    return of_elf((kind, order, machine))


def run(
    argv: Sequence[str | Path],
    *,
    deadline: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program in a process group of its own, which is killed after `deadline` seconds or on an interrupt.

    `stdin` is what it reads; None: nothing.

    Raises OSError where it cannot be started, subprocess.TimeoutExpired, and StepFailed where it prints more than
    MAX_PRINTED bytes; its exit code is the caller's to judge.
    """
    with subprocess.Popen(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
    ) as process:
        try:
            out, err = _exchanged(process, (stdin or "").encode(), max(deadline, 0))
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(list(argv), process.returncode, _text(out), _text(err))


def _exchanged(process: subprocess.Popen[bytes], stdin: bytes, deadline: float) -> tuple[bytes, bytes]:
    """Return what a program prints on stdout and stderr until it ends; Popen.communicate() keeps it without a limit."""
    assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018  Popen was asked for them
    ends, printed = (
        time.monotonic() + deadline,
        {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()},
    )
    with selectors.DefaultSelector() as open_pipes:
        for stream in (process.stdout, process.stderr):
            open_pipes.register(stream, selectors.EVENT_READ)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            open_pipes.register(process.stdin, selectors.EVENT_WRITE)
        while open_pipes.get_map():
            if (left := ends - time.monotonic()) <= 0:
                raise subprocess.TimeoutExpired(process.args, deadline)
            for key, _ in open_pipes.select(left):
                if key.fd in printed:
                    data = os.read(key.fd, _CHUNK)
                    printed[key.fd] += data
                    done = not data
                else:
                    stdin = stdin[_written(key.fd, stdin) :]
                    done = not stdin
                if done:
                    open_pipes.unregister(key.fileobj)
                    cast("IO[bytes]", key.fileobj).close()
            if sum(map(len, printed.values())) > MAX_PRINTED:
                program = Path(os.fsdecode(cast("Sequence[str | Path]", process.args)[0])).name
                raise StepFailed(
                    f"{program} was killed: it printed more than {MAX_PRINTED >> 20} MiB", hint="try it by hand"
                )
    process.wait(max(ends - time.monotonic(), 0))
    out, err = printed.values()
    return bytes(out), bytes(err)


def _written(pipe: int, data: bytes) -> int:
    """Return how many bytes the pipe took; of a program that reads no more it takes all, as communicate() does."""
    try:
        return os.write(pipe, data[:_CHUNK])
    except BrokenPipeError:
        return len(data)


def _text(printed: bytes) -> str:
    return printed.decode(errors="replace").replace("\r\n", "\n")


def printed_version(binary: Path, *, deadline: float = 10) -> str:
    """The version that `etcd --version`, `etcdctl version` or `etcdutl version` prints, under an empty environment.

    Raises ValueError, in words for the user, where the binary does not run here or prints no version.
    """
    argument = "--version" if binary.name == "etcd" else "version"
    try:
        result = run([binary, argument], deadline=deadline, env={})
    except StepFailed as error:
        raise ValueError(f"{binary}: {error.message}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        cause = error.strerror if isinstance(error, OSError) else f"no answer within {deadline:.0f} s"
        raise ValueError(f"{binary} does not run on this machine: {cause}") from error
    found = re.search(r"^etcd\w* version: (\S+)$", result.stdout, re.IGNORECASE | re.MULTILINE)
    if result.returncode or not found:
        tail = (result.stderr.strip() or result.stdout.strip() or f"exit code {result.returncode}").splitlines()[-1]
        raise ValueError(f"{binary} {argument} prints no version: {tail}")
    return found[1]
