"""The configured certificate backend at work: it signs, the store makes keys, requests and validation."""

from __future__ import annotations

from datetime import datetime, timezone

from steps.core.contracts import CARequest, CertBackend, LeafProfile
from steps.core.model import Cluster
from steps.core.store import Pair, Store


class Authority:
    """One cluster's CA, whoever holds its key."""

    def __init__(self, cluster: Cluster, backend: CertBackend, store: Store) -> None:
        self._tls = cluster.tls
        self._backend = backend
        self._store = store
        self._open = False

    def ca(self) -> bytes:
        """The CA certificate(s), PEM; made by the backend on first use. Raises CertificateError, and what it raises."""
        if not self._open:
            tls = self._tls
            directory = self._store.backend_dir(tls.backend)
            request = CARequest(tls.ca_cn, tls.subject, tls.key, tls.ca_days, directory)
            self._store.adopt_ca(self._backend.ca(request))
            self._open = True
        ca = self._store.ca()
        assert ca is not None  # noqa: S101  adopted a moment ago
        return ca

    def issue(self, profile: LeafProfile) -> Pair:
        """A new certificate, live in the store under the profile's name. Raises CertificateError, and Pending."""
        self.ca()
        return self._store.issue(profile.name, profile, self._tls.key, self._backend.sign)

    def reason(self, profile: LeafProfile) -> str | None:
        """Why this certificate must be issued; None where the live one is as it should be."""
        now = datetime.now(timezone.utc)
        return self._store.reason(profile.name, profile, self._tls.key, self._tls.renew_days, now)
