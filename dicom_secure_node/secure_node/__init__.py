"""A node built from its configuration: `node.SecureNode`, and how its parts are made."""

from dicom_secure_node.secure_node.node import SecureNode
from dicom_secure_node.secure_node.reporting import NodeAudit

__all__ = ["NodeAudit", "SecureNode"]
