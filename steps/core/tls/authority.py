"""The configured certificate backend at work: it signs, the store makes keys, requests and validation."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

from steps.core.base.errors import CertificateError, Refused, StepFailed
from steps.core.base.files import replace, sync
from steps.core.config.model import Cluster
from steps.core.tls import pki
from steps.core.tls.contracts import CARequest, CertBackend, LeafProfile
from steps.core.tls.store import Pair, Store

SIGNER = "signer"  # beside a certificate: the backend that signed it


class Authority:
    """One cluster's CA, whoever holds its key."""

    def __init__(self, cluster: Cluster, backend: CertBackend, store: Store) -> None:
        self._tls = cluster.tls
        self._backend = backend
        self._store = store
        self._open = False
        self._reasons: dict[str, str | None] = {}  # by the profile's name: a chain of signatures is verified once

    def ca(self) -> bytes:
        """The CA certificate(s), PEM; made by the backend on first use. Raises CertificateError, and what it raises."""
        if not self._open:
            tls = self._tls
            directory = self._store.backend_dir(tls.backend)
            request = CARequest(tls.ca_cn, tls.subject, tls.key, tls.ca_days, directory)
            before = self._store.ca()
            offered = self._backend.ca(request)
            try:
                self._store.adopt_ca(offered)
            except CertificateError as error:
                if before is None:
                    raise
                raise Refused(
                    f'backend "{tls.backend}" has another CA than this cluster trusts. {error.message}',
                    hint="share the CA between the backends, or go back to the one before; a CA is never replaced",
                ) from error
            self._open = True
        ca = self._store.ca()
        assert ca is not None  # noqa: S101  adopted a moment ago
        return ca

    def issue(self, profile: LeafProfile) -> Pair:
        """A new certificate, live in the store under the profile's name.

        Raises CertificateError, Pending, and Refused where another backend signed the one before and this one cannot.
        """
        self.ca()
        self._reasons.pop(profile.name, None)
        try:
            pair = self._store.issue(profile.name, profile, self._tls.key, self._backend.sign)
        except CertificateError as error:
            if reason := self._signed_by_another(profile):
                raise Refused(f"{reason}, which cannot go on for it. {error.message}", hint=error.hint) from error
            raise
        replace(pair.directory / SIGNER, f"{self._tls.backend}\n".encode(), mode=0o644)
        return pair

    def reason(self, profile: LeafProfile) -> str | None:
        """Why this certificate must be issued; None where the live one is as it should be."""
        name = profile.name
        if name not in self._reasons:
            now = datetime.now(timezone.utc)
            reason = self._store.reason(name, profile, self._tls.key, self._tls.renew_days, now)
            self._reasons[name] = reason or self._signed_by_another(profile)
        return self._reasons[name]

    def _signed_by_another(self, profile: LeafProfile) -> str | None:
        """A certificate without a record (a run was killed just then) counts as signed by the configured backend."""
        pair = self._store.pair(profile.name)
        file = pair.directory / SIGNER if pair else None
        signer = file.read_text().strip() if file and file.exists() else self._tls.backend
        return f"signed by {signer}, the backend is {self._tls.backend} now" if signer != self._tls.backend else None


def configured_ca(file: Path) -> bytes:
    """Return the CA certificate(s) in `[tls] ca_file`, PEM, for a backend whose CA is kept elsewhere.

    Raises StepFailed where the file cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise StepFailed(
            f"[tls] ca_file {file}: {error.strerror}", hint="save the CA's certificate there, PEM"
        ) from error


def shared_ca(request: CARequest) -> bytes | None:
    """The CA that the cluster trusts already, PEM, for a backend that has none of its own; None before there is one.

    Where another backend keeps that CA's key (as ca.pem and ca-key.pem), both become this backend's too, by hard links:
    the key stays one file. Without the key the backend has a CA that it cannot sign with. Raises CertificateError.
    """
    trusted = request.dir.parent / "ca.pem"
    if not trusted.exists():
        return None
    pem = trusted.read_bytes()
    known = {pki.spki(certificate) for certificate in pki.read(pem, str(trusted))}
    for key in sorted(request.dir.parent.glob("*/ca-key.pem")):
        if pki.spki(key.read_bytes()) in known and (key.parent / "ca.pem").exists():
            for name in ("ca.pem", "ca-key.pem"):  # the key last: with it the directory is complete
                (request.dir / name).unlink(missing_ok=True)
                os.link(key.parent / name, request.dir / name)
            sync(request.dir)
            break
    return pem
