"""First contact: which files are asked, which is written, and what is said of a key that is new or another one."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from clusters import on_hosts

from steps.core.config.model import Cluster
from steps.core.transport.host_keys import HostKeyError, HostKeys, name_of

KIND = "ssh-ed25519"


def key(number: int) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in (KIND.encode(), bytes([number]) * 32))


def line(name: str, number: int) -> str:
    return f"{name} {KIND} {base64.b64encode(key(number)).decode()}\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def cluster(home: Path, ssh: str = "") -> Cluster:
    return on_hosts(f"[ssh]\n{ssh}\n", file=home / "etcd.toml")


class Keys(HostKeys):
    """With the words for the user in `said`."""

    def __init__(self, cluster: Cluster, *, keep: bool = True) -> None:
        self.said = list[str]()
        super().__init__(cluster, keep=keep, new=self.said.append)

    def meet(self, number: int, name: str = "10.0.0.1") -> None:
        self.verify("etcd-1", name, KIND, key(number))


def test_verify_a_new_key_is_said_and_kept_and_met_again(home: Path) -> None:
    made = cluster(home)
    keys = Keys(made)
    keys.meet(1)
    keys.meet(1)
    (said,) = keys.said
    assert said.startswith("etcd-1: new host key SHA256:")
    file = made.work / "known_hosts"
    assert file.read_text() == line("10.0.0.1", 1)
    assert file.stat().st_mode & 0o777 == 0o600
    assert made.work.stat().st_mode & 0o777 == 0o700
    again = Keys(made)
    again.meet(1)
    assert again.said == []
    with pytest.raises(HostKeyError, match=r"the host key of 10\.0\.0\.1 has changed: known .*known_hosts, line 1\)"):
        again.meet(2)


def test_verify_writes_nothing_where_nothing_is_kept(home: Path) -> None:
    made = cluster(home)
    keys = Keys(made, keep=False)
    keys.meet(1)
    assert len(keys.said) == 1
    assert not made.work.exists()
    with pytest.raises(HostKeyError, match="both in this run"):
        keys.meet(2)


@pytest.mark.parametrize("ssh", ["", 'host_keys = "strict"', 'known_hosts = "mine"'])
def test_verify_what_the_users_ssh_would_refuse_is_refused(home: Path, ssh: str) -> None:
    (home / "mine").write_text("")
    (home / ".ssh" / "known_hosts").write_text(line("10.0.0.1", 1))
    made = cluster(home, ssh)
    with pytest.raises(HostKeyError, match=r"has changed: .*/\.ssh/known_hosts, line 1") as caught:
        Keys(made).meet(2)
    assert f"ssh-keygen -R 10.0.0.1 -f {home}/.ssh/known_hosts" in caught.value.hint
    assert not made.work.exists()


def test_verify_what_the_user_knows_is_known_and_not_written(home: Path) -> None:
    (home / ".ssh" / "known_hosts").write_text(line("10.0.0.1", 1))
    made = cluster(home)
    keys = Keys(made)
    keys.meet(1)
    assert (keys.said, made.work.exists()) == ([], False)


def test_verify_the_clusters_own_file_and_the_users_must_agree(home: Path) -> None:
    made = cluster(home)
    Keys(made).meet(1)
    (home / ".ssh" / "known_hosts").write_text(line("10.0.0.1", 2))
    for number in (1, 2):
        with pytest.raises(HostKeyError, match="has changed"):
            Keys(made).meet(number)


def test_verify_the_configured_file_is_read_and_never_written(home: Path) -> None:
    (home / "mine").write_text(line("10.0.0.1", 1))
    made = cluster(home, 'known_hosts = "mine"')
    keys = Keys(made)
    keys.meet(1)
    assert keys.said == []
    keys.meet(2, "10.0.0.2")
    assert (home / "mine").read_text() == line("10.0.0.1", 1)
    assert (made.work / "known_hosts").read_text() == line("10.0.0.2", 2)


def test_verify_strict_takes_no_new_key_and_not_the_clusters_own(home: Path) -> None:
    made = cluster(home)
    Keys(made).meet(1)
    strict = cluster(home, 'host_keys = "strict"')
    with pytest.raises(HostKeyError, match=r"host key of 10\.0\.0\.1 is unknown: ssh-ed25519 SHA256:") as caught:
        Keys(strict).meet(1)
    assert f">> {home}/.ssh/known_hosts" in caught.value.hint
    assert Keys(made).kinds("10.0.0.1") == [KIND]


def test_verify_with_a_file_that_cannot_be_read_names_it(home: Path) -> None:
    (home / ".ssh" / "known_hosts").mkdir()  # the user's: as OpenSSH, on without it
    Keys(cluster(home)).meet(1)
    (home / "mine").mkdir()
    with pytest.raises(HostKeyError, match=r"/mine cannot be read: Is a directory"):
        Keys(cluster(home, 'known_hosts = "mine"')).meet(1)


def test_name_of_a_host_is_known_hosts_own() -> None:
    assert (name_of("10.0.0.1", 22), name_of("::1", 2222)) == ("10.0.0.1", "[::1]:2222")
