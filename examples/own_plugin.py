"""A gate of your own: refuse the modalities this node is not for.

Name it in node.toml, before "storage", and start the node where Python finds this file:

    plugins = ["certificate", "identity", "access", "own_plugin:NoUltrasound", "storage", "audit"]
"""

from pydicom.filereader import read_dataset
from pydicom.uid import UID

from dicom_secure_node import Plugin, StoreRefused
from dicom_secure_node.node.context import StoreContext

MODALITY = 0x00080060


class NoUltrasound(Plugin):
    """Refuses instances by (0008,0060) Modality."""

    refused = frozenset({"US", "IVUS"})

    def on_store(self, store: StoreContext) -> None:
        """Decide when the data set is complete and nothing is kept yet."""
        syntax = UID(store.transfer_syntax)
        if syntax.is_deflated:
            raise StoreRefused("a deflated data set, whose modality is not looked at", 0xC001)
        with store.body.open() as data:  # its first byte is that of the data set
            ds = read_dataset(
                data,
                syntax.is_implicit_VR,
                syntax.is_little_endian,
                stop_when=lambda tag, _vr, _length: tag > MODALITY,
            )
        if ds.get("Modality") in self.refused:
            # The reason is for log and audit; the peer gets the status.
            raise StoreRefused("this node takes no ultrasound", 0xC002)

    def describe(self) -> str:
        """Say what it does in one line of the log at the start."""
        return f"takes no {', '.join(sorted(self.refused))}"
