"""The configuration: a TOML file, or the same tables built by a program."""

from __future__ import annotations

from dicom_secure_node.audit.suppress import SuppressRule
from dicom_secure_node.config.identity import (
    Identity,
    Jwt,
    Kerberos,
    Lockout,
    Passcode,
    Saml,
    SamlIssuer,
)
from dicom_secure_node.config.metrics import Metrics
from dicom_secure_node.config.reader import load, load_as
from dicom_secure_node.config.signatures import Signatures
from dicom_secure_node.config.tables import (
    PLAIN,
    Access,
    Archive,
    Audit,
    AuditRepository,
    Certificate,
    CertificateBinding,
    Limits,
    Listener,
    Node,
    NodeConfig,
    Services,
)
from dicom_secure_node.identity.ldap_settings import LdapSettings

__all__ = [
    "PLAIN",
    "Access",
    "Archive",
    "Audit",
    "AuditRepository",
    "Certificate",
    "CertificateBinding",
    "Identity",
    "Jwt",
    "Kerberos",
    "Lockout",
    "Saml",
    "SamlIssuer",
    "LdapSettings",
    "Limits",
    "Listener",
    "Metrics",
    "Node",
    "NodeConfig",
    "Passcode",
    "Services",
    "Signatures",
    "SuppressRule",
    "load",
    "load_as",
]
