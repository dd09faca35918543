"""What was found out about the signatures of an instance, question by question.

A report says what is so; `policy` decides whether that is good enough. Everything is text,
numbers and moments, so a report can be printed, kept and compared; it never holds a value of a
patient, only which elements there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydicom.datadict import keyword_for_tag

from dicom_secure_node.pki.paths import PathVerdict
from dicom_secure_node.pki.timestamps import TimestampVerdict
from dicom_secure_node.spec.signatures import Purpose


@dataclass(frozen=True)
class Coverage:
    """Which elements of its level a signature speaks for.

    Attributes
    ----------
    signed : tuple of int
        Tags that are covered, ascending.
    unsigned : tuple of int
        Tags that are there and not covered: they may have been changed or added since.
    missing : tuple of int
        Listed and not there: removed since, or never there.
    unsignable : tuple of int
        There, and not covered whatever is listed: of VR UN, or a sequence that holds one (PS3.3
        C.12.1.1.3.1.1).
    """

    signed: tuple[int, ...] = ()
    unsigned: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    unsignable: tuple[int, ...] = ()


@dataclass(frozen=True)
class SignatureReport:
    """One signature: each field answers a question of its own.

    Attributes
    ----------
    location : str
        Where: empty in the main data set, else e.g. ``(0040,A730)[2]``, items from 1.
    uid : str
        Digital Signature UID.
    problem : str
        Why it could not be looked at as a signature at all; empty when it could. Then nothing
        below says anything.
    intact : bool
        Are the elements it covers those that were signed?
    genuine : bool
        Was it made with the private key of the certificate in it?
    algorithm : str
        MAC Algorithm.
    weak : tuple of str
        What is weak about it: a digest that can be forged, a short key.
    signer, fingerprint, issuer : str
        Subject and issuer of the certificate (RFC 4514), SHA-256 of the certificate.
    key : str
        Kind and size: ``RSA 2048``.
    claimed : datetime or None
        Digital Signature DateTime in UTC: what the signer says.
    timestamp : TimestampVerdict or None
        What a third party says of the time; None without certified timestamp.
    signed_at : datetime or None
        The moment the certificate is judged at: the timestamp's where it is good, else `claimed`.
    path : PathVerdict or None
        Is the certificate trusted, as of `signed_at`?
    path_now : PathVerdict or None
        And now? An expired certificate is no fault of an old signature, a revoked one may be.
    purpose : Purpose or None
    coverage : Coverage
    profiles : tuple of str
        Profiles of PS3.15 Annex C it satisfies: ``base``, ``creator`` ...
    shortfalls : mapping of str to tuple of str
        For the other profiles, why not.
    remarks : tuple of str
        What is odd about it and did not decide anything.
    distrust : str
        Why its signer is not trusted; empty when he is.
    verified_document : bool
        The instance says of itself that it was verified: (0040,A493) is VERIFIED.
    """

    location: str
    uid: str = ""
    problem: str = ""
    intact: bool = False
    genuine: bool = False
    algorithm: str = ""
    weak: tuple[str, ...] = ()
    signer: str = ""
    fingerprint: str = ""
    issuer: str = ""
    key: str = ""
    claimed: datetime | None = None
    timestamp: TimestampVerdict | None = None
    signed_at: datetime | None = None
    path: PathVerdict | None = None
    path_now: PathVerdict | None = None
    purpose: Purpose | None = None
    coverage: Coverage = field(default=Coverage(), repr=False)
    profiles: tuple[str, ...] = ()
    shortfalls: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    remarks: tuple[str, ...] = ()
    distrust: str = ""
    verified_document: bool = False

    @property
    def trusted(self) -> bool:
        """Whether the signer is who the certificate says, by somebody we trust."""
        return not self.problem and not self.distrust

    @property
    def valid(self) -> bool:
        """Whether the elements it covers are, for certain, what a trusted signer signed."""
        return not self.reasons

    @property
    def timestamped(self) -> bool:
        """Whether a trusted third party vouches for the time."""
        return self.timestamp is not None and self.timestamp.valid

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not valid, in words; empty when it is."""
        if self.problem:
            return (self.problem,)
        found = []
        if not self.genuine:
            found.append("not made with the key of its certificate")
        elif not self.intact:
            found.append("signed elements were changed")
        if self.distrust:
            found.append(f"signer not trusted: {self.distrust}")
        return tuple(found)

    @property
    def words(self) -> str:
        """The verdict in one line."""
        who = self.signer or "unknown signer"
        return f"valid, signed by {who}" if self.valid else "; ".join(self.reasons)


@dataclass(frozen=True)
class InstanceReport:
    """All signatures of one instance.

    Attributes
    ----------
    sop_class, sop_instance, transfer_syntax : str
        UIDs, where known.
    signatures : tuple of SignatureReport
        In the order of the data set.
    problem : str
        Why the instance could not be looked at; empty when it could.
    not_looked_at : int
        Signatures beyond the bound.
    """

    sop_class: str = ""
    sop_instance: str = ""
    transfer_syntax: str = ""
    signatures: tuple[SignatureReport, ...] = ()
    problem: str = ""
    not_looked_at: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "sop_class": self.sop_class,
            "sop_instance": self.sop_instance,
            "transfer_syntax": self.transfer_syntax,
            "problem": self.problem,
            "not_looked_at": self.not_looked_at,
            "signatures": [_signature_json(one) for one in self.signatures],
        }


def tag_text(tag: int) -> str:
    """Return a tag with its keyword, as far as the dictionary knows it."""
    text = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    keyword = keyword_for_tag(tag)
    return f"{text} {keyword}" if keyword else text


def tags_text(tags: Sequence[int], most: int = 5) -> str:
    """Return tags in words, `most` of them and how many more there are."""
    shown = ", ".join(map(tag_text, tags[:most]))
    return shown + (f" and {len(tags) - most} more" if len(tags) > most else "")


def _signature_json(one: SignatureReport) -> dict[str, Any]:
    coverage = one.coverage
    return {
        "valid": one.valid,
        "reasons": list(one.reasons),
        "location": one.location,
        "uid": one.uid,
        "intact": one.intact,
        "genuine": one.genuine,
        "trusted": one.trusted,
        "algorithm": one.algorithm,
        "weak": list(one.weak),
        "signer": one.signer,
        "issuer": one.issuer,
        "fingerprint": one.fingerprint,
        "key": one.key,
        "claimed": _moment(one.claimed),
        "signed_at": _moment(one.signed_at),
        "timestamp": _timestamp_json(one.timestamp),
        "path": _path_json(one.path),
        "path_now": _path_json(one.path_now),
        "purpose": None if one.purpose is None else one.purpose._asdict(),
        "profiles": list(one.profiles),
        "shortfalls": {name: list(why) for name, why in one.shortfalls.items()},
        "remarks": list(one.remarks),
        "signed": _tags(coverage.signed),
        "unsigned": _tags(coverage.unsigned),
        "missing": _tags(coverage.missing),
        "unsignable": _tags(coverage.unsignable),
    }


def _tags(tags: Iterable[int]) -> list[str]:
    return [f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in tags]


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _timestamp_json(verdict: TimestampVerdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    return {
        "valid": verdict.valid,
        "reason": verdict.reason,
        "time": _moment(verdict.time),
        "authority": verdict.authority,
        "path": _path_json(verdict.path),
    }


def _path_json(verdict: PathVerdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    return {
        "trusted": verdict.trusted,
        "reason": verdict.reason,
        "at": _moment(verdict.at),
        "revocation": verdict.revocation,
        "revoked": _moment(verdict.revoked),
        "chain": [one.subject.rfc4514_string() for one in verdict.chain],
    }
