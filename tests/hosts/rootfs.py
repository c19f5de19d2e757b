"""The root filesystem of the test hosts: made once with debootstrap, cached outside the tree, shared by all runs."""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CACHE = Path("/var/cache/etcd-steps-hosts")
OPS, PW, PASSWORD = "ops", "pw", "correct horse"  # users: sudo without a password, sudo that asks for this one
PACKAGES = "systemd,systemd-sysv,libpam-systemd,openssh-server,iproute2,dbus,sudo,procps,zstd"
MASKED = (  # what is slow to start or wakes up in the middle of a test
    "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer"
    " motd-news.timer systemd-tmpfiles-clean.timer console-getty.service getty.target systemd-networkd.service"
    " systemd-networkd-wait-online.service systemd-resolved.service systemd-timesyncd.service rsync.service"
)
PREPARE = f"""set -e
for unit in {MASKED}; do ln -sf /dev/null /etc/systemd/system/$unit; done
for user in {OPS} {PW}; do useradd --create-home --shell /bin/bash $user; echo "$user:{PASSWORD}" | chpasswd; done
echo '{OPS} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{OPS}
echo '{PW} ALL=(ALL) ALL' > /etc/sudoers.d/{PW}
chmod 0440 /etc/sudoers.d/*
cat > /etc/ssh/sshd_config.d/lab.conf <<END
LogLevel VERBOSE
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/lab_keys .ssh/authorized_keys
END
rm -rf /etc/ssh/ssh_host_* /etc/machine-id /etc/hostname /etc/resolv.conf
rm -rf /var/cache/apt /var/lib/apt/lists /usr/share/doc /usr/share/man
"""
WITHOUT_PYTHON = "if ls /usr/bin/python* 2>/dev/null; then echo 'the hosts must have no python'; exit 1; fi\n"


def distribution() -> tuple[str, str]:
    """The machine's ID and codename: ("debian", "bookworm"). RuntimeError if it is neither Debian nor Ubuntu."""
    release = platform.freedesktop_os_release()
    if release.get("ID") not in {"debian", "ubuntu"}:
        raise RuntimeError(f"the test hosts need Debian or Ubuntu, this is {release.get('PRETTY_NAME', 'unknown')}")
    return release["ID"], release.get("VERSION_CODENAME", "")


def mirror() -> str:
    """The URI of the distribution's own archive, as apt is configured on this machine."""
    wanted = distribution()[0].capitalize()
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    lines = subprocess.check_output(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"], text=True
    ).splitlines()
    for line in lines:
        origin, label, uri = line.split("|")
        if origin == label == wanted:
            if uri.startswith("mirror+file:"):
                listed = Path(uri.removeprefix("mirror+file:").rstrip("/")).read_text(encoding="utf-8").split()
                return listed[0]
            return uri
    raise RuntimeError(f"apt has no lists of {wanted}'s archive: run tests/hosts/install")


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """The cache directory, while no other run builds `name` in it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield CACHE


def rootfs(extra: Sequence[str] = ()) -> Path:
    """The root filesystem, built where it is not there yet (about 45 s). A killed build leaves nothing that is used.

    With `extra` packages it is another one, which may have python: what our hosts never have, others need.
    """
    name, codename = distribution()
    suite = "bookworm" if name == "debian" else codename
    packages = ",".join([PACKAGES, *extra])
    prepare = PREPARE if extra else PREPARE + WITHOUT_PYTHON
    recipe = hashlib.sha256(f"{packages}{prepare}".encode()).hexdigest()[:12]
    with locked("rootfs") as cache:
        final, building = cache / f"{suite}-{recipe}", cache / "building"
        if not final.exists():
            shutil.rmtree(building, ignore_errors=True)
            options = ["--force-check-gpg", "--variant=minbase", f"--include={packages}", "--components=main"]
            _alone(["debootstrap", *options, suite, str(building), mirror()])
            _alone(["chroot", str(building), "sh", "-c", prepare])
            building.rename(final)
    return final


def _alone(argv: list[str]) -> None:
    """Runs in mount and process namespaces of its own: a kill leaves neither a mount nor a process behind."""
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise RuntimeError(f"{argv[0]} failed with exit code {done.returncode}:\n{tail}")
