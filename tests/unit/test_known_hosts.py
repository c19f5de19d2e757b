"""known_hosts, read as OpenSSH reads it: the cases are compared with ssh-keygen -F where there is one."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from steps.core.transport.known_hosts import BadLine, KnownHosts, Verdict, fingerprint, parse, read


def key(number: int, kind: str = "ssh-ed25519") -> bytes:
    """A key of that type, as it goes over the wire."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (kind.encode(), bytes([number]) * 32))


def line(names: str, number: int, kind: str = "ssh-ed25519") -> str:
    return f"{names} {kind} {base64.b64encode(key(number, kind)).decode()}"


def files(folder: Path, *texts: str) -> list[Path]:
    found = []
    for number, text in enumerate(texts):
        found.append(folder / f"known_hosts.{number}")
        found[-1].write_text(text + "\n")
    return found


def known(folder: Path, *texts: str) -> KnownHosts:
    return read(files(folder, *texts))


NAMES = [
    ("a.test", "a.test", True),
    ("a.test,10.0.0.1", "10.0.0.1", True),
    ("A.test", "a.TEST", True),
    ("*.test,!b.test", "a.test", True),
    ("*.test,!b.test", "b.test", False),
    ("10.0.0.?", "10.0.0.7", True),
    ("10.0.0.?", "10.0.0.17", False),
    ("[a.test]:2222", "[a.test]:2222", True),
    ("[a.test]:2222", "a.test", False),
    ("[10.0.0.1]:*", "[10.0.0.1]:2222", True),
    ("a.test", "ab.test", False),
    ("a+b", "aab", False),
]


@pytest.mark.parametrize(("names", "name", "fits"), NAMES)
def test_entry_matches_what_openssh_matches(tmp_path: Path, names: str, name: str, fits: bool) -> None:  # noqa: FBT001
    (file,) = files(tmp_path, line(names, 1))
    assert (read([file]).check(name, "ssh-ed25519", key(1)) == Verdict(known=True)) is fits
    if shutil.which("ssh-keygen"):
        listed = subprocess.run(["ssh-keygen", "-F", name, "-f", str(file)], capture_output=True, check=False)
        assert (listed.returncode == 0) is fits


def test_check_a_hashed_name_is_found(tmp_path: Path) -> None:
    (file,) = files(tmp_path, line("a.test", 1))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert "|1|" in file.read_text()
    assert read([file]).check("a.test", "ssh-ed25519", key(1)).known
    assert not read([file]).check("b.test", "ssh-ed25519", key(1)).known


def test_check_of_an_unknown_host_is_neither_known_nor_against(tmp_path: Path) -> None:
    assert known(tmp_path, line("a.test", 1)).check("b.test", "ssh-ed25519", key(1)) == Verdict()


def test_check_another_key_of_this_type_is_against_in_any_file(tmp_path: Path) -> None:
    hosts = known(tmp_path, line("a.test", 1), f"# a comment\n{line('a.test', 2)}")
    for number, file, at in ((1, "known_hosts.1", 2), (2, "known_hosts.0", 1)):
        against = hosts.check("a.test", "ssh-ed25519", key(number)).against
        assert against is not None
        assert (against.file.name, against.line) == (file, at)


def test_check_two_keys_in_one_file_are_both_known(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"{line('a.test', 1)}\n{line('a.test', 2)}")
    assert hosts.check("a.test", "ssh-ed25519", key(2)).known


def test_check_only_another_type_is_known_is_against_and_asked_for(tmp_path: Path) -> None:
    hosts = known(tmp_path, line("a.test", 1, "ssh-rsa"))
    assert hosts.kinds("a.test") == ["ssh-rsa"]
    assert hosts.check("a.test", "ssh-ed25519", key(1)).against is not None
    both = known(tmp_path, line("a.test", 1, "ssh-rsa"), line("a.test", 3))
    assert both.check("a.test", "ssh-ed25519", key(3)).known


def test_check_the_plain_hosts_key_counts_on_another_port(tmp_path: Path) -> None:
    hosts = known(tmp_path, line("a.test", 1))
    assert hosts.check("[a.test]:2222", "ssh-ed25519", key(1)).known
    assert hosts.check("[a.test]:2222", "ssh-ed25519", key(2)) == Verdict()


def test_check_a_revoked_key_is_against_everywhere(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"@revoked * {line('', 1).strip()}", line("a.test", 1))
    against = hosts.check("a.test", "ssh-ed25519", key(1)).against
    assert against is not None
    assert against.marker == "@revoked"


def test_check_a_certificate_authority_is_no_host_key(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"@cert-authority *.test {line('', 1).strip()}")
    assert hosts.check("a.test", "ssh-ed25519", key(1)) == Verdict()


@pytest.mark.parametrize(
    "text", ["a.test ssh-ed25519", "a.test ssh-ed25519 !!!", "a.test ssh-rsa AAAAC3NzaC1lZDI1NTE5"]
)
def test_read_a_broken_line_is_named_and_skipped_in_the_users_files(tmp_path: Path, text: str) -> None:
    (file,) = files(tmp_path, f"\n{text}\n{line('a.test', 1)}")
    with pytest.raises(BadLine, match=rf"{file}, line 2, "):
        read([file])
    assert read([], lenient=[file, tmp_path / "missing"]).check("a.test", "ssh-ed25519", key(1)).known


def test_fingerprint_is_opensshs(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "id")], check=True)
    entry = parse(f"h {(tmp_path / 'id.pub').read_text()}", tmp_path, 1)
    assert entry is not None
    listed = subprocess.check_output(["ssh-keygen", "-lf", str(tmp_path / "id.pub")], text=True).split()[1]
    assert fingerprint(entry.kind, entry.key) == f"ssh-ed25519 {listed}"
