"""What a node counts: every metric there is, and every word that may stand in one.

No word here is a peer's. Reasons are those of the table below, whatever an error says of itself:
a metric can neither name a patient, a user or an AE title, nor grow with what peers send.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dicom_secure_node.errors import (
    AccessRefused,
    AssociationRefused,
    HandshakeRefused,
    IdentityRefused,
    LimitReached,
    OperationRefused,
    Refused,
    SignatureRejected,
)

Labels = tuple[str, ...]

OTHER = "other"


@dataclass(frozen=True)
class Family:
    """One metric: a number for each of its series.

    Attributes
    ----------
    name : str
        As Prometheus wants it, with its base unit.
    kind : str
    help : str
        One sentence for whoever reads it.
    labels : tuple of str
        Names of what tells the series apart.
    series : tuple of tuple of str
        Values of the labels, of every series there can be. Empty where the configuration names
        them, e.g. certificate files.
    bounds : tuple of float
        Upper bounds of a histogram's buckets, seconds.
    over_all : str
        What the value is for several processes of one node.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    series: tuple[Labels, ...] = ((),)
    bounds: tuple[float, ...] = ()
    over_all: Literal["sum", "least", "greatest"] = "sum"


# -- words ---------------------------------------------------------------------------------

ASSOCIATION_REASONS = (
    "identity",
    "access",
    "limit",
    "congestion",
    "calling AE title",
    "called AE title",
    OTHER,
)

# PS3.8 Table 9-21, where the class of the error does not say it.
_BY_CODES = {
    (2, 3, 1): "congestion",
    (2, 3, 2): "limit",
    (1, 1, 3): "calling AE title",
    (1, 1, 7): "called AE title",
}

# PS3.7 Annex C and PS3.4 Table B.2-1: the statuses a refusal has, as a rule. What is not among
# them is counted by its class, or as "other".
STATUSES = {
    "0x0110": "processing failure",
    "0x0111": "duplicate SOP instance",
    "0x0112": "no such SOP instance",
    "0x0117": "invalid SOP instance",
    "0x0118": "no such SOP class",
    "0x0119": "class-instance conflict",
    "0x0122": "SOP class not supported",
    "0x0124": "not authorised",
    "0x0210": "duplicate invocation",
    "0x0211": "unrecognised operation",
    "0x0212": "mistyped argument",
    "0xA700": "out of resources",
    "0xA900": "data set does not match SOP class",
    "0xC000": "cannot understand",
    "0xA7xx": "out of resources",
    "0xA9xx": "data set does not match SOP class",
    "0xCxxx": "cannot understand",
}
SIGNATURE = "signature"

_REASONS = {
    "handshake": (*HandshakeRefused.KINDS, OTHER),
    "association": ASSOCIATION_REASONS,
    "operation": (*STATUSES, OTHER),
    "store": (SIGNATURE, *STATUSES, OTHER),
}
_BY_STAGE = tuple((stage, reason) for stage, reasons in _REASONS.items() for reason in reasons)

SERVICES = (
    *("C-ECHO", "C-FIND", "C-GET", "C-MOVE"),
    *("N-ACTION", "N-CREATE", "N-DELETE", "N-EVENT-REPORT", "N-GET", "N-SET"),
    OTHER,
)


def _one(*words: str) -> tuple[Labels, ...]:
    return tuple((word,) for word in words)


def status_word(status: int) -> str:
    """Return the word for a DIMSE status: itself, its class, or ``other``."""
    exact = f"0x{status:04X}"
    if exact in STATUSES:
        return exact
    for word in (f"{exact[:4]}xx", f"{exact[:3]}xxx"):
        if word in STATUSES:
            return word
    return OTHER


def _association_word(error: Refused) -> str:
    match error:
        case IdentityRefused():
            return "identity"
        case AccessRefused():
            return "access"
        case LimitReached():
            return "limit"
        case AssociationRefused():
            return _BY_CODES.get((error.result, error.source, error.diagnostic), OTHER)
    return OTHER


def refusal(stage: str, error: Refused) -> Labels:
    """Return the labels of a refusal at a stage: ``association``, ``operation`` or ``store``."""
    if isinstance(error, SignatureRejected) and stage == "store":
        return stage, SIGNATURE
    if isinstance(error, OperationRefused) and stage != "association":
        return stage, status_word(error.status)
    return stage, _association_word(error) if stage == "association" else OTHER


def observed(error: Refused) -> Labels:
    """Return the labels of a refusal that was not carried out; its class says the stage."""
    match error:
        case HandshakeRefused():
            return "handshake", error.kind
        case SignatureRejected():
            return "store", SIGNATURE
        case OperationRefused():
            return "operation", status_word(error.status)
    return "association", _association_word(error)


# -- the metrics ---------------------------------------------------------------------------

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LONG = (0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)

INFO = Family(
    "dicom_node_info", "gauge", "Always 1; the version that runs.", ("version",), (),
    over_all="greatest",
)  # fmt: skip
STARTED = Family(
    "dicom_node_start_time_seconds",
    "gauge",
    "When the node was started, seconds since 1970.",
    over_all="least",
)
CONNECTIONS = Family(
    "dicom_node_connections_open",
    "gauge",
    "TCP connections open now, those without an association included.",
)
OPEN = Family("dicom_node_associations_open", "gauge", "Associations open now.")
ASSOCIATIONS = Family(
    "dicom_node_associations_total",
    "counter",
    "Association requests by outcome; abandoned: the peer went before the answer.",
    ("outcome",),
    _one("accepted", "refused", "abandoned"),
)
ENDED = Family(
    "dicom_node_associations_ended_total",
    "counter",
    "Accepted associations that have ended, by how.",
    ("how",),
    _one("released", "aborted", "lost"),
)
SETUP = Family(
    "dicom_node_association_setup_seconds",
    "histogram",
    "From the TCP connection to the accepted association: TLS handshake, request, every gate.",
    bounds=_SHORT,
)
DURATION = Family(
    "dicom_node_association_duration_seconds",
    "histogram",
    "How long associations lasted, from accepted to ended.",
    bounds=_LONG,
)
REFUSALS = Family(
    "dicom_node_refusals_total",
    "counter",
    "What was refused: at which stage, and why.",
    ("stage", "reason"),
    _BY_STAGE,
)
OBSERVED = Family(
    "dicom_node_observed_refusals_total",
    "counter",
    'What a listener with mode = "observe" would have refused.',
    ("stage", "reason"),
    _BY_STAGE,
)
REQUESTS = Family(
    "dicom_node_requests_total",
    "counter",
    "DIMSE requests other than C-STORE that came as far as the access rules.",
    ("service",),
    _one(*SERVICES),
)
STORES = Family(
    "dicom_node_stores_total",
    "counter",
    "C-STOREs by outcome; repeated: the same bytes were here already.",
    ("outcome",),
    _one("kept", "repeated", "marked", "quarantined", "refused"),
)
BYTES = Family(
    "dicom_node_stored_bytes_total",
    "counter",
    "Bytes of the data sets of C-STOREs that were not refused.",
)
STORE_SECONDS = Family(
    "dicom_node_store_seconds",
    "histogram",
    "From the command of a C-STORE read to its status, whatever its outcome.",
    bounds=_SHORT,
)
FREE = Family(
    "dicom_node_free_bytes",
    "gauge",
    "Free space where the node keeps things.",
    ("folder",),
    _one("archive", "audit"),
    over_all="least",
)
SPOOL_LIMIT = Family(
    "dicom_node_audit_spool_limit",
    "gauge",
    "Messages that may wait for a repository (audit.spool_limit).",
    over_all="greatest",
)

# Of one audit trail, whichever process tells it.
_REPOSITORY = ("repository",)
WAITING = Family(
    "dicom_node_audit_waiting",
    "gauge",
    "Audit messages a repository has not been sent yet.",
    _REPOSITORY,
    (),
    over_all="greatest",
)
WAITING_SINCE = Family(
    "dicom_node_audit_oldest_waiting_timestamp_seconds",
    "gauge",
    "When the oldest message that waits was kept; absent when none waits.",
    _REPOSITORY,
    (),
    over_all="least",
)
CONNECTED = Family(
    "dicom_node_audit_connected",
    "gauge",
    "1 while there is a connection to the repository (always 1 with UDP), else 0.",
    _REPOSITORY,
    (),
    over_all="greatest",
)
SENT = Family(
    "dicom_node_audit_sent_total",
    "counter",
    "Audit messages sent to a repository, repeats included.",
    _REPOSITORY,
    (),
)
DROPPED = Family(
    "dicom_node_audit_dropped_total",
    "counter",
    "Audit messages a repository will not get: too many waited, or too long for a datagram.",
    _REPOSITORY,
    (),
)
EXPIRY = Family(
    "dicom_node_certificate_expiry_timestamp_seconds",
    "gauge",
    "When a certificate (role credential or trust) or a revocation list (crl) runs out.",
    ("role", "file", "number"),
    (),
    over_all="least",
)
READABLE = Family(
    "dicom_node_certificate_file_readable",
    "gauge",
    "1 if a file with certificates or revocation lists can be read, else 0.",
    ("role", "file"),
    (),
    over_all="least",
)

FAMILIES = (
    *(INFO, STARTED, CONNECTIONS, OPEN, ASSOCIATIONS, ENDED, SETUP, DURATION),
    *(REFUSALS, OBSERVED, REQUESTS, STORES, BYTES, STORE_SECONDS, FREE),
    *(SPOOL_LIMIT, WAITING, WAITING_SINCE, CONNECTED, SENT, DROPPED, EXPIRY, READABLE),
)
BY_NAME = {family.name: family for family in FAMILIES}
