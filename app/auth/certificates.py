"""Client certificates that a trusted proxy has verified: a subject in a header becomes a principal."""

from __future__ import annotations

from app.config.auth import CertificateSettings
from app.domain.principal import Principal, check_principal


class Certificates:
    """Who a subject is. One value for each name, as everywhere."""

    def __init__(self, settings: CertificateSettings, label: str) -> None:
        self._settings = settings
        self._label = label
        self._known = {subject: self._principal(name) for subject, name in settings.names.items()}

    def _principal(self, name: str) -> Principal:
        return Principal(name=name, way="certificate", label=self._label.format(name), credential=f"certificate:{name}")

    def has(self, principal: Principal) -> bool:
        """Whether some subject is this principal: a session may be older than the configuration."""
        return self._settings.unlisted or principal.name in self._settings.names.values()

    def find(self, subject: str) -> Principal | None:
        """The principal of a verified subject; None for one that is nobody here."""
        found = self._known.get(subject)
        if found is not None or not self._settings.unlisted:
            return found
        try:
            return self._principal(check_principal(subject))
        except ValueError:
            return None
