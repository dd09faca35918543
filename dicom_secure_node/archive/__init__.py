"""What a node keeps: instance files as received, and the index that finds them again."""

from dicom_secure_node.archive.incoming import Incoming, Stored
from dicom_secure_node.archive.provenance import Provenance
from dicom_secure_node.archive.store import Archive

__all__ = ["Archive", "Incoming", "Provenance", "Stored"]
