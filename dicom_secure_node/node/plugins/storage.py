"""The last gate of a C-STORE: the bytes are on disk before anybody says success."""

from __future__ import annotations

from dicom_secure_node.archive import Archive, Incoming, Provenance
from dicom_secure_node.errors import StoreRefused
from dicom_secure_node.node.context import StoreContext
from dicom_secure_node.node.plugin import Plugin


class StoragePlugin(Plugin):
    """Keeps received instances in the archive, bit for bit (PS3.15 A.3).

    Parameters
    ----------
    archive : Archive
    """

    observable = False  # a full disk is no matter of policy

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

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
        store.keep(store.body.keep())

    def describe(self) -> str:
        """Return where instances go."""
        return f"keeps instances in {self._archive.folder}"
