"""The certificate gate: an AE title may be used by its own certificate only."""

from __future__ import annotations

from dicom_secure_node.identity.certificate_binding import CertificateBindings
from dicom_secure_node.node.context import AssociationContext
from dicom_secure_node.node.plugin import Plugin


class CertificatePlugin(Plugin):
    """Refuses a calling AE title that is bound to another certificate.

    Parameters
    ----------
    bindings : CertificateBindings
    """

    def __init__(self, bindings: CertificateBindings) -> None:
        self._bindings = bindings

    def on_association_requested(self, association: AssociationContext) -> None:
        """Compare the TLS peer with what its AE title is bound to."""
        certificate = association.tls.peer_certificate if association.tls else None
        self._bindings.check(association.calling_ae, certificate)

    def describe(self) -> str:
        """Return how many titles are bound."""
        count = len(self._bindings.bindings)
        return f"binds {count} AE titles to certificates" if count else "binds no AE title"
