"""A node built from its configuration: `node.SecureNode`, and how its parts are made."""

from dicom_secure_node.secure_node.node import SecureNode

__all__ = ["SecureNode"]
