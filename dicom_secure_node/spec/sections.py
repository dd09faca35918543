"""Every profile of PS3.15, and what this release makes of it.

One row for each profile and option, in the order of the annexes. The rows say what can be used
today and was tested; what is planned is not supported. ``.ci/make_support.py`` prints them as
``docs/support.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EDITION = "2024e"

Status = Literal["current", "retired"]
Support = Literal["yes", "partly", "no"]


@dataclass(frozen=True)
class Section:
    """One profile or option of the standard.

    Attributes
    ----------
    number : str
        Of PS3.15, e.g. ``"B.12"``.
    title : str
        As the standard prints it.
    status : str
        ``current`` or ``retired``, in `edition`.
    support : str
        ``yes``: everything the standard demands of the roles named in `note`; ``partly``: the
        note says what is missing; ``no``.
    note : str
        Roles, limits, and where to look.
    edition : str
        Of PS3.15.
    """

    number: str
    title: str
    status: Status
    support: Support
    note: str = ""
    edition: str = EDITION

    @property
    def annex(self) -> str:
        """Return the letter of the annex."""
        return self.number.partition(".")[0]


ANNEXES = {
    "A": "Secure use and audit trail",
    "B": "Secure transport and user identity",
    "C": "Digital signatures",
    "D": "Media storage security",
    "E": "Attribute confidentiality",
    "F": "Network address management",
    "G": "Time synchronisation",
    "H": "Application configuration management",
}

_TLS = "client and server"
_LATER = "Comes with a later release."

SECTIONS = (
    Section(
        "A.1", "Online Electronic Storage Secure Use Profile", "current", "no",
        "SOP Instance Status is kept as received, neither set nor checked.",
    ),
    Section(
        "A.2", "Basic Digital Signatures Secure Use Profile", "current", "partly",
        "A node verifies on receipt and keeps the report. It never sends on another encoding than "
        "it received; for programs that do, `signatures.renew` drops signatures in doubt and makes "
        "new ones over what was verified.",
    ),
    Section(
        "A.3", "Bit-preserving Digital Signatures Secure Use Profile", "current", "partly",
        "The archive keeps every data set bit for bit, and `send` sends a file's bytes as they "
        "are: signatures still verify two nodes on. Nothing is forwarded by itself, and Implicit "
        "VR is accepted as well.",
    ),
    Section(
        "A.4", "Basic SR Digital Signatures Secure Use Profile", "current", "yes",
        "`sign --profile sr --evidence`: a MAC beside each reference, `verify --evidence` follows "
        "MACs and signatures. Documents are signed when that is asked for, never by themselves.",
    ),
    Section(
        "A.5", "Audit Trail Message Format Profile", "current", "partly",
        "The node writes Application Activity, Begin Transferring DICOM Instances, DICOM "
        "Instances Transferred, DICOM Instances Accessed, Security Alert and User "
        "Authentication; for the others there are builders, and a program reports them through "
        "`SecureNode.audit`. Suppress rules by event, outcome and participant. `audit validate` "
        "judges all fifteen messages, and says which dialect another product speaks.",
    ),
    Section(
        "A.6", "Audit Trail Message Transmission Profile - SYSLOG-TLS", "current", "yes",
        "Sender, RFC 5424 and 5425: one store, delivered at least once and in order, also after "
        "a crash. Receiver: `audit collect`, an audit record repository.",
    ),
    Section(
        "A.7", "Audit Trail Message Transmission Profile - SYSLOG-UDP", "current", "partly",
        "Sender, RFC 5424 and 5426; messages above 60 000 octets are counted and not sent. "
        "Receiver: `audit collect`.",
    ),
    Section(
        "B.1", "Basic TLS Secure Transport Connection Profile", "retired", "no",
        "Its only suite is Triple-DES, which OpenSSL is built without.",
    ),
    Section(
        "B.2", "ISCL Secure Transport Connection Profile", "retired", "no",
        "ISCL is no TLS and rests on DES and MD5; no library speaks it.",
    ),
    Section(
        "B.3", "AES TLS Secure Transport Connection Profile", "retired", "partly",
        f"{_TLS}, with `allow_retired`, without the Triple-DES fall-back.",
    ),
    Section(
        "B.4", "Basic User Identity Association Profile", "current", "yes",
        "initiator and acceptor: types 1 and 2, the answer where one is asked for.",
    ),
    Section(
        "B.5", "User Identity Plus Passcode Association Profile", "current", "yes",
        "initiator and acceptor: passcodes against Argon2id hashes in a file, or a directory.",
    ),
    Section(
        "B.6", "Kerberos Identity Negotiation Association Profile", "current", "yes",
        "initiator and acceptor: bare and GSS-framed tickets, the server's proof, no replay.",
    ),
    Section(
        "B.7", "Generic SAML Assertion Identity Negotiation Association Profile", "current", "yes",
        "initiator and acceptor: assertions of named issuers, one use each; the SAML response "
        "is signed where a credential is given. No encrypted assertions.",
    ),
    Section(
        "B.8", "Secure Use of Email Transport", "current", "no", _LATER,
    ),
    Section(
        "B.9", "BCP 195 TLS Secure Transport Connection Profile", "retired", "partly",
        f"{_TLS}, with `allow_retired`; the client does not offer the DHE suites.",
    ),
    Section(
        "B.10", "Non-Downgrading BCP 195 TLS Secure Transport Connection Profile", "retired",
        "yes", f"{_TLS}, with `allow_retired`.",
    ),
    Section(
        "B.11", "Extended BCP 195 TLS Profile Secure Transport Connection Profile", "retired",
        "yes", f"{_TLS}, with `allow_retired`; without the optional Camellia suites.",
    ),
    Section(
        "B.12", "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile", "current",
        "yes", f"{_TLS}; no finite-field DHE in TLS 1.2 (RFC 9325 4.1), no session resumption.",
    ),
    Section(
        "B.13", "Modified BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile",
        "current", "yes",
        f"{_TLS}; a server needs an RSA and an EC credential. The optional Camellia and DHE "
        "suites are not offered.",
    ),
    Section(
        "C.1", "Base RSA Digital Signature Profile", "current", "yes",
        "`sign` and `verify`, in files: all six digests, RSA, certified timestamps (RFC 3161), "
        "revocation by CRL and OCSP; on a node, `[signatures]` verifies what comes in.",
    ),
    Section(
        "C.2", "Creator RSA Digital Signature Profile", "current", "yes",
        "`sign --profile creator`, `send --sign-key`, `verify --policy require-creator`; as C.1. "
        "Verifying demands series attributes only of the SOP Classes C.2 can mean.",
    ),
    Section(
        "C.3", "Authorization RSA Digital Signature Profile", "current", "yes",
        "`sign --profile authorization`, `verify --policy require-authorization`; as C.1. What the "
        "approving person can see is taken to be what viewers usually show.",
    ),
    Section(
        "C.4", "Structured Report RSA Digital Signature Profile", "current", "yes",
        "`sign --profile sr`, `verify --policy require-sr`, with the rules for verified documents; "
        "as C.1. References: A.4.",
    ),
    Section(
        "D.1", "Basic DICOM Media Security Profile", "current", "no", _LATER,
    ),
    Section(
        "E.2", "Basic Application Level Confidentiality Profile", "current", "no",
        f"De-identifier and re-identifier (E.1). {_LATER}",
    ),
    Section("E.3.1", "Clean Pixel Data Option", "current", "no", _LATER),
    Section("E.3.2", "Clean Recognizable Visual Features Option", "current", "no", _LATER),
    Section("E.3.3", "Clean Graphics Option", "current", "no", _LATER),
    Section("E.3.4", "Clean Structured Content Option", "current", "no", _LATER),
    Section("E.3.5", "Clean Descriptors Option", "current", "no", _LATER),
    Section(
        "E.3.6", "Retain Longitudinal Temporal Information Options", "current", "no",
        f"With full dates, and with modified dates. {_LATER}",
    ),
    Section("E.3.7", "Retain Patient Characteristics Option", "current", "no", _LATER),
    Section("E.3.8", "Retain Device Identity Option", "current", "no", _LATER),
    Section("E.3.9", "Retain UIDs Option", "current", "no", _LATER),
    Section("E.3.10", "Retain Safe Private Option", "current", "no", _LATER),
    Section("E.3.11", "Retain Institution Identity Option", "current", "no", _LATER),
    Section(
        "F.1", "Basic Network Address Management Profile", "current", "no",
        f"Names are resolved by the operating system. {_LATER}",
    ),
    Section(
        "G.1", "Basic Time Synchronization Profile", "current", "no",
        f"The clock is the operating system's. {_LATER}",
    ),
    Section(
        "H.1", "Application Configuration Management Profile", "current", "no", _LATER,
    ),
    Section("H.2", "DNS Service Discovery", "current", "no", _LATER),
)  # fmt: skip
"""The profiles in the order of the printed annexes."""
