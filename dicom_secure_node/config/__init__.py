"""The configuration: a TOML file, or the same tables built by a program."""

from __future__ import annotations

from dicom_secure_node.config.reader import load
from dicom_secure_node.config.tables import (
    PLAIN,
    Access,
    Archive,
    Audit,
    AuditRepository,
    Certificate,
    CertificateBinding,
    Identity,
    Limits,
    Listener,
    Node,
    NodeConfig,
    Passcode,
    Services,
)

__all__ = [
    "PLAIN",
    "Access",
    "Archive",
    "Audit",
    "AuditRepository",
    "Certificate",
    "CertificateBinding",
    "Identity",
    "Limits",
    "Listener",
    "Node",
    "NodeConfig",
    "Passcode",
    "Services",
    "load",
]
