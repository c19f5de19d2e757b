"""The work directory: claimed only where it is ours, and closed to other users."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.core.base.errors import Refused
from steps.core.base.files import private_directory
from steps.core.base.work_directory import claim, open_keys


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_private_directory_umask_0_closes_what_it_makes(open_umask: None, tmp_path: Path) -> None:
    private_directory(tmp_path / ".etcd" / "demo")
    assert [mode(tmp_path / ".etcd"), mode(tmp_path / ".etcd" / "demo")] == [0o700, 0o700]


def test_claim_directory_of_somebody_else_is_refused_as_it_is(tmp_path: Path) -> None:
    work = tmp_path / "www"
    work.mkdir()
    (work / "index.html").touch()
    work.chmod(0o755)
    with pytest.raises(Refused, match=r"is not a work directory .* holds index\.html"):
        claim(work)
    assert mode(work) == 0o755


@pytest.mark.parametrize("held", [(), ("ca", "certs"), ("environment.sh", "notes.txt")], ids=str)
def test_claim_own_or_empty_directory_is_closed(tmp_path: Path, held: tuple[str, ...]) -> None:
    work = tmp_path / "demo"
    work.mkdir()
    for name in held:
        (work / name).mkdir()
    work.chmod(0o755)
    claim(work)
    assert mode(work) == 0o700


def test_open_keys_lists_each_key_that_others_can_read(tmp_path: Path) -> None:
    keys = [tmp_path / path for path in ("ca/builtin/ca-key.pem", "certs/a/gen-1/key.pem", "certs/a/request/key.pem")]
    for key in keys:
        key.parent.mkdir(parents=True)
        key.touch(mode=0o600)
    (tmp_path / "certs" / "a" / "live").symlink_to("gen-1")
    assert open_keys(tmp_path) == []
    for key in keys:
        key.chmod(0o644)
    assert open_keys(tmp_path) == keys
