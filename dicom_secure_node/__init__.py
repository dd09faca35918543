"""Everything DICOM PS3.15 asks of a node, as a layer over pynetdicom and pydicom."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from dicom_secure_node.errors import (
    AccessRefused,
    AssociationRefused,
    ConfigurationError,
    HandshakeRefused,
    IdentityRefused,
    InvalidInput,
    MissingExtra,
    OperationRefused,
    PeerRefused,
    Refused,
    SecureNodeError,
    ServiceUnavailable,
    StoreRefused,
)

if TYPE_CHECKING:
    from dicom_secure_node.node.plugin import Plugin
    from dicom_secure_node.pki.signers import load_signer
    from dicom_secure_node.secure_node import SecureNode
    from dicom_secure_node.signatures.files import sign, verify
    from dicom_secure_node.signatures.policy import SignaturePolicy

__version__ = importlib.metadata.version("dicom-secure-node")

__all__ = [
    "__version__",
    "SecureNode",
    "Plugin",
    "sign",
    "verify",
    "load_signer",
    "SignaturePolicy",
    "SecureNodeError",
    "ConfigurationError",
    "MissingExtra",
    "Refused",
    "HandshakeRefused",
    "AssociationRefused",
    "IdentityRefused",
    "AccessRefused",
    "OperationRefused",
    "StoreRefused",
    "InvalidInput",
    "PeerRefused",
    "ServiceUnavailable",
]

# Imported when first asked for: a program that only checks an audit message needs no network.
_LATER = {
    "SecureNode": "dicom_secure_node.secure_node",
    "Plugin": "dicom_secure_node.node.plugin",
    "sign": "dicom_secure_node.signatures.files",
    "verify": "dicom_secure_node.signatures.files",
    "load_signer": "dicom_secure_node.pki.signers",
    "SignaturePolicy": "dicom_secure_node.signatures.policy",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
