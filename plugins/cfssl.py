"""Certificate backend "cfssl": Cloudflare's cfssl, as the how-to uses it. See [tls.cfssl] in etcd.toml.

The backend's directory (.etcd/CLUSTER/ca/cfssl) holds what cfssl's users know: ca-csr.json, ca-config.json, ca.pem and
ca-key.pem, and for each certificate NAME/etcd-csr.json. A CA made with cfssl elsewhere is taken over by copying its
files there before the first run. Tested with cfssl 1.2.0 and 1.6.5.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from steps.api import CARequest, CertBackend, CertificateError, Cluster, LeafProfile, StepFailed, hookimpl, invoke

FETCH_DEADLINE = 300  # seconds
BACKDATE = 300  # seconds by which cfssl's certificates begin in the past


@hookimpl
def etcd_cert_backend(name: str, cluster: Cluster) -> CertBackend | None:
    return Cfssl(cluster) if name == "cfssl" else None


class Cfssl:
    """`gencert -initca` for the CA, `sign` for leaves; every call has a deadline. `ca` comes first in every run."""

    def __init__(self, cluster: Cluster) -> None:
        self._options = cluster.tls.cfssl
        self._cluster = cluster
        self._suite = cluster.release.suite
        self._work = cluster.work
        self._dir: Path | None = None
        self._binary = ""

    def ca(self, request: CARequest) -> bytes:
        """The CA certificate, PEM. Made once; what lies in the directory is never replaced."""
        from steps.api import pki, shared_ca

        self._dir = request.dir
        cert, key = request.dir / "ca.pem", request.dir / "ca-key.pem"
        if key.exists() and not cert.exists():
            raise CertificateError(str(key), ["a CA key without its certificate ca.pem"], hint=f"restore {cert}")
        if not cert.exists() and (trusted := shared_ca(request)):
            return trusted
        if not cert.exists():
            self._create(request)
        elif key.exists() and pki.spki(key.read_bytes()) not in map(pki.spki, pki.read(cert.read_bytes(), str(cert))):
            raise CertificateError(str(key), ["not the key of ca.pem beside it"], hint="restore both from one backup")
        return cert.read_bytes()

    def sign(self, csr: bytes, profile: LeafProfile) -> bytes:
        """The leaf, PEM. Subject and SANs come from etcd-csr.json, usages from cfssl's profile. Safe for threads."""
        from tempfile import TemporaryDirectory

        from steps.api import pki, private_directory, replace

        if self._dir is None:
            raise StepFailed(f"{profile.name}: cfssl's CA is not open", hint=invoke("ca"))
        request = pki.read_csr(csr, f"{profile.name}: request")
        if problems := pki.csr_problems(request, profile):
            raise CertificateError(f"{profile.name}: the request is not for this certificate", problems)
        cert, key = self._dir / "ca.pem", self._dir / "ca-key.pem"
        if not key.exists():
            raise CertificateError(
                str(key), ["the CA's key is missing, so nothing can be issued"], hint=f"restore {key}, mode 0600"
            )
        home = self._dir / profile.name
        private_directory(home)
        subject = {"CN": profile.cn, "hosts": list(profile.sans), "names": [dict(profile.subject)]}
        replace(home / "etcd-csr.json", _json(subject))
        with TemporaryDirectory(prefix="cfssl-") as folder:
            name, policy = self._policy(profile, pki.read(cert.read_bytes())[0].not_valid_after_utc)
            config = Path(folder, "ca-config.json")
            config.write_bytes(_json(policy))
            files: list[str | Path] = ["-ca", cert, "-ca-key", key, "-config", config, "-profile", name]
            answer = self._cfssl("sign", *files, "-", home / "etcd-csr.json", stdin=csr.decode(), what=profile.name)
        return _field(answer, "cert", profile.name).encode()

    def _create(self, request: CARequest) -> None:
        from steps.api import cfssl_policy, private_directory, replace

        kind, _, size = request.key.partition(":")
        csr = {
            "CN": request.cn,
            "key": {"algo": kind, "size": int(size.removeprefix("p"))},
            "names": [dict(request.subject)],
            # pathlen 0 needs both words: cfssl takes a lone 0 for "not set"
            "ca": {"expiry": f"{request.days * 24}h", "pathlen": 0, "pathlenzero": True},
        }
        private_directory(request.dir)
        replace(request.dir / "ca-csr.json", _json(csr), mode=0o644)
        if not (request.dir / "ca-config.json").exists():
            replace(request.dir / "ca-config.json", _json(cfssl_policy.policy(self._cluster)), mode=0o644)
        answer = self._cfssl("gencert", "-initca", request.dir / "ca-csr.json", what="CA")
        cert, key = (_field(answer, name, "CA").encode() for name in ("cert", "key"))
        replace(request.dir / "ca-key.pem", key)
        replace(request.dir / "ca.pem", cert, mode=0o644)

    def _policy(self, profile: LeafProfile, ca_ends: datetime) -> tuple[str, dict[str, Any]]:
        """The profile's name, and ca-config.json with the lifetime that was asked for, never beyond the CA's.

        cfssl takes its default for a profile that it does not know, silently: so the names are compared here. An
        adopted CA may lack the client's: members' usages are accepted for clients, with the validator's warning.
        """
        from steps.api import cfssl_policy

        assert self._dir is not None  # noqa: S101  sign() has asked
        file = self._dir / "ca-config.json"
        policy = json.loads(file.read_text()) if file.exists() else cfssl_policy.policy(self._cluster)
        profiles = policy.get("signing", {}).get("profiles", {})
        client = profile.kind == "client" and cfssl_policy.CLIENT in profiles
        name = cfssl_policy.CLIENT if client else self._options.profile
        if name not in profiles:
            known = ", ".join(profiles) or "none"
            raise StepFailed(
                f"{file} has no profile {name!r}, only: {known}", hint="set [tls.cfssl] profile, or add it to that file"
            )
        left = int((ca_ends - datetime.now(timezone.utc)).total_seconds())
        if left <= 0:
            raise CertificateError(str(self._dir / "ca.pem"), [f"the CA expired on {ca_ends:%Y-%m-%d}"])
        chosen = profiles[name]
        chosen["expiry"] = f"{min(profile.days * 86400, left)}s"
        if not cfssl_policy.rsa(self._cluster) and isinstance(chosen.get("usages"), list):  # written for another key
            chosen["usages"] = [usage for usage in chosen["usages"] if usage != cfssl_policy.RSA_USAGE]
        return name, policy

    def _cfssl(self, *words: str | Path, what: str, stdin: str | None = None) -> Mapping[str, Any]:
        """cfssl's JSON answer. Nothing of its stdout is ever shown: `gencert` prints the CA's key there."""
        from steps.api import run

        self._binary = self._binary or self._found()
        environment = {**os.environ, **self._options.environment}
        deadline = self._options.timeout
        try:
            done = run([self._binary, *words], deadline=deadline, env=environment, stdin=stdin)
        except subprocess.TimeoutExpired:
            hint = "try it by hand, or raise [tls.cfssl] timeout"
            raise StepFailed(f"{what}: cfssl {words[0]} was killed after {deadline} s", hint=hint) from None
        except OSError as error:
            raise StepFailed(f"{what}: {self._binary} does not start: {error.strerror}") from error
        said = "\n    ".join(line for line in done.stderr.strip().splitlines()[-5:] if "[INFO]" not in line)
        if done.returncode:
            raise StepFailed(f"{what}: cfssl {words[0]} failed with exit code {done.returncode}\n    {said}")
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise StepFailed(f"{what}: cfssl {words[0]} printed no JSON\n    {said}")
        return answer

    def _found(self) -> str:
        """cfssl's path: as configured, else fetched from [tls.cfssl] source."""
        options = self._options
        if found := shutil.which(options.binary, path=options.environment.get("PATH")):
            return found
        if options.source is None:
            raise StepFailed(
                f"there is no {options.binary} on this machine",
                hint='install it (Debian: apt install golang-cfssl), or set [tls.cfssl] source = "debian" or a URL '
                "with its sha256",
            )
        from steps.api import private_directory

        home = self._work / "cfssl"
        private_directory(home)
        return str(self._packaged(home) if options.source == "debian" else self._downloaded(home))

    def _packaged(self, home: Path) -> Path:
        from steps.api import own_arch, unpacked

        target = home / f"debian-{self._suite}" / "usr/bin/cfssl"
        if not target.exists():
            staged = home / f".{self._suite}.new"
            shutil.rmtree(staged, ignore_errors=True)
            state = self._work / "apt"
            unpacked(["golang-cfssl"], self._suite, own_arch(), state=state, into=staged, deadline=FETCH_DEADLINE)
            staged.rename(home / f"debian-{self._suite}")
        return target

    def _downloaded(self, home: Path) -> Path:
        """The binary behind the URL; its digest is compared in every run."""
        from steps.api import download, tarball

        url, digest = str(self._options.source), str(self._options.sha256)
        target, staged = home / digest, home / f".{digest}.new"
        if not target.exists():
            download(url, staged, who="cfssl", deadline=FETCH_DEADLINE, limit=200_000_000)
            tarball.verify(staged, digest, url, "[tls.cfssl] sha256")
            staged.chmod(0o700)
            staged.rename(target)
        tarball.verify(target, digest, str(target), "[tls.cfssl] sha256")
        return target


def _field(answer: Mapping[str, Any], name: str, what: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str):
        raise StepFailed(f"{what}: cfssl's answer has no {name!r}")
    return value


def _json(document: object) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()
