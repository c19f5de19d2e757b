"""The certificates in the cluster's work directory.

    ca/ca.pem                      the CA that everybody trusts, written once
    ca/BACKEND/                    the backend's own: the built-in one keeps its CA key here
    certs/NAME/request/            key.pem and csr.pem of a certificate that is under way; kept until it is valid
    certs/NAME/gen-ID/             cert.pem and key.pem, never changed once there
    certs/NAME/live -> gen-ID      swapped by one rename; the generation before is kept, older ones are removed

Every directory is 0700, every key 0600 from its first byte on. A run killed anywhere leaves the old pair or the new.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from steps.core.base.errors import CertificateError, StepFailed, UsageError
from steps.core.base.files import create, private_directory, replace, sync
from steps.core.base.hints import invoke
from steps.core.base.problem import joined
from steps.core.tls import pki, validate
from steps.core.tls.contracts import LeafProfile

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]*")


@dataclass(frozen=True)
class Pair:
    """A certificate (with its intermediates) and its key, PEM, as they lie in `directory`.

    `warnings` are about a certificate just issued: what is not as asked for and works all the same.
    """

    cert: bytes
    key: bytes = field(repr=False)
    generation: str
    directory: Path
    warnings: tuple[str, ...] = ()

    @property
    def cert_file(self) -> Path:
        return self.directory / "cert.pem"

    @property
    def key_file(self) -> Path:
        return self.directory / "key.pem"


@dataclass(frozen=True)
class Store:
    work: Path

    def backend_dir(self, backend: str) -> Path:
        """The private directory of that backend, made where it is missing: `CARequest.dir`."""
        path = self.work / "ca" / plain(backend)
        for directory in (self.work, path.parent, path):
            private_directory(directory)
        return path

    def ca(self) -> bytes | None:
        """The trusted CA certificate(s), PEM, or None before there is one."""
        try:
            return (self.work / "ca" / "ca.pem").read_bytes()
        except FileNotFoundError:
            return None

    def adopt_ca(self, pem: bytes) -> None:
        """Writes ca/ca.pem, once. Raises CertificateError on unfit ones, and where others are trusted already."""
        path = self.work / "ca" / "ca.pem"
        if problems := validate.ca_problems(pem, now=_now()):
            raise CertificateError("the CA cannot be used", problems)
        offered = pki.read(pem)
        trusted = self.ca()
        if trusted is not None:
            here, there = (sorted(map(pki.fingerprint, chain)) for chain in (pki.read(trusted, str(path)), offered))
            if here != there:
                raise CertificateError(
                    f"{path} is never replaced",
                    [f"trusted is {', '.join(here)}", f"the backend's CA is {', '.join(there)}"],
                    hint="go back to the backend that made it, or restore the backend's CA from a backup",
                )
            return
        for directory in (self.work, path.parent):
            private_directory(directory)
        replace(path, pki.write(offered), mode=0o644)

    def names(self) -> list[str]:
        """Return the names of all certificates that are live here, in order."""
        return sorted(link.parent.name for link in (self.work / "certs").glob("*/live"))

    def pair(self, name: str) -> Pair | None:
        """The live pair, or None before there is one. Raises CertificateError, naming the file, where it is damaged."""
        home = self._home(name)
        try:
            directory = home / (home / "live").readlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CertificateError(
                str(home / "live"), ["not a link"], hint="copy the work directory again, with its links: cp -a, or tar"
            ) from error
        hint = f"move {home} away, then: {invoke('certs')}"
        files = (directory / "cert.pem", directory / "key.pem")
        try:
            cert, key = (file.read_bytes() for file in files)
        except FileNotFoundError as error:
            raise CertificateError(str(error.filename), ["the file is missing"], hint=hint) from None
        pki.read(cert, str(files[0]))
        pki.load_key(key, str(files[1]))
        if pki.spki(cert) != pki.spki(key):
            raise CertificateError(str(files[1]), [f"not the key of {files[0].name} beside it"], hint=hint)
        return Pair(cert, key, pki.generation(cert, key), directory)

    def issue(
        self, name: str, profile: LeafProfile, key_spec: str, sign: Callable[[bytes, LeafProfile], bytes]
    ) -> Pair:
        """A new pair: key and request are made here, `sign` answers the request; saved and live only once it is valid.

        The request stays until then, so that a signer may take days (Pending) or correct itself. Raises what `sign`
        raises, and CertificateError.
        """
        ca = self.ca()
        if ca is None:
            raise StepFailed(f"{profile.name}: no CA yet in {self.work}", hint=invoke("ca"))
        home = self._home(name)
        for directory in (self.work, home.parent, home):
            private_directory(directory)
        request = home / "request"
        key, csr = self._request(request, profile, key_spec)
        answer = sign(csr, profile)
        problems = validate.leaf_problems(answer, ca_pem=ca, key=key, profile=profile, now=_now())
        if problems:
            raise CertificateError(f"{profile.name}: the backend's certificate is not what was asked for", problems)
        cert = pki.write(pki.read(answer))
        directory = self._keep(home, request, cert, pki.generation(cert, key))
        return Pair(cert, key, pki.generation(cert, key), directory, validate.leaf_warnings(cert, profile))

    def reason(self, name: str, profile: LeafProfile, key_spec: str, renew_days: float, now: datetime) -> str | None:
        """Why a certificate must be issued (again), in a few words; None where the live one is as it should be."""
        pair, ca = self.pair(name), self.ca()
        if pair is None or ca is None:
            return "none yet"
        if reason := _changed(pair, profile, key_spec):
            return reason
        if not validate.issued_by(pair.cert, ca):
            return "issued by another CA"
        if reason := _ends(
            pki.read(pair.cert)[0].not_valid_after_utc, due=pki.due(pair.cert, renew_days, now), now=now
        ):
            return reason
        problems = validate.leaf_problems(pair.cert, ca_pem=ca, key=pair.key, profile=profile, now=now)
        return joined(problems) or None

    def _home(self, name: str) -> Path:
        return self.work / "certs" / plain(name)

    def _request(self, request: Path, profile: LeafProfile, key_spec: str) -> tuple[bytes, bytes]:
        """The key and request under way, if they are still what is asked for; else new ones."""
        files = (request / "key.pem", request / "csr.pem")
        try:
            key, csr = (file.read_bytes() for file in files)
            asked = pki.read_csr(csr)
            if (
                not pki.csr_problems(asked, profile)
                and pki.key_spec(key) == key_spec
                and pki.spki(asked) == pki.spki(key)
            ):
                return key, csr
        except (FileNotFoundError, CertificateError):
            pass  # none, or half of one from a killed run: nobody relies on it
        shutil.rmtree(request, ignore_errors=True)
        key = pki.new_key(key_spec)
        csr = pki.new_csr(key, profile)
        private_directory(request)
        create(files[0], key)
        create(files[1], csr, mode=0o644)
        sync(request)
        return key, csr

    def _keep(self, home: Path, request: Path, cert: bytes, generation: str) -> Path:
        """Turns the answered request into the live generation."""
        live, directory = home / "live", home / f"gen-{generation}"
        before = live.readlink().name if live.is_symlink() else ""
        # Staged where a killed run's leavings go away with their generation: nobody may ask for this name again soon.
        certificate = request / "cert.pem"
        certificate.unlink(missing_ok=True)
        create(certificate, cert, mode=0o644)
        sync(request)
        request.rename(directory)
        sync(home)
        staged = directory / "live"
        staged.symlink_to(directory.name)
        staged.rename(live)
        sync(home)
        for old in home.glob("gen-*"):
            if old.name not in {before, directory.name}:
                shutil.rmtree(old)
        return directory


def plain(name: str) -> str:
    """Return the name of a certificate or a backend as it is. Raise UsageError where it cannot name a directory."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a directory: letters, digits and . _ @ : - only, a letter or digit first"
        )
    return name


def _changed(pair: Pair, profile: LeafProfile, key_spec: str) -> str:
    leaf = pki.read(pair.cert)[0]
    if changes := pki.san_changes(pki.sans_of(leaf), profile):
        return f"SANs changed: {changes}"
    if (cn := pki.common_name(leaf.subject)) != profile.cn:
        return f"CN changed: {cn} to {profile.cn}"
    if not pki.same_subject(leaf.subject, pki.name(profile.cn, profile.subject)):
        return "subject changed"
    if (spec := pki.key_spec(pair.key)) != key_spec:
        return f"key type changed: {spec} to {key_spec}"
    return ""


def _ends(not_after: datetime, *, due: bool, now: datetime) -> str:
    if now > not_after:
        return f"expired on {not_after:%Y-%m-%d}"
    return f"due for renewal, expires in {(not_after - now).days} days" if due else ""


def _now() -> datetime:
    return datetime.now(timezone.utc)
