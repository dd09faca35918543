"""The last gate of a C-STORE: the bytes are on disk before anybody says success."""

from __future__ import annotations

from dicom_secure_node.archive import Archive, Incoming, Provenance, Stored
from dicom_secure_node.errors import StoreRefused
from dicom_secure_node.node.context import StoreContext, Suspicion
from dicom_secure_node.node.plugin import Plugin

_PIECE = 1 << 20  # bytes


class StoragePlugin(Plugin):
    """Keeps received instances in the archive, bit for bit (PS3.15 A.3).

    Parameters
    ----------
    archive : Archive
    quarantine : Archive, optional
        For what a gate wants to be kept apart (`Suspicion`). Without one, that is refused.
    """

    observable = False  # a full disk is no matter of policy

    def __init__(self, archive: Archive, quarantine: Archive | None = None) -> None:
        self._archive = archive
        self._quarantine = quarantine

    def receive(self, store: StoreContext) -> Incoming:
        """Return the body of a new C-STORE: a file in the archive's waiting room."""
        association = store.association
        tls = association.tls
        return self._archive.receive(
            Provenance(
                sop_class=store.sop_class,
                sop_instance=store.sop_instance,
                transfer_syntax=store.transfer_syntax,
                calling_ae=association.calling_ae,
                called_ae=association.called_ae,
                peer_address=association.connection.address,
                peer_subject=tls.subject if tls and not tls.observed else None,
                tls={
                    "version": tls.version,
                    "suite": tls.suite,
                    "group": tls.group,
                    "fingerprint": tls.fingerprint,
                }
                if tls
                else None,
                identity=association.user,
                association_id=association.id,
                listener=association.connection.listener,
                received_at=store.received,
            )
        )

    def on_store(self, store: StoreContext) -> None:
        """Sync the file, move it into place, index it; only then may the peer forget it."""
        if not isinstance(store.body, Incoming):
            raise StoreRefused("the data set did not go through the archive", status=0xA700)
        store.body.findings = store.findings or None
        suspicion = store.kept(Suspicion)
        if suspicion is not None and suspicion.quarantined:
            store.keep(self._keep_apart(store.body))
        else:
            store.keep(store.body.keep())

    def _keep_apart(self, body: Incoming) -> Stored:
        """Copy the data set into the quarantine; it is a rare way to go."""
        if self._quarantine is None:
            raise StoreRefused("there is no quarantine to put it into", status=0xA700)
        apart = self._quarantine.receive(body.provenance)
        apart.findings = body.findings
        try:
            with body.open() as file:
                while piece := file.read(_PIECE):
                    apart.write(piece)
            return apart.keep()
        finally:
            apart.abandon()

    def describe(self) -> str:
        """Return where instances go."""
        return f"keeps instances in {self._archive.folder}"
